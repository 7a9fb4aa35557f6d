//! What the gateway does with a request once it is understood: admit it, send it to the right actor, wait for the answer.
//!
//! Owns: the way of one request, and what is done when an actor on it is down. Does not own: the wire, or any state.

use crate::actors::Handles;
use crate::actors::admission::{Admission, ReadPermit};
use crate::actors::answer_room::AnswerRoom;
use crate::actors::answers::Port;
use crate::actors::cache::{CacheMessage, Found, read_view};
use crate::actors::deadline;
use crate::actors::drain::Drain;
use crate::actors::mailbox::Undelivered;
use crate::actors::overload::{Kind, Overload, UnderWay};
use crate::actors::peers::Peers;
use crate::actors::quotas::Quotas;
use crate::actors::ranges::{KeyRange, RangeItem, RangeWalk, WalkPermit, entry_bytes};
use crate::actors::refusal::Refusal;
use crate::actors::reply::{reply_port, within};
use crate::actors::request_counts::RequestCounts;
use crate::actors::streaming::Streaming;
use crate::actors::trail;
use crate::actors::wal::WalMessage;
use crate::actors::write::{NewWrite, PendingWrite, WriteClock, WriteOutcome};
use crate::storage::clock::VectorClock;
use crate::storage::key::Key;
use crate::storage::limits::MAX_CLOCK_ENTRIES;
use crate::storage::log::record::Operation;
use crate::storage::memtable;
use crate::storage::time::Time;
use crate::storage::version::Versions;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Times that a write without a clock looks again when its view was too old. Once is enough but for a log that has just
/// restarted and a memtable that has not caught up yet.
pub(super) const CLOCKLESS_TRIES: u32 = 8;
/// Pause before it looks again.
pub(super) const CLOCKLESS_PAUSE: Duration = Duration::from_millis(1);

/// Looks, each after a turn of the scheduler, before whoever waits for the caches to be told sleeps between them: a batch is
/// through memory within microseconds, but where its actor stands still.
const QUICK_LOOKS: u32 = 100;
/// Pause between two later looks.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// How long a caller may wait, whatever is done for him meanwhile.
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
    /// Whether the node gets done what it is asked.
    pub overload: Arc<Overload>,
    /// What each tenant may use.
    pub quotas: Arc<Quotas>,
    /// What answers may hold until they are taken.
    pub answers: Arc<AnswerRoom>,
    /// How long a caller may wait.
    pub timeouts: Timeouts,
    /// Counts.
    pub counts: Arc<RequestCounts>,
    /// The other nodes.
    pub peers: Peers,
    /// The streams to them.
    pub streaming: Arc<Streaming>,
    /// Whether writes are taken at all.
    pub drain: Arc<Drain>,
    /// Cleared when the node is being stopped.
    pub accepting: Arc<AtomicBool>,
    /// What dates the writes.
    pub time: Arc<dyn Time>,
}

impl Requests {
    /// Lets an operation of a stream in. What comes back is held until it is answered.
    ///
    /// # Errors
    /// As [`Requests::enter_unreceived`].
    pub fn enter(&self, kind: Kind) -> Result<UnderWay, Refusal> {
        let entered = self.enter_unreceived(kind)?;
        entered.arrival().received();
        Ok(entered)
    }

    /// Lets a request in that is about to be received. What comes back is held until it is answered.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when it would only wait.
    pub fn enter_unreceived(&self, kind: Kind) -> Result<UnderWay, Refusal> {
        let entered = self.overload.enter_unreceived(kind);
        if entered.is_err() {
            self.counts.refused(kind, &entered);
        }
        entered
    }

    /// As [`Requests::enter`], for what was let in and is to be done once more: it is one request all the same.
    ///
    /// # Errors
    /// As [`Requests::enter`].
    pub fn enter_again(&self, kind: Kind) -> Result<UnderWay, Refusal> {
        let entered = self.overload.enter(kind);
        self.counts.again(&entered);
        entered
    }

    /// Writes a value or a tombstone. Answers when it is as durable as configured, and every read that starts later sees
    /// it.
    ///
    /// # Errors
    /// As [`Refusal`] says. After [`Refusal::Restarting`], [`Refusal::TimedOut`] and [`Refusal::Internal`] the outcome is
    /// unknown; otherwise nothing was written.
    pub async fn write(&self, write: NewWrite) -> Result<WriteOutcome, Refusal> {
        trail::received(Some(write.key.tenant()));
        let (begun, size) = (self.time.elapsed(), (write.operation, write.value.len()));
        let outcome = within(self.timeouts.write, self.try_write(write)).await;
        self.counts.wrote(size, &outcome, self.since(begun));
        outcome
    }

