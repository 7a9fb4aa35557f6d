//! A token bucket: what comes at a steady rate, and of which a second's worth can be saved.
//!
//! Owns: the arithmetic. Does not own: time, which is handed in, or what a token stands for.

use std::time::Duration;

/// Tokens are saved for so long: whoever used nothing for a second may use a second's worth at once, and no more.
pub const BURST: Duration = Duration::from_secs(1);
/// Shortest wait that is ever told: a millisecond is the unit of what clients are told.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// The bucket.
#[derive(Debug)]
pub struct Bucket {
    /// Tokens a second, at least 1.
    rate: f64,
    /// May be below zero: what was spent ahead.
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    /// A full bucket at the moment `now`, which gains `rate` tokens a second; none for the rate 0, which is no limit.
    #[must_use]
    pub fn new(rate: u64, now: Duration) -> Option<Self> {
        let rate = rate as f64;
        (rate > 0.0).then_some(Self {
            rate,
            tokens: rate * BURST.as_secs_f64(),
            filled: now,
        })
    }

    /// Whether there is a whole token at the moment `now`.
    ///
    /// # Errors
    /// How long it takes until there is, if nothing is spent meanwhile.
    pub fn check(&mut self, now: Duration) -> Result<(), Duration> {
        self.fill(now);
        let missing = 1.0 - self.tokens;
        if missing <= 0.0 {
            return Ok(());
        }
        let wait = Duration::try_from_secs_f64(missing / self.rate).unwrap_or(Duration::MAX);
        Err(wait.max(SHORTEST_WAIT))
    }

    /// Spends tokens, whether they are there or not: what is missing has to come in before there is a token again.
    pub fn spend(&mut self, tokens: u64) {
        self.tokens -= tokens as f64;
    }

    /// Whether it is as it was made: forgetting it changes nothing.
    pub fn is_full(&mut self, now: Duration) -> bool {
        self.fill(now);
        self.tokens >= self.most()
    }

    fn fill(&mut self, now: Duration) {
        let gained = self.rate * now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + gained).min(self.most());
        // Never back: two callers may have read the clock in one order and come here in the other.
        self.filled = self.filled.max(now);
    }

    fn most(&self) -> f64 {
        self.rate * BURST.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::time::{ManualTime, Time};

    fn take(bucket: &mut Bucket, time: &ManualTime) -> Result<(), Duration> {
        bucket.check(time.elapsed())?;
        bucket.spend(1);
        Ok(())
    }

    fn taken(bucket: &mut Bucket, time: &ManualTime) -> usize {
        (0..10_000).take_while(|_| take(bucket, time).is_ok()).count()
    }

    #[test]
    fn it_holds_a_second_and_gains_at_its_rate() {
        let time = ManualTime::default();
        let mut bucket = Bucket::new(100, time.elapsed()).expect("a limit");
        assert_eq!(taken(&mut bucket, &time), 100);
        time.advance(Duration::from_millis(250));
        assert_eq!(taken(&mut bucket, &time), 25);
        // However long nothing is taken.
        time.advance(Duration::from_secs(3600));
        assert_eq!(taken(&mut bucket, &time), 100);
    }

    #[test]
    fn the_wait_that_it_tells_suffices_and_a_shorter_one_does_not() {
        let time = ManualTime::default();
        for (rate, spent) in [(1, 1), (3, 3), (7, 50), (1_000_000, 30_000_000)] {
            let mut bucket = Bucket::new(rate, time.elapsed()).expect("a limit");
            bucket.spend(spent);
            let wait = bucket.check(time.elapsed()).expect_err("nothing is left");
            time.advance(wait.mul_f64(0.9));
            assert!(bucket.check(time.elapsed()).is_err(), "{rate}: {wait:?}");
            time.advance(wait.mul_f64(0.1) + Duration::from_nanos(10));
            assert_eq!(bucket.check(time.elapsed()), Ok(()), "{rate}: {wait:?}");
        }
    }

    #[test]
    fn what_was_spent_ahead_is_paid_back_first() {
        let time = ManualTime::default();
        let mut bucket = Bucket::new(10, time.elapsed()).expect("a limit");
        bucket.spend(60);
        time.advance(Duration::from_secs(5));
        assert!(bucket.check(time.elapsed()).is_err());
        assert!(!bucket.is_full(time.elapsed()));
        time.advance(Duration::from_millis(101));
        assert_eq!(bucket.check(time.elapsed()), Ok(()));
        time.advance(Duration::from_secs(1));
        assert!(bucket.is_full(time.elapsed()));
    }

    #[test]
    fn a_clock_that_is_read_out_of_order_gains_nothing_twice() {
        let mut bucket = Bucket::new(10, Duration::ZERO).expect("a limit");
        bucket.spend(10);
        let second = Duration::from_secs(1);
        assert!(bucket.check(second / 2).is_ok());
        bucket.spend(5);
        for _ in 0..10 {
            assert!(bucket.check(Duration::ZERO).is_err());
            assert!(bucket.check(second / 2).is_err());
        }
    }

    #[test]
    fn the_rate_0_is_no_limit() {
        assert!(Bucket::new(0, Duration::ZERO).is_none());
    }
}
