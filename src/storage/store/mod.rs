//! The engine without actors: an open store that any number of threads may read and write. For use as a library, for
//! tests and for benches.
//!
//! Owns: the order log → memtable → table for its callers. Does not own: anything that a file or a type of its own owns;
//! the node composes the same parts with actors between them.
//!
//! Without [`Store::start_background`] nothing happens but in the calls of its users: a full memtable is flushed by the
//! write that filled it, and [`Store::compact`] compacts. With it, threads do both.

mod background;
mod commit;
mod reads;

pub use background::Background;

use crate::storage::backup::{self, Copied};
use crate::storage::cache::CacheOptions;
use crate::storage::clock::VectorClock;
use crate::storage::compaction::jobs::Jobs;
use crate::storage::error::{Error, Result};
use crate::storage::fs::{DirLock, FileSystem};
use crate::storage::key::Key;
use crate::storage::log::upkeep;
use crate::storage::log::writer::Log;
use crate::storage::memtable;
use crate::storage::recovery::{self, Options, Report};
use crate::storage::scan::Scan;
use crate::storage::tables::Tables;
use crate::storage::time::{RealTime, Time};
use crate::storage::version::{Value, Versions};
use crate::storage::view::Published;
use background::Wake;
use commit::Commits;
use parking_lot::Mutex;
use reads::CachedReads;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of the log that a store that does not sync its writes leaves to the operating system before it syncs them aside.
const SYNC_AHEAD_BYTES: u64 = 4 << 20;

/// Time over which the cache compares its ways of working.
const CACHE_WINDOW: Duration = Duration::from_secs(300);

/// How a store works.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The parts that it shares with a node.
    pub engine: Options,
    /// Whether a write is answered when it is on disk; otherwise, when it is with the operating system.
    pub sync_writes: bool,
    /// Memtables at a time, the active one included, before writes wait. At least 2.
    pub num_mem_tables: usize,
    /// Bytes of the read cache; 0: none.
    pub cache_bytes: usize,
    /// Bytes that compaction writes in a second while it is not behind; 0: without a limit.
    pub compaction_bytes_per_second: u64,
    /// Its clock.
    pub time: Arc<dyn Time>,
}

impl StoreOptions {
    /// Options for a data directory, with the defaults of the low-level design and all files below that directory; but
    /// segments of the log are as large as a memtable, so that a flush frees what it made superfluous.
    #[must_use]
    pub fn at(data_dir: impl Into<PathBuf>) -> Self {
        let mut engine = Options::at(data_dir);
        engine.log.segment_size = engine.flush_threshold as u64;
        engine.into()
    }
}

impl From<Options> for StoreOptions {
    fn from(engine: Options) -> Self {
        Self {
            engine,
            sync_writes: true,
            num_mem_tables: 2,
            cache_bytes: 0,
            compaction_bytes_per_second: 50_000_000,
            time: Arc::new(RealTime::default()),
        }
    }
}

/// An open engine.
pub struct Store {
    fs: Arc<dyn FileSystem>,
    node_id: String,
    options: StoreOptions,
    published: Arc<Published>,
    tables: Arc<Tables>,
    jobs: Arc<Jobs>,
    log: Mutex<Log>,
    epoch: u64,
    commits: Commits,
    cache: Option<CachedReads>,
    wake: Wake,
    /// Why the last flush failed, if it did.
    flush_failure: Mutex<Option<Error>>,
    next_memtable: AtomicU64,
    report: Report,
    _locks: Vec<DirLock>,
}

impl Store {
    /// Opens a data directory. `node_id` is the clock entry of writes that come without a clock.
    ///
    /// # Errors
    /// As [`recovery::open`].
    pub fn open(fs: &Arc<dyn FileSystem>, options: impl Into<StoreOptions>, node_id: &str) -> Result<Self> {
        let options: StoreOptions = options.into();
        let mut recovered = recovery::open(fs, &options.engine)?;
        let jobs = Jobs::new(
            Arc::clone(&recovered.tables),
            Arc::clone(&recovered.published),
            Arc::clone(&options.time),
            options.compaction_bytes_per_second,
        );
        let cache = (options.cache_bytes > 0).then(|| {
            let policy = CacheOptions {
                max_bytes: options.cache_bytes,
                frequency_weight: 0.5,
                recency_weight: 0.5,
                adaptive_window: CACHE_WINDOW,
            };
            CachedReads::new(policy, Arc::clone(&options.time))
        });
        Ok(Self {
            fs: Arc::clone(fs),
            node_id: node_id.to_owned(),
            next_memtable: AtomicU64::new(recovered.published.load().active.id() + 1),
            epoch: recovered.log.take_over(),
            commits: Commits::new(recovered.log.last_seq(), recovered.log.salt()),
            published: recovered.published,
            tables: recovered.tables,
            log: Mutex::new(recovered.log),
            report: recovered.report,
            jobs,
            cache,
            wake: Wake::default(),
            flush_failure: Mutex::new(None),
            options,
            _locks: recovered.locks,
        })
    }

