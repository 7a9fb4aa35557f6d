//! WalActor: the sole owner of the commit log.
//!
//! It gives each write its sequence number, gathers writes into batches, and has a thread write and sync one batch while
//! the next gathers (pipelined group commit). A batch that is durable goes on to the MemtableActor, with the callers'
//! reply ports. When it comes back after a crash it takes the log over, which closes the old segment, and sends the
//! MemtableActor every durable write that it has not applied.
//!
//! Owns: numbering, batching, the hand-off. Does not own: the format of the log, or what a write means.

mod clockless;
mod log_thread;

pub use log_thread::{SharedLog, SyncPolicy};

use crate::actors::Handles;
use crate::actors::faults::{HAND_OFF, Passed};
use crate::actors::mailbox::Envelope;
use crate::actors::memtable::MemtableMessage;
use crate::actors::refusal::Refusal;
use crate::actors::reply::Reply;
use crate::actors::timers;
use crate::actors::trail::{self, Detail, TraceContext};
use crate::actors::watched::Trailed;
use crate::actors::write::{LoggedBatch, LoggedWrite, OnTheWay, PendingWrite, WriteClock, context_of, note_logged};
use crate::storage::error::{Error, ErrorKind};
use crate::storage::idempotency::{Known, Remembered, WriteName};
use crate::storage::log::record::{Operation, encode_change, encode_note};
use crate::storage::log::writer::EncodedBatch;
use crate::storage::time::Time;
use crate::storage::version::Version;
use clockless::{ClocklessWrites, NoClock};
use log_thread::{Done, Job, LogThread};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Writes with which a batch is not kept waiting for more: the cost of the sync is spread thinly enough.
const ENOUGH_WRITES: usize = 64;

/// What WalActor is told.
#[derive(Debug)]
pub enum WalMessage {
    /// Log writes, together, and pass them on when they are durable.
    /// They are of one request.
    Append(Vec<PendingWrite>),
    /// Note in the log what named writes were answered, where that does not follow from them.
    Note(Vec<Remembered>),
    /// What has gathered may go to the log thread.
    Commit,
    /// The log thread did something.
    Done(Done),
    /// The MemtableActor has applied up to this number and wants the rest.
    Resend(u64),
    /// Everything up to this number is in tables.
    Flushed(u64),
    /// Time to look at the age of segments.
    CheckAge,
    /// Take no more writes; answer when those taken are durable and passed on. Notes are still taken.
    Finish(Reply<()>),
    /// Take nothing more; answer when what was taken is durable and passed on, and the log is ended.
    Close(Reply<()>),
}

impl Trailed for WalMessage {
    fn context(&self) -> Option<TraceContext> {
        match self {
            Self::Append(writes) => {
                let trail = writes.first().and_then(|write| write.caller.trail());
                trail.map(|trail| trail.context)
            }
            Self::Done(Done::Written { batch, .. }) => context_of(&batch.writes),
            Self::Done(Done::Ended(at)) => *at,
            _ => None,
        }
    }
}

/// Writes that go to the log together.
#[derive(Debug, Default)]
pub struct Batch {
    encoded: EncodedBatch,
    writes: Vec<LoggedWrite>,
}

impl Batch {
    /// Whether there is nothing to log, not even a note.
    fn is_empty(&self) -> bool {
        self.encoded.bytes.is_empty()
    }
}

/// How WalActor works.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// The clock entry of writes that come without a clock.
    pub node_id: String,
    /// Encoded bytes at which a batch is closed and the next begun.
    pub buffer_size: usize,
    /// When syncs happen.
    pub sync: SyncPolicy,
    /// How often the age of segments is looked at.
    pub age_check: Duration,
}

/// The actor.
pub struct WalActor {
    /// The log, shared with earlier and later generations.
    pub log: Arc<SharedLog>,
    /// How it works.
    pub options: WalOptions,
    /// What dates the segments.
    pub time: Arc<dyn Time>,
    /// Its neighbours.
    pub handles: Handles,
}

