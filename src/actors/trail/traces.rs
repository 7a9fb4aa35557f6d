//! Which trails are kept, and where they go.
//!
//! A trace is kept when whoever began it keeps it; one that begins here, by its id, for the configured share of them. A request
//! that failed, or was slow, is kept in any case. What is kept goes into a queue that nobody ever waits for: when it is full,
//! what does not fit is dropped and counted.
//!
//! Owns: that choice, the queue's near end, and the counts. Does not own: the queue's far end (see [`crate::telemetry`]).

use crate::actors::trail::call::Call;
use crate::actors::trail::context::TraceContext;
use crate::actors::trail::limit::Limit;
use crate::actors::trail::slowest::{SlowRequest, Slowest};
use crate::actors::trail::work::{Causes, Work};
use crate::actors::trail::{Operation, Outcome, Trail, say};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

/// Traces that wait for the exporter.
pub const QUEUE: usize = 4096;
/// Failed and slow requests that are kept each second beside those that are sampled: in an overload every request may be one,
/// and to tell of each would be more load.
const KEPT_PER_SECOND: u64 = 100;
/// Refused requests (quotas, overload) that are kept each second: there may be any number, and each is as good as another. They
/// leave the others their room.
const REFUSED_PER_SECOND: u64 = 20;
/// The code of RESOURCE_EXHAUSTED, with which they are refused.
const RESOURCE_EXHAUSTED: i32 = 8;
/// Slow requests that are logged each second.
const LOGGED_PER_SECOND: u64 = 10;
/// Most bytes of a `tracestate`; a longer one is left out, as the standard allows.
const MOST_STATE: usize = 512;

/// What is kept.
#[derive(Debug)]
pub enum Kept {
    /// A request.
    Request(Arc<Trail>),
    /// Other work.
    Work(Box<Work>),
    /// A call of another node.
    Call(Box<Call>),
}

/// What is to be kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Share of the traces that begin here, 0 to 1.
    pub ratio: f64,
    /// Time from which a request is slow; zero: none is.
    pub slow: Duration,
}

/// A [`Sampling`] that may change while requests are under way: they look at it one number at a time, without a lock.
#[derive(Debug)]
struct InForce {
    /// The bits of an `f64`.
    ratio: AtomicU64,
    slow_ns: AtomicU64,
}

impl InForce {
    fn new(sampling: Sampling) -> Self {
        let this = Self {
            ratio: AtomicU64::new(0),
            slow_ns: AtomicU64::new(0),
        };
        this.set(sampling);
        this
    }

    fn set(&self, sampling: Sampling) {
        self.ratio.store(sampling.ratio.to_bits(), Ordering::Relaxed);
        let slow_ns = u64::try_from(sampling.slow.as_nanos()).unwrap_or(u64::MAX);
        self.slow_ns.store(slow_ns, Ordering::Relaxed);
    }

    fn ratio(&self) -> f64 {
        f64::from_bits(self.ratio.load(Ordering::Relaxed))
    }

    fn slow(&self) -> Duration {
        Duration::from_nanos(self.slow_ns.load(Ordering::Relaxed))
    }
}

/// What became of what was kept.
#[derive(Debug, Default)]
pub struct TraceCounts {
    /// Spans that the collector has taken.
    pub exported: AtomicU64,
    /// Spans that it has not taken, or not in time.
    pub failed: AtomicU64,
    /// Requests, calls and pieces of work for which the queue had no room.
    pub dropped: AtomicU64,
    /// Failed and slow requests beyond those that are kept in a second.
    pub limited: AtomicU64,
}

/// The traces of a node.
#[derive(Debug)]
pub struct Traces {
    sampling: InForce,
    queue: Option<Sender<Kept>>,
    begun: Instant,
    kept: Limit,
    refused: Limit,
    logged: Limit,
    slowest: Slowest,
    /// What caused work that comes later.
    pub causes: Causes,
    /// What became of what was kept.
    pub counts: Arc<TraceCounts>,
}

impl Traces {
    /// Without a queue nothing is kept but the slowest requests.
    #[must_use]
    pub fn new(sampling: Sampling, queue: Option<Sender<Kept>>) -> Arc<Self> {
        Arc::new(Self {
            sampling: InForce::new(sampling),
            queue,
            begun: Instant::now(),
            kept: Limit::new(KEPT_PER_SECOND),
            refused: Limit::new(REFUSED_PER_SECOND),
            logged: Limit::new(LOGGED_PER_SECOND),
            slowest: Slowest::default(),
            causes: Causes::default(),
            counts: Arc::default(),
        })
    }

    /// Keeps otherwise from here on.
    pub fn set_sampling(&self, sampling: Sampling) {
        self.sampling.set(sampling);
    }

    /// Whether requests have trails: otherwise nobody will ask for one.
    #[must_use]
    pub fn are_on(&self) -> bool {
        self.queue.is_some() || !self.sampling.slow().is_zero()
    }

