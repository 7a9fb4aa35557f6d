//! How often keys were asked for, approximately, also those that the cache does not hold.
//!
//! A count-min sketch (Cormode and Muthukrishnan 2005) of 4-bit counters with conservative update (Estan and Varghese
//! 2002), whose counts are halved after every sample of uses, so that what was often used long ago is forgotten
//! (TinyLFU: Einziger, Friedman and Manes 2017).
//!
//! Owns: the counters, their growth and their aging. Does not own: what follows from a count.

/// Words of counters for each entry of the cache. 16 counters an entry keep the error of a count near zero.
const WORDS_PER_ENTRY: usize = 1;
/// Least number of words.
const MIN_WORDS: usize = 16;
/// Uses in a sample, for each word. A longer sample orders keys better that are used about as often, a shorter one
/// follows a change sooner.
const SAMPLE_PER_WORD: u64 = 16;
/// Words that one use halves while an aging is under way.
const AGED_AT_ONCE: usize = 64;
/// The three lower bits of each 4-bit counter.
const LOW_BITS: u64 = 0x7777_7777_7777_7777;
/// Highest count.
const MAX_COUNT: u64 = 15;

/// The counters.
#[derive(Debug)]
pub struct Sketch {
    /// 16 counters each. A power of two of them.
    words: Vec<u64>,
    /// Uses counted in this sample.
    counted: u64,
    /// Where the aging that is under way goes on; beyond the words when none is.
    aging: usize,
}

impl Sketch {
    /// A sketch that counts nothing yet.
    pub fn new() -> Self {
        Self {
            words: vec![0; MIN_WORDS],
            counted: 0,
            aging: usize::MAX,
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Makes room for the counts of a cache with so many entries.
    pub fn grow_to(&mut self, entries: usize) {
        while self.words.len() < entries * WORDS_PER_ENTRY {
            // A counter's place is a hash cut to the number of words: both halves begin with what the one had.
            self.words.extend_from_within(..);
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
        let mask = self.words.len() - 1;
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
                *word = (*word >> 1) & LOW_BITS;
            }
            self.aging += AGED_AT_ONCE;
        }
    }
}

/// The next of a series of independent hashes (the finalizer of `SplitMix64`, Steele, Lea and Flood 2014).
pub fn mix(hash: u64) -> u64 {
    let mut mixed = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
