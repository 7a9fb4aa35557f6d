//! Reads of a [`super::Store`] through a cache.
//!
//! Owns: the shards of the cache, each behind a lock, and that a fill never pins what a write has replaced meanwhile.
//! Does not own: the policy (see [`crate::storage::cache`]).

use crate::storage::cache::{Cache, CacheOptions};
use crate::storage::error::Result;
use crate::storage::key::Key;
use crate::storage::time::Time;
use crate::storage::version::{MAX_SIBLINGS, Versions};
use crate::storage::view::Published;
use parking_lot::Mutex;
use std::sync::Arc;

/// Shards: enough that threads seldom meet.
const SHARDS: usize = 16;

pub(super) struct CachedReads {
    shards: Vec<Mutex<Shard>>,
    time: Arc<dyn Time>,
}

struct Shard {
    cache: Cache,
    /// Writes to its keys so far.
    writes: u64,
}

impl CachedReads {
    pub(super) fn new(options: CacheOptions, time: Arc<dyn Time>) -> Self {
        let part = CacheOptions {
            max_bytes: options.max_bytes / SHARDS,
            ..options
        };
        let shard = |_| {
            Mutex::new(Shard {
                cache: Cache::new(part),
                writes: 0,
            })
        };
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            time,
        }
    }

    fn shard(&self, key: &Key) -> Option<&Mutex<Shard>> {
        self.shards
            .get((key.hash64() >> 32) as usize % self.shards.len().max(1))
    }

    pub(super) fn get(&self, key: &Key, published: &Published) -> Result<Versions> {
        let Some(shard) = self.shard(key) else {
            return published.peek().get(key);
        };
        let writes = {
            let mut shard = shard.lock();
            if let Some(known) = shard.cache.get(key) {
                return Ok(known.clone());
            }
            shard.writes
        };
        let view = published.load();
        let read = view.get(key)?;
        if read.is_empty() {
            // The filters answer as quickly as the cache would, and need no room for it.
            return Ok(read);
        }
        let mut shard = shard.lock();
        // A write that the read missed was applied after it, and comes to this shard after that: either it has been here
        // since, and is counted, or it will find the entry.
        if shard.writes == writes {
            shard.cache.insert(key.clone(), read.clone());
        } else {
            let now = published.peek();
            // What was missed is in memory, unless a memtable has become a table meanwhile.
            if Arc::ptr_eq(&view.tables, &now.tables) {
                let merged = read.clone().merge(now.get_in_memory(key)).bounded(MAX_SIBLINGS).0;
                shard.cache.insert(key.clone(), merged);
            }
        }
        shard.cache.adapt(self.time.elapsed());
        Ok(read)
    }

    /// Brings the entry of a key, if there is one, up to date with what memory now has for it.
    pub(super) fn written(&self, key: &Key, known: impl FnOnce() -> Versions) {
        let Some(mut shard) = self.shard(key).map(Mutex::lock) else {
            return;
        };
        shard.writes += 1;
        if shard.cache.contains(key) {
            shard.cache.merge(key, known(), MAX_SIBLINGS);
        }
    }
}
