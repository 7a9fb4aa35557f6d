//! Pace: how many bytes may be under way to a target at a time.
//!
//! What is under way to a slow target must be little enough to be answered in time, or every call is made again and again and
//! none is ever answered. How much that is shows in how long answers take: the window grows by what was acknowledged quickly,
//! and halves when an answer took long or did not come, as the congestion window of TCP does (RFC 5681, without the
//! retransmission, and with time in the place of loss).
//!
//! Owns: the window, and who waits for room in it. Does not own: what is sent.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes that may be under way.
const FIRST_WINDOW: usize = 1 << 20;
const LEAST_WINDOW: usize = 32 << 10;
const MOST_WINDOW: usize = 4 << 20;
/// Most bytes of one call; and calls that share a window, so that one does not wait for the next to be built.
const MOST_OF_A_CALL: usize = 1 << 20;
const CALLS_OF_A_WINDOW: usize = 4;
/// An answer within this part of the time that a call may take is quick; one that takes more than [`LONG`] is long.
const QUICK: u32 = 16;
const LONG: u32 = 4;

/// The pace of one target.
#[derive(Debug)]
pub struct Pace {
    /// For how long a call may take.
    within: Duration,
    window: Mutex<Window>,
    freed: Notify,
    /// Whose turn it is to wait for room: nobody overtakes whoever needs much.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Window {
    bytes: usize,
    under_way: usize,
    /// When it was last made smaller: calls that began before say nothing of it as it is.
    shrunk: Option<Instant>,
}

/// Room that a call has; free again when it is dropped.
#[derive(Debug)]
pub struct Room<'a> {
    pace: &'a Pace,
    bytes: usize,
    begun: Instant,
}

impl Pace {
    /// Of calls that may each take as long as `within`.
    #[must_use]
    pub fn new(within: Duration) -> Self {
        Self {
            within,
            window: Mutex::new(Window {
                bytes: FIRST_WINDOW,
                under_way: 0,
                shrunk: None,
            }),
            freed: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// How many bytes a call should have.
    #[must_use]
    pub fn call_bytes(&self) -> usize {
        (self.window.lock().bytes / CALLS_OF_A_WINDOW).min(MOST_OF_A_CALL)
    }

    /// Waits until so many bytes may go, in the order of those who ask; more than the whole window may go alone.
    pub async fn room(&self, bytes: usize) -> Room<'_> {
        let _turn = self.turn.lock().await;
        loop {
            let freed = self.freed.notified();
            {
                let mut window = self.window.lock();
                if window.under_way == 0 || window.under_way + bytes <= window.bytes {
                    window.under_way += bytes;
                    return Room {
                        pace: self,
                        bytes,
                        begun: Instant::now(),
                    };
                }
            }
            freed.await;
        }
    }
}

impl Room<'_> {
    /// The target has taken all of it.
    pub fn acknowledged(self) {
        let took = self.begun.elapsed();
        if took <= self.pace.within / QUICK {
            let mut window = self.pace.window.lock();
            window.bytes = (window.bytes + self.bytes).min(MOST_WINDOW);
        } else if took > self.pace.within / LONG {
            self.shrink();
        }
    }

    /// The call was not answered in time. (Of one that was refused nothing is learned.)
    pub fn unanswered(self) {
        self.shrink();
    }

    fn shrink(&self) {
        let mut window = self.pace.window.lock();
        if window.shrunk.is_none_or(|shrunk| shrunk < self.begun) {
            window.bytes = (window.bytes / 2).max(LEAST_WINDOW);
            window.shrunk = Some(Instant::now());
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.pace.window.lock().under_way -= self.bytes;
        self.pace.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Waker};

    const WITHIN: Duration = Duration::from_secs(8);

    #[tokio::test(start_paused = true)]
    async fn the_window_follows_how_long_answers_take() {
        let pace = Pace::new(WITHIN);
        let first = pace.call_bytes();
        pace.room(first).await.acknowledged();
        assert_eq!(pace.call_bytes(), first + first / CALLS_OF_A_WINDOW);
        for _ in 0..100 {
            pace.room(first).await.acknowledged();
        }
        assert_eq!(pace.call_bytes(), MOST_OF_A_CALL);
        // Those that were under way together say it once.
        let together = [pace.room(1).await, pace.room(1).await];
        tokio::time::advance(WITHIN / 2).await;
        for room in together {
            room.acknowledged();
        }
        assert_eq!(pace.call_bytes(), MOST_OF_A_CALL / 2);
        for _ in 0..20 {
            tokio::time::advance(Duration::from_millis(1)).await;
            pace.room(1).await.unanswered();
        }
        assert_eq!(pace.call_bytes(), LEAST_WINDOW / CALLS_OF_A_WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_under_way_than_the_window_but_one_call_may_be_larger() {
        let pace = Pace::new(WITHIN);
        let large = pace.room(MOST_WINDOW * 2).await;
        let small = tokio::time::timeout(WITHIN, pace.room(1)).await;
        assert!(small.is_err(), "beside one that has everything");
        drop(large);
        let (first, _second) = (pace.room(FIRST_WINDOW / 2).await, pace.room(FIRST_WINDOW / 2).await);
        let third = async {
            pace.room(1).await;
        };
        let freed = async {
            tokio::time::sleep(WITHIN / 2).await;
            drop(first);
        };
        let begun = Instant::now();
        tokio::join!(third, freed);
        assert_eq!(begun.elapsed(), WITHIN / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn small_calls_do_not_overtake_a_large_one() {
        let pace = Pace::new(WITHIN);
        let mut context = Context::from_waker(Waker::noop());
        let small = pace.room(1).await;
        let mut large = std::pin::pin!(pace.room(FIRST_WINDOW));
        assert!(large.as_mut().poll(&mut context).is_pending());
        let mut next = std::pin::pin!(pace.room(1));
        assert!(next.as_mut().poll(&mut context).is_pending());
        drop(small);
        assert!(
            large.as_mut().poll(&mut context).is_ready(),
            "though the other would fit as well"
        );
    }
}
