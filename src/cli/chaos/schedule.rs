//! The faults: which, when, and to whom, by a seed.
//!
//! Owns: the choice, and the record of what was struck. Does not own: what becomes of it (the node's).

use super::history::Moment;
use super::load::Shared;
use crate::actors::faults::{DISK_IO, MESSAGE, START, SUPERVISOR};
use crate::cli::Failure;
use crate::cli::client::{FaultClient, explain};
use crate::rpc::admin_pb as pb;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tonic::Code;

/// Of a hundred strikes, those that kill two actors at once …
const PAIRS: u32 = 20;
/// … and those that wait for an actor at a point of its work.
const AT_POINTS: u32 = 30;
/// Longest stall.
const STALL_MS: u64 = 50;
/// Passes of a point that are let go before, at most, where an actor comes by often.
const MOST_AFTER: u64 = 20;
/// Those who do: the others handle a few messages a second, or fewer.
const BUSY: [&str; 3] = ["wal", "memtable", "cache"];
/// In place of a point: the actor was killed wherever it was.
pub(super) const AS_IT_STOOD: &str = "as it stood";

pub(super) type Node = FaultClient;

/// A strike that ended something.
#[derive(Debug, Clone)]
pub(super) struct Strike {
    /// When it was asked for.
    pub(super) moment: Moment,
    /// When the next fault was, be it one that ends nobody: what follows from then on is not this one's.
    pub(super) until: Moment,
    /// Who ended.
    pub(super) actors: Vec<String>,
    /// The point of its work at which it did, and of what; none for those who were killed as they stood.
    pub(super) point: Option<(String, &'static str)>,
}

impl Strike {
    /// One that is the last for now.
    fn at(moment: Moment, actors: Vec<String>, point: Option<(String, &'static str)>) -> Self {
        Self {
            moment,
            until: Moment::MAX,
            actors,
            point,
        }
    }

    /// Who ended, and how.
    pub(super) fn what(&self) -> String {
        let actors = self.actors.join(" and ");
        match &self.point {
            Some((point, fault)) => format!("{actors} at {point} ({fault})"),
            None => actors,
        }
    }
}

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Struck {
    /// Actors killed, or broken at a point.
    pub(super) kills: u64,
    /// Of them, those that were broken at a point.
    pub(super) at_points: u64,
    /// Strikes that killed two at once, by who those were.
    pub(super) pairs: BTreeMap<[String; 2], u64>,
    /// Kills by actor, and by the points of its work, or [`AS_IT_STOOD`]; none for one that was there and never struck.
    pub(super) by_actor: BTreeMap<String, BTreeMap<String, u64>>,
    /// In their order.
    pub(super) strikes: Vec<Strike>,
}

impl Struck {
    /// From now on what happens follows from another fault.
    fn end_last(&mut self, now: Moment) {
        if let Some(last) = self.strikes.last_mut() {
            last.until = last.until.min(now);
        }
    }

    /// Those who were there and never struck.
    pub(super) fn spared(&self) -> BTreeSet<String> {
        let spared = self.by_actor.iter().filter(|(_, kills)| kills.is_empty());
        spared.map(|(actor, _)| actor.clone()).collect()
    }

    /// Kills by actor.
    pub(super) fn kills_by_actor(&self) -> BTreeMap<String, u64> {
        let kills = |(actor, points): (&String, &BTreeMap<String, u64>)| (actor.clone(), points.values().sum());
        self.by_actor.iter().map(kills).collect()
    }
}

/// Chooses what to break.
pub(super) struct Schedule {
    random: SmallRng,
    targets: Vec<pb::Target>,
    pub(super) struck: Struck,
}

/// The actors of a node.
pub(super) async fn targets(node: &mut Node) -> Result<Vec<pb::Target>, Failure> {
    let answer = node.actors(pb::ActorsRequest {}).await;
    let mut targets = answer.map_err(|status| explain(&status))?.into_inner().targets;
    targets.retain(|target| target.actor != DISK_IO);
    Ok(targets)
}

/// How often each actor was started.
pub(super) fn generations(targets: &[pb::Target]) -> HashMap<String, u64> {
    targets
        .iter()
        .map(|target| (target.actor.clone(), target.generation))
        .collect()
}

/// How often actors were started since they had been `before`.
pub(super) fn restarts(before: &HashMap<String, u64>, now: &[pb::Target]) -> u64 {
    // That of a stream begins anew with each stream.
    let since = |target: &pb::Target| {
        target
            .generation
            .saturating_sub(*before.get(&target.actor).unwrap_or(&1))
    };
    now.iter().map(since).sum()
}

/// Moments within `during`, from `from` on, as far apart as strikes, at which nobody is struck.
pub(super) fn moments(per_second: f64, from: Moment, during: Duration) -> Vec<Strike> {
    let times = (1..).map(|number| f64::from(number) / per_second);
    let within = times.take_while(|time| *time < during.as_secs_f64());
    let strike = |time| Strike {
        moment: from + (time * 1e9) as Moment,
        until: from + ((time + 1.0 / per_second) * 1e9) as Moment,
        actors: Vec::new(),
        point: None,
    };
    within.map(strike).collect()
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            targets: Vec::new(),
            struck: Struck::default(),
        }
    }

