//! The policy of the read cache: what stays in a bounded number of bytes.
//!
//! W-TinyLFU (Einziger, Friedman and Manes 2017): a window in which entries stay by recency, and a main part in which
//! they stay by frequency. Miniature caches (Waldspurger, Saemundsson, Ahmad and Park 2017) try other balances of the two
//! on a part of the keys, and the cache follows the best. Every operation is O(1), growth and release of memory spread
//! over what caused them. A hit allocates nothing, except in a miniature that still grows.
//!
//! Owns: the entries, what they are worth, and the count of bytes. Does not own: loading, threads or time.

mod balance;
mod segments;
mod sketch;

use crate::storage::cache::balance::Balance;
use crate::storage::cache::segments::{Rule, Segments};
use crate::storage::cache::sketch::{SKETCH_BYTES_PER_ENTRY, Sketch};
use crate::storage::key::Key;
use crate::storage::version::Versions;
use std::time::Duration;

/// What is larger than this part of the cache is not kept: too much would have to leave for it.
const LARGEST: usize = 8;
/// Bytes that an entry costs beside what key and versions hold on the heap.
const SLOT_BYTES: usize = Segments::<Key, Versions>::SLOT_BYTES + SKETCH_BYTES_PER_ENTRY;

/// How the cache is bounded.
#[derive(Debug, Clone, Copy)]
pub struct CacheOptions {
    /// Most bytes that it holds, by its own account.
    pub max_bytes: usize,
    /// Weight of what is used often. Only the ratio of the two weights counts.
    pub frequency_weight: f64,
    /// Weight of what was used lately.
    pub recency_weight: f64,
    /// Time over which the balance of the two adapts to what is asked for. Zero: they stay as set.
    pub adaptive_window: Duration,
}

/// A cache of what keys have.
#[derive(Debug)]
pub struct Cache {
    options: CacheOptions,
    segments: Segments<Key, Versions>,
    sketch: Sketch,
    balance: Option<Balance>,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(options: CacheOptions) -> Self {
        let total = options.frequency_weight + options.recency_weight;
        let share = if total > 0.0 {
            options.recency_weight / total
        } else {
            0.5
        };
        let rule = Rule {
            window: share,
            guarded: true,
        };
        Self {
            segments: Segments::new(options.max_bytes, rule, SLOT_BYTES),
            sketch: Sketch::default(),
            balance: (!options.adaptive_window.is_zero())
                .then(|| Balance::new(options.max_bytes, options.adaptive_window)),
            options,
        }
    }

    /// Bytes held, by the cache's own account: entries, the room for them, counts of use and miniatures.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.segments.bytes() + self.balance.as_ref().map_or(0, Balance::bytes)
    }

    /// Entries held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.len() == 0
    }

    /// Entries that had to leave so far.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.segments.evictions()
    }

    /// The weights of frequency and recency as they are now: the shares of the bytes whose entries stay by the one and by
    /// the other. Their sum is 1.
    #[must_use]
    pub fn weights(&self) -> (f64, f64) {
        let recency = self.segments.rule().recency();
        (1.0 - recency, recency)
    }

    /// Whether the cache knows the key. Does not count as a use.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        self.segments.bytes_of(key).is_some()
    }

    /// What the key has, if the cache knows it. Counts as a use.
    pub fn get(&mut self, key: &Key) -> Option<&Versions> {
        let hash = key.hash64();
        self.sketch.count(hash);
        if let Some(balance) = self.balance.as_mut().filter(|balance| balance.sees(hash)) {
            balance.used(hash, self.segments.bytes_of(key), &self.sketch);
            self.fit();
        }
        self.segments.get(key)
    }

    /// Puts in all that a key has. What is larger than an eighth of the cache is not kept, and what the policy holds for
    /// worth less than all else leaves again at once.
    pub fn insert(&mut self, key: Key, versions: Versions) {
        let (hash, bytes) = (key.hash64(), entry_bytes(&key, &versions));
        self.segments.remove(&key);
        if bytes > self.options.max_bytes / LARGEST {
            self.forget(hash);
            return;
        }
        self.segments.insert(key, versions, bytes, &self.sketch);
        if let Some(balance) = self.balance.as_mut().filter(|balance| balance.sees(hash)) {
            balance.put(hash, bytes, &self.sketch);
        }
        self.fit();
    }

    /// Merges what was just written into an entry that is there; says whether one was. Does not count as a use.
    pub fn merge(&mut self, key: &Key, written: Versions, most_siblings: usize) -> bool {
        let Some(versions) = self.segments.get_mut(key) else {
            return false;
        };
        let known = std::mem::take(versions);
        *versions = known.merge(written).bounded(most_siblings).0;
        let bytes = entry_bytes(key, versions);
        if bytes > self.options.max_bytes / LARGEST {
            self.remove(key);
        } else {
            self.segments.resize(key, bytes, &self.sketch);
            let hash = key.hash64();
            if let Some(balance) = self.balance.as_mut().filter(|balance| balance.sees(hash)) {
                balance.resized(hash, bytes, &self.sketch);
                self.fit();
            }
        }
        true
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &Key) {
        self.segments.remove(key);
        self.forget(key.hash64());
    }

    /// Tells the time, which must not run backward, counted from any moment. Now and then the balance follows what was
    /// asked for in about the last adaptive window.
    pub fn adapt(&mut self, now: Duration) {
        let rule = self.segments.rule();
        if let Some(better) = self.balance.as_mut().and_then(|balance| balance.decide(now, rule)) {
            self.segments.set_rule(better);
        }
    }

    fn forget(&mut self, hash: u64) {
        if let Some(balance) = self.balance.as_mut().filter(|balance| balance.sees(hash)) {
            balance.removed(hash);
        }
        self.fit();
    }

    /// Gives the entries what the miniatures leave, and the counts of use the room that the entries need.
    fn fit(&mut self) {
        if let Some(balance) = &mut self.balance {
            let left = self.options.max_bytes.saturating_sub(balance.bytes());
            if left != self.segments.max_bytes() {
                self.segments.set_max_bytes(left, &self.sketch);
                balance.scale_to(left, &self.sketch);
            }
        }
        self.sketch.fit(self.segments.slots());
    }
}

fn entry_bytes(key: &Key, versions: &Versions) -> usize {
    SLOT_BYTES + key.heap_bytes() + versions.heap_bytes()
}
