//! Choices that a seed determines.
//!
//! Owns: the generator of numbers (SplitMix64) and the ways in which a crash picks. Does not own: what is picked from.

/// How a crash picks among the states that something had since the last sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    /// The one that was synced.
    Oldest,
    /// The one that programs saw.
    Newest,
    /// Any, each time anew.
    Any,
}

/// A generator of numbers.
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `count`, or 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        let place = u128::from(self.next()) * count as u128;
        (place >> 64) as usize
    }

    /// Picks among `count` states, the oldest being 0.
    pub(super) fn pick(&mut self, how: Pick, count: usize) -> usize {
        match how {
            Pick::Oldest => 0,
            Pick::Newest => count.saturating_sub(1),
            Pick::Any => self.below(count),
        }
    }

    /// A way to pick. The plain ones are as likely as the mixed one: all names without any of the bytes, and the other
    /// way around, are what a missing sync shows at.
    pub(super) fn way(&mut self) -> Pick {
        match self.below(3) {
            0 => Pick::Oldest,
            1 => Pick::Newest,
            _ => Pick::Any,
        }
    }
}
