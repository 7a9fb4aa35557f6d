//! ScrubActor: reads all tables now and then, slowly, to find damage before a client does.
//!
//! Owns: when to begin, and the pace. Does not own: the walk (see [`crate::storage::scrub`]); what it finds is set aside
//! by the tables. One that was interrupted begins anew.

use crate::actors::Handles;
use crate::actors::mailbox::{Envelope, Mailbox};
use crate::actors::timers;
use crate::actors::watched::Trailed;
use crate::storage::compaction::throttle::Throttle;
use crate::storage::error::Error;
use crate::storage::scrub::{ScrubProgress, scrub};
use crate::storage::tables::Tables;
use crate::storage::view::Published;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A start of the node is busy enough: the first walk waits for so long, at most.
const FIRST_AFTER: Duration = Duration::from_secs(60);

/// What ScrubActor is told.
#[derive(Debug)]
pub enum ScrubMessage {
    /// Time to begin.
    Begin,
    /// The walk ended.
    Done,
}

impl Trailed for ScrubMessage {}

/// The actor.
pub struct ScrubActor {
    /// Where the tables are.
    pub tables: Arc<Tables>,
    /// Time from the end of one walk to the beginning of the next; zero: there are none.
    pub interval: Duration,
    /// Its pace, the same for all generations.
    pub throttle: Arc<Throttle>,
    /// How far it is; outlives it.
    pub progress: Arc<ScrubProgress>,
    /// Its own mailbox.
    pub mailbox: Mailbox<ScrubMessage>,
    /// Its neighbours.
    pub handles: Handles,
}

/// Ends the walk of a generation that has ended.
#[derive(Default)]
pub struct Walking(Arc<AtomicBool>);

impl Drop for Walking {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Actor for ScrubActor {
    type Msg = Envelope<ScrubMessage>;
    type State = Walking;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<Walking, ActorProcessingErr> {
        if !self.interval.is_zero() {
            let mailbox = self.mailbox.clone();
            timers::after(&myself, self.interval.min(FIRST_AFTER), move || {
                mailbox.envelope(ScrubMessage::Begin)
            });
        }
        Ok(Walking::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        walking: &mut Walking,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.message {
            ScrubMessage::Begin => self.begin(&myself, Arc::clone(&walking.0)),
            ScrubMessage::Done => {
                let mailbox = self.mailbox.clone();
                timers::after(&myself, self.interval, move || mailbox.envelope(ScrubMessage::Begin));
            }
        }
        Ok(())
    }
}

impl ScrubActor {
    fn begin(&self, myself: &ActorRef<Envelope<ScrubMessage>>, ended: Arc<AtomicBool>) {
        let (tables, published) = (Arc::clone(&self.tables), Arc::clone(&self.handles.published));
        let (throttle, progress) = (Arc::clone(&self.throttle), Arc::clone(&self.progress));
        let (myself, mailbox) = (myself.clone(), self.mailbox.clone());
        let threads = self.handles.threads.clone();
        tokio::spawn(async move {
            let walk = threads.run_long("pairdb-scrub", move || {
                walk(&tables, &published, &throttle, &progress, &ended)
            });
            if let Err(panicked) = walk.await {
                tracing::error!(%panicked, "the walk over all tables failed");
            }
            let _ = myself.send_message(mailbox.envelope(ScrubMessage::Done));
        });
    }
}

fn walk(tables: &Tables, published: &Published, throttle: &Throttle, progress: &ScrubProgress, ended: &AtomicBool) {
    let walked = scrub(published, progress, |bytes| {
        throttle.draw(bytes, || Some(1.0));
        if ended.load(Ordering::Relaxed) {
            Err(Error::Fenced)
        } else {
            Ok(())
        }
    });
    match walked {
        Ok(damage) if damage.is_empty() => tracing::info!(?progress, "read all tables: they are well"),
        Ok(damage) => {
            for error in damage {
                tracing::error!(%error, "a table is damaged");
            }
            // Were it to fail, upkeep would repeat it.
            let _ = tables.quarantine_damaged(published);
        }
        Err(_ended) => {}
    }
}
