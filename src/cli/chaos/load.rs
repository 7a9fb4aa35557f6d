//! The load: clients who write and read the same few keys, and remember what they saw.
//!
//! Owns: the calls and their record. Does not own: the judgement (see [`super::history`]).
//!
//! Writes carry no clock, so each supersedes what its node has: a key is a register. A round's keys are used for a bounded
//! time, so that what is remembered of them is bounded too.

use super::history::{ABSENT, Act, Event, Moment};
use crate::cli::client::{Client, Newcomers};
use crate::rpc::pb;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::{Code, Status};

/// Within this time every call is to be answered, as a coordinator's are: before the node's own limits, by which an answer that
/// was lost would only look like one that says to try again.
const DEADLINE: Duration = Duration::from_secs(5);
/// Within this time a key must be readable in the end.
const READABLE_WITHIN: Duration = Duration::from_secs(15);
/// Between two calls for which a connection is made anew: so few that they take nothing from the others, and so many that each
/// end of who accepts connections is met.
pub(super) const NEWCOMER_EVERY: Duration = Duration::from_millis(10);
/// A client that is further behind its pace begins it anew.
const BEHIND: Duration = Duration::from_millis(100);
/// Bytes of a value.
const VALUE_BYTES: usize = 100;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As it was to.
    Done,
    /// Not now; a write may have happened.
    Unavailable,
    /// Not at all, and nothing happened.
    Refused,
}

/// A call, for the display.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) is_write: bool,
    pub(super) begun: Moment,
    pub(super) ended: Moment,
    pub(super) end: End,
    /// Over a connection of its own.
    pub(super) by_newcomer: bool,
}

/// What the clients of one round saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By key.
    pub(super) events: Vec<Vec<Event>>,
    pub(super) calls: Vec<Call>,
    /// What must not happen, in words.
    pub(super) wrong: Vec<String>,
    /// Calls without an answer.
    pub(super) hung: u64,
}

/// What all clients share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) origin: Instant,
    next_value: AtomicU64,
    /// Calls that succeeded, and those that did not.
    pub(super) done: AtomicU64,
    pub(super) unavailable: AtomicU64,
    /// What a person sees of the strikes, and of the judgement.
    pub(super) kills: AtomicU64,
    pub(super) violations: AtomicU64,
    /// The process is killed: calls fail in whatever way connections break.
    pub(super) is_killed: AtomicBool,
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            origin: Instant::now(),
            next_value: AtomicU64::new(ABSENT + 1),
            done: AtomicU64::new(0),
            unavailable: AtomicU64::new(0),
            kills: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            is_killed: AtomicBool::new(false),
        })
    }

    pub(super) fn now(&self) -> Moment {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(Moment::MAX)
    }
}

/// Which keys of which run a round uses.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) tenant: String,
    pub(super) prefix: String,
    pub(super) count: usize,
}

impl Keys {
    fn name(&self, key: usize) -> String {
        format!("{}/{key}", self.prefix)
    }
}

/// So many clients, each of which asks for what it likes, no more often than at this pace, until `until`, and beside them newcomers,
/// one at a time, for whom somebody must be there to let them in. All of them together remember what they saw.
pub(super) async fn round(
    (clients, newcomers): (&[Client], &Newcomers),
    (workers, pace): (u64, Duration),
    keys: &Keys,
    shared: &Arc<Shared>,
    seed: u64,
    until: Instant,
) -> Seen {
    let mut tasks = JoinSet::new();
    for (worker, client) in (0..workers).zip(clients.iter().cycle()) {
        let (mut client, keys, shared) = (client.clone(), keys.clone(), Arc::clone(shared));
        let mut random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(worker));
        tasks.spawn(async move {
            let mut seen = Seen::of(keys.count);
            let mut next = Instant::now();
            while Instant::now() < until && !shared.is_killed.load(Ordering::Relaxed) {
                seen.ask(&mut client, &keys, &mut random, &shared).await;
                next += pace;
                if pace.is_zero() || next + BEHIND < Instant::now() {
                    // What an outage kept it from is not made up for.
                    next = Instant::now();
                } else {
                    tokio::time::sleep_until(next.into()).await;
                }
            }
            seen
        });
    }
    let (newcomers, own_keys, shared) = (newcomers.clone(), keys.clone(), Arc::clone(shared));
    let mut random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(workers));
    tasks.spawn(async move {
        let mut seen = Seen::of(own_keys.count);
        let mut times = tokio::time::interval(NEWCOMER_EVERY);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < until && !shared.is_killed.load(Ordering::Relaxed) {
            times.tick().await;
            seen.ask(&mut newcomers.next(), &own_keys, &mut random, &shared).await;
        }
        seen.calls.iter_mut().for_each(|call| call.by_newcomer = true);
        seen
    });
    let mut all = Seen::of(keys.count);
    while let Some(seen) = tasks.join_next().await {
        match seen {
            Ok(seen) => all.add(seen),
            Err(failed) => all.wrong.push(format!("a client ended: {failed}")),
        }
    }
    all
}

