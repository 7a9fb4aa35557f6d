//! How long things take, and how large they are: counts by bucket, which any thread adds to without a lock.
//!
//! Owns: the buckets and their sums. Does not own: names, or how they are shown.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most buckets beside the one for all that is larger.
const MOST_BUCKETS: usize = 20;

/// Upper ends of the buckets of durations, in microseconds: what is asked of a node is told in milliseconds, and what a
/// hop costs in tens of microseconds.
pub const DURATIONS_US: [u64; 19] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000,
];

/// Upper ends of the buckets of long work (flushes, compaction jobs), in microseconds.
pub const LONG_DURATIONS_US: [u64; 13] = [
    10_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_200_000_000,
];

/// Upper ends of the buckets of sizes, in bytes: up to the largest value that is taken.
pub const SIZES: [u64; 11] = [
    64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 10_485_760, 16_777_216,
];

const _: () = assert!(
    DURATIONS_US.len() <= MOST_BUCKETS && LONG_DURATIONS_US.len() <= MOST_BUCKETS && SIZES.len() <= MOST_BUCKETS
);

/// A histogram. Adding costs a search among the bounds and two relaxed additions.
#[derive(Debug)]
pub struct Histogram {
    /// Upper ends of the buckets, inclusive, ascending.
    bounds: &'static [u64],
    counts: [AtomicU64; MOST_BUCKETS + 1],
    sum: AtomicU64,
}

/// What a histogram holds at a moment. Of what is added meanwhile it may have one part and not yet another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Upper ends of the buckets.
    pub bounds: &'static [u64],
    /// How many fell into each bucket; the last: those above all bounds.
    pub counts: Vec<u64>,
    /// Their sum.
    pub sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::of_durations()
    }
}

impl Histogram {
    /// An empty histogram of durations ([`DURATIONS_US`]).
    #[must_use]
    pub const fn of_durations() -> Self {
        Self::new(&DURATIONS_US)
    }

    /// An empty histogram of long durations ([`LONG_DURATIONS_US`]).
    #[must_use]
    pub const fn of_long_durations() -> Self {
        Self::new(&LONG_DURATIONS_US)
    }

    /// An empty histogram of sizes ([`SIZES`]).
    #[must_use]
    pub const fn of_sizes() -> Self {
        Self::new(&SIZES)
    }

    const fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; MOST_BUCKETS + 1],
            sum: AtomicU64::new(0),
        }
    }

    /// Adds a number.
    pub fn add(&self, number: u64) {
        self.add_many(number, 1);
    }

    /// Adds the same number `times` times.
    pub fn add_many(&self, number: u64, times: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < number);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(times, Ordering::Relaxed);
        }
        self.sum.fetch_add(number.saturating_mul(times), Ordering::Relaxed);
    }

    /// Adds a duration, to a histogram of microseconds.
    pub fn observe(&self, duration: Duration) {
        self.add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// What it holds now.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let counts = self.counts.iter().take(self.bounds.len() + 1);
        Counted {
            bounds: self.bounds,
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

impl Counted {
    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Both together, of histograms with the same buckets.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let counts = self.counts.iter().zip(&other.counts);
        Self {
            bounds: self.bounds,
            counts: counts.map(|(one, other)| one + other).collect(),
            sum: self.sum + other.sum,
        }
    }

    /// What was added since `before` was taken of the same histogram.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let counts = self.counts.iter().zip(&before.counts);
        Self {
            bounds: self.bounds,
            counts: counts.map(|(now, then)| now.saturating_sub(*then)).collect(),
            sum: self.sum.saturating_sub(before.sum),
        }
    }

    /// The number below or at which the share `share` (0 to 1) of them lies, interpolated within its bucket, as
    /// Prometheus' `histogram_quantile` does; 0 without any. Above all bounds it is the last bound.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = share.clamp(0.0, 1.0) * self.total() as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            let (bound, count) = (*bound as f64, *count as f64);
            if count > 0.0 && below + count >= rank {
                return lower + (bound - lower) * ((rank - below) / count).clamp(0.0, 1.0);
            }
            below += count;
            lower = bound;
        }
        if self.total() == 0 { 0.0 } else { lower }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test panics")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_falls_into_the_bucket_whose_end_it_does_not_exceed() {
        let histogram = Histogram::of_sizes();
        for size in [0, 64, 65, 16_777_216, 16_777_217] {
            histogram.add(size);
        }
        let counted = histogram.counted();
        assert_eq!(counted.counts[..2], [2, 1]);
        assert_eq!(counted.counts[10..], [1, 1]);
        assert_eq!((counted.total(), counted.sum), (5, 64 + 65 + 2 * 16_777_216 + 1));
        histogram.add_many(1, 10);
        let later = histogram.counted().since(&counted);
        assert_eq!((later.total(), later.sum, later.counts[0]), (10, 10, 10));
        assert_eq!(counted.and(&later), histogram.counted());
    }

    proptest! {
        #[test]
        fn a_quantile_lies_in_the_bucket_of_the_number_that_has_its_rank(
            mut numbers in prop::collection::vec(0_u64..10_000_000, 1..200),
            share in 0.01_f64..1.0,
        ) {
            let histogram = Histogram::of_durations();
            numbers.iter().for_each(|number| histogram.add(*number));
            numbers.sort_unstable();
            let rank = (share * numbers.len() as f64).ceil().max(1.0) as usize - 1;
            let found = histogram.counted().quantile(share);
            let bucket = DURATIONS_US.partition_point(|bound| *bound < numbers[rank]);
            let lower = if bucket == 0 { 0 } else { DURATIONS_US[bucket - 1] };
            prop_assert!((lower as f64..=DURATIONS_US[bucket] as f64).contains(&found), "{found} of {numbers:?}");
        }
    }
}