/// What it knows.
pub struct WalState {
    thread: LogThread,
    salt: u32,
    next_seq: u64,
    gathering: Batch,
    closed: VecDeque<Batch>,
    /// A batch is with the log thread.
    writing: bool,
    /// A [`WalMessage::Commit`] is in the mailbox.
    commit_queued: bool,
    /// Writes that had gathered when the commit was last put off.
    gathered_before: usize,
    clockless: ClocklessWrites,
    /// What was last sent again for a write without a clock, until it is handled or lost.
    sent_again: Weak<()>,
    /// Until the log was read back: writes with names, which may be among what is read back.
    held: Option<Vec<PendingWrite>>,
    /// No more writes are taken.
    refuses: bool,
    finishing: Option<Reply<()>>,
    closing: Option<Reply<()>>,
    /// The log was ended; it takes nothing more from this generation.
    ended: bool,
}

impl Actor for WalActor {
    type Msg = Envelope<WalMessage>;
    type State = WalState;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<WalState, ActorProcessingErr> {
        let log = Arc::clone(&self.log);
        // Waits for a batch of the generation before to reach the disk; that batch is then read back below. Whoever is killed
        // while he waits must not take over from his successor.
        let waits = Arc::new(());
        let is_waiting = Arc::downgrade(&waits);
        let take_over = move || {
            log.with(|log| {
                is_waiting.upgrade()?;
                Some((log.take_over(), log.salt(), log.last_seq()))
            })
        };
        let taken_over = self.handles.threads.run(take_over).await?;
        drop(waits);
        let (epoch, salt, last_seq) = taken_over.ok_or("its start was given up")?;
        self.handles.recent.lock().forget_above(last_seq);
        let thread = LogThread::start(
            Arc::clone(&self.log),
            epoch,
            self.options.sync,
            Arc::clone(&self.time),
            &self.handles,
            myself.clone(),
        )?;
        let state = WalState {
            thread,
            salt,
            next_seq: last_seq + 1,
            gathering: Batch::default(),
            closed: VecDeque::new(),
            writing: false,
            commit_queued: false,
            gathered_before: 0,
            clockless: ClocklessWrites::new(self.options.node_id.clone(), last_seq),
            sent_again: Weak::new(),
            held: Some(Vec::new()),
            refuses: false,
            finishing: None,
            closing: None,
            ended: false,
        };
        state.ask(Job::ReadBack(self.handles.published.applied(), None))?;
        let mailbox = self.handles.wal.clone();
        timers::every(&myself, self.options.age_check, move || {
            mailbox.envelope(WalMessage::CheckAge)
        });
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut WalState,
    ) -> Result<(), ActorProcessingErr> {
        let times = (envelope.sent, envelope.begun);
        match envelope.message {
            WalMessage::Append(writes) => {
                let trail = writes.first().and_then(|write| write.caller.trail()).cloned();
                for write in writes {
                    self.append(write, state);
                }
                if let Some(trail) = trail {
                    trail.hop("wal", times, Detail::None);
                }
                state.close_if_full(self.options.buffer_size);
                self.commit(&myself, state)
            }
            WalMessage::Note(answered) => {
                self.note(&answered, state);
                self.commit(&myself, state)
            }
            WalMessage::Commit => {
                state.commit_queued = false;
                if state.is_still_gathering() {
                    // Whoever else is ready to run gets its turn, and may bring more writes to share the sync.
                    tokio::task::yield_now().await;
                    return self.commit(&myself, state);
                }
                state.write_next()
            }
            WalMessage::Done(done) => {
                self.done(done, state)?;
                self.commit(&myself, state)
            }
            WalMessage::Resend(applied) => state.ask(Job::ReadBack(applied, None)),
            WalMessage::Flushed(seq) => state.ask(Job::DeleteFlushed(seq)),
            WalMessage::CheckAge => state.ask(Job::CheckAge),
            WalMessage::Finish(reply) => {
                state.refuses = true;
                state.finishing = Some(reply);
                state.write_next()
            }
            WalMessage::Close(reply) => {
                state.refuses = true;
                state.closing = Some(reply);
                state.write_next()
            }
        }
    }
}

