//! The only clock of the engine.
//!
//! Owns: the [`Time`] trait, the real one and one that a test moves. Does not own: what a time means. Everything that dates a version, paces a
//! compaction or waits for a retry asks this, so that a test can let time pass as it likes.

use parking_lot::Mutex;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time and waits.
pub trait Time: Debug + Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// Time since some fixed moment; never runs backward.
    fn elapsed(&self) -> Duration;

    /// Returns when so much time has passed.
    fn sleep(&self, time: Duration);
}

/// The system's clocks.
#[derive(Debug, Clone, Copy)]
pub struct RealTime(Instant);

impl Default for RealTime {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Time for RealTime {
    fn now_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// A clock that stands until it is moved. Clones are the same clock; whoever sleeps moves it.
#[derive(Debug, Clone, Default)]
pub struct ManualTime(Arc<Mutex<Duration>>);

impl ManualTime {
    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        *self.0.lock() += time;
    }
}

impl Time for ManualTime {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn elapsed(&self) -> Duration {
        *self.0.lock()
    }

    fn sleep(&self, time: Duration) {
        self.advance(time);
    }
}
