//! What the gateway does with a request once it is understood: admit it, send it to the right actor, wait for the answer.
//!
//! Owns: the way of one request, and what is done when an actor on it is down. Does not own: the wire, or any state.

use crate::actors::Handles;
use crate::actors::admission::{Admission, ReadPermit};
use crate::actors::answers::Port;
use crate::actors::cache::{CacheMessage, read_view};
use crate::actors::health::RequestCounts;
use crate::actors::mailbox::Undelivered;
use crate::actors::refusal::Refusal;
use crate::actors::reply::reply_port;
use crate::actors::wal::WalMessage;
use crate::actors::write::{NewWrite, PendingWrite, WriteClock, WriteOutcome};
use crate::storage::clock::VectorClock;
use crate::storage::key::Key;
use crate::storage::limits::MAX_CLOCK_ENTRIES;
use crate::storage::log::record::Operation;
use crate::storage::memtable;
use crate::storage::scan::Scan;
use crate::storage::time::Time;
use crate::storage::version::Versions;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Times that a write without a clock looks again when its view was too old. Once is enough but for a log that has just
/// restarted and a memtable that has not caught up yet.
pub(super) const CLOCKLESS_TRIES: u32 = 8;
/// Pause before it looks again.
pub(super) const CLOCKLESS_PAUSE: Duration = Duration::from_millis(1);

/// How long a caller may wait.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a read.
    pub read: Duration,
    /// For a write.
    pub write: Duration,
}

/// Carries requests to the actors.
#[derive(Clone)]
pub struct Requests {
    /// The actors.
    pub handles: Handles,
    /// Permits.
    pub admission: Arc<Admission>,
    /// Bounds the reads of tables that run at once.
    pub loads: Arc<Semaphore>,
    /// Bounds the scans that are open at once: each keeps its view's memtables alive.
    pub scans: Arc<Semaphore>,
    /// How long a caller may wait.
    pub timeouts: Timeouts,
    /// Counts.
    pub counts: Arc<RequestCounts>,
    /// Cleared when the node is being stopped.
    pub accepting: Arc<AtomicBool>,
    /// What dates the writes.
    pub time: Arc<dyn Time>,
}

impl Requests {
    /// Writes a value or a tombstone. Answers when it is as durable as configured, and every read that starts later sees
    /// it.
    ///
    /// # Errors
    /// As [`Refusal`] says. After [`Refusal::Restarting`] and [`Refusal::TimedOut`] the outcome is unknown; otherwise
    /// nothing was written.
    pub async fn write(&self, write: NewWrite) -> Result<WriteOutcome, Refusal> {
        let outcome = self.try_write(write).await;
        self.count(&self.counts.writes, &outcome);
        outcome
    }

    /// Everything that a key has.
    ///
    /// # Errors
    /// As [`Refusal`] says.
    pub async fn read(&self, key: Key) -> Result<Versions, Refusal> {
        let versions = match self.admit_read() {
            Ok(permit) => self.read_admitted(key, permit).await,
            Err(refusal) => Err(refusal),
        };
        self.count(&self.counts.reads, &versions);
        versions
    }

    /// Walks everything from `from` on as it is now. The permit bounds how many do, and is to be held meanwhile.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when too many scans are open, [`Refusal::ShuttingDown`].
    pub fn scan(&self, from: &Key) -> Result<(Scan, OwnedSemaphorePermit), Refusal> {
        self.check_accepting()?;
        let permit = Arc::clone(&self.scans)
            .try_acquire_owned()
            .map_err(|_full| Refusal::Overloaded("too many scans are open"))?;
        // The view first: it then holds everything up to its own end, and the number cuts off what is later.
        let view = self.handles.published.load();
        Ok((view.scan(from, self.handles.published.applied()), permit))
    }

