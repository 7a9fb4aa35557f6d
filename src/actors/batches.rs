//! What is done with a batch of requests: as for each of them alone, but with one message to each actor on the way.
//!
//! Each operation has an answer of its own. The writes of a batch go to the log together and share its sync; its reads go
//! to each shard of the cache together, and what is missing there is loaded together.
//!
//! What a tenant's quota refuses is left out, and the rest goes on.
//!
//! Owns: the way of a batch. Does not own: single requests (see [`crate::actors::requests`]), or how many operations a
//! batch may have.

use crate::actors::answers::{Answers, Gathering};
use crate::actors::cache::CacheMessage;
use crate::actors::mailbox::Undelivered;
use crate::actors::refusal::Refusal;
use crate::actors::reply::{TimeLimit, reply_port};
use crate::actors::requests::{CLOCKLESS_PAUSE, CLOCKLESS_TRIES, Requests};
use crate::actors::trail;
use crate::actors::wal::WalMessage;
use crate::actors::write::{NewWrite, PendingWrite, WriteClock, WriteOutcome};
use crate::storage::key::Key;
use crate::storage::log::record::Operation;
use crate::storage::memtable;
use crate::storage::version::Versions;
use std::collections::HashMap;
use std::sync::Arc;

/// A result for each operation of a batch, in its order.
pub type Results<T> = Vec<Result<T, Refusal>>;

impl Requests {
    /// Writes a batch. Each write is answered as [`Requests::write`] answers it; those of one key are applied in their
    /// order.
    pub async fn write_batch(&self, writes: Vec<NewWrite>) -> Results<WriteOutcome> {
        trail::received(tenant_of(writes.iter().map(|write| &write.key)));
        let begun = self.time.elapsed();
        let size = |write: &NewWrite| (write.operation, write.value.len());
        let sizes: Vec<_> = writes.iter().map(size).collect();
        let outcomes = match self.check_admissible() {
            Ok(()) => {
                let mut stored: HashMap<String, u64> = HashMap::new();
                let admitted = Admitted::of(writes, |write| {
                    let tenant = write.key.tenant();
                    let before = stored.get(tenant).copied().unwrap_or(0);
                    let takes = self.quotas.admit_write(write, before)?;
                    if takes > 0 {
                        stored.insert(tenant.to_owned(), before + takes);
                    }
                    Ok(())
                });
                let time = TimeLimit::from_now(self.timeouts.write);
                admitted
                    .join(async |writes| self.try_write_batch(writes, time).await)
                    .await
            }
            Err(refusal) => all(writes.len(), &refusal),
        };
        let took = self.since(begun);
        for (size, outcome) in sizes.into_iter().zip(&outcomes) {
            self.counts.wrote(size, outcome, took);
        }
        outcomes
    }

    /// Reads a batch. Each read is answered as [`Requests::read`] answers it, but that keys whose values are too large
    /// together are refused.
    pub async fn read_batch(&self, keys: Vec<Key>) -> Results<Versions> {
        trail::received(tenant_of(keys.iter()));
        let begun = self.time.elapsed();
        let results = match self.check_admissible() {
            Ok(()) => {
                let time = TimeLimit::from_now(self.timeouts.read);
                let admitted = Admitted::of(keys, |key| self.quotas.admit_read(key));
                let read = async |keys: Vec<Key>| {
                    let results = self.try_read_batch(&keys, time).await;
                    for (key, versions) in keys.iter().zip(&results) {
                        if let Ok(versions) = versions {
                            self.quotas.found(key, versions);
                        }
                    }
                    results
                };
                admitted.join(read).await
            }
            Err(refusal) => all(keys.len(), &refusal),
        };
        let took = self.since(begun);
        for result in &results {
            self.counts.read(result, took);
        }
        results
    }

