//! The pace of compaction: a token bucket in bytes.
//!
//! Owns: when so many bytes may be written. Does not own: time (see [`crate::storage::time`]), or the debt that raises the
//! rate. All jobs draw on one bucket, so that more workers do not make it faster.

use crate::storage::progress;
use crate::storage::time::Time;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Tokens are handed out for at most so much time at once: a pause must not be paid for by a burst.
const BURST: Duration = Duration::from_millis(100);
/// Shortest single wait: what is missing may be less than a clock can tell.
const SHORTEST_WAIT: Duration = Duration::from_micros(1);
/// Longest single wait, so that a change of the rate is heeded soon.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Hands out bytes.
#[derive(Debug)]
pub struct Throttle {
    time: Arc<dyn Time>,
    bytes_per_second: AtomicU64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// May be below zero: what was drawn ahead.
    bytes: f64,
    filled: Duration,
}

impl Throttle {
    /// At `bytes_per_second`; 0: without a limit.
    #[must_use]
    pub fn new(time: Arc<dyn Time>, bytes_per_second: u64) -> Self {
        let filled = time.elapsed();
        Self {
            time,
            bytes_per_second: AtomicU64::new(bytes_per_second),
            bucket: Mutex::new(Bucket { bytes: 0.0, filled }),
        }
    }

    /// Another rate from here on, also for those who wait; 0: without a limit.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// The rate that is set; 0: none.
    #[must_use]
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second.load(Ordering::Relaxed)
    }

    fn rate(&self) -> f64 {
        self.bytes_per_second() as f64
    }

    /// Draws `bytes`, and waits until they are covered. `haste` is asked now and then for the factor by which the rate is
    /// exceeded; [`None`] ends the wait at once.
    pub fn draw(&self, bytes: u64, haste: impl Fn() -> Option<f64>) {
        let mut wanted = bytes as f64;
        loop {
            progress::step();
            let set = self.rate();
            if set <= 0.0 {
                return;
            }
            let Some(factor) = haste() else {
                return;
            };
            let rate = set * factor;
            let missing = {
                let mut bucket = self.bucket.lock();
                let now = self.time.elapsed();
                let gained = rate * now.saturating_sub(bucket.filled).as_secs_f64();
                bucket.bytes = (bucket.bytes + gained).min(rate * BURST.as_secs_f64()) - std::mem::take(&mut wanted);
                bucket.filled = now;
                -bucket.bytes
            };
            if missing <= 0.0 {
                return;
            }
            self.time
                .sleep(Duration::from_secs_f64(missing / rate).clamp(SHORTEST_WAIT, LONGEST_WAIT));
        }
    }
}
