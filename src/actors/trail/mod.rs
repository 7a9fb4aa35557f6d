//! The trail of a request: which actors it went through, when it was queued for each, when the work on it began, and when
//! that ended.
//!
//! Every request has one, whether or not anybody will look at it: only at its end it is known whether it failed or was slow.
//! So a trail costs a few readings of the clock and one allocation, and spans are made of it afterwards, by others, if it is
//! kept. It belongs to the task that carries the request out, as the deadline does, and the reply port takes it along.
//!
//! Owns: what is noted. Does not own: which trails are kept (see [`traces`]), or how they are told (see
//! [`crate::telemetry`]).

pub mod call;
pub mod context;
pub mod hop;
mod limit;
pub mod slowest;
pub mod traces;
pub mod work;

pub use call::Caller;
pub use context::TraceContext;
pub use hop::{Detail, Hop};

use compact_str::CompactString;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Hops of most requests; more cost another allocation.
const USUAL_HOPS: usize = 5;
/// Hops that a trail has at most: a batch may go to every shard, and load many keys.
const MOST_HOPS: usize = 64;

/// The hop of a part of a walk. Of requests whose whole time is not the node's own, it tells whether the node was slow.
pub const WALK: &str = "walk";

tokio::task_local! {
    static TRAIL: Arc<Trail>;
    static WORK: TraceContext;
}

/// What is asked for, by the names that it has on the wire and in the conventions for databases.
#[derive(Debug)]
pub struct Operation {
    /// The method, as the protocol calls it.
    pub method: &'static str,
    /// The operation, as a database calls it.
    pub name: &'static str,
    /// Whether its time says something about the node: not that of a walk or a stream, which last as long as the client likes;
    /// of a walk its parts are judged, each by itself.
    pub is_timed: bool,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The status code on the wire.
    pub code: i32,
    /// Its name.
    pub status: &'static str,
    /// Whether the node failed, or refused; a missing key or a wrong request is no failure of the node's.
    pub is_failure: bool,
}

/// The trail of one request.
#[derive(Debug)]
pub struct Trail {
    /// Its own span.
    pub context: TraceContext,
    /// Whose part it is.
    pub parent: Option<TraceContext>,
    /// The `tracestate` that came with it, which goes on as it is.
    pub state: Option<Box<str>>,
    /// What is asked for.
    pub operation: &'static Operation,
    /// When it arrived.
    pub started: Instant,
    noted: Mutex<Noted>,
}

/// What was noted of a request so far.
#[derive(Debug, Default, Clone)]
pub struct Noted {
    /// The hops, in the order in which they ended.
    pub hops: SmallVec<[Hop; USUAL_HOPS]>,
    /// Hops beyond the most that are kept.
    pub left_out: u32,
    /// The longest time that a part of a walk took, from when it was queued; also of those that are left out.
    pub longest_walk: Duration,
    /// Whose key it is about.
    pub tenant: CompactString,
    /// The component with which the request, or a part of it, was lost, and when, since it arrived.
    pub lost: Option<(&'static str, Duration)>,
    /// When the task that carries it out had its last answer, since it arrived.
    pub resumed: Option<Duration>,
    /// How the worst of its operations failed, if it is a batch, which is answered all the same.
    pub part: Option<Outcome>,
    /// When it ended, since it arrived, and how.
    pub end: Option<(Duration, Outcome)>,
}

impl Trail {
    fn new(
        context: TraceContext,
        parent: Option<TraceContext>,
        state: Option<Box<str>>,
        operation: &'static Operation,
    ) -> Arc<Self> {
        Arc::new(Self {
            context,
            parent,
            state,
            operation,
            started: Instant::now(),
            noted: Mutex::default(),
        })
    }

    /// Time from its arrival to `at`.
    fn at(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.started)
    }

    /// It was queued for something at `queued`, begun at `begun`, and is done with it now.
    pub fn hop(&self, name: &'static str, (queued, begun): (Instant, Instant), detail: Detail) {
        let (queued, begun, ended) = (self.at(queued), self.at(begun), self.started.elapsed());
        self.noted.lock().add(Hop {
            name,
            queued,
            begun,
            ended,
            detail,
        });
    }

    /// As [`Trail::hop`], queued since the hop before it ended.
    pub fn hop_on(&self, name: &'static str, (begun, ended): (Instant, Instant), detail: Detail) {
        let mut noted = self.noted.lock();
        let queued = noted.last_end();
        let begun = self.at(begun).max(queued);
        noted.add(Hop {
            name,
            queued,
            begun,
            ended: self.at(ended).max(begun),
            detail,
        });
    }

    /// As [`Trail::hop`], where all of its times are known. What began for another request is shown from this one's arrival on.
    pub fn hop_at(&self, name: &'static str, (queued, begun, ended): (Instant, Instant, Instant), detail: Detail) {
        self.noted.lock().add(Hop {
            name,
            queued: self.at(queued),
            begun: self.at(begun),
            ended: self.at(ended),
            detail,
        });
    }

    /// What was noted of it so far.
    #[must_use]
    pub fn noted(&self) -> Noted {
        self.noted.lock().clone()
    }
}

impl Noted {
    fn last_end(&self) -> Duration {
        let ends = self.hops.iter().map(|hop| hop.ended);
        ends.max().unwrap_or_default()
    }

    /// How it failed, or a part of it did.
    #[must_use]
    pub fn failure(&self) -> Option<Outcome> {
        let whole = self.end.map(|(_, outcome)| outcome);
        whole.filter(|outcome| outcome.is_failure).or(self.part)
    }

