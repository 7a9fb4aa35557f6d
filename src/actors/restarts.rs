//! When a child that ended is started again: at once, after a pause, or never.
//!
//! Owns: the count of one child's ends, and its pauses. Does not own: the child, or what follows when it is not started again.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// A child that lived at least this long is started again at once: what kills it comes from outside, or is rare.
const SETTLED_AFTER: Duration = Duration::from_millis(5);
/// First pause before a child that did not settle; it doubles up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// How often a child may end.
#[derive(Debug, Clone, Copy)]
pub struct Intensity {
    /// Most restarts of one child …
    pub restarts: usize,
    /// … within this time.
    pub window: Duration,
}

/// The ends of one child.
#[derive(Debug, Default)]
pub struct Restarts {
    recent: VecDeque<Instant>,
    /// Ends in a row before it had settled.
    unsettled: u32,
}

impl Restarts {
    /// Takes note of an end. Returns the pause before the next start.
    ///
    /// # Errors
    /// How often it ended, in words, when that is more than `intensity` allows.
    pub fn ended(&mut self, lived: Option<Duration>, intensity: Intensity) -> Result<Duration, String> {
        let now = Instant::now();
        let is_settled = lived.is_some_and(|lived| lived >= SETTLED_AFTER);
        self.unsettled = if is_settled { 0 } else { self.unsettled + 1 };
        self.recent.push_back(now);
        let is_old = |at: &Instant| now.duration_since(*at) > intensity.window;
        while self.recent.front().is_some_and(is_old) {
            self.recent.pop_front();
        }
        let times = self.recent.len();
        if times > intensity.restarts {
            return Err(format!("ended {times} times within {:?}", intensity.window));
        }
        // The first end in a row costs no pause.
        let doublings = self.unsettled.saturating_sub(2).min(10);
        Ok(match self.unsettled {
            0 | 1 => Duration::ZERO,
            _ => (FIRST_BACKOFF * 2_u32.pow(doublings)).min(LONGEST_BACKOFF),
        })
    }
}
