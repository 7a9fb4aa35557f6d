//! FlushActor: makes L0 tables of sealed memtables, the oldest first.
//!
//! Owns: one flush at a time, its repetition after a failure, and telling the others. Does not own: sealing, or the
//! format of tables. It keeps nothing: after a crash it sweeps unfinished files and starts over from the view.

use crate::actors::Handles;
use crate::actors::compaction::CompactionMessage;
use crate::actors::mailbox::Envelope;
use crate::actors::memtable::MemtableMessage;
use crate::actors::refusal::Refusal;
use crate::actors::reply::Reply;
use crate::actors::timers;
use crate::actors::trail;
use crate::actors::trail::work::Work;
use crate::actors::wal::WalMessage;
use crate::actors::watched::Trailed;
use crate::storage::error::Result as StorageResult;
use crate::storage::histogram::Histogram;
use crate::storage::memtable;
use crate::storage::tables::{Flushed, Tables};
use crate::storage::time::Time;
use arc_swap::ArcSwapOption;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// After a failed flush, the time until the next attempt: space that returns is used within a second.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Time between two looks at the view by itself: a nudge that got lost delays a flush, and no more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What FlushActor is told.
#[derive(Debug)]
pub enum FlushMessage {
    /// There may be something to flush.
    Flush,
    /// A flush ended.
    Done(StorageResult<Flushed>),
    /// Answer when no sealed memtable is left.
    Settle(Reply<()>),
}

impl Trailed for FlushMessage {}

/// Counts that outlive the actor.
#[derive(Debug)]
pub struct FlushStats {
    /// Tables written.
    pub flushes: AtomicU64,
    /// Bytes of tables written.
    pub bytes: AtomicU64,
    /// How long they took.
    pub time: Histogram,
    /// Why the last attempt failed, if it did.
    pub failing: ArcSwapOption<String>,
}

impl Default for FlushStats {
    fn default() -> Self {
        Self {
            flushes: AtomicU64::default(),
            bytes: AtomicU64::default(),
            time: Histogram::of_long_durations(),
            failing: ArcSwapOption::empty(),
        }
    }
}

/// The actor.
pub struct FlushActor {
    /// Where tables go.
    pub tables: Arc<Tables>,
    /// Counts.
    pub stats: Arc<FlushStats>,
    /// What paces the giving back of memory.
    pub time: Arc<dyn Time>,
    /// Its neighbours.
    pub handles: Handles,
}

/// What it knows.
pub struct FlushState {
    /// A flush, or the pause after a failed one, is under way.
    busy: bool,
    /// Leftovers of an earlier generation were swept.
    swept: bool,
    waiting: Vec<Reply<()>>,
}

impl Actor for FlushActor {
    type Msg = Envelope<FlushMessage>;
    type State = FlushState;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<FlushState, ActorProcessingErr> {
        let mailbox = self.handles.flush.clone();
        timers::every(&myself, LOOK_EVERY, move || mailbox.envelope(FlushMessage::Flush));
        Ok(FlushState {
            busy: false,
            swept: false,
            waiting: Vec::new(),
        })
    }

    async fn post_start(&self, myself: ActorRef<Self::Msg>, state: &mut FlushState) -> Result<(), ActorProcessingErr> {
        self.start_next(&myself, state);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut FlushState,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.message {
            FlushMessage::Flush => self.start_next(&myself, state),
            FlushMessage::Settle(reply) => {
                state.waiting.push(reply);
                self.start_next(&myself, state);
            }
            FlushMessage::Done(Ok(flushed)) => {
                state.busy = false;
                state.swept = true;
                self.flushed(flushed);
                self.start_next(&myself, state);
            }
            FlushMessage::Done(Err(error)) => {
                self.stats.failing.store(Some(Arc::new(error.to_string())));
                // Those who wait are told; the flush itself is tried until it succeeds.
                for reply in state.waiting.drain(..) {
                    reply.send(Err(Refusal::from(&error)));
                }
                state.busy = false;
                let mailbox = self.handles.flush.clone();
                timers::after(&myself, RETRY_AFTER, move || mailbox.envelope(FlushMessage::Flush));
            }
        }
        Ok(())
    }
}

impl FlushActor {
    fn start_next(&self, myself: &ActorRef<Envelope<FlushMessage>>, state: &mut FlushState) {
        if state.busy {
            return;
        }
        let Some(oldest) = self.handles.published.load().sealed.first().cloned() else {
            for reply in state.waiting.drain(..) {
                reply.send(Ok(()));
            }
            return;
        };
        state.busy = true;
        let (tables, published) = (Arc::clone(&self.tables), Arc::clone(&self.handles.published));
        let (myself, mailbox, sweep) = (myself.clone(), self.handles.flush.clone(), !state.swept);
        let (time, threads) = (Arc::clone(&self.time), self.handles.threads.clone());
        let (stats, begun) = (Arc::clone(&self.stats), self.time.elapsed());
        let (traces, id) = (Arc::clone(&self.handles.traces), oldest.id());
        let (sealed, cause) = traces.causes.of_flush(id);
        let span = Work::begin("flush", sealed, cause)
            .with("pairdb.memtable.id", id)
            .with("pairdb.memtable.bytes", oldest.bytes());
        let context = span.context;
        let flush = async move {
            let work = threads.run_long("pairdb-flush", move || {
                let swept = if sweep { tables.sweep() } else { Ok(()) };
                (swept.and_then(|()| tables.flush(&oldest, &published)), oldest)
            });
            match work.await {
                Ok((result, memtable)) => {
                    let flushed = result.is_ok();
                    // Counted here, where it is known whatever became of the actor meanwhile.
                    if let Ok(Flushed {
                        table: Some(table),
                        bytes,
                        seq,
                    }) = result
                    {
                        stats.time.observe(time.elapsed().saturating_sub(begun));
                        stats.flushes.fetch_add(1, Ordering::Relaxed);
                        stats.bytes.fetch_add(bytes, Ordering::Relaxed);
                        tracing::info!(table, bytes, seq, "flushed a memtable");
                    }
                    if flushed {
                        traces.causes.flushed(id, span.context);
                    }
                    if let Err(error) = &result {
                        tracing::error!(%error, retry_in = ?RETRY_AFTER, "a memtable could not be flushed");
                    }
                    traces.work(traced(span, &result));
                    // To this generation only: a successor starts over by itself.
                    let _ = myself.send_message(mailbox.envelope(FlushMessage::Done(result)));
                    if flushed {
                        threads.run(move || memtable::free(memtable, time.as_ref()));
                    }
                }
                Err(panicked) => myself.stop(Some(format!("the flush failed: {panicked}"))),
            }
        };
        tokio::spawn(trail::as_work(context, flush));
    }

    fn flushed(&self, flushed: Flushed) {
        self.stats.failing.store(None);
        // All learn from a later flush what they miss of this one.
        let _ = self.handles.memtable.send_admitted(MemtableMessage::Flushed);
        let _ = self.handles.compaction.send_admitted(CompactionMessage::Look);
        let _ = self.handles.wal.send_admitted(WalMessage::Flushed(flushed.seq));
    }
}

/// The flush, as a trace tells it.
fn traced(span: Work, result: &StorageResult<Flushed>) -> Work {
    match result {
        Ok(Flushed {
            table: Some(table),
            bytes,
            ..
        }) => {
            let span = span.with("pairdb.table.id", *table).with("pairdb.table.bytes", *bytes);
            span.end(None)
        }
        Ok(_nothing) => span.end(None),
        Err(error) => span.end(Some(error.to_string())),
    }
}