    async fn try_write_batch(&self, writes: Vec<NewWrite>, time: TimeLimit) -> Results<WriteOutcome> {
        let mut outcomes: Results<WriteOutcome> = all(writes.len(), &Refusal::Restarting("the log"));
        let mut open: Vec<(usize, NewWrite)> = writes.into_iter().enumerate().collect();
        for attempt in 0..CLOCKLESS_TRIES {
            if attempt > 0 && time.sleep(CLOCKLESS_PAUSE * attempt).await.is_err() {
                for (place, _) in open {
                    if let Some(outcome) = outcomes.get_mut(place) {
                        *outcome = Err(time.refusal());
                    }
                }
                break;
            }
            // Only a write without a clock may have to be sent again.
            let kept: Vec<_> = open
                .iter()
                .filter(|(_, write)| write.clock.is_none())
                .cloned()
                .collect();
            let places: Vec<usize> = open.iter().map(|(place, _)| *place).collect();
            let answers = self
                .send_batch(open.into_iter().map(|(_, write)| write).collect(), time)
                .await;
            let mut stale = Vec::new();
            for (place, answer) in places.into_iter().zip(answers) {
                if matches!(answer, Err(Refusal::Stale)) {
                    stale.push(place);
                } else if let Some(outcome) = outcomes.get_mut(place) {
                    *outcome = answer;
                }
            }
            open = kept.into_iter().filter(|(place, _)| stale.contains(place)).collect();
            if open.is_empty() {
                break;
            }
        }
        outcomes
    }

    /// Sends writes to the log, once.
    async fn send_batch(&self, writes: Vec<NewWrite>, time: TimeLimit) -> Results<WriteOutcome> {
        let count = writes.len();
        let clocks = self.observe(&writes, time).await;
        let bytes = writes
            .iter()
            .zip(&clocks)
            .map(|(write, clock)| match clock {
                Ok(WriteClock::Given(clock) | WriteClock::Observed { clock, .. }) => {
                    memtable::charge(&write.key, &write.value, clock)
                }
                Err(_) => 0,
            })
            .sum();
        let deletes_only = writes.iter().all(|write| write.operation == Operation::Delete);
        let permit = match self.admission.admit_writes(count, bytes, deletes_only) {
            Ok((permit, delay)) => {
                if !delay.is_zero() {
                    if let Err(refusal) = time.sleep(delay).await {
                        return all(count, &refusal);
                    }
                    trail::held_up();
                }
                permit
            }
            Err(refusal) => return all(count, &refusal),
        };
        let timestamp_ms = self.time.now_ms();
        let (reply, answer) = reply_port();
        let gathering = Gathering::new(count, reply, permit);
        let mut pending = Vec::with_capacity(count);
        for (place, (write, clock)) in writes.into_iter().zip(clocks).enumerate() {
            let caller = gathering.port(place);
            match clock {
                Ok(clock) => pending.push(PendingWrite {
                    operation: write.operation,
                    key: write.key,
                    value: write.value,
                    clock,
                    timestamp_ms,
                    id: write.id,
                    caller,
                }),
                Err(refusal) => caller.send(Err(refusal)),
            }
        }
        drop(gathering);
        if !pending.is_empty() {
            match self.handles.wal.send(WalMessage::Append(pending), bytes) {
                // Without the log all answers are lost, as they are when it ends later.
                Ok(()) | Err(Undelivered::Down(_)) => {}
                Err(Undelivered::Full(_)) => return all(count, &Refusal::Overloaded("the log's mailbox is full")),
            }
        }
        match time.keep(answer.wait_for("the log or the memtable")).await {
            Ok(answers) => found(answers, "the log or the memtable"),
            Err(refusal) => all(count, &refusal),
        }
    }

    /// The clock of each write, or what can be seen of its key. All keys without a clock are read together.
    async fn observe(&self, writes: &[NewWrite], time: TimeLimit) -> Vec<Result<WriteClock, Refusal>> {
        let without: Vec<Key> = writes
            .iter()
            .filter(|write| write.clock.is_none())
            .map(|write| write.key.clone())
            .collect();
        // The number first: whatever it covers is in the answers that follow.
        let seq = self.handles.published.announced();
        let mut seen = if without.is_empty() {
            Vec::new().into_iter()
        } else {
            self.try_read_batch(&without, time).await.into_iter()
        };
        let mut clocks = Vec::with_capacity(writes.len());
        for write in writes {
            clocks.push(match &write.clock {
                Some(clock) => {
                    let checked = time.keep(self.check_long_clock(write, clock)).await;
                    checked.map(|()| WriteClock::Given(clock.clone()))
                }
                None => seen
                    .next()
                    .unwrap_or(Err(Refusal::Restarting("the cache")))
                    .map(|seen| WriteClock::Observed {
                        clock: seen.clock(),
                        seq,
                    }),
            });
        }
        clocks
    }