impl WalActor {
    /// Has what has gathered go to the log thread, when it is free: at once when it is enough (what still waits in the
    /// mailbox gathers while it is synced), otherwise behind everything that already waits.
    fn commit(&self, myself: &ActorRef<Envelope<WalMessage>>, state: &mut WalState) -> Result<(), ActorProcessingErr> {
        if state.gathering.writes.len() >= ENOUGH_WRITES {
            return state.write_next();
        }
        if !state.writing && !state.commit_queued && state.has_batch() {
            state.commit_queued = true;
            myself.send_message(self.handles.wal.envelope(WalMessage::Commit))?;
        }
        Ok(())
    }

    fn append(&self, write: PendingWrite, state: &mut WalState) {
        let refusal = if state.refuses {
            Some(Refusal::ShuttingDown)
        } else if !write.caller.is_awaited() {
            // From here on it would be carried out.
            Some(Refusal::DeadlineExceeded)
        } else {
            self.log.latched().map(|cause| {
                Refusal::from(&Error::Latched {
                    cause: cause.to_string(),
                })
            })
        };
        if let Some(refusal) = refusal {
            write.caller.send(Err(refusal));
            return;
        }
        let Some(write) = self.unless_remembered(write, state) else {
            return;
        };
        let seq = state.next_seq;
        let clock = match write.clock {
            WriteClock::Given(clock) => Ok(clock),
            WriteClock::Observed {
                clock,
                seq: observed_seq,
            } => state.clockless.assign(&write.key, &clock, observed_seq, seq),
        };
        let clock = match clock {
            Ok(clock) => clock,
            Err(NoClock::Stale) => {
                // The memtable may lack what a lost message brought it; it is sent again before the next look. Not while that
                // is on its way already: to a memtable that stands still each look would send all of it once more.
                if state.sent_again.strong_count() == 0 {
                    let on_the_way = OnTheWay::default();
                    state.sent_again = Arc::downgrade(&on_the_way);
                    let _ = state.ask(Job::ReadBack(self.handles.published.applied(), Some(on_the_way)));
                }
                write.caller.send(Err(Refusal::Stale));
                return;
            }
            Err(NoClock::TooManyEntries(entries)) => {
                write.caller.send(Err(Refusal::ClockTooLarge(entries)));
                return;
            }
        };
        let version = Version {
            clock,
            value: write.value,
            timestamp_ms: write.timestamp_ms,
            seq,
        };
        let deletes = write.operation == Operation::Delete;
        let encoded = &mut state.gathering.encoded;
        encoded.deletes_only = deletes && (state.gathering.writes.is_empty() || encoded.deletes_only);
        let id = write.id.as_deref();
        if let Err(error) = encode_change(
            &mut encoded.bytes,
            state.salt,
            write.operation,
            &write.key,
            &version,
            id,
        ) {
            write
                .caller
                .send(Err(Refusal::Internal(format!("cannot encode the write: {error}"))));
            return;
        }
        encoded.last_seq = seq;
        state.next_seq += 1;
        let logged = LoggedWrite {
            key: write.key,
            version,
            id: write.id,
            caller: Some(write.caller),
        };
        self.begin(&logged);
        state.gathering.writes.push(logged);
    }

