//! DiskActor: looks how full the disks are, often enough that writes resume within a second of space returning.
//!
//! Owns: when to look, and saying so in the log when the answer changes. Does not own: the judgement (see
//! [`crate::storage::space`]), or refusing writes (see [`crate::actors::admission`]). What it saw last outlives it.

use crate::actors::mailbox::{Envelope, Mailbox};
use crate::actors::threads::Threads;
use crate::actors::timers;
use crate::actors::watched::Trailed;
use crate::storage::fs::FileSystem;
use crate::storage::space::{self, DiskUse, SpaceLevel, SpaceThresholds};
use arc_swap::ArcSwap;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What DiskActor is told.
#[derive(Debug)]
pub enum DiskMessage {
    /// Time to look.
    Look,
    /// What was seen; nothing, when it could not be measured.
    Seen(Option<Vec<DiskUse>>),
}

impl Trailed for DiskMessage {}

/// In place of a delay: writes are refused.
const STOPPED: u64 = u64::MAX;

/// What was seen last.
#[derive(Debug)]
pub struct DiskWatch {
    thresholds: ArcSwap<SpaceThresholds>,
    disks: ArcSwap<Vec<DiskUse>>,
    /// How long a write is to be held up, in microseconds, or [`STOPPED`].
    delay_us: AtomicU64,
}

impl DiskWatch {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(thresholds: SpaceThresholds) -> Arc<Self> {
        Arc::new(Self {
            thresholds: ArcSwap::from_pointee(thresholds),
            disks: ArcSwap::default(),
            delay_us: AtomicU64::new(0),
        })
    }

    /// The thresholds.
    #[must_use]
    pub fn thresholds(&self) -> SpaceThresholds {
        **self.thresholds.load()
    }

    /// Judges by other thresholds from here on, also what was seen already.
    pub fn set_thresholds(&self, thresholds: SpaceThresholds) {
        self.thresholds.store(Arc::new(thresholds));
        self.judge(self.disks().first());
    }

    /// The file systems, the fullest first.
    #[must_use]
    pub fn disks(&self) -> Arc<Vec<DiskUse>> {
        self.disks.load_full()
    }

    /// What the fullest asks for.
    #[must_use]
    pub fn level(&self) -> SpaceLevel {
        self.thresholds().level(self.used())
    }

    /// How full the fullest is, 0 to 1.
    #[must_use]
    pub fn used(&self) -> f64 {
        self.disks().first().map_or(0.0, |disk| disk.space.used())
    }

    /// How long a write is to be held up; [`None`]: it is to be refused.
    #[must_use]
    pub fn write_delay(&self) -> Option<Duration> {
        match self.delay_us.load(Ordering::Relaxed) {
            STOPPED => None,
            delay => Some(Duration::from_micros(delay)),
        }
    }

    fn saw(&self, disks: Vec<DiskUse>) {
        self.judge(disks.first());
        self.disks.store(Arc::new(disks));
    }

    fn judge(&self, fullest: Option<&DiskUse>) {
        let used = fullest.map_or(0.0, |disk| disk.space.used());
        let delay = self.thresholds().write_delay(used);
        self.delay_us.store(
            delay.map_or(STOPPED, |delay| delay.as_micros() as u64),
            Ordering::Relaxed,
        );
    }
}

/// The actor.
pub struct DiskActor {
    /// Where files are.
    pub fs: Arc<dyn FileSystem>,
    /// The directories that hold data.
    pub dirs: Vec<PathBuf>,
    /// Time between two looks.
    pub every: Duration,
    /// What outlives it.
    pub watch: Arc<DiskWatch>,
    /// Where the look is taken: a network file system may take its time.
    pub threads: Threads,
    /// Its own mailbox.
    pub mailbox: Mailbox<DiskMessage>,
}

impl Actor for DiskActor {
    type Msg = Envelope<DiskMessage>;
    /// Whether a look is under way.
    type State = bool;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<bool, ActorProcessingErr> {
        let mailbox = self.mailbox.clone();
        timers::every(&myself, self.every, move || mailbox.envelope(DiskMessage::Look));
        Ok(false)
    }

    async fn post_start(&self, myself: ActorRef<Self::Msg>, looking: &mut bool) -> Result<(), ActorProcessingErr> {
        self.look(&myself, looking);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        looking: &mut bool,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.message {
            DiskMessage::Look => self.look(&myself, looking),
            DiskMessage::Seen(seen) => {
                *looking = false;
                if let Some(disks) = seen {
                    self.judge(disks);
                }
            }
        }
        Ok(())
    }
}

impl DiskActor {
    fn look(&self, myself: &ActorRef<Envelope<DiskMessage>>, looking: &mut bool) {
        if std::mem::replace(looking, true) {
            return;
        }
        let (fs, dirs) = (Arc::clone(&self.fs), self.dirs.clone());
        let (myself, mailbox) = (myself.clone(), self.mailbox.clone());
        let measuring = self.threads.run(move || space::measure(fs.as_ref(), &dirs));
        tokio::spawn(async move {
            let seen = match measuring.await {
                Ok(seen) => seen
                    .inspect_err(|error| tracing::warn!(%error, "the space on disk is not known"))
                    .ok(),
                Err(_panicked) => None,
            };
            let _ = myself.send_message(mailbox.envelope(DiskMessage::Seen(seen)));
        });
    }

    fn judge(&self, disks: Vec<DiskUse>) {
        let before = self.watch.level();
        self.watch.saw(disks);
        let now = self.watch.level();
        if now == before {
            return;
        }
        let disks = self.watch.disks();
        let Some(disk) = disks.first() else {
            return;
        };
        let (dir, used) = (disk.dir.display(), format!("{:.1} %", disk.space.used() * 100.0));
        match now {
            SpaceLevel::Ample => tracing::info!(%dir, used, "there is space on disk again"),
            SpaceLevel::Warn => tracing::warn!(%dir, used, "the disk fills up"),
            SpaceLevel::Throttle => tracing::warn!(%dir, used, "the disk is nearly full: writes are slowed down"),
            SpaceLevel::Stop => tracing::error!(%dir, used, "the disk is full: writes are refused but for deletes"),
        }
    }
}