    async fn try_read_batch(&self, keys: &[Key], time: TimeLimit) -> Results<Versions> {
        let permit = match self.admission.admit_reads(keys.len()) {
            Ok(permit) => permit,
            Err(refusal) => return all(keys.len(), &refusal),
        };
        let mut shards: Vec<Vec<(usize, Key)>> = vec![Vec::new(); self.handles.caches.len()];
        for (place, key) in keys.iter().enumerate() {
            if let Some(shard) = shards.get_mut(self.handles.shard_of(key)) {
                shard.push((place, key.clone()));
            }
        }
        let (reply, answer) = reply_port();
        let gathering = Gathering::new(keys.len(), reply, permit);
        for (cache, keys) in self.handles.caches.iter().zip(shards) {
            if keys.is_empty() {
                continue;
            }
            let bytes = keys.iter().map(|(_, key)| key.as_bytes().len()).sum();
            let message = CacheMessage::GetBatch {
                keys,
                told: cache.told(),
                gathering: Arc::clone(&gathering),
            };
            if let Err(Undelivered::Full(CacheMessage::GetBatch { keys, .. })) = cache.mailbox.send(message, bytes) {
                for (place, _key) in keys {
                    let full = Refusal::Overloaded("the cache's mailbox is full");
                    gathering.port(place).send(Err(full));
                }
            }
        }
        drop(gathering);
        let read = async {
            let answers = answer.wait_for("the cache").await?;
            let read = self.read_lost(keys, answers).await;
            self.until_announced(read.iter().flatten()).await;
            Ok(read)
        };
        match time.keep(read).await {
            Ok(read) => read,
            Err(refusal) => all(keys.len(), &refusal),
        }
    }

    /// Reads from the view what was lost with a shard of the cache.
    async fn read_lost(&self, keys: &[Key], answers: Answers<Versions>) -> Results<Versions> {
        let lost: Vec<Key> = keys
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        if lost.is_empty() {
            return found(answers, "the cache");
        }
        let read = self.read_past_cache(lost).await;
        let mut read = read.into_iter().map(|found| found.versions);
        let restarting = Err(Refusal::Restarting("the cache"));
        answers
            .into_iter()
            .map(|answer| answer.or_else(|| read.next()).unwrap_or_else(|| restarting.clone()))
            .collect()
    }
}

/// Whose keys these are, if they are all of one tenant.
pub(super) fn tenant_of<'a>(mut keys: impl Iterator<Item = &'a Key>) -> Option<&'a str> {
    let tenant = keys.next()?.tenant();
    keys.all(|key| key.tenant() == tenant).then_some(tenant)
}

/// The operations of a batch that may be carried out, and the refusals of the others, each at its place.
struct Admitted<O> {
    operations: Vec<O>,
    refused: Vec<Option<Refusal>>,
}

impl<O> Admitted<O> {
    fn of(operations: Vec<O>, mut admit: impl FnMut(&O) -> Result<(), Refusal>) -> Self {
        let mut refused = Vec::with_capacity(operations.len());
        let mut operations = operations;
        operations.retain(|operation| {
            let refusal = admit(operation).err();
            let is_admitted = refusal.is_none();
            refused.push(refusal);
            is_admitted
        });
        Self { operations, refused }
    }

    /// The results of all operations, of which `work` finds those that may be carried out.
    async fn join<T>(self, work: impl AsyncFnOnce(Vec<O>) -> Results<T>) -> Results<T> {
        if self.operations.is_empty() {
            return self.refused.into_iter().flatten().map(Err).collect();
        }
        let results = work(self.operations).await;
        if results.len() == self.refused.len() {
            return results;
        }
        let mut results = results.into_iter();
        let lost = || Err(Refusal::Internal("the operation has no result".to_owned()));
        let places = self.refused.into_iter();
        places
            .map(|refused| match refused {
                Some(refusal) => Err(refusal),
                None => results.next().unwrap_or_else(lost),
            })
            .collect()
    }
}

fn all<T>(count: usize, refusal: &Refusal) -> Results<T> {
    (0..count).map(|_| Err(refusal.clone())).collect()
}

fn found<T>(answers: Answers<T>, component: &'static str) -> Results<T> {
    let lost = |answer: Option<_>| answer.unwrap_or(Err(Refusal::Restarting(component)));
    answers.into_iter().map(lost).collect()
}