    /// Returns a write that is to be logged. One whose name is remembered is answered as the first was, or joins it when
    /// that is still under way.
    fn unless_remembered(&self, write: PendingWrite, state: &mut WalState) -> Option<PendingWrite> {
        let Some(id) = &write.id else {
            return Some(write);
        };
        if let Some(held) = &mut state.held {
            held.push(write);
            return None;
        }
        let name = WriteName {
            key: write.key.clone(),
            id: id.clone(),
        };
        let mut recent = self.handles.recent.lock();
        match recent.find(&name, self.time.now_ms()) {
            Known::New => return Some(write),
            Known::UnderWay(waiting) => waiting.push(write.caller),
            Known::Answered(outcome) => write.caller.send(Ok(outcome.clone())),
        }
        None
    }

    /// Takes note that a write with a name is in the log, or on the way there.
    fn begin(&self, write: &LoggedWrite) {
        if let Some(name) = write.name() {
            let version = &write.version;
            let mut recent = self.handles.recent.lock();
            recent.begin(name, version.seq, version.timestamp_ms, version.clock.clone());
        }
    }

    fn note(&self, answered: &[Remembered], state: &mut WalState) {
        if state.ended || state.closing.is_some() {
            return;
        }
        for write in answered {
            let bytes = &mut state.gathering.encoded.bytes;
            if let Err(error) = encode_note(bytes, state.salt, state.next_seq - 1, write) {
                tracing::warn!(%error, "an answer cannot be noted in the log");
            }
        }
    }

    fn done(&self, done: Done, state: &mut WalState) -> Result<(), ActorProcessingErr> {
        match done {
            Done::Written {
                batch,
                previous_seq,
                result,
                logged,
            } => {
                state.writing = false;
                note_logged(&batch.writes, logged.as_ref());
                match result {
                    // Of notes alone nobody needs to know.
                    Ok(()) if batch.writes.is_empty() => {}
                    Ok(()) => self.pass_on(LoggedBatch {
                        previous_seq,
                        writes: batch.writes,
                        on_the_way: None,
                    })?,
                    Err(error) if error.kind() == ErrorKind::DiskFull && !batch.encoded.deletes_only => {
                        // Deletes have a reserve. They go first: what was numbered behind them must not overtake them.
                        if let Some(deletes) = self.refuse_all_but_deletes(batch, &error, state.salt) {
                            state.closed.push_front(deletes);
                        }
                    }
                    Err(error) => {
                        self.refuse(batch, &error);
                        if matches!(error, Error::Fenced) && !state.ended && state.closing.is_none() {
                            // Only a later generation may have the log; were there none, the next one takes it over.
                            return Err(error.into());
                        }
                    }
                }
                if state.refuses { state.write_next() } else { Ok(()) }
            }
            Done::ReadBack {
                applied,
                result,
                on_the_way,
            } => {
                let writes: Vec<LoggedWrite> = result?
                    .into_iter()
                    .map(|change| LoggedWrite {
                        key: change.key,
                        version: change.version,
                        id: change.id,
                        caller: None,
                    })
                    .collect();
                writes.iter().for_each(|write| self.begin(write));
                if !writes.is_empty() {
                    tracing::info!(writes = writes.len(), applied, "sent again what the memtable lacked");
                    self.pass_on(LoggedBatch {
                        previous_seq: applied,
                        writes,
                        on_the_way,
                    })?;
                }
                for write in state.held.take().unwrap_or_default() {
                    self.append(write, state);
                }
                state.close_if_full(self.options.buffer_size);
                Ok(())
            }
            Done::Overdue => {
                // A MemtableActor that is down flushes what is sealed when it is back; the next check asks again.
                let _ = self.handles.memtable.send_admitted(MemtableMessage::Seal);
                Ok(())
            }
            Done::UpkeepFailed(error) => {
                tracing::warn!(%error, "upkeep of the commit log failed; it will be tried again");
                Ok(())
            }
            Done::Closed(result) => {
                state.ended = true;
                if let Some(reply) = state.closing.take() {
                    reply.send(result.map_err(|error| Refusal::from(&error)));
                }
                Ok(())
            }
            Done::Ended(_at) => Err("the log thread ended".into()),
        }
    }

