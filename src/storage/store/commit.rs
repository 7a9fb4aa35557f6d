//! Group commit: writes that wait share one write to the log and one sync.
//!
//! The first who finds nobody at work takes everything that has gathered, logs it, applies it and wakes those whose
//! writes these were; what arrives meanwhile gathers for the next. Where writes are not synced, each goes on its own.
//!
//! Owns: numbering, gathering, and the order log → memtable → cache. Does not own: the log's format or the memtable.

use super::Store;
use crate::storage::clock::VectorClock;
use crate::storage::error::{Error, Result};
use crate::storage::key::Key;
use crate::storage::log::record::{Operation, encode_change};
use crate::storage::log::writer::EncodedBatch;
use crate::storage::version::{MAX_SIBLINGS, Value, Version};
use parking_lot::Mutex;
use std::sync::{Arc, Condvar, MutexGuard, OnceLock, PoisonError};

/// Locks among which writes without a clock are spread by their key.
const CLOCKLESS_STRIPES: usize = 64;
/// Writes with which a batch is not kept waiting for more.
const ENOUGH_WRITES: usize = 64;

/// Writes on their way to the log.
pub(super) struct Commits {
    /// The standard library's, since it is held for microseconds and wanted by all: who waits for it sleeps, where
    /// parking_lot's would give up its turn again and again, which costs more than the work.
    queue: std::sync::Mutex<Queue>,
    done: Condvar,
    /// Held from the read to the answer of a write without a clock, so that of two to the same key one sees the other.
    clockless: [Mutex<()>; CLOCKLESS_STRIPES],
    salt: u32,
}

struct Queue {
    gathering: Gathering,
    next_seq: u64,
    /// Somebody is at the log.
    committing: bool,
}

/// What became of a batch: for each write the clock that memory knows of its key.
type Outcome = Arc<OnceLock<Result<Vec<VectorClock>>>>;

#[derive(Default)]
struct Gathering {
    encoded: EncodedBatch,
    writes: Vec<(Key, Version)>,
    outcome: Outcome,
}

impl Commits {
    pub(super) fn new(last_seq: u64, salt: u32) -> Self {
        Self {
            queue: std::sync::Mutex::new(Queue {
                gathering: Gathering::default(),
                next_seq: last_seq + 1,
                committing: false,
            }),
            done: Condvar::new(),
            clockless: std::array::from_fn(|_| Mutex::new(())),
            salt,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    pub(super) fn commit(&self, key: &Key, value: Value, clock: Option<VectorClock>) -> Result<VectorClock> {
        let Some(clock) = clock else {
            let stripe = key.hash64() as usize % CLOCKLESS_STRIPES;
            let _alone = self.commits.clockless.get(stripe).map(Mutex::lock);
            let known = self.get(key)?.clock();
            return self.enqueue(key, value, |seq| known.with(&self.node_id, seq));
        };
        self.enqueue(key, value, |_seq| clock)
    }

    fn enqueue(&self, key: &Key, value: Value, clock: impl FnOnce(u64) -> VectorClock) -> Result<VectorClock> {
        let timestamp_ms = self.options.time.now_ms();
        let operation = match value {
            Value::Live(_) => Operation::Write,
            Value::Tombstone => Operation::Delete,
        };
        let mut queue = self.commits.lock();
        let seq = queue.next_seq;
        let version = Version {
            clock: clock(seq),
            value,
            timestamp_ms,
            seq,
        };
        let gathering = &mut queue.gathering;
        let first = gathering.encoded.bytes.is_empty();
        encode_change(
            &mut gathering.encoded.bytes,
            self.commits.salt,
            operation,
            key,
            &version,
            None,
        )
        .map_err(|e| Error::io("encode for", &self.options.engine.log.dir, std::io::Error::other(e)))?;
        gathering.encoded.last_seq = seq;
        gathering.encoded.deletes_only = operation == Operation::Delete && (first || gathering.encoded.deletes_only);
        queue.next_seq += 1;
        if self.options.sync_writes {
            self.await_commit(queue, key, version)
        } else {
            self.commit_alone(queue, key, version)
        }
    }

    /// Commits one write. There is no sync to share: waking another up would cost more than to do it here.
    fn commit_alone(&self, mut queue: MutexGuard<'_, Queue>, key: &Key, version: Version) -> Result<VectorClock> {
        let encoded = &mut queue.gathering.encoded;
        let logged = self.log(encoded, version.timestamp_ms);
        encoded.bytes.clear();
        logged?;
        let last_seq = version.seq;
        let clock = self.apply([(key.clone(), version)], last_seq).pop();
        drop(queue);
        Ok(self.with_sealed(key, clock.unwrap_or_default()))
    }

    /// Adds a write to those that gather, and waits until somebody, perhaps this thread, has committed it.
    fn await_commit<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        key: &Key,
        version: Version,
    ) -> Result<VectorClock> {
        let gathering = &mut queue.gathering;
        let (place, outcome) = (gathering.writes.len(), Arc::clone(&gathering.outcome));
        gathering.writes.push((key.clone(), version));
        while outcome.get().is_none() {
            if queue.committing {
                queue = self.commits.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
            } else {
                queue = self.lead(queue);
            }
        }
        drop(queue);
        match outcome.get() {
            Some(Ok(clocks)) => {
                let known = clocks.get(place).cloned().unwrap_or_default();
                Ok(self.with_sealed(key, known))
            }
            Some(Err(error)) => Err(error.shared()),
            None => Err(Error::Fenced),
        }
    }

    /// What the active memtable knows of a key, and the sealed ones.
    fn with_sealed(&self, key: &Key, known: VectorClock) -> VectorClock {
        let view = self.published.peek();
        let older = view.sealed.iter().filter_map(|memtable| memtable.get(key));
        older.fold(known, |joined, versions| joined.join(&versions.clock()))
    }

    /// Commits what has gathered, on behalf of all whose writes these are.
    fn lead<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        queue.committing = true;
        queue = self.gather(queue);
        let batch = std::mem::take(&mut queue.gathering);
        drop(queue);
        let now_ms = batch.writes.last().map_or(0, |(_, version)| version.timestamp_ms);
        let result = self
            .log(&batch.encoded, now_ms)
            .map(|()| self.apply(batch.writes, batch.encoded.last_seq));
        // Nobody else sets it: whoever leads has taken the batch.
        let _ = batch.outcome.set(result);
        let mut queue = self.commits.lock();
        queue.committing = false;
        self.commits.done.notify_all();
        queue
    }

