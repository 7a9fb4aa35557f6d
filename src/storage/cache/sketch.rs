//! How often keys were asked for, approximately, also those that the cache does not hold.
//!
//! A count-min sketch (Cormode and Muthukrishnan 2005) of 4-bit counters with conservative update (Estan and Varghese
//! 2002), whose counts are halved after every sample of uses, so that what was often used long ago is forgotten
//! (TinyLFU: Einziger, Friedman and Manes 2017).
//!
//! Owns: the counters, their growth and their aging. Does not own: what follows from a count.

/// Most bytes for each entry that there is room for: a word of 16 counters, and as much again because the number of words
/// is a power of two.
pub const SKETCH_BYTES_PER_ENTRY: usize = 2 * size_of::<u64>();
/// Uses in a sample, for each word. A longer sample tells apart better what is used about as often, a shorter one follows
/// a change sooner; between 4 and 16 the hit ratios of the benchmark differ little.
const SAMPLE_PER_WORD: u64 = 8;
/// Words that one use halves while an aging is under way.
const AGED_AT_ONCE: usize = 64;
/// The three lower bits of each 4-bit counter.
const LOW_BITS: u64 = 0x7777_7777_7777_7777;
/// Highest count.
const MAX_COUNT: u64 = 15;

/// The counters.
#[derive(Debug, Default)]
pub struct Sketch {
    /// 16 counters each. None, or a power of two of them.
    words: Vec<u64>,
    /// Uses counted in this sample.
    counted: u64,
    /// The word that the aging under way comes to next; beyond the words when it is done.
    aging: usize,
}

impl Sketch {
    /// Makes it fit a cache with room for so many entries. Takes longer when that has doubled or halved.
    pub fn fit(&mut self, entries: usize) {
        let fitting = if entries == 0 { 0 } else { entries.next_power_of_two() };
        if self.words.is_empty() || fitting == 0 {
            self.words = vec![0; fitting];
        }
        // A counter's place is a hash cut to the number of words: both halves begin with what the one had.
        while self.words.len() < fitting {
            self.words.reserve_exact(self.words.len());
            self.words.extend_from_within(..);
        }
        while self.words.len() > fitting {
            let upper = self.words.split_off(self.words.len() / 2);
            for (word, other) in self.words.iter_mut().zip(upper) {
                *word = halved(*word) + halved(other);
            }
            self.words.shrink_to_fit();
        }
    }

    /// Counts a use of the key with this hash.
    pub fn count(&mut self, hash: u64) {
        let places = self.places(hash);
        let least = self.least(places);
        if least < MAX_COUNT {
            for (word, shift) in places {
                if let Some(word) = self.words.get_mut(word)
                    && (*word >> shift) & MAX_COUNT == least
                {
                    *word += 1 << shift;
                }
            }
        }
        self.counted += 1;
        self.age();
    }

    /// How often the key with this hash was used lately: 0 to 15, rarely too high, too low only by aging.
    pub fn estimate(&self, hash: u64) -> u64 {
        self.least(self.places(hash))
    }

    fn least(&self, places: [(usize, u32); 4]) -> u64 {
        places
            .iter()
            .map(|&(word, shift)| self.words.get(word).map_or(0, |word| (word >> shift) & MAX_COUNT))
            .min()
            .unwrap_or(0)
    }

    fn places(&self, hash: u64) -> [(usize, u32); 4] {
        let mask = self.words.len().wrapping_sub(1);
        let mut mixed = hash;
        [(); 4].map(|()| {
            mixed = mix(mixed);
            (mixed as usize & mask, ((mixed >> 58) & 60) as u32)
        })
    }

    /// Halves the counters at the end of a sample, some at each use, so that no single use pays for all.
    fn age(&mut self) {
        if self.counted >= self.words.len() as u64 * SAMPLE_PER_WORD {
            self.counted = 0;
            self.aging = 0;
        }
        if self.aging < self.words.len() {
            for word in self.words.iter_mut().skip(self.aging).take(AGED_AT_ONCE) {
                *word = halved(*word);
            }
            self.aging += AGED_AT_ONCE;
        }
    }
}

/// All counters of a word halved.
fn halved(word: u64) -> u64 {
    (word >> 1) & LOW_BITS
}

/// The next of a series of independent hashes (the finalizer of `SplitMix64`, Steele, Lea and Flood 2014).
pub fn mix(hash: u64) -> u64 {
    let mut mixed = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
