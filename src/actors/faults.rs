//! Faults that a person injects into a single actor, to see that the node holds.
//!
//! An injection names an actor, a point that it passes, and what is to happen there. Every actor passes [`START`] and
//! [`MESSAGE`]; what other points there are is in [`POINTS`]. Where nothing is injected, a point costs one load of a
//! number that nobody writes.
//!
//! Owns: what is injected, when it happens, and the record of what did. Does not own: what becomes of the actor (see
//! [`crate::actors::supervisor`]), or who may inject.

use crate::actors::fault_fs;
use crate::actors::streaming::work as streaming;
use crate::actors::supervisor::Tree;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The point before an actor starts.
pub const START: &str = "start";
/// The point before an actor handles a message.
pub const MESSAGE: &str = "message";
/// The other points of each actor, in the order in which a request comes by them. Shards of the cache are all `cache`, and
/// those who work on streams `stream`.
pub const POINTS: [(&str, &[&str]); 9] = [
    ("wal", &["before-write", "before-sync", "after-sync", HAND_OFF]),
    ("memtable", &["mid-batch", "before-answer"]),
    ("flush", &[BEFORE_INSTALL, AFTER_INSTALL]),
    ("compaction", &[BEFORE_INSTALL, AFTER_INSTALL]),
    ("cache", &["before-fill"]),
    ("gateway", &[BEFORE_ACCEPT]),
    ("streams", &[BEFORE_SAVE]),
    ("stream", streaming::POINTS),
    (DISK_IO, fault_fs::POINTS),
];
/// The point before a change of the tables is recorded in the manifest and published.
pub const BEFORE_INSTALL: &str = "before-install";
/// The point after that.
pub const AFTER_INSTALL: &str = "after-install";
/// The point before a connection is accepted.
pub const BEFORE_ACCEPT: &str = "before-accept";
/// The point at which a batch goes from the log to the memtable.
pub const HAND_OFF: &str = "hand-off";
/// The point before it is made durable which streams there are, and how far. An error there is one of the disk's.
pub const BEFORE_SAVE: &str = "before-save";
/// The name of the supervisor among the actors.
pub const SUPERVISOR: &str = "supervisor";
/// Not an actor: the node's files. What is injected there fails as the disk would.
pub const DISK_IO: &str = "disk-io";

/// Injections that may be armed at a time.
const MOST_ARMED: usize = 1000;
/// Longest stall.
pub const LONGEST_STALL: Duration = Duration::from_secs(600);
/// Faults that happened that are remembered.
const REMEMBERED: usize = 100;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The actor, or its thread, panics.
    Panic,
    /// It is killed. In the middle of work that does not wait for anything, where no signal arrives, the work is cut off.
    Kill,
    /// It fails with an error; the disk, with EIO.
    Error,
    /// The disk has no space.
    DiskFull,
    /// It does nothing for so long.
    Stall(Duration),
    /// A message, or what was to be passed on, is lost. Not one that an actor has of its own thread or timer.
    Drop,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic => f.write_str("panic"),
            Self::Kill => f.write_str("kill"),
            Self::Error => f.write_str("error"),
            Self::DiskFull => f.write_str("disk-full"),
            Self::Stall(time) => write!(f, "stall of {} ms", time.as_millis()),
            Self::Drop => f.write_str("drop"),
        }
    }
}

/// What is to happen where, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// The actor.
    pub actor: String,
    /// The point.
    pub point: String,
    /// What happens.
    pub fault: Fault,
    /// How often the point is passed unharmed before.
    pub after: u64,
    /// How often it happens; 0: until it is cleared.
    pub times: u64,
    /// It happens at one in so many passes, chosen by chance; 1: at each.
    pub one_in: u32,
    /// Where that chance begins: the same seed chooses the same passes.
    pub seed: u64,
}

/// An injection that waits for its moment.
#[derive(Debug)]
struct Armed {
    id: u64,
    injection: Injection,
    chance: SmallRng,
}

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// Number of the injection.
    pub id: u64,
    /// The actor.
    pub actor: String,
    /// The point.
    pub point: String,
    /// What happened.
    pub fault: Fault,
}

/// Why something is not injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

/// That an error was injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injected(&'static str);

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an injected error at {}", self.0)
    }
}

impl std::error::Error for Injected {}

/// What a passed point demands of who passed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Passed {
    /// Nothing.
    On,
    /// That what it has in hand is lost.
    Drop,
}