/// Reads every key of a round, again and again until it is answered: what is there in the end.
pub(super) async fn read_all(client: &mut Client, keys: &Keys, shared: &Shared) -> Seen {
    let mut seen = Seen::of(keys.count);
    for key in 0..keys.count {
        let begun = Instant::now();
        let before = |seen: &Seen| seen.events.get(key).map_or(0, Vec::len);
        let known = before(&seen);
        while before(&seen) == known && seen.wrong.is_empty() && seen.hung == 0 {
            seen.read(client, keys, key, shared).await;
            if begun.elapsed() > READABLE_WITHIN {
                seen.wrong.push(format!("{} cannot be read", keys.name(key)));
            }
        }
    }
    seen
}

impl Seen {
    fn of(keys: usize) -> Self {
        Self {
            events: vec![Vec::new(); keys],
            ..Self::default()
        }
    }

    /// How many calls succeeded.
    pub(super) fn done(&self) -> u64 {
        self.succeeded().count() as u64
    }

    /// How many of them did for which a connection was made anew.
    pub(super) fn done_by_newcomers(&self) -> u64 {
        self.succeeded().filter(|call| call.by_newcomer).count() as u64
    }

    fn succeeded(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|call| call.end == End::Done)
    }

    /// Puts the calls into the order in which they began.
    pub(super) fn sort(&mut self) {
        self.calls.sort_unstable_by_key(|call| call.begun);
    }

    pub(super) fn add(&mut self, other: Self) {
        for (events, more) in self.events.iter_mut().zip(other.events) {
            events.extend(more);
        }
        self.calls.extend(other.calls);
        self.wrong.extend(other.wrong);
        self.hung += other.hung;
    }

    /// Writes a key, or reads one, as chance has it.
    async fn ask(&mut self, client: &mut Client, keys: &Keys, random: &mut SmallRng, shared: &Shared) {
        let key = random.random_range(0..keys.count);
        if random.random() {
            self.write(client, keys, key, shared).await;
        } else {
            self.read(client, keys, key, shared).await;
        }
    }

    async fn write(&mut self, client: &mut Client, keys: &Keys, key: usize, shared: &Shared) {
        let value = shared.next_value.fetch_add(1, Ordering::Relaxed);
        let request = pb::WriteRequest {
            tenant_id: keys.tenant.clone(),
            key: keys.name(key),
            value: format!("{value:0>VALUE_BYTES$}").into_bytes(),
            ..pb::WriteRequest::default()
        };
        let begun = shared.now();
        let answer = tokio::time::timeout(DEADLINE, client.write(request)).await;
        let act = match self.end(answer, true, begun, shared) {
            Some(Ok(_)) => Act::Wrote(value),
            Some(Err(End::Refused)) => return,
            Some(Err(_)) | None => Act::Tried(value),
        };
        self.note(key, act, begun, shared);
    }

    async fn read(&mut self, client: &mut Client, keys: &Keys, key: usize, shared: &Shared) {
        let request = pb::ReadRequest {
            tenant_id: keys.tenant.clone(),
            key: keys.name(key),
        };
        let begun = shared.now();
        let answer = tokio::time::timeout(DEADLINE, client.read(request)).await;
        let answer = answer.map(|answer| match answer {
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(status) => Err(status),
        });
        let Some(Ok(found)) = self.end(answer, false, begun, shared) else {
            return;
        };
        let Some(found) = found else {
            self.note(key, Act::Read(ABSENT), begun, shared);
            return;
        };
        if !found.siblings.is_empty() {
            self.wrong
                .push(format!("{}: writes without a clock made siblings", keys.name(key)));
        }
        let value = std::str::from_utf8(&found.value)
            .ok()
            .and_then(|text| text.parse().ok());
        match value {
            Some(value) => self.note(key, Act::Read(value), begun, shared),
            None => self
                .wrong
                .push(format!("{}: what was read is no value of ours", keys.name(key))),
        }
    }

    fn note(&mut self, key: usize, act: Act, begun: Moment, shared: &Shared) {
        let ended = shared.now();
        if let Some(events) = self.events.get_mut(key) {
            events.push(Event { act, begun, ended });
        }
    }

    /// Takes note of how a call ended. Nothing, when it did not.
    fn end<T>(
        &mut self,
        answer: Result<Result<T, Status>, tokio::time::error::Elapsed>,
        is_write: bool,
        begun: Moment,
        shared: &Shared,
    ) -> Option<Result<T, End>> {
        let Ok(answer) = answer else {
            self.hung += 1;
            return None;
        };
        let end = match &answer {
            Ok(_) => End::Done,
            Err(status) => match status.code() {
                Code::Unavailable => End::Unavailable,
                Code::ResourceExhausted => End::Refused,
                _ if shared.is_killed.load(Ordering::Relaxed) => End::Unavailable,
                _ => {
                    self.wrong.push(format!("{status}"));
                    End::Unavailable
                }
            },
        };
        let counter = if end == End::Done {
            &shared.done
        } else {
            &shared.unavailable
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.calls.push(Call {
            is_write,
            begun,
            ended: shared.now(),
            end,
            by_newcomer: false,
        });
        Some(answer.map_err(|_| end))
    }
}
