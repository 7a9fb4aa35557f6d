//! MemtableActor: the sole writer of the memtables.
//!
//! It applies durable writes in the order of the log, feeds them to the taps of streams, if there are any, tells the cache
//! shards, and then answers the callers. A batch that does not join what was applied before is dropped, and everything
//! missing asked for again, so that a lost message leaves no hole. The skip lists live in the published view: when the
//! actor comes back it goes on behind the last number applied.
//!
//! Owns: applying, sealing, and the answer to a write. Does not own: flushing, or what the log holds.

use crate::actors::Handles;
use crate::actors::faults::Injected;
use crate::actors::flush::FlushMessage;
use crate::actors::mailbox::Envelope;
use crate::actors::reply::Reply;
use crate::actors::trail::{self, Detail, TraceContext, Trail};
use crate::actors::wal::WalMessage;
use crate::actors::watched::Trailed;
use crate::actors::write::{Caller, LoggedBatch, WriteOutcome, context_of};
use crate::storage::idempotency::{Remembered, WriteName};
use crate::storage::key::Key;
use crate::storage::version::{MAX_SIBLINGS, Version};
use crate::storage::view::ReadView;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

/// What MemtableActor is told.
#[derive(Debug)]
pub enum MemtableMessage {
    /// Apply durable writes.
    Apply(LoggedBatch),
    /// Seal what is in memory, however little, so that it is flushed.
    Seal,
    /// A sealed memtable is now a table.
    Flushed,
    /// Answer when everything sent before was applied.
    Settle(Reply<()>),
}

impl Trailed for MemtableMessage {
    fn context(&self) -> Option<TraceContext> {
        match self {
            Self::Apply(batch) => context_of(&batch.writes),
            _ => None,
        }
    }
}

/// Counts that outlive the actor.
#[derive(Debug, Default)]
pub struct MemtableStats {
    /// Siblings merged away to keep the bound.
    pub siblings_merged: AtomicU64,
}

/// The actor.
pub struct MemtableActor {
    /// A memtable of this many bytes is sealed.
    pub flush_threshold: usize,
    /// Most memtables at a time, the active one included.
    pub num_mem_tables: usize,
    /// Counts.
    pub stats: Arc<MemtableStats>,
    /// Its neighbours.
    pub handles: Handles,
}

impl Actor for MemtableActor {
    type Msg = Envelope<MemtableMessage>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_start(&self, _myself: ActorRef<Self::Msg>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.answer_the_applied();
        self.ask_for_the_rest();
        self.nudge_flush();
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match envelope.message {
            MemtableMessage::Apply(batch) => self.apply(batch, envelope.begun)?,
            MemtableMessage::Seal => {
                let _writer = self.handles.published.writer();
                self.seal(1);
            }
            MemtableMessage::Flushed => {
                let _writer = self.handles.published.writer();
                self.seal(self.flush_threshold);
            }
            MemtableMessage::Settle(reply) => reply.send(Ok(())),
        }
        Ok(())
    }
}

/// A write that is applied and waits for its answer.
struct Answer {
    caller: Option<Caller>,
    /// Its name, if it has one, its number, and whether its answer follows from itself.
    named: Option<(WriteName, u64, bool)>,
    outcome: WriteOutcome,
}

impl Answer {
    fn trail(&self) -> Option<&Arc<Trail>> {
        self.caller.as_ref().and_then(Caller::trail)
    }
}

/// Sees to it that what is applied is not kept from the caches, whatever ends the applying: who reads past them finds it
/// in the view from then on, and must not be told less by a cache later.
struct Announcing<'a>(&'a Handles);

impl Drop for Announcing<'_> {
    fn drop(&mut self) {
        let published = &self.0.published;
        if published.announced() < published.applied() {
            for cache in self.0.caches.iter() {
                cache.pass_over(published.applied());
            }
            published.set_announced(published.applied());
        }
    }
}

