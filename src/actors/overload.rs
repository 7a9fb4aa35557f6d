//! Overload of the whole node: seen by how long requests take, and answered by letting fewer in.
//!
//! Whatever is short (a processor, the disk, a lock), requests then queue for it, and a queue that stands makes every answer
//! late without making one more of them. So reads and writes are watched, each by themselves: when so many are under way
//! that the last of them must be late at the pace at which they are answered, or when for a while nearly all are, only as
//! many are let in as get done in time, and the others are refused before they are even decoded. As soon as answers are in
//! time again, more are let in.
//!
//! Owns: that limit. Does not own: bounds of memory (see [`crate::actors::admission`]), or the rights of tenants (see
//! [`crate::actors::quotas`]).

use crate::actors::refusal::Refusal;
use crate::storage::time::Time;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Time over which answers are judged together.
const INTERVAL: Duration = Duration::from_millis(50);
/// Intervals in a row in which answers are late, before fewer are let in: one late sync is no overload.
const LATE_INTERVALS: u32 = 6;
/// Intervals in a row at whose ends too many were under way, before fewer are let in.
const CROWDED_INTERVALS: u32 = 2;
/// Times the time that answers may take, from which on too many are under way.
const CROWDED: f64 = 2.0;
/// Share of late answers from which an interval is late.
const LATE_SHARE: f64 = 0.9;
/// Share of late answers up to which more are let in.
const IN_TIME_SHARE: f64 = 0.1;
/// By how much more, each interval.
const GROWTH: f64 = 1.25;
/// Requests that are always let in: enough to share a sync, on a disk that is slow by itself.
const LEAST: usize = 64;
/// No limit.
const MOST: usize = 1 << 20;
/// Without an answer for so long, what was known has become old.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);

/// What is watched by itself: reads may be in time while the log is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reads, and batches of them.
    Read,
    /// Writes, repairs and deletes, and batches of them.
    Write,
}

/// Lets requests in.
#[derive(Debug)]
pub struct Overload {
    time: Arc<dyn Time>,
    /// Longest time that answers may take for long; zero: whatever they take.
    in_time: Duration,
    reads: Gauge,
    writes: Gauge,
    shed: AtomicU64,
}

#[derive(Debug)]
struct Gauge {
    /// Those of which all, a part or nothing has been received.
    under_way: AtomicUsize,
    /// Those of which all has.
    received: AtomicUsize,
    limit: AtomicUsize,
    seen: Mutex<Seen>,
}

/// What was seen in an interval.
#[derive(Debug, Default)]
struct Seen {
    begun: Duration,
    answered: u64,
    late: u64,
    /// Given up, and late.
    lost: u64,
    late_intervals: u32,
    crowded_intervals: u32,
}

/// A request that was let in, until it is answered or given up.
#[derive(Debug)]
pub struct UnderWay {
    arrival: Arrival,
    is_answered: bool,
}

/// When all of a request has been received: its client may take his time, which says nothing about the node.
#[derive(Debug, Clone)]
pub struct Arrival {
    overload: Arc<Overload>,
    kind: Kind,
    at: Arc<OnceLock<Duration>>,
}

