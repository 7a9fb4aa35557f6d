//! Reads of a [`super::Store`] through a cache.
//!
//! Owns: the shards of the cache, each behind a lock, and that a fill never pins what a write has replaced meanwhile.
//! Does not own: the policy (see [`crate::storage::cache`]).

use crate::storage::cache::{Cache, CacheOptions};
use crate::storage::error::Result;
use crate::storage::key::Key;
use crate::storage::time::Time;
use crate::storage::version::{MAX_SIBLINGS, Version, Versions};
use crate::storage::view::Published;
use parking_lot::Mutex;
use std::sync::Arc;

/// Shards: enough that threads seldom meet.
const SHARDS: usize = 16;

pub(super) struct CachedReads {
    shards: Vec<Mutex<Cache>>,
    time: Arc<dyn Time>,
}

impl CachedReads {
    pub(super) fn new(options: CacheOptions, time: Arc<dyn Time>) -> Self {
        let shard = CacheOptions {
            max_bytes: options.max_bytes / SHARDS,
            ..options
        };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Cache::new(shard))).collect(),
            time,
        }
    }

    fn shard(&self, key: &Key) -> Option<&Mutex<Cache>> {
        self.shards
            .get((key.hash64() >> 32) as usize % self.shards.len().max(1))
    }

    pub(super) fn get(&self, key: &Key, published: &Published) -> Result<Versions> {
        let Some(shard) = self.shard(key) else {
            return published.load().get(key);
        };
        if let Some(known) = shard.lock().get(key) {
            return Ok(known.clone());
        }
        let view = published.load();
        let read = view.get(key)?;
        if read.is_empty() {
            // The filters answer as quickly as the cache would, and need no room for it.
            return Ok(read);
        }
        let mut shard = shard.lock();
        let now = published.load();
        // A write that was applied meanwhile is in memory, unless a memtable has become a table meanwhile. One that is
        // applied from here on finds the entry, since it comes to this shard after it was applied.
        if Arc::ptr_eq(&view.tables, &now.tables) {
            let merged = read.clone().merge(now.get_in_memory(key)).bounded(MAX_SIBLINGS).0;
            shard.insert(key.clone(), merged);
        }
        shard.adapt(self.time.elapsed());
        Ok(read)
    }

    /// Brings entries up to date with what was just applied.
    pub(super) fn written(&self, writes: &[(Key, Version)]) {
        for (key, version) in writes {
            if let Some(shard) = self.shard(key) {
                shard.lock().merge(key, version.clone().into(), MAX_SIBLINGS);
            }
        }
    }
}
