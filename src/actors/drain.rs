//! Draining: the node takes no more writes, and makes tables of all that it holds in memory. Reads go on.
//!
//! Owns: the order of that (stop admitting, mark it durably, wait for the writes under way, flush), and its end. Does not
//! own: refusing writes (see [`crate::actors::admission`]), or flushing. It is finished whatever becomes of who asked
//! for it, and by the next start of the node if need be.

use crate::actors::Handles;
use crate::actors::admission::Admission;
use crate::actors::maintenance::{FlushWithin, flush_memory};
use crate::actors::refusal::Refusal;
use crate::actors::wal::SharedLog;
use crate::storage::drain_mark;
use crate::storage::error::Error;
use crate::storage::fs::FileSystem;
use crate::storage::time::Time;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

/// How often it looks whether writes are still under way, or something has come into memory.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// And after what time it tries again what failed: each try may be one more failed flush.
const RETRY_AFTER: Duration = Duration::from_millis(250);
const FLUSH_WITHIN: FlushWithin = FlushWithin {
    seal: Duration::from_secs(10),
    flush: Duration::from_secs(120),
};

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainPhase {
    /// The node takes writes.
    Serving,
    /// It takes none, and has not written everything to tables yet.
    Draining,
    /// It takes none, and holds nothing in memory.
    Drained,
}

/// What is drained, and where the mark is.
#[derive(Clone)]
pub struct Drained {
    /// What admits writes.
    pub admission: Arc<Admission>,
    /// The actors.
    pub handles: Handles,
    /// The log.
    pub log: Arc<SharedLog>,
    /// Where files are.
    pub fs: Arc<dyn FileSystem>,
    /// The data directory.
    pub dir: PathBuf,
    /// What dates the mark.
    pub time: Arc<dyn Time>,
}

/// Drains the node, and ends that.
pub struct Drain {
    node: Drained,
    phase: watch::Sender<DrainPhase>,
    /// Orders beginning and ending; holds the work that goes on.
    work: Mutex<Option<JoinHandle<()>>>,
}

impl Drain {
    /// A node that takes writes, or, with a mark of an earlier process, one that goes on draining.
    #[must_use]
    pub fn new(node: Drained, is_marked: bool) -> Arc<Self> {
        let (phase, _) = watch::channel(DrainPhase::Serving);
        let drain = Self {
            node,
            phase,
            work: Mutex::new(None),
        };
        if is_marked {
            tracing::warn!("the node is draining: it takes no writes until `pairdb-node undrain`");
            drain.node.admission.set_draining(true);
            let work = drain.start();
            return Arc::new(Self {
                work: Mutex::new(Some(work)),
                ..drain
            });
        }
        Arc::new(drain)
    }

    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> DrainPhase {
        *self.phase.borrow()
    }

    /// Stops writes at once, and has the rest done. When this returns, a restart changes nothing about it.
    ///
    /// # Errors
    /// When the mark cannot be written: the node then takes writes as before.
    pub async fn begin(self: &Arc<Self>) -> Result<(), Refusal> {
        let this = Arc::clone(self);
        // Not given up half-way with a caller who goes away.
        finish(tokio::spawn(async move { this.begin_now().await })).await
    }

    /// Waits until it is drained, for at most `limit`; says how far it is then.
    pub async fn settled(&self, limit: Duration) -> DrainPhase {
        let mut phase = self.phase.subscribe();
        let settled = phase.wait_for(|phase| *phase != DrainPhase::Draining);
        let _ = tokio::time::timeout(limit, settled).await;
        self.phase()
    }

    /// Takes writes again. When this returns, a restart changes nothing about it.
    ///
    /// # Errors
    /// When the mark cannot be removed: the node then takes no writes, as before.
    pub async fn end(self: &Arc<Self>) -> Result<(), Refusal> {
        let this = Arc::clone(self);
        finish(tokio::spawn(async move { this.end_now().await })).await
    }

    /// Gives up what goes on: the node stops. The mark stays, and the next start goes on with it.
    pub fn stop(&self) {
        // Whoever has it is at the disk, which the end of the node does not wait for.
        if let Some(work) = self.work.try_lock().ok().and_then(|mut work| work.take()) {
            work.abort();
        }
    }

    async fn begin_now(&self) -> Result<(), Refusal> {
        let mut work = self.work.lock().await;
        if self.phase() != DrainPhase::Serving {
            return Ok(());
        }
        self.node.admission.set_draining(true);
        let since_ms = self.node.time.now_ms();
        let marked = self.on_disk(move |node| drain_mark::set(node.fs.as_ref(), &node.dir, since_ms));
        if let Err(refusal) = marked.await {
            self.node.admission.set_draining(false);
            return Err(refusal);
        }
        tracing::info!("draining: no more writes are taken");
        *work = Some(self.start());
        Ok(())
    }

    async fn end_now(&self) -> Result<(), Refusal> {
        let mut work = self.work.lock().await;
        self.on_disk(|node| drain_mark::clear(node.fs.as_ref(), &node.dir))
            .await?;
        if let Some(work) = work.take() {
            work.abort();
            // It says nothing more of its progress once it has ended.
            let _ = work.await;
        }
        self.phase.send_replace(DrainPhase::Serving);
        self.node.admission.set_draining(false);
        tracing::info!("draining was ended: writes are taken");
        Ok(())
    }

    fn start(&self) -> JoinHandle<()> {
        self.phase.send_replace(DrainPhase::Draining);
        tokio::spawn(self.node.clone().empty(self.phase.clone()))
    }

    async fn on_disk(&self, work: impl FnOnce(&Drained) -> Result<(), Error> + Send + 'static) -> Result<(), Refusal> {
        let node = self.node.clone();
        let threads = node.handles.threads.clone();
        let done = threads.run(move || work(&node).map_err(|error| Refusal::from(&error)));
        finish(done).await
    }
}

async fn finish(task: JoinHandle<Result<(), Refusal>>) -> Result<(), Refusal> {
    task.await
        .unwrap_or_else(|failed| Err(Refusal::Internal(format!("it failed: {failed}"))))
}

impl Drained {
    /// Waits for the writes under way and flushes, until nothing is left in memory.
    async fn empty(self, phase: watch::Sender<DrainPhase>) {
        while self.admission.stats().writes > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        loop {
            let flushed = flush_memory(&self.handles, FLUSH_WITHIN).await;
            if flushed.is_ok() && self.is_empty().await {
                break;
            }
            let pause = match flushed {
                Ok(()) => LOOK_EVERY,
                Err(why) => {
                    tracing::debug!(%why, "not drained yet");
                    RETRY_AFTER
                }
            };
            tokio::time::sleep(pause).await;
        }
        tracing::info!("drained: everything is in tables");
        phase.send_replace(DrainPhase::Drained);
    }

    /// Whether nothing is in memory, nor on its way there from the log: a log that crashed brings back what it had.
    async fn is_empty(&self) -> bool {
        let log = Arc::clone(&self.log);
        let Ok(logged) = self.handles.threads.run(move || log.last_seq()).await else {
            return false;
        };
        let view = self.handles.published.load();
        let is_applied = self.handles.published.applied() >= logged || self.log.latched().is_some();
        is_applied && view.active.is_empty() && view.sealed.is_empty()
    }
}