impl Arrival {
    /// All of it has been received now.
    pub fn received(&self) {
        if self.at.set(self.overload.time.elapsed()).is_ok() {
            self.overload.gauge(self.kind).received.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl UnderWay {
    /// The request did what was asked.
    pub fn answered(mut self) {
        self.is_answered = true;
    }

    /// For whoever receives it.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        self.arrival.clone()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let overload = &self.arrival.overload;
        let gauge = overload.gauge(self.arrival.kind);
        gauge.under_way.fetch_sub(1, Ordering::AcqRel);
        // Nobody receives it after this: a receiver that is left over belongs to a request that was given up.
        let Err(since) = self
            .arrival
            .at
            .set(Duration::ZERO)
            .map_err(|_set| self.arrival.at.get())
        else {
            return;
        };
        gauge.received.fetch_sub(1, Ordering::AcqRel);
        if !overload.in_time.is_zero() {
            let now = overload.time.elapsed();
            let is_late = now.saturating_sub(since.copied().unwrap_or(now)) > overload.in_time;
            gauge.see(self.is_answered, is_late, now, overload.in_time);
        }
    }
}

impl Overload {
    /// Nothing was seen yet. Answers that take at most `in_time` are in time; zero: all are.
    #[must_use]
    pub fn new(in_time: Duration, time: Arc<dyn Time>) -> Arc<Self> {
        let gauge = || Gauge {
            under_way: AtomicUsize::new(0),
            received: AtomicUsize::new(0),
            limit: AtomicUsize::new(MOST),
            seen: Mutex::default(),
        };
        Arc::new(Self {
            time,
            in_time,
            reads: gauge(),
            writes: gauge(),
            shed: AtomicU64::new(0),
        })
    }

    /// Lets a request in that has been received already.
    ///
    /// # Errors
    /// As [`Overload::enter_unreceived`].
    pub fn enter(self: &Arc<Self>, kind: Kind) -> Result<UnderWay, Refusal> {
        let request = self.enter_unreceived(kind)?;
        request.arrival.received();
        Ok(request)
    }

    /// Lets a request in that is about to be received.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when it would only wait.
    pub fn enter_unreceived(self: &Arc<Self>, kind: Kind) -> Result<UnderWay, Refusal> {
        let gauge = self.gauge(kind);
        let under_way = gauge.under_way.fetch_add(1, Ordering::AcqRel) + 1;
        // From here on its drop takes it back.
        let request = UnderWay {
            arrival: Arrival {
                overload: Arc::clone(self),
                kind,
                at: Arc::default(),
            },
            is_answered: false,
        };
        if under_way <= gauge.limit.load(Ordering::Relaxed) || gauge.is_idle(self.time.elapsed()) {
            return Ok(request);
        }
        self.shed.fetch_add(1, Ordering::Relaxed);
        Err(Refusal::Overloaded(match kind {
            Kind::Read => "reads take too long (server.max_queue_delay), and fewer are let in",
            Kind::Write => "writes take too long (server.max_queue_delay), and fewer are let in",
        }))
    }

    /// Requests that were not let in so far.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// How many requests of a kind are let in at once; [`None`]: any number.
    #[must_use]
    pub fn limit(&self, kind: Kind) -> Option<usize> {
        let gauge = self.gauge(kind);
        let seen = self.time.elapsed().saturating_sub(gauge.seen.lock().begun);
        Some(gauge.limit.load(Ordering::Relaxed)).filter(|limit| *limit < MOST && seen < FORGOTTEN_AFTER)
    }

    fn gauge(&self, kind: Kind) -> &Gauge {
        match kind {
            Kind::Read => &self.reads,
            Kind::Write => &self.writes,
        }
    }
}

impl Gauge {
    /// Whether nothing was answered for long, and what is under way has not been received: it keeps nobody out.
    fn is_idle(&self, now: Duration) -> bool {
        let is_old = now.saturating_sub(self.seen.lock().begun) >= FORGOTTEN_AFTER;
        is_old && self.received.load(Ordering::Relaxed) < self.limit.load(Ordering::Relaxed)
    }

    /// Takes note of a request that ended. One that failed at once says nothing about a queue.
    fn see(&self, is_answered: bool, is_late: bool, now: Duration, in_time: Duration) {
        let mut seen = self.seen.lock();
        let passed = now.saturating_sub(seen.begun);
        if passed >= INTERVAL {
            self.judge(&mut seen, passed, in_time);
            *seen = Seen {
                begun: now,
                late_intervals: seen.late_intervals,
                crowded_intervals: seen.crowded_intervals,
                ..Seen::default()
            };
        }
        seen.answered += u64::from(is_answered);
        seen.late += u64::from(is_late);
        seen.lost += u64::from(is_late && !is_answered);
    }

    fn judge(&self, seen: &mut Seen, passed: Duration, in_time: Duration) {
        if passed >= FORGOTTEN_AFTER {
            (seen.late_intervals, seen.crowded_intervals) = (0, 0);
            self.limit.store(MOST, Ordering::Relaxed);
            return;
        }
        // So many are answered in the time that each of them may take.
        let pace = seen.answered as f64 * in_time.as_secs_f64() / passed.as_secs_f64();
        let count = |holds: bool, before: u32| if holds { before + 1 } else { 0 };
        // Without any answer there is no pace: that may be a pause, and late answers will tell.
        let received = self.received.load(Ordering::Relaxed) as f64;
        let is_crowded = seen.answered > 0 && received > pace * CROWDED;
        seen.crowded_intervals = count(is_crowded, seen.crowded_intervals);
        let judged = (seen.answered + seen.lost) as f64;
        let is_late = judged > 0.0 && seen.late as f64 >= judged * LATE_SHARE;
        seen.late_intervals = count(is_late, seen.late_intervals);
        if seen.crowded_intervals >= CROWDED_INTERVALS || seen.late_intervals >= LATE_INTERVALS {
            self.limit.store((pace as usize).clamp(LEAST, MOST), Ordering::Relaxed);
        } else if !is_crowded && seen.late as f64 <= judged * IN_TIME_SHARE {
            let limit = self.limit.load(Ordering::Relaxed) as f64 * GROWTH;
            self.limit.store((limit as usize).min(MOST), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::time::ManualTime;

    const IN_TIME: Duration = Duration::from_millis(100);
    const MS: Duration = Duration::from_millis(1);

    /// A node that carries out one request a millisecond, in their order.
    struct Node {
        overload: Arc<Overload>,
        time: ManualTime,
        queue: std::collections::VecDeque<UnderWay>,
    }

    impl Node {
        fn new() -> Self {
            let time = ManualTime::default();
            Self {
                overload: Overload::new(IN_TIME, Arc::new(time.clone())),
                time,
                queue: Default::default(),
            }
        }

        /// Lets time pass, in which so many requests come each millisecond. Returns how many were answered, and in time.
        fn run(&mut self, time: Duration, offered: usize) -> (u64, u64) {
            let (mut answered, mut in_time) = (0, 0);
            for _ in 0..time.as_millis() {
                self.time.advance(MS);
                for _ in 0..offered {
                    self.queue.extend(self.overload.enter(Kind::Write).ok());
                }
                if let Some(request) = self.queue.pop_front() {
                    let took = self.time.elapsed() - *request.arrival.at.get().expect("received");
                    answered += 1;
                    in_time += u64::from(took <= IN_TIME * 2);
                    request.answered();
                }
            }
            (answered, in_time)
        }
    }

    #[test]
    fn what_the_node_can_do_is_let_in() {
        let mut node = Node::new();
        node.run(Duration::from_secs(10), 1);
        assert_eq!((node.overload.shed(), node.overload.limit(Kind::Write)), (0, None));
    }

    #[test]
    fn at_five_times_as_much_answers_stay_in_time() {
        let mut node = Node::new();
        node.run(Duration::from_secs(5), 5);
        let (answered, in_time) = node.run(Duration::from_secs(10), 5);
        assert_eq!(answered, 10_000, "it is never idle");
        assert_eq!(in_time, 10_000);
        assert!(node.overload.shed() > 30_000);
        assert_eq!(node.overload.limit(Kind::Read), None, "reads are in time");
    }

    #[test]
    fn when_it_is_over_all_are_let_in_again() {
        let mut node = Node::new();
        node.run(Duration::from_secs(5), 5);
        node.run(Duration::from_secs(1), 0);
        let shed = node.overload.shed();
        node.run(Duration::from_secs(10), 1);
        assert_eq!((node.overload.shed(), node.overload.limit(Kind::Write)), (shed, None));
    }

    #[test]
    fn a_pause_of_the_disk_is_no_overload() {
        let mut node = Node::new();
        for _ in 0..20 {
            node.run(Duration::from_secs(1), 1);
            let held: Vec<_> = (0..200)
                .map(|_| node.overload.enter(Kind::Write).expect("let in"))
                .collect();
            node.time.advance(Duration::from_millis(400));
            held.into_iter().for_each(UnderWay::answered);
        }
        assert_eq!(node.overload.shed(), 0);
    }

    #[test]
    fn it_is_seen_before_answers_are_too_late_to_be_of_use() {
        let mut node = Node::new();
        node.run(Duration::from_secs(5), 1);
        node.run(Duration::from_millis(250), 5);
        // So many milliseconds does the last of them wait; without a limit it were a thousand.
        assert!(node.queue.len() < 600, "{} wait", node.queue.len());
        assert!(node.overload.shed() > 0);
    }

    #[test]
    fn what_is_given_up_late_tells_as_much_as_a_late_answer() {
        let node = Node::new();
        for _ in 0..10 {
            let given_up: Vec<_> = (0..1000).map(|_| node.overload.enter(Kind::Read)).collect();
            node.time.advance(Duration::from_millis(150));
            drop(given_up);
        }
        assert_eq!(node.overload.limit(Kind::Read), Some(LEAST));
        // What fails at once tells nothing.
        let node = Node::new();
        for _ in 0..1000 {
            drop(node.overload.enter(Kind::Read));
            node.time.advance(MS);
        }
        assert_eq!(node.overload.limit(Kind::Read), None);
    }

    #[test]
    fn slow_clients_are_no_overload() {
        let mut node = Node::new();
        for _ in 0..20 {
            let receiving: Vec<_> = (0..500)
                .map(|_| node.overload.enter_unreceived(Kind::Write).expect("let in"))
                .collect();
            node.run(Duration::from_secs(1), 1);
            for request in receiving {
                request.arrival().received();
                request.answered();
            }
        }
        assert_eq!((node.overload.shed(), node.overload.limit(Kind::Write)), (0, None));
        let gauge = &node.overload.writes;
        assert_eq!(gauge.under_way.load(Ordering::Relaxed), 0);
        assert_eq!(gauge.received.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn it_can_be_turned_off() {
        let time = ManualTime::default();
        let overload = Overload::new(Duration::ZERO, Arc::new(time.clone()));
        for _ in 0..20 {
            let late: Vec<_> = (0..100).map(|_| overload.enter(Kind::Read)).collect();
            time.advance(Duration::from_secs(1));
            late.into_iter().flatten().for_each(UnderWay::answered);
        }
        assert_eq!((overload.shed(), overload.limit(Kind::Read)), (0, None));
    }
}
