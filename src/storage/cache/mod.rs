//! The policy of the read cache: what stays in a bounded number of bytes.
//!
//! Owns: the entries, what they are worth, and the count of bytes. Does not own: loading, threads or time.

mod balance;
mod segments;
mod sketch;

use crate::storage::cache::balance::Balance;
use crate::storage::cache::segments::Segments;
use crate::storage::cache::sketch::Sketch;
use crate::storage::key::Key;
use crate::storage::version::Versions;
use std::time::Duration;

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
        Self {
            segments: Segments::new(options.max_bytes, share),
            sketch: Sketch::new(),
            balance: (!options.adaptive_window.is_zero())
                .then(|| Balance::new(options.max_bytes, options.adaptive_window)),
            options,
        }
    }

    /// Bytes held, by the cache's own account.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.segments.bytes()
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

    /// The weights of frequency and recency as they are now. Their sum is 1.
    #[must_use]
    pub fn weights(&self) -> (f64, f64) {
        (1.0 - self.segments.share(), self.segments.share())
    }

    /// What the key has, if the cache knows it. Counts as a use.
    pub fn get(&mut self, key: &Key) -> Option<&Versions> {
        let hash = key.hash64();
        self.sketch.count(hash);
        let found = self.segments.get(key);
        if let Some(balance) = &mut self.balance {
            balance.used(hash, found.map(|(_, bytes)| bytes), &self.sketch);
        }
        found.map(|(versions, _)| versions)
    }

    /// Puts in all that a key has. An entry larger than the cache is not kept.
    pub fn insert(&mut self, key: Key, versions: Versions) {
        self.remove(&key);
        let bytes = entry_bytes(&key, &versions);
        if bytes > self.options.max_bytes {
            return;
        }
        if let Some(balance) = &mut self.balance {
            balance.loaded(key.hash64(), bytes, &self.sketch);
        }
        self.segments.insert(key, versions, bytes, &self.sketch);
        self.sketch.grow_to(self.segments.len());
    }

    /// Merges what was just written into an entry that is there; says whether one was. Does not count as a use.
    pub fn merge(&mut self, key: &Key, written: Versions, most_siblings: usize) -> bool {
        let Some(versions) = self.segments.get_mut(key) else {
            return false;
        };
        let known = std::mem::take(versions);
        *versions = known.merge(written).bounded(most_siblings).0;
        let bytes = entry_bytes(key, versions);
        if bytes > self.options.max_bytes {
            self.remove(key);
        }
        self.segments.resize(key, bytes, &self.sketch);
        true
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &Key) {
        self.segments.remove(key);
    }

    /// Lets the balance follow what was asked for.
    pub fn adapt(&mut self, now: Duration) {
        if let Some(share) = self
            .balance
            .as_mut()
            .and_then(|balance| balance.decide(now, self.segments.share()))
        {
            self.segments.set_share(share);
        }
    }
}

fn entry_bytes(key: &Key, versions: &Versions) -> usize {
    Segments::<Key, Versions>::ENTRY_BYTES + 2 * key.heap_bytes() + versions.heap_bytes()
}