impl MemtableActor {
    fn apply(&self, batch: LoggedBatch, begun: Instant) -> Result<(), Injected> {
        let published = &self.handles.published;
        let writer = published.writer();
        if batch.previous_seq > published.applied() {
            tracing::warn!(
                applied = published.applied(),
                previous_seq = batch.previous_seq,
                "writes before this batch are missing; asking the log for them"
            );
            self.ask_for_the_rest();
            return Ok(());
        }
        let middle = batch.writes.len() / 2;
        let mut answers = Vec::with_capacity(batch.writes.len());
        let mut changed: Vec<Vec<(Key, Version)>> = vec![Vec::new(); self.handles.caches.len()];
        let before = published.applied();
        let mut fed = (!self.handles.taps.is_idle()).then(Vec::new);
        let mut view = published.load();
        let announcing = Announcing(&self.handles);
        for (place, write) in batch.writes.into_iter().enumerate() {
            if place == middle {
                self.pass("mid-batch")?;
            }
            let seq = write.version.seq;
            // What was applied before it was sent again is known already.
            let mut applied = None;
            if seq > published.applied() {
                let shard = self.handles.shard_of(&write.key);
                if let Some(changes) = changed.get_mut(shard) {
                    changes.push((write.key.clone(), write.version.clone()));
                }
                if let Some(fed) = &mut fed {
                    fed.push((write.key.clone(), write.version.clone()));
                }
                let done = view.active.apply(&write.key, write.version.clone(), MAX_SIBLINGS);
                self.stats
                    .siblings_merged
                    .fetch_add(done.siblings_merged as u64, Ordering::Relaxed);
                published.set_applied(seq);
                applied = Some(done);
            }
            if write.caller.is_some() || write.id.is_some() {
                let outcome = match applied {
                    // With nothing sealed, the active memtable is all that memory knows.
                    Some(applied) if view.sealed.is_empty() => WriteOutcome {
                        clock: applied.clock.join(&write.version.clock),
                        applied: applied.kept,
                    },
                    _ => outcome(&view, &write.key, &write.version),
                };
                let named = write.name().map(|name| {
                    let is_plain = outcome.applied && outcome.clock == write.version.clock;
                    (name, seq, is_plain)
                });
                answers.push(Answer {
                    caller: write.caller,
                    named,
                    outcome,
                });
            }
            if view.active.bytes() >= self.flush_threshold {
                let by = answers.last().and_then(Answer::trail);
                let by = by.and_then(|trail| trail.context.if_sampled());
                self.handles.traces.causes.filled(view.active.id(), by);
                if self.seal(self.flush_threshold) {
                    view = published.load();
                }
            }
        }
        if let Some(fed) = fed {
            self.handles.taps.feed(before, published.applied(), &fed);
        }
        for (cache, changes) in self.handles.caches.iter().zip(changed) {
            if !changes.is_empty() {
                cache.tell(changes, published.applied());
            }
        }
        published.set_announced(published.applied());
        drop(announcing);
        drop(writer);
        self.pass("before-answer")?;
        let times = (begun, Instant::now());
        trail::each(answers.iter().filter_map(Answer::trail), |trail| {
            trail.hop_on("memtable", times, Detail::None);
        });
        self.answer(answers);
        Ok(())
    }

    fn pass(&self, point: &'static str) -> Result<(), Injected> {
        self.handles.faults.pass("memtable", point).map(|_on| ())
    }

    /// Answers, also those who sent the same write again meanwhile.
    fn answer(&self, answers: Vec<Answer>) {
        let mut notes = Vec::new();
        for answer in answers {
            let mut waiting = Vec::new();
            if let Some((name, seq, is_plain)) = answer.named {
                let answered = self.handles.recent.lock().answer(&name, seq, answer.outcome.clone());
                if let Some((remembered, joined)) = answered {
                    waiting = joined;
                    notes.extend((!is_plain).then_some(remembered));
                }
            }
            for caller in waiting.into_iter().chain(answer.caller) {
                caller.send(Ok(answer.outcome.clone()));
            }
        }
        if !notes.is_empty() {
            // Without it the answer is known as long as this process lives.
            let _ = self.handles.wal.send_admitted(WalMessage::Note(notes));
        }
    }

    /// Answers those named writes that the generation before applied, and ended before it could.
    fn answer_the_applied(&self) {
        let published = &self.handles.published;
        let (view, applied) = (published.load(), published.applied());
        let left = self.handles.recent.lock().under_way().into_iter();
        let answer = |write: Remembered| {
            let clock = write.outcome.clock;
            let known = view.get_in_memory(&write.name.key);
            let outcome = WriteOutcome {
                applied: known.all().iter().any(|v| v.seq == write.seq),
                clock: known.clock().join(&clock),
            };
            let is_plain = outcome.applied && outcome.clock == clock;
            Answer {
                caller: None,
                named: Some((write.name, write.seq, is_plain)),
                outcome,
            }
        };
        self.answer(left.filter(|write| write.seq <= applied).map(answer).collect());
    }

    /// Seals the active memtable when it holds at least `threshold` bytes and there may be one more. The caller has the
    /// writer's right.
    fn seal(&self, threshold: usize) -> bool {
        let view = self.handles.published.load();
        let memtables = view.sealed.len() + 1;
        if view.active.is_empty() || view.active.bytes() < threshold || memtables >= self.num_mem_tables {
            return false;
        }
        let id = view.active.id() + 1;
        self.handles.traces.causes.sealed(view.active.id());
        self.handles.published.update(|view| view.rotated(id));
        self.nudge_flush();
        true
    }

    fn nudge_flush(&self) {
        // A FlushActor that is down looks at the view when it is back.
        let _ = self.handles.flush.send_admitted(FlushMessage::Flush);
    }

    fn ask_for_the_rest(&self) {
        // A WalActor that is down reads back by itself when it is back.
        let applied = self.handles.published.applied();
        let _ = self.handles.wal.send_admitted(WalMessage::Resend(applied));
    }
}

fn outcome(view: &ReadView, key: &Key, version: &Version) -> WriteOutcome {
    let known = view.get_in_memory(key);
    WriteOutcome {
        clock: known.clock().join(&version.clock),
        applied: known
            .all()
            .iter()
            .any(|v| v.clock == version.clock && v.value == version.value),
    }
}