    fn add(&mut self, hop: Hop) {
        if hop.name == WALK {
            self.longest_walk = self.longest_walk.max(hop.queue() + hop.work());
        }
        let may_join = matches!(hop.detail, Detail::Read(_));
        if may_join && self.hops.iter_mut().rev().any(|before| before.takes_in(&hop)) {
            return;
        }
        if self.hops.len() < MOST_HOPS {
            self.hops.push(hop);
        } else {
            self.left_out += 1;
        }
    }

    /// The hops, with what came after the last of them: the way of the answer back, and out.
    #[must_use]
    pub fn with_answer(mut self) -> Self {
        if let Some((ended, _)) = self.end {
            let queued = self.last_end().min(ended);
            // What had no answer since was waited for until the end.
            let resumed = self.resumed.filter(|at| *at >= queued);
            let begun = resumed.unwrap_or(ended).min(ended);
            self.hops.push(Hop {
                name: "answer",
                queued,
                begun,
                ended,
                detail: Detail::None,
            });
        }
        self
    }
}

/// Carries out `work`, whose trail this is.
pub async fn along<F: Future>(trail: Arc<Trail>, work: F) -> F::Output {
    TRAIL.scope(trail, work).await
}

/// Carries out `work`, which no request does; this is its span.
pub async fn as_work<F: Future>(span: TraceContext, work: F) -> F::Output {
    WORK.scope(span, work).await
}

/// Has `work`, which another task is given to do, belong to the request that this one carries out.
pub fn taken_along<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let trail = current();
    async move {
        match trail {
            Some(trail) => along(trail, work).await,
            None => work.await,
        }
    }
}

/// As [`along`], for what waits for nothing.
pub fn say<T>(trail: &Arc<Trail>, what: impl FnOnce() -> T) -> T {
    TRAIL.sync_scope(Arc::clone(trail), what)
}

/// As [`say`], where the place is known and not the trail, if there is one.
pub fn say_at<T>(place: Option<TraceContext>, what: impl FnOnce() -> T) -> T {
    match place {
        Some(place) => WORK.sync_scope(place, what),
        None => what(),
    }
}

/// The trail of the request that this task carries out, when it has one.
#[must_use]
pub fn current() -> Option<Arc<Trail>> {
    TRAIL.try_with(Arc::clone).ok()
}

/// The place among all traces of what this task carries out: a request, or some work.
#[must_use]
pub fn current_context() -> Option<TraceContext> {
    let of_request = TRAIL.try_with(|trail| trail.context);
    of_request.or_else(|_| WORK.try_with(|context| *context)).ok()
}

/// For whom this task makes calls to other nodes: a request, or some work.
#[must_use]
pub fn caller() -> Option<Caller> {
    let of_work = || {
        let context = WORK.try_with(|context| *context).ok()?;
        Some(Caller {
            context,
            parent: None,
            state: None,
        })
    };
    let of_request = |trail: Arc<Trail>| Caller {
        context: trail.context,
        parent: trail.parent,
        state: trail.state.clone(),
    };
    current().map(of_request).or_else(of_work)
}

/// All of the request that this task carries out has been received. It is about this tenant's keys; a batch, about those of
/// many.
pub fn received(tenant: Option<&str>) {
    let _ = TRAIL.try_with(|trail| {
        let now = trail.started.elapsed();
        let mut noted = trail.noted.lock();
        if noted.hops.is_empty() {
            noted.tenant = tenant.unwrap_or_default().into();
            noted.add(Hop {
                name: "receive",
                queued: Duration::ZERO,
                begun: Duration::ZERO,
                ended: now,
                detail: Detail::None,
            });
        }
    });
}

/// Has `work`, which a thread is given to do, be a hop of the request that this task carries out: queued since then.
pub fn as_hop<T>(name: &'static str, queued: Instant, work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let trail = current();
    move || {
        let begun = Instant::now();
        let done = work();
        if let Some(trail) = trail {
            trail.hop(name, (queued, begun), Detail::None);
        }
        done
    }
}

/// The request that this task carries out was held up by admission until now.
pub fn held_up() {
    let _ = TRAIL.try_with(|trail| {
        let now = Instant::now();
        trail.hop_on("admission", (now, now), Detail::None);
    });
}

/// The request that this task carries out has an answer from an actor.
pub fn resumed() {
    let _ = TRAIL.try_with(|trail| {
        let now = trail.started.elapsed();
        trail.noted.lock().resumed = Some(now);
    });
}

/// The request that this task carries out, or a part of it, was lost with this component.
pub fn lost(component: &'static str) {
    let _ = TRAIL.try_with(|trail| {
        let now = trail.started.elapsed();
        trail.noted.lock().lost = Some((component, now));
    });
}

/// Operations of the batch that this task carries out failed, the worst of them so.
pub fn failed_in_part(worst: Outcome) {
    let _ = TRAIL.try_with(|trail| trail.noted.lock().part = Some(worst));
}

/// Does something for each of these trails, once for those that are next to each other: the operations of a batch have one.
pub fn each<'a>(trails: impl Iterator<Item = &'a Arc<Trail>>, mut note: impl FnMut(&Trail)) {
    let mut before: Option<&Arc<Trail>> = None;
    for trail in trails {
        if before.is_none_or(|before| !Arc::ptr_eq(before, trail)) {
            note(trail);
        }
        before = Some(trail);
    }
}

#[cfg(test)]
mod tests;