    /// Everything that a key has.
    ///
    /// # Errors
    /// As [`Refusal`] says.
    pub async fn read(&self, key: Key) -> Result<Versions, Refusal> {
        trail::received(Some(key.tenant()));
        let begun = self.time.elapsed();
        let metered = self.quotas.are_any().then(|| key.clone());
        let versions = match self.quotas.admit_read(&key) {
            Ok(()) => self.read_in_time(key).await,
            Err(refusal) => Err(refusal),
        };
        if let (Some(key), Ok(versions)) = (metered, &versions) {
            self.quotas.found(&key, versions);
        }
        self.counts.read(&versions, self.since(begun));
        versions
    }

    /// As [`Requests::read`], for what the node does for itself: no tenant's quota concerns it.
    ///
    /// # Errors
    /// As [`Requests::read`].
    pub async fn read_unmetered(&self, key: Key) -> Result<Versions, Refusal> {
        let begun = self.time.elapsed();
        let versions = self.read_in_time(key).await;
        self.counts.read(&versions, self.since(begun));
        versions
    }

    /// As [`Requests::read`], for a read that was answered and is made once more: it is neither metered nor counted again.
    ///
    /// # Errors
    /// As [`Requests::read`].
    pub async fn read_again(&self, key: Key) -> Result<Versions, Refusal> {
        let versions = self.read_in_time(key).await;
        self.counts.again(&versions);
        versions
    }

    async fn read_in_time(&self, key: Key) -> Result<Versions, Refusal> {
        within(self.timeouts.read, async {
            self.read_admitted(key, self.admit_read()?).await
        })
        .await
    }

    /// Walks a range as it is now, for as long as whoever takes its entries wants. Few are open at once.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when too many scans are open, [`Refusal::ShuttingDown`], [`Refusal::DeadlineExceeded`],
    /// [`Refusal::QuotaExceeded`].
    pub fn scan(&self, range: KeyRange) -> Result<RangeWalk<WalkPermit>, Refusal> {
        trail::received(Some(&range.tenant));
        self.check_admissible()?;
        let meter = self.quotas.admit_walk(&range.tenant)?;
        let place = self.place_of_scan()?;
        Ok(self.walk(range, WalkPermit { place, meter }))
    }

    /// As [`Requests::scan`], for what the node does for itself: no tenant's quota concerns it.
    ///
    /// # Errors
    /// As [`Requests::scan`].
    pub fn walk_unmetered(&self, range: KeyRange) -> Result<RangeWalk<WalkPermit>, Refusal> {
        self.check_admissible()?;
        let place = self.place_of_scan()?;
        Ok(self.walk(range, WalkPermit { place, meter: None }))
    }

    fn place_of_scan(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = Arc::clone(&self.scans).try_acquire_owned();
        place.map_err(|_full| Refusal::Overloaded("too many scans are open"))
    }

    /// Has `work` look at a range as it is now, in its turn among the reads of tables: for what ends soon by itself.
    ///
    /// # Errors
    /// [`Refusal::TimedOut`] when its turn does not come, [`Refusal::ShuttingDown`], [`Refusal::QuotaExceeded`], and what
    /// `work` says.
    pub async fn look<T: Send + 'static>(
        &self,
        range: KeyRange,
        work: impl FnOnce(&mut dyn Iterator<Item = RangeItem>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        trail::received(Some(&range.tenant));
        self.check_admissible()?;
        let tenant = self.quotas.admit_look(&range.tenant)?;
        let (queued, limit) = (Instant::now(), self.timeouts.read);
        let turn = tokio::time::timeout(limit, Arc::clone(&self.loads).acquire_owned());
        let permit = turn.await.map_err(|_elapsed| Refusal::TimedOut(limit))?;
        let mut walk = self.walk(range, permit);
        let look = trail::as_hop(trail::WALK, queued, move || {
            let mut bytes = 0;
            let looked = work(&mut walk.by_ref().inspect(|item| {
                bytes += item
                    .as_ref()
                    .map_or(0, |(key, versions)| entry_bytes(key, versions) as u64);
            }));
            if let Some(tenant) = tenant {
                tenant.spend(bytes);
            }
            looked
        });
        let looked = self.handles.threads.run(look).await;
        trail::resumed();
        looked.map_err(|panicked| Refusal::Internal(format!("the look at the keys failed: {panicked}")))?
    }

