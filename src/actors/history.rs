//! What the node did in the last ten minutes, and what its actors did in the last half minute.
//!
//! Owns: those samples, in rings of a fixed size. Does not own: the counts behind them. They outlive all actors; while
//! VitalsActor, which takes them, is down, there are none, and the next is of the whole time.

use crate::actors::cache::CacheStats;
use crate::actors::request_counts::RequestCounts;
use crate::actors::supervisor::Tree;
use crate::storage::histogram::Counted;
use crate::storage::published::Published;
use crate::storage::time::Time;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Time between two samples.
pub const EVERY: Duration = Duration::from_secs(2);
/// Samples that are kept: those of ten minutes.
pub const SAMPLES: usize = 300;
/// Notes of the actors' histograms that are kept: from the first to now it is half a minute.
const ACTOR_NOTES: usize = 15;

/// What happened between two samples, and how far compaction was behind at the second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When it was taken, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Reads a second.
    pub reads: f64,
    /// Writes, repairs and deletes a second.
    pub writes: f64,
    /// Reads and writes a second that were refused or failed.
    pub errors: f64,
    /// Median and 99th percentile of the time that reads took, in microseconds; 0 without any.
    pub read_us: (f64, f64),
    /// The same of writes, repairs and deletes.
    pub write_us: (f64, f64),
    /// Share of the cache's answers that were hits, 0 to 1; [`None`] without any.
    pub cache_hits: Option<f64>,
    /// Bytes by which the levels exceeded their sizes.
    pub pending_bytes: u64,
}

/// What an actor did of late.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Handling {
    /// Messages a second.
    pub messages: f64,
    /// Median and 99th percentile of the time that they waited, in microseconds.
    pub queued_us: (f64, f64),
    /// The same of the time that they were worked on.
    pub worked_us: (f64, f64),
}

/// The counts of requests at one moment.
#[derive(Debug, Clone)]
struct Counts {
    at: Duration,
    reads: u64,
    writes: u64,
    errors: u64,
    hits: u64,
    misses: u64,
    read_time: Counted,
    write_time: Counted,
}

/// The histograms of all actors at one moment, by name: of waiting, and of working.
#[derive(Debug)]
struct ActorsNote {
    at: Duration,
    actors: HashMap<String, (Counted, Counted)>,
}

#[derive(Debug, Default)]
struct Rings {
    last: Option<Counts>,
    samples: VecDeque<Sample>,
    actors: VecDeque<ActorsNote>,
}

/// The samples, and what they are made of.
#[derive(Debug)]
pub struct History {
    time: Arc<dyn Time>,
    requests: Arc<RequestCounts>,
    cache: Arc<CacheStats>,
    tree: Arc<Tree>,
    published: Arc<Published>,
    rings: Mutex<Rings>,
}

impl History {
    /// Begins now.
    #[must_use]
    pub fn new(
        time: Arc<dyn Time>,
        requests: Arc<RequestCounts>,
        cache: Arc<CacheStats>,
        tree: Arc<Tree>,
        published: Arc<Published>,
    ) -> Arc<Self> {
        let history = Self {
            time,
            requests,
            cache,
            tree,
            published,
            rings: Mutex::default(),
        };
        let (counts, actors) = (history.counts(), history.actors_note());
        let mut rings = history.rings.lock();
        rings.last = Some(counts);
        rings.actors.push_back(actors);
        drop(rings);
        Arc::new(history)
    }

    /// Takes a sample, and forgets the oldest when there are too many.
    pub fn note(&self) {
        let now = self.counts();
        let actors = self.actors_note();
        let mut rings = self.rings.lock();
        if let Some(sample) = rings.last.as_ref().and_then(|then| self.sample(then, &now)) {
            push_bounded(&mut rings.samples, sample, SAMPLES);
            rings.last = Some(now);
        }
        push_bounded(&mut rings.actors, actors, ACTOR_NOTES);
    }

    /// All samples, the oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        self.rings.lock().samples.iter().copied().collect()
    }

    /// What each actor did in about the last half minute, by name.
    #[must_use]
    pub fn handling(&self) -> HashMap<String, Handling> {
        let now = self.actors_note();
        let rings = self.rings.lock();
        let then = rings.actors.front();
        let seconds = then.map_or(0.0, |then| now.at.saturating_sub(then.at).as_secs_f64());
        let of = |(name, (queued, worked)): (String, (Counted, Counted))| {
            let before = then.and_then(|then| then.actors.get(&name));
            let (queued, worked) = match before {
                Some((queued_then, worked_then)) => (queued.since(queued_then), worked.since(worked_then)),
                None => (queued, worked),
            };
            let handling = Handling {
                messages: per(worked.total() as f64, seconds),
                queued_us: median_and_p99(&queued),
                worked_us: median_and_p99(&worked),
            };
            (name, handling)
        };
        now.actors.into_iter().map(of).collect()
    }

    /// [`None`] when no time has passed.
    fn sample(&self, then: &Counts, now: &Counts) -> Option<Sample> {
        let seconds = now.at.saturating_sub(then.at).as_secs_f64();
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let hits = now.hits.saturating_sub(then.hits) as f64;
        let asked = hits + now.misses.saturating_sub(then.misses) as f64;
        (seconds > 0.0).then(|| Sample {
            at_ms: self.time.now_ms(),
            reads: rate(now.reads, then.reads),
            writes: rate(now.writes, then.writes),
            errors: rate(now.errors, then.errors),
            read_us: median_and_p99(&now.read_time.since(&then.read_time)),
            write_us: median_and_p99(&now.write_time.since(&then.write_time)),
            cache_hits: (asked > 0.0).then_some(hits / asked),
            pending_bytes: self.published.load_on_writes().1.pending_bytes,
        })
    }

    fn counts(&self) -> Counts {
        let (requests, cache) = (&self.requests, &self.cache);
        Counts {
            at: self.time.elapsed(),
            reads: requests.reads.load(Ordering::Relaxed),
            writes: requests.writes.load(Ordering::Relaxed),
            errors: requests.errors.load(Ordering::Relaxed),
            hits: cache.hits.load(Ordering::Relaxed),
            misses: cache.misses.load(Ordering::Relaxed),
            read_time: requests.read_time.counted(),
            write_time: requests.write_time.counted(),
        }
    }

    fn actors_note(&self) -> ActorsNote {
        let pulses = self.tree.pulses().into_iter();
        ActorsNote {
            at: self.time.elapsed(),
            actors: pulses
                .map(|(name, pulse)| (name, (pulse.queued.counted(), pulse.worked.counted())))
                .collect(),
        }
    }
}

fn median_and_p99(counted: &Counted) -> (f64, f64) {
    (counted.quantile(0.5), counted.quantile(0.99))
}

/// `part` of `whole`, of which there may be none.
fn per(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn push_bounded<T>(ring: &mut VecDeque<T>, item: T, most: usize) {
    if ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(item);
}