    /// Whether they are sent anywhere.
    pub(super) fn are_sent(&self) -> bool {
        self.queue.is_some()
    }

    /// The first span of a trace that begins here.
    #[must_use]
    pub fn root(&self) -> TraceContext {
        let root = TraceContext::root();
        let sampled = root.is_in_ratio(self.sampling.ratio());
        TraceContext { sampled, ..root }
    }

    /// A request arrives, perhaps as a part of another's trace. [`None`] when nobody will ask for its trail.
    #[must_use]
    pub fn begin(
        &self,
        operation: &'static Operation,
        parent: Option<TraceContext>,
        state: Option<&str>,
    ) -> Option<Arc<Trail>> {
        if !self.are_on() {
            return None;
        }
        let context = match parent {
            Some(parent) => parent.child(),
            None => self.root(),
        };
        let state = state.filter(|state| state.len() <= MOST_STATE && parent.is_some());
        Some(Trail::new(context, parent, state.map(Into::into), operation))
    }

    /// A request has ended.
    pub fn end(&self, trail: &Arc<Trail>, outcome: Outcome) {
        let now = Instant::now();
        let took = trail.at(now);
        let (failure, longest_walk) = {
            let mut noted = trail.noted.lock();
            noted.end = Some((took, outcome));
            (noted.failure(), noted.longest_walk)
        };
        let slow = self.sampling.slow();
        let is_timed = trail.operation.is_timed && !slow.is_zero();
        // Of one that lasts as long as its client likes, what the node itself took at a time.
        let judged = if trail.operation.is_timed { took } else { longest_walk };
        let is_slow = !slow.is_zero() && judged >= slow;
        if is_timed {
            self.slowest.see(trail, took, now);
        }
        if is_slow || failure.is_some() {
            self.say(trail, failure.unwrap_or(outcome), is_slow, now);
        }
        if self.queue.is_none() {
            return;
        }
        let is_refusal = failure.is_some_and(|failure| failure.code == RESOURCE_EXHAUSTED);
        let limit = if is_refusal && !is_slow {
            &self.refused
        } else {
            &self.kept
        };
        if trail.context.sampled {
            let is_telling = is_slow || failure.is_some();
            self.keep(Kept::Request(Arc::clone(trail)), is_telling);
        } else if is_slow || failure.is_some() {
            if limit.passes(self.second(now)) {
                self.keep(Kept::Request(Arc::clone(trail)), true);
            } else {
                self.counts.limited.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Some work has ended. It is kept when it failed, or is sampled.
    pub fn work(&self, work: Work) {
        if work.context.sampled || work.error.is_some() {
            self.keep(Kept::Work(Box::new(work)), true);
        }
    }

    /// The slowest requests of the last minutes, the slowest first, each with the milliseconds since the epoch at which it
    /// arrived; it is `now_ms` now.
    #[must_use]
    pub fn slowest(&self, now_ms: u64) -> Vec<(u64, SlowRequest)> {
        self.slowest.list(now_ms)
    }

    /// Sends it on. The last quarter of the queue is for what tells of trouble, or of work.
    pub(super) fn keep(&self, kept: Kept, is_telling: bool) {
        let Some(queue) = &self.queue else {
            return;
        };
        let spare = if is_telling { 0 } else { queue.max_capacity() / 4 };
        let is_sent = queue.capacity() > spare && queue.try_send(kept).is_ok();
        if !is_sent {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_secs()
    }

    /// Logs a request that was slow, with its hops, or that failed.
    fn say(&self, trail: &Arc<Trail>, outcome: Outcome, is_slow: bool, now: Instant) {
        let operation = trail.operation.name;
        if !is_slow {
            say(trail, || {
                tracing::debug!(operation, status = outcome.status, "a request failed")
            });
            return;
        }
        if !self.logged.passes(self.second(now)) {
            return;
        }
        let (not_logged, Some(slow)) = (self.logged.take_refused(), SlowRequest::of(trail)) else {
            return;
        };
        let (took, hops) = (slow.took, breakdown(&slow));
        say(trail, || {
            tracing::warn!(
                operation,
                status = outcome.status,
                ?took,
                hops,
                not_logged,
                "a slow request"
            );
        });
    }
}

/// The hops in a line, in milliseconds: `wal 0.01 + 0.02 ms; log 0.3 + 1.2 ms (batch of 3 writes)`.
fn breakdown(slow: &SlowRequest) -> String {
    let mut line = String::new();
    for hop in &slow.hops {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let (queued, worked) = (millis(hop.queued), millis(hop.worked));
        let separator = if line.is_empty() { "" } else { "; " };
        let _ = write!(line, "{separator}{} {queued:.3} + {worked:.3} ms", hop.name);
        if !hop.detail.is_empty() {
            let _ = write!(line, " ({})", hop.detail);
        }
    }
    line
}