    fn walk<P>(&self, range: KeyRange, permit: P) -> RangeWalk<P> {
        // The view first: it then holds everything up to its own end, and the number cuts off what is later. What the
        // caches were not told of yet is later: a read that follows this walk may still be answered without it.
        let view = self.handles.published.load();
        let scan = view.scan(&range.first(), self.handles.published.announced());
        RangeWalk { scan, range, permit }
    }

    /// Time since a moment that [`Time::elapsed`] told.
    pub(super) fn since(&self, begun: Duration) -> Duration {
        self.time.elapsed().saturating_sub(begun)
    }

    /// Whether the node takes requests: not while it is being stopped.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        self.accepting.load(Ordering::Acquire)
    }

    /// Refuses what comes too late: to a node that is being stopped, or behind its deadline.
    pub(super) fn check_admissible(&self) -> Result<(), Refusal> {
        if !self.is_accepting() {
            return Err(Refusal::ShuttingDown);
        }
        deadline::check()
    }

    fn admit_read(&self) -> Result<ReadPermit, Refusal> {
        self.check_admissible()?;
        self.admission.admit_reads(1)
    }

    async fn read_admitted(&self, key: Key, permit: ReadPermit) -> Result<Versions, Refusal> {
        let read = self.read_anyhow(key, permit).await;
        self.until_announced(read.iter()).await;
        read
    }

    /// Waits until all caches were told of what a read found, which is the rest of a batch's way through memory: a read of
    /// another shard, or a walk, that follows its answer might be answered without it until then.
    pub(super) async fn until_announced<'a>(&self, found: impl Iterator<Item = &'a Versions>) {
        let newest = found.flat_map(Versions::all).map(|version| version.seq).max();
        let mut looks = 0;
        while newest.is_some_and(|seq| seq > self.handles.published.announced()) {
            if looks < QUICK_LOOKS {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            looks += 1;
        }
    }

    /// Reads a key from its shard of the cache, or past it when that is down.
    async fn read_anyhow(&self, key: Key, permit: ReadPermit) -> Result<Versions, Refusal> {
        let shard = self.handles.shard_of(&key);
        let (reply, answer) = reply_port();
        let message = |told| CacheMessage::Get {
            key: key.clone(),
            reader: Port::new(reply, permit),
            told,
        };
        let sent = match self.handles.caches.get(shard) {
            Some(cache) => cache.mailbox.send(message(cache.told()), key.as_bytes().len()),
            None => Err(Undelivered::Down(message(0))),
        };
        let lost = match sent {
            Ok(()) => match answer.wait_for("the cache").await {
                Err(Refusal::Restarting(_)) => None,
                answered => return answered,
            },
            Err(Undelivered::Full(_)) => return Err(Refusal::Overloaded("the cache's mailbox is full")),
            Err(Undelivered::Down(message)) => Some(message),
        };
        // The shard is down: the view answers, and only more slowly. The lost message, and its permit, end with this.
        let read = self.read_past_cache(vec![key]).await.pop();
        drop(lost);
        read.map_or(Err(Refusal::Restarting("the cache")), |found| found.versions)
    }

    /// Reads keys from the view.
    pub(super) async fn read_past_cache(&self, keys: Vec<Key>) -> Vec<Found> {
        let read = read_view(&self.handles, &self.loads, keys).await;
        if let Some(trail) = trail::current() {
            read.iter().for_each(|found| found.note(&trail));
        }
        read
    }

    async fn try_write(&self, mut write: NewWrite) -> Result<WriteOutcome, Refusal> {
        self.check_admissible()?;
        self.quotas.admit_write(&write, 0)?;
        if let Some(clock) = write.clock.take() {
            self.check_long_clock(&write, &clock).await?;
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
    /// what a read answers, here or on the node that sends a copy.
    pub(super) async fn check_long_clock(&self, write: &NewWrite, clock: &VectorClock) -> Result<(), Refusal> {
        let entries = clock.entries();
        if entries.len() <= MAX_CLOCK_ENTRIES || write.is_copy {
            return Ok(());
        }
        let known = self
            .read_admitted(write.key.clone(), self.admission.admit_reads(1)?)
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
            trail::held_up();
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
            Ok(()) => answer.wait_for("the log or the memtable").await,
            Err(Undelivered::Full(_)) => Err(Refusal::Overloaded("the log's mailbox is full")),
            Err(Undelivered::Down(_)) => Err(Refusal::Restarting("the log")),
        }
    }
}