    /// Takes these for the actors that there are from now on.
    pub(super) fn aim(&mut self, targets: Vec<pb::Target>) {
        for target in &targets {
            self.struck.by_actor.entry(target.actor.clone()).or_default();
        }
        self.targets = targets;
    }

    /// Strikes so often a second until `until`.
    pub(super) async fn run(
        &mut self,
        node: &mut Node,
        per_second: f64,
        shared: &Arc<Shared>,
        until: Instant,
    ) -> Result<(), Failure> {
        let pause = Duration::from_secs_f64(1.0 / per_second);
        let mut next = Instant::now() + pause;
        while next < until {
            tokio::time::sleep_until(next.into()).await;
            self.struck.end_last(shared.now());
            match self.random.random_range(0..100) {
                chance if chance < AT_POINTS => self.strike_at_point(node, pause, shared).await?,
                chance if chance < AT_POINTS + PAIRS => self.kill(node, 2, shared).await?,
                _ => self.kill(node, 1, shared).await?,
            }
            next = (next + pause).max(Instant::now());
        }
        Ok(())
    }

    /// Kills actors, two of them at the same time.
    async fn kill(&mut self, node: &mut Node, count: usize, shared: &Shared) -> Result<(), Failure> {
        let chosen = self.targets.choose_multiple(&mut self.random, count);
        let actors: Vec<String> = chosen.map(|target| target.actor.clone()).collect();
        let moment = shared.now();
        let mut second = node.clone();
        let (one, other) = tokio::join!(kill_now(node, actors.first()), kill_now(&mut second, actors.get(1)));
        let ended: Vec<String> = [one?, other?].into_iter().flatten().collect();
        for actor in &ended {
            self.count(actor, AS_IT_STOOD, shared);
        }
        if let [one, other] = ended.as_slice() {
            let mut pair = [one.clone(), other.clone()];
            pair.sort_unstable();
            *self.struck.pairs.entry(pair).or_default() += 1;
        }
        if !ended.is_empty() {
            self.struck.strikes.push(Strike::at(moment, ended, None));
        }
        Ok(())
    }

    /// Breaks an actor when it comes by a point, if it does before the next strike.
    async fn strike_at_point(&mut self, node: &mut Node, within: Duration, shared: &Shared) -> Result<(), Failure> {
        let Some(target) = self.targets.choose(&mut self.random).cloned() else {
            return Ok(());
        };
        let point = target.points.choose(&mut self.random).cloned().unwrap_or_default();
        let faults: &[&str] = match point.as_str() {
            MESSAGE | "hand-off" => &["panic", "kill", "error", "stall", "drop"],
            _ => &["panic", "kill", "stall"],
        };
        let mut fault = faults.choose(&mut self.random).copied().unwrap_or("panic");
        if fault == "drop" && target.actor == SUPERVISOR {
            fault = "kill";
        }
        let stall_ms = self.random.random_range(1..=STALL_MS);
        let is_busy = BUSY.iter().any(|busy| target.actor.starts_with(busy)) && point != START;
        let request = pb::InjectRequest {
            actor: target.actor.clone(),
            point: point.clone(),
            fault: fault.to_owned(),
            stall_ms,
            after: if is_busy {
                self.random.random_range(0..MOST_AFTER)
            } else {
                0
            },
            ..pb::InjectRequest::default()
        };
        let moment = shared.now();
        let Some(armed) = unless_gone(node.inject(request).await)? else {
            return Ok(());
        };
        // It comes by there only when it ends.
        if point == START && kill_now(node, Some(&target.actor)).await?.is_some() {
            self.count(&target.actor, AS_IT_STOOD, shared);
        }
        tokio::time::sleep(within).await;
        let cleared = node.clear(pb::ClearRequest { id: armed.id }).await;
        let has_happened = cleared.map_err(|status| explain(&status))?.into_inner().cleared == 0;
        match fault {
            // Who stands still is not one who ended; it is over before the next strike.
            "stall" if has_happened => tokio::time::sleep(Duration::from_millis(stall_ms)).await,
            "stall" | "drop" => {}
            _ if has_happened => {
                self.count(&target.actor, &point, shared);
                self.struck.at_points += 1;
                let strike = Strike::at(moment, vec![target.actor], Some((point, fault)));
                self.struck.strikes.push(strike);
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, actor: &str, point: &str, shared: &Shared) {
        self.struck.kills += 1;
        shared.kills.fetch_add(1, Ordering::Relaxed);
        let points = self.struck.by_actor.entry(actor.to_owned()).or_default();
        *points.entry(point.to_owned()).or_default() += 1;
    }
}

/// Kills an actor as it stands. Returns its name when it ran.
async fn kill_now(node: &mut Node, actor: Option<&String>) -> Result<Option<String>, Failure> {
    let Some(actor) = actor else {
        return Ok(None);
    };
    let request = pb::InjectRequest {
        actor: actor.clone(),
        fault: "kill".to_owned(),
        ..pb::InjectRequest::default()
    };
    let answer = unless_gone(node.inject(request).await)?;
    Ok(answer.filter(|answer| answer.struck).map(|_struck| actor.clone()))
}

/// What was answered; nothing, when there is no such actor just now: those of streams come and go with their parent.
fn unless_gone<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::InvalidArgument && status.message().starts_with("actor: ") => Ok(None),
        Err(status) => Err(explain(&status)),
    }
}
