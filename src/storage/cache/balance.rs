//! The balance between recency and frequency, found by trying.
//!
//! Miniature caches (Waldspurger, Saemundsson, Ahmad and Park 2017) see a part of the keys, chosen by hash, and have as
//! small a part of the bytes. Each runs the cache's own policy by another rule and remembers hashes alone. The cache
//! takes the rule of the one that had the most hits.
//!
//! Owns: the miniatures, their hits, and the choice. Does not own: the policy (see
//! [`crate::storage::cache::segments`]) or time.

use crate::storage::cache::segments::{Identity, Rule, Segments};
use crate::storage::cache::sketch::{Sketch, mix};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The rules that are tried: frequency first, recency last. A small window is close to pure frequency, so the guarded
/// ones stand denser there. Without a guard it is a segmented LRU, and a plain one at the end.
const RULES: [Rule; 7] = [
    guarded(0.0),
    guarded(0.05),
    guarded(0.2),
    guarded(0.5),
    open(0.0),
    open(0.5),
    open(1.0),
];
/// Bytes of the cache for each part that the keys are divided into, so that a miniature is no larger than it must be to
/// tell the rules apart.
const BYTES_PER_PART: usize = 512 << 10;
/// Least and greatest number of parts: the first bounds what the miniatures cost, the second keeps them fed.
const PARTS: (usize, usize) = (4, 32);
/// What is larger than this part of a miniature is not seen: it would leave no room for what it competes with.
const LARGEST: usize = 8;
/// Decisions in an adaptive window.
const DECISIONS: u32 = 8;
/// A rule must lead by this part of all uses, and by so many hits. Less is chance, and each change costs some hits.
const LEAD: (f64, f64) = (0.001, 4.0);

const fn guarded(window: f64) -> Rule {
    Rule { window, guarded: true }
}

const fn open(window: f64) -> Rule {
    Rule { window, guarded: false }
}

/// A key's hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Hashed(u64);

impl Identity for Hashed {
    type Hasher = Spread;

    fn hash64(&self) -> u64 {
        self.0
    }
}

/// Hashes what is a hash already, so that nobody outside knows which ones collide.
#[derive(Debug, Clone)]
struct Spread(u64);

impl Default for Spread {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for Spread {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        self.clone()
    }
}

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = mix(self.0 ^ hash);
    }
}

#[derive(Debug)]
struct Miniature {
    segments: Segments<Hashed, ()>,
    /// Hits, the late ones counting most.
    hits: f64,
}

/// The miniatures and what they showed.
#[derive(Debug)]
pub struct Balance {
    miniatures: Vec<Miniature>,
    /// Parts that the keys are divided into, of which one is seen.
    parts: u64,
    /// Uses that were seen, the late ones counting most.
    uses: f64,
    /// Time between decisions.
    period: Duration,
    /// When the next decision is due; none before the first time was told.
    due: Option<Duration>,
}

impl Balance {
    /// For a cache of so many bytes, to follow what happened in about the last `window`.
    pub fn new(max_bytes: usize, window: Duration) -> Self {
        let parts = (max_bytes / BYTES_PER_PART).clamp(PARTS.0, PARTS.1);
        let miniature = |rule| Miniature {
            segments: Segments::new(max_bytes / parts, rule, 0),
            hits: 0.0,
        };
        Self {
            miniatures: RULES.map(miniature).into(),
            parts: parts as u64,
            uses: 0.0,
            period: window / DECISIONS,
            due: None,
        }
    }

    /// Bytes of memory that the miniatures take.
    pub fn bytes(&self) -> usize {
        let slots: usize = self.miniatures.iter().map(|m| m.segments.slots()).sum();
        slots * Segments::<Hashed, ()>::SLOT_BYTES
    }

    /// States that the cache's entries may have so many bytes.
    pub fn scale_to(&mut self, max_bytes: usize, sketch: &Sketch) {
        for miniature in &mut self.miniatures {
            let part = max_bytes / self.parts as usize;
            miniature.segments.set_max_bytes(part, sketch);
        }
    }

    /// Whether the miniatures see the key with this hash.
    pub fn sees(&self, hash: u64) -> bool {
        // Of other bits than the sketch uses, which begins with the hash itself.
        mix(!hash).is_multiple_of(self.parts)
    }

    /// A key that is seen was asked for; the cache held so many bytes of it, if any.
    pub fn used(&mut self, hash: u64, bytes: Option<usize>, sketch: &Sketch) {
        self.uses += 1.0;
        for miniature in &mut self.miniatures {
            if miniature.segments.get(&Hashed(hash)).is_some() {
                miniature.hits += 1.0;
            } else if let Some(bytes) = bytes {
                miniature.put(hash, bytes, sketch);
            }
        }
    }

    /// A key that is seen was put in with so many bytes.
    pub fn put(&mut self, hash: u64, bytes: usize, sketch: &Sketch) {
        for miniature in &mut self.miniatures {
            miniature.put(hash, bytes, sketch);
        }
    }

    /// A key that is seen now has so many bytes.
    pub fn resized(&mut self, hash: u64, bytes: usize, sketch: &Sketch) {
        for miniature in &mut self.miniatures {
            if miniature.segments.bytes_of(&Hashed(hash)).is_some() {
                miniature.put(hash, bytes, sketch);
            }
        }
    }

    /// A key that is seen was taken out.
    pub fn removed(&mut self, hash: u64) {
        for miniature in &mut self.miniatures {
            miniature.segments.remove(&Hashed(hash));
        }
    }

    /// The rule to go over to from `rule`, if it is time to decide and another is better.
    pub fn decide(&mut self, now: Duration, rule: Rule) -> Option<Rule> {
        let due = *self.due.get_or_insert(now + self.period);
        if now < due {
            return None;
        }
        self.due = Some(now + self.period);
        // A rule that was set, not chosen, is judged by the one that is most like it.
        let unlike = |m: &Miniature| {
            let tried = m.segments.rule();
            (tried.recency() - rule.recency()).abs() + f64::from(u8::from(tried.guarded != rule.guarded))
        };
        let current = self.miniatures.iter().min_by(|a, b| unlike(a).total_cmp(&unlike(b)))?;
        let best = self.miniatures.iter().max_by(|a, b| a.hits.total_cmp(&b.hits))?;
        let leads = best.hits > current.hits + LEAD.0 * self.uses + LEAD.1;
        let chosen = leads.then(|| best.segments.rule());
        let kept = 1.0 - 1.0 / f64::from(DECISIONS);
        self.uses *= kept;
        for miniature in &mut self.miniatures {
            miniature.hits *= kept;
        }
        chosen
    }
}

impl Miniature {
    fn put(&mut self, hash: u64, bytes: usize, sketch: &Sketch) {
        let key = Hashed(hash);
        if bytes > self.segments.max_bytes() / LARGEST {
            self.segments.remove(&key);
        } else if self.segments.bytes_of(&key).is_some() {
            self.segments.resize(&key, bytes, sketch);
        } else {
            self.segments.insert(key, (), bytes, sketch);
        }
    }
}
