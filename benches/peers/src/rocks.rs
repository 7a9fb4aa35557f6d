//! Drives RocksDB.
//!
//! Owns: its settings. LZ4 on all levels and a bloom filter of 10 bits a key, as the others have; indexes and filters
//! stay outside its block cache, which is its default and keeps them all in memory, as the node's engine does. The rest
//! is its default.

use crate::suite::engine::{BACKGROUND_THREADS, Driver, Engine, Result, Settings};
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Options, WriteOptions};
use std::hint::black_box;
use std::thread::sleep;
use std::time::Duration;

/// RocksDB.
pub const DRIVER: Driver = Driver {
    name: "rocksdb",
    open: |settings| Ok(Box::new(Rocks::open(settings)?)),
};

const FILTER_BITS_PER_KEY: f64 = 10.0;
const POLL: Duration = Duration::from_millis(50);
/// So many polls without work: between two compactions there are moments in which none is pending.
const QUIET_POLLS: u32 = 10;
const SIGNS_OF_WORK: [&str; 4] = [
    "rocksdb.mem-table-flush-pending",
    "rocksdb.num-running-flushes",
    "rocksdb.compaction-pending",
    "rocksdb.num-running-compactions",
];

struct Rocks {
    db: DB,
    sync: bool,
}

impl Rocks {
    fn open(settings: &Settings) -> Result<Self> {
        let mut tables = BlockBasedOptions::default();
        tables.set_block_cache(&Cache::new_lru_cache(settings.cache)?);
        tables.set_bloom_filter(FILTER_BITS_PER_KEY, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(settings.write_buffer);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_max_background_jobs(i32::try_from(BACKGROUND_THREADS)?);
        options.set_block_based_table_factory(&tables);
        Ok(Self {
            db: DB::open(&options, settings.dir)?,
            sync: settings.sync,
        })
    }
}

impl Engine for Rocks {
    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(self.sync);
        Ok(self.db.put_opt(key, value, &options)?)
    }

    fn get(&self, key: &str) -> Result<Option<usize>> {
        Ok(self.db.get_pinned(key)?.map(|value| black_box(value).len()))
    }

    fn scan(&self, from: &str, limit: usize) -> Result<usize> {
        let mut entries = self.db.raw_iterator();
        entries.seek(from);
        let mut count = 0;
        while count < limit
            && let Some(entry) = entries.item()
        {
            black_box(entry);
            count += 1;
            entries.next();
        }
        entries.status()?;
        Ok(count)
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        let mut quiet = 0;
        while quiet < QUIET_POLLS {
            sleep(POLL);
            let mut busy = false;
            for sign in SIGNS_OF_WORK {
                busy |= self.db.property_int_value(sign)?.unwrap_or(0) > 0;
            }
            quiet = if busy { 0 } else { quiet + 1 };
        }
        Ok(())
    }
}
