//! A bound on how often something is done in a second, that costs no lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Lets so many through each second. When seconds change a few more may pass.
#[derive(Debug)]
pub(super) struct Limit {
    most: u64,
    second: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
}

impl Limit {
    pub(super) fn new(most: u64) -> Self {
        Self {
            most,
            second: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Whether one more passes in this second.
    pub(super) fn passes(&self, second: u64) -> bool {
        // Loads first: in an overload all who ask would write to the same line.
        if self.second.load(Ordering::Relaxed) != second && self.second.swap(second, Ordering::Relaxed) != second {
            self.taken.store(0, Ordering::Relaxed);
        }
        let has_room = self.taken.load(Ordering::Relaxed) < self.most;
        let passes = has_room && self.taken.fetch_add(1, Ordering::Relaxed) < self.most;
        if !passes {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        passes
    }

    /// How many did not pass since this was asked last.
    pub(super) fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_pass_in_each_second() {
        let limit = Limit::new(3);
        let passed = |second| (0..10).filter(|_| limit.passes(second)).count();
        assert_eq!((passed(7), passed(8)), (3, 3));
        assert_eq!((limit.take_refused(), limit.take_refused()), (14, 0));
    }
}
