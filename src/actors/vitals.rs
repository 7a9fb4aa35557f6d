//! VitalsActor: notes every second what rates are measured from, and keeps a minute of it; and has the history take its
//! samples.
//!
//! Owns: those notes, and the rates. Does not own: the counts behind them, or what they mean ([`crate::actors::strain`]). The notes outlive the actor: while it is down,
//! rates are of a shorter time.

use crate::actors::cache::CacheStats;
use crate::actors::disk::DiskWatch;
use crate::actors::health::Status;
use crate::actors::history::{self, History};
use crate::actors::mailbox::{Envelope, Mailbox};
use crate::actors::memory_limit;
use crate::actors::request_counts::RequestCounts;
use crate::actors::strain::{Numbers, Strain};
use crate::actors::timers;
use crate::actors::watched::Trailed;
use crate::storage::time::Time;
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time between two notes.
const EVERY: Duration = Duration::from_secs(1);
/// Time over which rates are measured.
const WINDOW: Duration = Duration::from_secs(60);

/// All counts at one moment.
#[derive(Debug, Clone, Copy)]
struct Note {
    at: Duration,
    requests: u64,
    errors: u64,
    refused_draining: u64,
    hits: u64,
    misses: u64,
    cpu: Duration,
}

/// What the node did in the last minute, or since its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// The time that they are of: a minute, or less after the start.
    pub over: Duration,
    /// Share of the machine's processors that the process used, 0 to 1.
    pub cpu: f64,
    /// Reads and writes a second.
    pub requests: f64,
    /// Share of them that were refused or failed, 0 to 1.
    pub errors: f64,
    /// The same without those that were refused since the node drains: nothing is wrong with it.
    pub faults: f64,
    /// Share of the cache's answers that were hits, 0 to 1.
    pub cache_hits: f64,
}

/// What the process holds in memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Its own, without what it maps from files.
    pub own: u64,
    /// With the pages of mapped files that are in memory.
    pub resident: u64,
    /// What it may have: the machine's, or its control group's if that is less; 0 when it is not known.
    pub limit: u64,
}

impl Memory {
    /// What is its own, of what it may have: 0 to 1, and 0 when that is not known.
    #[must_use]
    pub fn share(&self) -> f64 {
        per(self.own as f64, self.limit as f64).min(1.0)
    }
}

/// The notes, and what they are made of.
#[derive(Debug)]
pub struct Vitals {
    time: Arc<dyn Time>,
    requests: Arc<RequestCounts>,
    cache: Arc<CacheStats>,
    disk: Arc<DiskWatch>,
    notes: Mutex<VecDeque<Note>>,
    strain: Mutex<Strain>,
}

impl Vitals {
    /// Begins with a note.
    #[must_use]
    pub fn new(
        time: Arc<dyn Time>,
        requests: Arc<RequestCounts>,
        cache: Arc<CacheStats>,
        disk: Arc<DiskWatch>,
    ) -> Arc<Self> {
        let vitals = Self {
            time,
            requests,
            cache,
            disk,
            notes: Mutex::default(),
            strain: Mutex::default(),
        };
        vitals.note();
        Arc::new(vitals)
    }

    /// Notes the counts, forgets what is older than a minute, and judges what there is.
    pub fn note(&self) {
        let now = self.now();
        self.keep(now);
        let rates = self.rates();
        let numbers = Numbers {
            cpu: rates.cpu,
            memory: memory().share(),
            disk: self.disk.used(),
            requests: (rates.requests * rates.over.as_secs_f64(), rates.faults),
            over: rates.over,
        };
        self.strain.lock().note(now.at, &numbers);
    }

    /// What of the numbers makes the node worse, as of the last note.
    #[must_use]
    pub fn strain(&self) -> Vec<(Status, &'static str)> {
        self.strain.lock().reasons()
    }

    fn keep(&self, now: Note) {
        let mut notes = self.notes.lock();
        // The newest that is old enough stays: from there to now it is a whole minute.
        while notes
            .get(1)
            .is_some_and(|second| now.at.saturating_sub(second.at) >= WINDOW)
        {
            notes.pop_front();
        }
        notes.push_back(now);
    }

    /// The rates from the oldest note to now.
    #[must_use]
    pub fn rates(&self) -> Rates {
        let now = self.now();
        let notes = self.notes.lock();
        let recent = notes.iter().rfind(|note| now.at.saturating_sub(note.at) >= WINDOW);
        let then = recent.or(notes.front()).copied().unwrap_or(now);
        let over = now.at.saturating_sub(then.at);
        let seconds = over.as_secs_f64();
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let requests = now.requests.saturating_sub(then.requests);
        let errors = now.errors.saturating_sub(then.errors);
        let draining = now.refused_draining.saturating_sub(then.refused_draining);
        let (hits, misses) = (
            now.hits.saturating_sub(then.hits),
            now.misses.saturating_sub(then.misses),
        );
        Rates {
            over,
            cpu: per(now.cpu.saturating_sub(then.cpu).as_secs_f64(), seconds * cores),
            requests: per(requests as f64, seconds),
            errors: per(errors as f64, requests as f64),
            faults: per(errors.saturating_sub(draining) as f64, requests as f64),
            cache_hits: per(hits as f64, (hits + misses) as f64),
        }
    }

    fn now(&self) -> Note {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        // Errors first: none is counted without its request.
        let refused_draining = load(&self.requests.refused_draining);
        let errors = load(&self.requests.errors);
        Note {
            at: self.time.elapsed(),
            requests: load(&self.requests.reads) + load(&self.requests.writes),
            errors,
            refused_draining,
            hits: load(&self.cache.hits),
            misses: load(&self.cache.misses),
            cpu: processor_time(),
        }
    }
}

/// `part` of `whole`, of which there may be none.
fn per(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// What the process has used of all processors.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

/// What the process holds in memory, as far as the system says.
#[must_use]
pub fn memory() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let machine = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = kib(&machine, "MemTotal:");
    Memory {
        own: kib(&status, "RssAnon:"),
        resident: kib(&status, "VmRSS:"),
        limit: memory_limit::least(Path::new("/"), machine),
    }
}

/// The number of a line like `VmRSS:   1234 kB`, in bytes.
fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

/// What VitalsActor is told.
#[derive(Debug)]
pub enum VitalsMessage {
    /// Time to note the counts.
    Note,
    /// Time for a sample of the history.
    Sample,
}

impl Trailed for VitalsMessage {}

/// The actor.
pub struct VitalsActor {
    /// What outlives it.
    pub vitals: Arc<Vitals>,
    /// Likewise.
    pub history: Arc<History>,
    /// Its own mailbox.
    pub mailbox: Mailbox<VitalsMessage>,
}

impl Actor for VitalsActor {
    type Msg = Envelope<VitalsMessage>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        let mailbox = self.mailbox.clone();
        timers::every(&myself, EVERY, move || mailbox.envelope(VitalsMessage::Note));
        let mailbox = self.mailbox.clone();
        timers::every(&myself, history::EVERY, move || mailbox.envelope(VitalsMessage::Sample));
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match envelope.message {
            VitalsMessage::Note => self.vitals.note(),
            VitalsMessage::Sample => self.history.note(),
        }
        Ok(())
    }
}
