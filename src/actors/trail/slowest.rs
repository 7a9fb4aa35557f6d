//! The slowest requests of the last minutes.
//!
//! Owns: which those are. Does not own: what is slow. A request that is not among them costs two loads.

use crate::actors::trail::{Outcome, Trail};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Requests that are kept.
pub const SLOWEST: usize = 32;
/// Time for which one is kept.
pub const WINDOW: Duration = Duration::from_secs(300);

/// A slow request, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowRequest {
    /// Its trace, in hexadecimal.
    pub trace_id: String,
    /// What was asked for.
    pub operation: &'static str,
    /// How long it took.
    pub took: Duration,
    /// How it ended: the name of its status.
    pub status: &'static str,
    /// Its hops, in the order in which they ended.
    pub hops: Vec<SlowHop>,
}

/// A hop of a slow request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowHop {
    /// Where.
    pub name: &'static str,
    /// How long it was queued.
    pub queued: Duration,
    /// How long it was worked on.
    pub worked: Duration,
    /// What came of it; empty, when there is nothing to say.
    pub detail: String,
}

impl SlowRequest {
    /// What is to be said of a trail; [`None`] before its end.
    #[must_use]
    pub fn of(trail: &Trail) -> Option<Self> {
        let noted = trail.noted();
        let (took, Outcome { status, .. }) = noted.end?;
        let hops = noted.with_answer().hops.into_iter();
        Some(Self {
            trace_id: format!("{:032x}", trail.context.trace),
            operation: trail.operation.name,
            took,
            status,
            hops: hops
                .map(|hop| SlowHop {
                    name: hop.name,
                    queued: hop.queue(),
                    worked: hop.work(),
                    detail: hop.detail.to_string(),
                })
                .collect(),
        })
    }
}

#[derive(Debug, Clone)]
struct Held {
    took: Duration,
    ended: Instant,
    trail: Arc<Trail>,
    /// When it arrived, by the wall clock, as it was told first: the two clocks do not run alike, and each look would say
    /// something else.
    started_ms: Option<u64>,
}

/// The requests.
#[derive(Debug)]
pub struct Slowest {
    origin: Instant,
    /// Microseconds that one must take to be among them.
    floor_us: AtomicU64,
    /// When the first of them is too old, in milliseconds since the origin; from then on the floor is too high.
    renewed_ms: AtomicU64,
    held: Mutex<Vec<Held>>,
}

impl Default for Slowest {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            floor_us: AtomicU64::new(0),
            renewed_ms: AtomicU64::new(u64::MAX),
            held: Mutex::default(),
        }
    }
}

impl Slowest {
    /// Looks at a request that ended now.
    pub fn see(&self, trail: &Arc<Trail>, took: Duration, now: Instant) {
        let since = now.saturating_duration_since(self.origin).as_millis() as u64;
        let is_slow = took.as_micros() as u64 > self.floor_us.load(Ordering::Relaxed);
        if !is_slow && since < self.renewed_ms.load(Ordering::Relaxed) {
            return;
        }
        let mut held = self.held.lock();
        held.retain(|held| now.saturating_duration_since(held.ended) < WINDOW);
        held.push(Held {
            took,
            ended: now,
            trail: Arc::clone(trail),
            started_ms: None,
        });
        held.sort_by_key(|held| std::cmp::Reverse(held.took));
        held.truncate(SLOWEST);
        let is_full = held.len() == SLOWEST;
        let least = held.last().filter(|_| is_full);
        let floor = least.map_or(0, |held| held.took.as_micros() as u64);
        self.floor_us.store(floor, Ordering::Relaxed);
        let oldest = held.iter().map(|held| held.ended).min().unwrap_or(now);
        let renewed = oldest.saturating_duration_since(self.origin) + WINDOW;
        self.renewed_ms.store(renewed.as_millis() as u64, Ordering::Relaxed);
    }

    /// The requests, the slowest first, each with the milliseconds since the epoch at which it arrived; it is `now_ms` now.
    #[must_use]
    pub fn list(&self, now_ms: u64) -> Vec<(u64, SlowRequest)> {
        let held: Vec<Held> = {
            let mut held = self.held.lock();
            for held in held.iter_mut() {
                let age_ms = held.trail.started.elapsed().as_millis() as u64;
                held.started_ms.get_or_insert(now_ms.saturating_sub(age_ms));
            }
            held.clone()
        };
        let recent = held.iter().filter(|held| held.ended.elapsed() < WINDOW);
        recent
            .filter_map(|held| Some((held.started_ms?, SlowRequest::of(&held.trail)?)))
            .collect()
    }
}
