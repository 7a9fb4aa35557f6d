//! CompactionActor: has tables compacted whenever something is due, by at most so many workers at once.
//!
//! Owns: when to look for work, and upkeep of the tables (setting damaged ones aside, removing replaced ones). Does not
//! own: the choice, the claims or the merge (see [`crate::storage::compaction`]). It keeps nothing: jobs that a generation
//! started go on when it ends, install their result by themselves, and its successor sees them in the record of jobs.

use crate::actors::Handles;
use crate::actors::mailbox::Envelope;
use crate::actors::reply::Reply;
use crate::actors::threads::{Priority, Threads};
use crate::actors::timers;
use crate::actors::trail::work::Work;
use crate::actors::watched::Trailed;
use crate::storage::compaction::job::Outcome;
use crate::storage::compaction::jobs::{Job, Jobs};
use crate::storage::error::{Error, Result as StorageResult};
use crate::storage::tables::Tables;
use arc_swap::ArcSwapOption;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// After a failed job, the time until the next is chosen: space that returns is used within a second.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Time between two rounds of upkeep.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// What CompactionActor is told.
#[derive(Debug)]
pub enum CompactionMessage {
    /// There may be something to compact.
    Look,
    /// A job ended.
    Done(StorageResult<Outcome>),
    /// The pause after a failed job is over.
    Retry,
    /// Time for upkeep.
    Upkeep,
    /// Choose nothing more, end what runs, and answer when it has ended.
    Stop(Reply<()>),
}

impl Trailed for CompactionMessage {}

/// What outlives the actor.
#[derive(Debug, Default)]
pub struct CompactionStats {
    /// Why the last job or upkeep failed, if it did.
    pub failing: ArcSwapOption<String>,
}

/// The actor.
pub struct CompactionActor {
    /// Where the tables are.
    pub tables: Arc<Tables>,
    /// The jobs of all generations.
    pub jobs: Arc<Jobs>,
    /// Most jobs at once; 0: none.
    pub workers: usize,
    /// What outlives it.
    pub stats: Arc<CompactionStats>,
    /// Its neighbours.
    pub handles: Handles,
}

/// What it knows.
#[derive(Default)]
pub struct CompactionState {
    /// The pause after a failed job is not over.
    pausing: bool,
    stopping: Vec<Reply<()>>,
}

impl Actor for CompactionActor {
    type Msg = Envelope<CompactionMessage>;
    type State = CompactionState;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<CompactionState, ActorProcessingErr> {
        let mailbox = self.handles.compaction.clone();
        timers::every(&myself, UPKEEP_EVERY, move || {
            mailbox.envelope(CompactionMessage::Upkeep)
        });
        Ok(CompactionState::default())
    }

    async fn post_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut CompactionState,
    ) -> Result<(), ActorProcessingErr> {
        self.start_jobs(state);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut CompactionState,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.message {
            CompactionMessage::Look => {}
            CompactionMessage::Done(Ok(outcome)) => {
                self.stats.failing.store(None);
                tracing::info!(?outcome, "compacted tables");
            }
            CompactionMessage::Done(Err(error)) => {
                if state.stopping.is_empty() {
                    tracing::error!(%error, retry_in = ?RETRY_AFTER, "tables could not be compacted");
                    self.stats.failing.store(Some(Arc::new(error.to_string())));
                }
                state.pausing = true;
                let mailbox = self.handles.compaction.clone();
                timers::after(&myself, RETRY_AFTER, move || mailbox.envelope(CompactionMessage::Retry));
            }
            CompactionMessage::Retry => state.pausing = false,
            CompactionMessage::Upkeep => self.start_upkeep(),
            CompactionMessage::Stop(reply) => {
                self.jobs.stop();
                state.stopping.push(reply);
            }
        }
        self.start_jobs(state);
        if !state.stopping.is_empty() && self.jobs.active() == 0 {
            for reply in state.stopping.drain(..) {
                reply.send(Ok(()));
            }
        }
        Ok(())
    }
}

/// Runs a job on a thread of its own, whose priority is lowered for good unless it is urgent: one of the runtime would have
/// to get it back.
///
/// # Errors
/// When there is no thread, or the job panics.
async fn run_aside(job: Job, urgent: bool, threads: &Threads) -> io::Result<StorageResult<Outcome>> {
    let (done, result) = oneshot::channel();
    let work = move || {
        // Nobody waits any more when the process ends.
        let _ = done.send(job.run());
    };
    let priority = if urgent { Priority::Ordinary } else { Priority::Low };
    threads.start("pairdb-compact", priority, work)?;
    result.await.map_err(|_| io::Error::other("the job panicked"))
}

impl CompactionActor {
    fn start_jobs(&self, state: &CompactionState) {
        while !state.pausing && self.jobs.active() < self.workers {
            let Some(job) = self.jobs.next() else {
                return;
            };
            self.start(job);
        }
    }

    fn start(&self, job: Job) {
        let (mailbox, tables) = (self.handles.compaction.clone(), Arc::clone(&self.tables));
        // Readers who leave nothing of the processors would let tables pile up.
        let urgent = self.handles.published.peek().tables.debt().is_urgent();
        let (threads, traces) = (self.handles.threads.clone(), Arc::clone(&self.handles.traces));
        let cause = traces.causes.of_compaction();
        let span = Work::begin("compaction", None, cause).with("pairdb.compaction.job", job.id());
        tokio::spawn(async move {
            let result = match run_aside(job, urgent, &threads).await {
                Ok(result) => result,
                // The claim on its tables ended with it; what it wrote is a leftover.
                Err(cause) => {
                    let swept = threads.run(move || tables.sweep());
                    let _ = swept.await;
                    Err(Error::io("compact", Path::new("tables"), cause))
                }
            };
            if result.is_ok() {
                traces.causes.changed_tables(span.context);
            }
            traces.work(traced(span, &result));
            // To whatever generation runs then; one that starts later looks by itself.
            let _ = mailbox.send_admitted(CompactionMessage::Done(result));
        });
    }

    fn start_upkeep(&self) {
        let (tables, published) = (Arc::clone(&self.tables), Arc::clone(&self.handles.published));
        let stats = Arc::clone(&self.stats);
        self.handles.threads.run(move || {
            tables.collect_garbage();
            match tables.quarantine_damaged(&published) {
                Ok(0) => {}
                Ok(tables) => tracing::error!(tables, "damaged tables were set aside; health names them"),
                Err(error) => {
                    tracing::error!(%error, "damaged tables could not be set aside; it will be tried again");
                    stats.failing.store(Some(Arc::new(error.to_string())));
                }
            }
        });
    }
}

/// The job, as a trace tells it.
fn traced(span: Work, result: &StorageResult<Outcome>) -> Work {
    match result {
        Ok(outcome) => {
            let tables = span.with("pairdb.compaction.outputs", outcome.outputs.len());
            let read = tables.with("pairdb.compaction.bytes_read", outcome.bytes_read);
            let written = read.with("pairdb.compaction.bytes_written", outcome.bytes_written);
            written.end(None)
        }
        Err(error) => span.end(Some(error.to_string())),
    }
}
