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
/// Most ends in a row of a child that did not settle: with the pauses between them, what takes twenty seconds does not pass by
/// itself. They are so far apart that they need not go beyond any [`Intensity`].
const MOST_UNSETTLED: u32 = 30;

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
    /// How often it ended, in words, when that is more than `intensity` allows, or so often in a row that it does not work.
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
        if self.unsettled > MOST_UNSETTLED {
            return Err(format!("ended {} times in a row as soon as it started", self.unsettled));
        }
        // The first end in a row costs no pause.
        let doublings = self.unsettled.saturating_sub(2).min(10);
        Ok(match self.unsettled {
            0 | 1 => Duration::ZERO,
            _ => (FIRST_BACKOFF * 2_u32.pow(doublings)).min(LONGEST_BACKOFF),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is shipped.
    const INTENSITY: Intensity = Intensity {
        restarts: 100,
        window: Duration::from_secs(10),
    };

    /// Ends a child again and again, each time as soon as it was started, for as long as it is started again.
    async fn crash_loop(lived: Option<Duration>) -> (Duration, String) {
        let (begun, mut restarts) = (Instant::now(), Restarts::default());
        for _ in 0..1_000 {
            match restarts.ended(lived, INTENSITY) {
                Ok(pause) => tokio::time::sleep(pause).await,
                Err(why) => return (begun.elapsed(), why),
            }
        }
        (begun.elapsed(), String::new())
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_never_settles_is_given_up_within_half_a_minute() {
        for lived in [None, Some(SETTLED_AFTER / 2)] {
            let (took, why) = crash_loop(lived).await;
            assert!(why.contains("31 times in a row"), "{why:?}");
            let expected = Duration::from_secs(15)..Duration::from_secs(30);
            assert!(expected.contains(&took), "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_settles_between_is_not() {
        let mut restarts = Restarts::default();
        for _ in 0..10 {
            for _ in 0..MOST_UNSETTLED {
                let pause = restarts.ended(None, INTENSITY).unwrap();
                tokio::time::sleep(pause).await;
            }
            assert_eq!(restarts.ended(Some(SETTLED_AFTER), INTENSITY), Ok(Duration::ZERO));
        }
    }
}