    /// What the recovery did.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report
    }

    /// What reads see.
    #[must_use]
    pub fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The jobs of compaction.
    #[must_use]
    pub fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    /// Writes a version of a key; when it returns, it is as durable as configured, and every later read sees it. Without
    /// a clock it supersedes all that is there. Returns its clock joined with what memory knows of the key.
    ///
    /// # Errors
    /// When the log cannot take it, or compaction is too far behind; nothing is visible then. An error of a flush that this
    /// write brought about does not concern the write, and is met again by the next flush.
    pub fn write(&self, key: &Key, value: Value, clock: Option<VectorClock>) -> Result<VectorClock> {
        let delay = self.write_delay(value.live().is_none())?;
        if !delay.is_zero() {
            self.options.time.sleep(delay);
        }
        let known = self.commit(key, value, clock)?;
        if !self.wake.is_running() && self.published.peek().active.bytes() >= self.options.engine.flush_threshold {
            // What is in memory stays there, and in the log, until a flush succeeds.
            let _ = self.flush();
        }
        Ok(known)
    }

    /// How long a write is held up: by the debt of compaction, and by memory that fills while the last memtable is still
    /// being flushed.
    fn write_delay(&self, is_delete: bool) -> Result<Duration> {
        let view = self.published.peek();
        let debt = view.tables.debt();
        debt.check_write(is_delete)?;
        if view.sealed.len() + 1 < self.options.num_mem_tables {
            return Ok(debt.write_delay());
        }
        let memory = memory_delay(view.active.bytes(), self.options.engine.flush_threshold);
        Ok(debt.write_delay().max(memory))
    }

    /// Everything that a key has.
    ///
    /// # Errors
    /// When a table that may hold it is damaged.
    pub fn get(&self, key: &Key) -> Result<Versions> {
        match &self.cache {
            Some(cache) => cache.get(key, &self.published),
            None => self.published.peek().get(key),
        }
    }

    /// Walks everything from `from` on, in key order, as it is now.
    #[must_use]
    pub fn scan(&self, from: &Key) -> Scan {
        // The view first: it then holds everything up to its own end, and the number cuts off what is later.
        let view = self.published.load();
        view.scan(from, self.published.applied())
    }

    /// Writes what is in memory as tables, and deletes the log segments that are no longer needed.
    ///
    /// # Errors
    /// When a table cannot be written. Nothing is lost then, and the call can be repeated.
    pub fn flush(&self) -> Result<()> {
        self.seal();
        while self.flush_oldest()? {}
        Ok(())
    }

    /// Puts an empty memtable in place of the active one, unless that is empty.
    fn seal(&self) {
        let _writer = self.published.writer();
        if !self.published.load().active.is_empty() {
            let id = self.next_memtable.fetch_add(1, Ordering::Relaxed);
            self.published.update(|view| view.rotated(id));
        }
    }

    /// Flushes the oldest sealed memtable; `false` when there is none.
    fn flush_oldest(&self) -> Result<bool> {
        let Some(oldest) = self.published.load().sealed.first().cloned() else {
            return Ok(false);
        };
        let flushed = self.tables.flush(&oldest, &self.published);
        *self.flush_failure.lock() = flushed.as_ref().err().map(Error::shared);
        let flushed = flushed?;
        self.log.lock().set_flushed(flushed.seq);
        let deleted = upkeep::delete_flushed(&self.log, u64::MAX);
        if self.wake.is_running() {
            // Whoever waits for room need not wait for the memory.
            self.wake.all();
            memtable::free(oldest, self.options.time.as_ref());
        }
        deleted.map(|_segments| true)
    }

    /// Syncs the log aside, where writes do not; `false` when there is nothing worth it.
    fn sync_ahead(&self) -> Result<bool> {
        Ok(!self.options.sync_writes && upkeep::sync_ahead(&self.log, SYNC_AHEAD_BYTES))
    }

    /// Sets aside what reads have found to be damaged, and compacts once, if anything is due; `false` when nothing is.
    ///
    /// # Errors
    /// When a table is damaged or cannot be written. Nothing is lost then; what is damaged stands aside from then on.
    pub fn compact(&self) -> Result<bool> {
        self.tables.quarantine_damaged(&self.published)?;
        match self.jobs.next() {
            Some(job) => job.run().map(|_outcome| true),
            None => Ok(false),
        }
    }

    /// Writes what is in memory as tables, and makes the backup `base`/`name` of all of them.
    ///
    /// # Errors
    /// When a table cannot be written, or as [`backup::backup`].
    pub fn backup(&self, base: &Path, name: &str) -> Result<Copied> {
        self.flush()?;
        let snapshot = self.tables.snapshot(&self.published);
        backup::backup(self.fs.as_ref(), &snapshot, self.tables.dir(), base, name)
    }

    /// Ends the log so that the next start can tell every later damage from a crash. Later writes are refused.
    ///
    /// # Errors
    /// When the log cannot be synced.
    pub fn close(&self) -> Result<()> {
        self.log.lock().close(self.epoch)
    }
}

/// Longest time for which memory alone holds up a write.
const LONGEST_MEMORY_DELAY: Duration = Duration::from_millis(5);

/// Nothing while the active memtable is less than half full; from there on growing with the square.
fn memory_delay(active_bytes: usize, threshold: usize) -> Duration {
    let filled = active_bytes as f64 / threshold.max(1) as f64;
    LONGEST_MEMORY_DELAY.mul_f64(((filled - 0.5) * 2.0).clamp(0.0, 1.0).powi(2))
}