    fn pass_on(&self, batch: LoggedBatch) -> Result<(), ActorProcessingErr> {
        if self.handles.faults.pass("wal", HAND_OFF)? == Passed::On {
            // When it is down, the callers learn from their dropped ports that the outcome is unknown, and the restarted
            // MemtableActor asks for everything that it lacks.
            let _ = self.handles.memtable.send_admitted(MemtableMessage::Apply(batch));
        }
        Ok(())
    }

    /// Refuses the writes of a batch that are not deletes. Returns those that are, encoded on their own.
    fn refuse_all_but_deletes(&self, batch: Batch, error: &Error, salt: u32) -> Option<Batch> {
        let is_delete = |write: &LoggedWrite| write.version.value.live().is_none();
        let (deletes, others): (Vec<_>, Vec<_>) = batch.writes.into_iter().partition(is_delete);
        let others = Batch {
            writes: others,
            ..Batch::default()
        };
        self.refuse(others, error);
        let mut kept = Batch::default();
        kept.encoded.deletes_only = true;
        for write in deletes {
            let (bytes, id) = (&mut kept.encoded.bytes, write.id.as_deref());
            if encode_change(bytes, salt, Operation::Delete, &write.key, &write.version, id).is_ok() {
                kept.encoded.last_seq = write.version.seq;
                kept.writes.push(write);
            }
        }
        (!kept.writes.is_empty()).then_some(kept)
    }

    fn refuse(&self, batch: Batch, error: &Error) {
        let writes = batch.writes.len();
        // All of them failed alike: by one of their traces it is found what else happened.
        trail::say_at(context_of(&batch.writes), || {
            tracing::error!(%error, writes, "a batch could not be logged");
        });
        for write in batch.writes {
            let mut waiting = Vec::new();
            if let Some(name) = write.name() {
                waiting = self.handles.recent.lock().fail(&name, write.version.seq);
            }
            for caller in waiting.into_iter().chain(write.caller) {
                caller.send(Err(Refusal::from(error)));
            }
        }
    }
}

impl WalState {
    fn ask(&self, job: Job) -> Result<(), ActorProcessingErr> {
        self.thread.send(job).map_err(|_job| "the log thread has ended".into())
    }

    fn has_batch(&self) -> bool {
        !self.gathering.is_empty() || !self.closed.is_empty()
    }

    /// Begins the next batch when this one is large enough. Asked between messages: what was sent together is logged
    /// together.
    fn close_if_full(&mut self, bytes: usize) {
        if self.gathering.encoded.bytes.len() >= bytes {
            self.closed.push_back(std::mem::take(&mut self.gathering));
        }
    }

    /// Whether writes still arrive: some have since this was last asked. Then a little patience makes the batch larger,
    /// and a sync costs as much for many writes as for one. With one client it costs one turn of the scheduler.
    fn is_still_gathering(&mut self) -> bool {
        let gathered = self.gathering.writes.len();
        let more = gathered < ENOUGH_WRITES && self.closed.is_empty() && gathered > self.gathered_before;
        self.gathered_before = if more { gathered } else { 0 };
        more
    }

    /// Hands the next batch to the log thread, when it is free. When none is left, says so to whoever waits for that, and has
    /// the log closed, if it is to be.
    fn write_next(&mut self) -> Result<(), ActorProcessingErr> {
        if self.writing {
            return Ok(());
        }
        let next = match self.closed.pop_front() {
            Some(batch) => batch,
            None if self.gathering.is_empty() => {
                if let Some(finishing) = self.finishing.take() {
                    finishing.send(Ok(()));
                }
                return if self.closing.is_some() {
                    self.ask(Job::Close)
                } else {
                    Ok(())
                };
            }
            None => std::mem::take(&mut self.gathering),
        };
        self.writing = true;
        self.ask(Job::Write(next))
    }
}