    pub(super) fn count<T>(&self, counter: &std::sync::atomic::AtomicU64, result: &Result<T, Refusal>) {
        counter.fetch_add(1, Ordering::Relaxed);
        if result.is_err() {
            self.counts.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the node takes requests.
    ///
    /// # Errors
    /// [`Refusal::ShuttingDown`].
    pub fn check_accepting(&self) -> Result<(), Refusal> {
        if self.accepting.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(Refusal::ShuttingDown)
        }
    }

    fn admit_read(&self) -> Result<ReadPermit, Refusal> {
        self.check_accepting()?;
        self.admission.admit_reads(1)
    }

    async fn read_admitted(&self, key: Key, permit: ReadPermit) -> Result<Versions, Refusal> {
        let shard = self.handles.shard_of(&key);
        let (reply, answer) = reply_port();
        let message = CacheMessage::Get(key.clone(), Port::new(reply, permit));
        let sent = match self.handles.caches.get(shard) {
            Some(cache) => cache.send(message, key.as_bytes().len()),
            None => Err(Undelivered::Down(message)),
        };
        let lost = match sent {
            Ok(()) => match answer.within(self.timeouts.read, "the cache").await {
                Err(Refusal::Restarting(_)) => None,
                answered => return answered,
            },
            Err(Undelivered::Full(_)) => return Err(Refusal::Overloaded("the cache's mailbox is full")),
            Err(Undelivered::Down(message)) => Some(message),
        };
        // The shard is down: the view answers, and only more slowly. The lost message, and its permit, end with this.
        let read = read_view(&self.handles, &self.loads, vec![key]);
        let read = tokio::time::timeout(self.timeouts.read, read).await;
        drop(lost);
        match read.map(|mut read| read.pop()) {
            Ok(Some((_key, result))) => result,
            Ok(None) | Err(_) => Err(Refusal::TimedOut(self.timeouts.read)),
        }
    }

    async fn try_write(&self, mut write: NewWrite) -> Result<WriteOutcome, Refusal> {
        self.check_accepting()?;
        if let Some(clock) = write.clock.take() {
            self.check_long_clock(&write.key, &clock).await?;
            return self.send_write(write, WriteClock::Given(clock)).await;
        }
        let mut refusal = Refusal::Stale;
        for attempt in 0..CLOCKLESS_TRIES {
            if attempt > 0 {
                tokio::time::sleep(CLOCKLESS_PAUSE * attempt).await;
            }
            // The number first: whatever it covers is in the answer that follows.
            let seq = self.handles.published.announced();
            let seen = self
                .read_admitted(write.key.clone(), self.admission.admit_reads(1)?)
                .await?;
            let clock = WriteClock::Observed {
                clock: seen.clock(),
                seq,
            };
            match self.send_write(write.clone(), clock).await {
                Err(Refusal::Stale) => refusal = Refusal::Restarting("the log"),
                outcome => return outcome,
            }
        }
        Err(refusal)
    }

    /// A clock may be longer than [`MAX_CLOCK_ENTRIES`] where the key's is: when it adds at most its writer's own entry to
    /// what a read answers.
    pub(super) async fn check_long_clock(&self, key: &Key, clock: &VectorClock) -> Result<(), Refusal> {
        let entries = clock.entries();
        if entries.len() <= MAX_CLOCK_ENTRIES {
            return Ok(());
        }
        let known = self
            .read_admitted(key.clone(), self.admission.admit_reads(1)?)
            .await?
            .clock();
        let is_known = |id: &str| {
            known
                .entries()
                .binary_search_by(|entry| entry.id.as_str().cmp(id))
                .is_ok()
        };
        if entries.iter().filter(|entry| !is_known(&entry.id)).count() > 1 {
            return Err(Refusal::ClockUnknown(entries.len()));
        }
        Ok(())
    }

    async fn send_write(&self, write: NewWrite, clock: WriteClock) -> Result<WriteOutcome, Refusal> {
        let timestamp_ms = self.time.now_ms();
        let (WriteClock::Given(known) | WriteClock::Observed { clock: known, .. }) = &clock;
        let bytes = memtable::charge(&write.key, &write.value, known);
        let (permit, delay) = self
            .admission
            .admit_writes(1, bytes, write.operation == Operation::Delete)?;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let (reply, answer) = reply_port();
        let write = PendingWrite {
            operation: write.operation,
            key: write.key,
            value: write.value,
            clock,
            timestamp_ms,
            id: write.id,
            caller: Port::new(reply, permit),
        };
        match self.handles.wal.send(WalMessage::Append(vec![write]), bytes) {
            Ok(()) => answer.within(self.timeouts.write, "the log or the memtable").await,
            Err(Undelivered::Full(_)) => Err(Refusal::Overloaded("the log's mailbox is full")),
            Err(Undelivered::Down(_)) => Err(Refusal::Restarting("the log")),
        }
    }
}