    /// Gives others who are about to write a turn, as long as that brings more: a sync costs as much for many writes as
    /// for one.
    fn gather<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let mut before = 0;
        while queue.gathering.writes.len() > before && queue.gathering.writes.len() < ENOUGH_WRITES {
            before = queue.gathering.writes.len();
            drop(queue);
            std::thread::yield_now();
            queue = self.commits.lock();
        }
        queue
    }

    /// Writes a batch to the log, and makes it as durable as configured.
    fn log(&self, batch: &EncodedBatch, now_ms: u64) -> Result<()> {
        self.wait_for_room()?;
        let mut log = self.log.lock();
        log.append(self.epoch, batch, self.published.applied(), now_ms)?;
        if self.options.sync_writes {
            log.sync(self.epoch)?;
        }
        Ok(())
    }

    /// Makes logged writes visible. Returns, for each, the clock that the active memtable has for its key.
    fn apply(&self, writes: impl IntoIterator<Item = (Key, Version)>, last_seq: u64) -> Vec<VectorClock> {
        let writer = self.published.writer();
        let view = self.published.load();
        let apply = |(key, version): (Key, Version)| {
            let applied = view.active.apply(&key, version, MAX_SIBLINGS);
            if let Some(cache) = &self.cache {
                cache.written(&key, || view.active.get(&key).unwrap_or_default());
            }
            applied.clock
        };
        let clocks = writes.into_iter().map(apply).collect();
        self.published.set_applied(last_seq);
        drop(writer);
        if view.active.bytes() >= self.options.engine.flush_threshold && self.wake.is_running() {
            self.seal_if_room();
        }
        clocks
    }

    fn seal_if_room(&self) {
        if self.published.peek().sealed.len() + 1 < self.options.num_mem_tables {
            self.seal();
            self.wake.all();
        }
    }

    /// Waits while all memtables are full and the oldest is still being flushed. Writes are slowed down well before, so
    /// that this is met only when flushing is far behind; when it fails, its failure is the write's.
    fn wait_for_room(&self) -> Result<()> {
        let active_full = || self.published.peek().active.bytes() >= self.options.engine.flush_threshold;
        if !active_full() || !self.wake.is_running() {
            return Ok(());
        }
        let full = || active_full() && self.published.peek().sealed.len() + 1 >= self.options.num_mem_tables;
        self.wake.wait_while(|| full() && self.flush_failure.lock().is_none());
        if let Some(failure) = self.flush_failure.lock().as_ref().filter(|_| full()) {
            return Err(failure.shared());
        }
        if active_full() {
            self.seal_if_room();
        }
        Ok(())
    }
}
