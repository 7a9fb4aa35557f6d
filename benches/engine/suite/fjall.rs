//! Drives fjall.
//!
//! Owns: its settings. All levels are compressed (its default leaves the upper two alone), and all indexes and filters are
//! pinned (by default those of the lower levels compete for the cache), because both are so in the other engines; the rest
//! is its default. A put is durable by the call that its documentation names for that, `persist`, which does not share one
//! fdatasync between callers that wait.

use super::engine::{BACKGROUND_THREADS, Driver, Engine, Result, Settings};
use fjall::config::{CompressionPolicy, PinningPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::hint::black_box;
use std::thread::sleep;
use std::time::Duration;

/// fjall.
pub const DRIVER: Driver = Driver {
    name: "fjall",
    open: |settings| Ok(Box::new(Fjall::open(settings)?)),
};

const POLL: Duration = Duration::from_millis(50);
/// So many polls without work: between two compactions there are moments in which none is active.
const QUIET_POLLS: u32 = 10;

struct Fjall {
    keyspace: Keyspace,
    database: Database,
    sync: bool,
}

impl Fjall {
    fn open(settings: &Settings) -> Result<Self> {
        let database = Database::builder(settings.dir)
            .cache_size(settings.cache as u64)
            .worker_threads(BACKGROUND_THREADS)
            .open()?;
        let keyspace = database.keyspace("bench", || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(settings.write_buffer as u64)
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
                .index_block_pinning_policy(PinningPolicy::all(true))
                .filter_block_pinning_policy(PinningPolicy::all(true))
        })?;
        Ok(Self {
            keyspace,
            database,
            sync: settings.sync,
        })
    }
}

impl Engine for Fjall {
    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        self.keyspace.insert(key, value)?;
        if self.sync {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<usize>> {
        Ok(self.keyspace.get(key)?.map(|value| black_box(value).len()))
    }

    fn scan(&self, from: &str, limit: usize) -> Result<usize> {
        let mut count = 0;
        for entry in self.keyspace.range(from..).take(limit) {
            black_box(entry.into_inner()?);
            count += 1;
        }
        Ok(count)
    }

    fn settle(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        let mut quiet = 0;
        let mut completed = self.database.compactions_completed();
        while quiet < QUIET_POLLS {
            sleep(POLL);
            let now = self.database.compactions_completed();
            let busy = self.database.active_compactions() > 0
                || self.database.outstanding_flushes() > 0
                || self.keyspace.sealed_memtable_count() > 0
                || now != completed;
            completed = now;
            quiet = if busy { 0 } else { quiet + 1 };
        }
        Ok(())
    }
}