#[allow(clippy::panic, reason = "it is what was asked for")]
pub(super) fn panic_at(point: &str) -> ! {
    std::panic::panic_any(format!("an injected panic at {point}"))
}

/// All injections into one node.
#[derive(Debug)]
pub struct Faults {
    tree: Arc<Tree>,
    count: AtomicUsize,
    armed: Mutex<(u64, Vec<Armed>)>,
    happened: Mutex<VecDeque<Happened>>,
}

impl Faults {
    /// Nothing is injected yet.
    #[must_use]
    pub fn new(tree: Arc<Tree>) -> Arc<Self> {
        Arc::new(Self {
            tree,
            count: AtomicUsize::new(0),
            armed: Mutex::default(),
            happened: Mutex::default(),
        })
    }

    /// The actors.
    #[must_use]
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// The points of an actor.
    #[must_use]
    pub fn points(actor: &str) -> Vec<&'static str> {
        let kind = match actor.split_once('-') {
            Some((kind @ ("cache" | "stream"), _)) => kind,
            _ => actor,
        };
        let own = POINTS.iter().filter(|(name, _)| *name == kind);
        let every: &[&str] = if actor == DISK_IO { &[] } else { &[START, MESSAGE] };
        every
            .iter()
            .chain(own.flat_map(|(_, points)| *points))
            .copied()
            .collect()
    }

    /// Everything that can be injected into, actors first.
    #[must_use]
    pub fn actors(&self) -> Vec<String> {
        let children = self.tree.children().into_iter().map(|child| child.name);
        [SUPERVISOR.to_owned()]
            .into_iter()
            .chain(children)
            .chain([DISK_IO.to_owned()])
            .collect()
    }

    /// Kills an actor as it stands. Says whether it ran.
    #[must_use]
    pub fn kill(&self, actor: &str) -> bool {
        self.tree.kill(actor)
    }

    /// Whether there is such an actor.
    ///
    /// # Errors
    /// When not, with those that there are.
    pub fn check_actor(&self, actor: &str) -> Result<(), Refused> {
        let known = self.actors();
        if known.iter().any(|name| name == actor) {
            return Ok(());
        }
        let known = known.join(", ");
        Err(Refused(format!("actor: there is no {actor:?}; there are {known}")))
    }

    /// Arms an injection. Returns its number.
    ///
    /// # Errors
    /// When there is no such actor or point, when the fault cannot happen there, or too much is armed.
    pub fn inject(&self, injection: Injection) -> Result<u64, Refused> {
        self.check_actor(&injection.actor)?;
        let points = Self::points(&injection.actor);
        if !points.contains(&injection.point.as_str()) {
            let (actor, point, points) = (&injection.actor, &injection.point, points.join(", "));
            return Err(Refused(format!("point: {actor} has no {point:?}; it has {points}")));
        }
        let is_disk = injection.actor == DISK_IO;
        let is_possible = match injection.fault {
            Fault::DiskFull => is_disk,
            Fault::Kill => !is_disk,
            Fault::Drop => injection.actor != SUPERVISOR && [MESSAGE, HAND_OFF].contains(&injection.point.as_str()),
            // What fails on the log's thread, and at an installation, is the disk.
            Fault::Error => {
                let of_disk = [
                    "before-write",
                    "before-sync",
                    "after-sync",
                    BEFORE_INSTALL,
                    AFTER_INSTALL,
                ];
                !of_disk.contains(&injection.point.as_str())
            }
            Fault::Panic | Fault::Stall(_) => true,
        };
        if !is_possible {
            let (fault, actor, point) = (injection.fault, &injection.actor, &injection.point);
            return Err(Refused(format!("fault: {fault} cannot happen to {actor} at {point}")));
        }
        if matches!(injection.fault, Fault::Stall(time) if time > LONGEST_STALL) {
            return Err(Refused(format!("stall_ms: at most {}", LONGEST_STALL.as_millis())));
        }
        if injection.one_in == 0 {
            return Err(Refused("one_in: must be at least 1".to_owned()));
        }
        let (last_id, armed) = &mut *self.armed.lock();
        if armed.len() >= MOST_ARMED {
            return Err(Refused(format!("{MOST_ARMED} injections are armed; clear some")));
        }
        *last_id += 1;
        armed.push(Armed {
            id: *last_id,
            chance: SmallRng::seed_from_u64(injection.seed),
            injection,
        });
        self.count.store(armed.len(), Ordering::Release);
        Ok(*last_id)
    }

    /// Disarms one injection, or all. Returns how many.
    pub fn clear(&self, id: Option<u64>) -> usize {
        let (_, armed) = &mut *self.armed.lock();
        let before = armed.len();
        armed.retain(|armed| id.is_some_and(|id| armed.id != id));
        self.count.store(armed.len(), Ordering::Release);
        before - armed.len()
    }

    /// What is armed, with its number.
    #[must_use]
    pub fn armed(&self) -> Vec<(u64, Injection)> {
        let (_, armed) = &*self.armed.lock();
        armed.iter().map(|armed| (armed.id, armed.injection.clone())).collect()
    }

    /// The last faults that happened, the latest last.
    #[must_use]
    pub fn happened(&self) -> Vec<Happened> {
        self.happened.lock().iter().cloned().collect()
    }

    /// What happens to an actor at a point, if anything does. Whoever asks sees to it. `may_drop`: there is something in
    /// its hands that may get lost.
    #[inline]
    #[must_use]
    pub fn strike(&self, actor: &str, point: &str, may_drop: bool) -> Option<Fault> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.find(actor, point, may_drop)
    }

    fn find(&self, actor: &str, point: &str, may_drop: bool) -> Option<Fault> {
        let (_, armed) = &mut *self.armed.lock();
        let place = armed.iter_mut().position(|armed| {
            let injection = &mut armed.injection;
            if injection.actor != actor || injection.point != point || (injection.fault == Fault::Drop && !may_drop) {
                return false;
            }
            if injection.after > 0 {
                injection.after -= 1;
                return false;
            }
            injection.one_in <= 1 || armed.chance.random_range(0..injection.one_in) == 0
        })?;
        let found = armed.get_mut(place)?;
        let (id, fault) = (found.id, found.injection.fault);
        let is_last = found.injection.times == 1;
        found.injection.times = found.injection.times.saturating_sub(1);
        if is_last {
            armed.remove(place);
            self.count.store(armed.len(), Ordering::Release);
        }
        self.remember(Happened {
            id,
            actor: actor.to_owned(),
            point: point.to_owned(),
            fault,
        });
        Some(fault)
    }

    fn remember(&self, happened: Happened) {
        tracing::warn!(actor = happened.actor, point = happened.point, fault = %happened.fault, "an injected fault");
        let mut all = self.happened.lock();
        if all.len() == REMEMBERED {
            all.pop_front();
        }
        all.push_back(happened);
    }

    /// Passes a point in the middle of work that waits for nothing, on a thread of its own or not. A stall blocks the
    /// thread; a kill cuts the work off here.
    ///
    /// # Errors
    /// An injected error.
    #[inline]
    pub fn pass(&self, actor: &str, point: &'static str) -> Result<Passed, Injected> {
        match self.strike(actor, point, true) {
            None => Ok(Passed::On),
            Some(fault) => self.suffer(actor, point, fault),
        }
    }

    fn suffer(&self, actor: &str, point: &'static str, fault: Fault) -> Result<Passed, Injected> {
        match fault {
            Fault::Panic => panic_at(point),
            Fault::Kill => {
                let _ = self.kill(actor);
                std::panic::resume_unwind(Box::new(format!("an injected kill at {point}")))
            }
            Fault::Error | Fault::DiskFull => Err(Injected(point)),
            Fault::Stall(time) => {
                std::thread::sleep(time);
                Ok(Passed::On)
            }
            Fault::Drop => Ok(Passed::Drop),
        }
    }

    /// Passes a point where the actor waits. A kill strikes as one from outside does.
    ///
    /// # Errors
    /// An injected error.
    #[inline]
    pub async fn pass_waiting(&self, actor: &str, point: &'static str, may_drop: bool) -> Result<Passed, Injected> {
        match self.strike(actor, point, may_drop) {
            None => Ok(Passed::On),
            // Aside: every message would carry the timer of a stall.
            Some(fault) => Box::pin(self.suffer_waiting(actor, point, fault)).await,
        }
    }

    async fn suffer_waiting(&self, actor: &str, point: &'static str, fault: Fault) -> Result<Passed, Injected> {
        match fault {
            Fault::Stall(time) => {
                tokio::time::sleep(time).await;
                Ok(Passed::On)
            }
            Fault::Kill if self.kill(actor) => std::future::pending().await,
            fault => self.suffer(actor, point, fault),
        }
    }
}

#[cfg(test)]
mod tests;
