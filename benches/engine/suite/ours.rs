//! Drives the engine of this crate, as a library: without the node's actors and its protocol.
//!
//! Owns: its settings, and clocks as a coordinator sends them: each put has one that supersedes all earlier ones of the
//! run, so that the engine need not read the key. The tables are compressed with LZ4. The cache holds values by key,
//! not blocks.

use super::engine::{BACKGROUND_THREADS, Driver, Engine, Result, Settings};
use bytes::Bytes;
use pairdb_node::storage::fs::{FileSystem, RealFs};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::store::{Background, Store, StoreOptions};
use pairdb_node::storage::version::Value;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The engine of this crate.
pub const DRIVER: Driver = Driver {
    name: "ours",
    open: |settings| Ok(Box::new(Ours::open(settings)?)),
};

struct Ours {
    store: Arc<Store>,
    /// Beside the store because it stops its threads when it is dropped.
    _background: Background,
    counter: AtomicU64,
}

/// The suite's keys carry their tenant, so that all engines store the same bytes.
fn key_of(key: &str) -> Result<Key> {
    let (tenant, key) = key.split_once(':').ok_or("a key without a tenant")?;
    Ok(Key::new(tenant, key)?)
}

impl Ours {
    fn open(settings: &Settings) -> Result<Self> {
        let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
        let mut options = StoreOptions::at(settings.dir);
        options.engine.flush_threshold = settings.write_buffer;
        options.sync_writes = settings.sync;
        options.cache_bytes = settings.cache;
        // The others have no limit either.
        options.compaction_bytes_per_second = 0;
        let store = Arc::new(Store::open(&fs, options, "node")?);
        Ok(Self {
            _background: store.start_background(BACKGROUND_THREADS)?,
            store,
            counter: AtomicU64::new(1),
        })
    }
}

impl Engine for Ours {
    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let clock = [("c", self.counter.fetch_add(1, Ordering::Relaxed))]
            .into_iter()
            .collect();
        let value = Value::Live(Bytes::copy_from_slice(value));
        self.store.write(&key_of(key)?, value, Some(clock))?;
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<usize>> {
        let versions = self.store.get(&key_of(key)?)?;
        Ok(versions
            .winner()
            .and_then(|version| version.value.live())
            .map(|value| black_box(value).len()))
    }

    fn scan(&self, from: &str, limit: usize) -> Result<usize> {
        let mut count = 0;
        for entry in self.store.scan(&key_of(from)?).take(limit) {
            black_box(entry?);
            count += 1;
        }
        Ok(count)
    }

    fn settle(&self) -> Result<()> {
        self.store.settle();
        Ok(())
    }
}
