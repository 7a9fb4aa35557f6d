//! What goes wrong while clients work: actors that panic, die, fail, stall and lose messages, and disks that fail or fill up.

use pairdb_node::actors::faults::{DISK_IO, Fault, Faults, HAND_OFF, Injection, MESSAGE, START, SUPERVISOR};
use pairdb_node::node::Node;
use pairdb_node::storage::fs::{Failure, Fault as DiskFault, OperationKind, SimFs};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use std::sync::Arc;
use std::time::Duration;

/// Chooses what goes wrong.
pub struct Trouble {
    pub fs: SimFs,
    pub faults: Arc<Faults>,
    pub chance: SmallRng,
}

impl Trouble {
    pub fn of(node: &Node, fs: &SimFs, chance: SmallRng) -> Self {
        Self {
            fs: fs.clone(),
            faults: Arc::clone(&node.requests().handles.faults),
            chance,
        }
    }

    /// Has every actor hesitate now and then, so that messages meet in ever other ways.
    pub fn jitter(&mut self) {
        for actor in self.faults.actors() {
            if actor != DISK_IO && self.chance.random_ratio(2, 3) {
                let millis = self.chance.random_range(1..=4);
                let injection = Injection {
                    actor,
                    point: MESSAGE.to_owned(),
                    fault: Fault::Stall(Duration::from_millis(millis)),
                    after: 0,
                    times: 0,
                    one_in: self.chance.random_range(3..=30),
                    seed: self.chance.random(),
                };
                self.faults.inject(injection).expect("it can happen");
            }
        }
    }

    /// Makes one thing go wrong, and says what.
    pub fn strike(&mut self) -> String {
        match self.chance.random_range(0..10) {
            0 => self.kill(),
            1 => self.fill(),
            2 => self.break_disk(),
            _ => self.inject(),
        }
    }

    fn some_actor(&mut self) -> String {
        let mut actors = self.faults.actors();
        // When a supervisor ends, ractor ends its children in the order of a hash table, which no seed determines.
        actors.retain(|actor| ![DISK_IO, SUPERVISOR].contains(&actor.as_str()));
        // Those on the way of requests more often than the others.
        for busy in ["wal", "memtable", "flush", "cache-0", "cache-1"] {
            actors.extend([busy.to_owned(), busy.to_owned()]);
        }
        actors.choose(&mut self.chance).unwrap().clone()
    }

    fn kill(&mut self) -> String {
        let actor = self.some_actor();
        format!("killed {actor}: {}", self.faults.kill(&actor))
    }

    /// Leaves the disk little room, or gives it back.
    fn fill(&mut self) -> String {
        let room = (self.chance.random_ratio(1, 2)).then(|| self.chance.random_range(0..40_000));
        self.fs.set_space(room);
        format!("room on disk: {room:?}")
    }

    fn break_disk(&mut self) -> String {
        let points = Faults::points(DISK_IO);
        let mut point = *points.choose(&mut self.chance).unwrap();
        if point == "sync-log" && self.chance.random_ratio(2, 3) {
            // After it the node takes no writes until it is started again.
            point = "write-log";
        }
        if let Some(kind) = point.strip_prefix("sync-")
            && self.chance.random_ratio(1, 2)
        {
            return self.break_sync(kind);
        }
        let fault = match self.chance.random_range(0..5) {
            0 => Fault::Panic,
            1..=2 => Fault::DiskFull,
            _ => Fault::Error,
        };
        self.arm(DISK_IO.to_owned(), point, fault)
    }

    /// A sync fails below the node: what it was to cover is taken for synced from then on.
    fn break_sync(&mut self, kind: &str) -> String {
        let (operation, suffix) = match kind {
            "directory" => (OperationKind::SyncDir, ""),
            "log" => (OperationKind::Sync, ".log"),
            // While they are written they have another name.
            _ => (OperationKind::Sync, ".tmp"),
        };
        let mut fault = DiskFault::next(operation, suffix, Failure::Device);
        fault.after = self.chance.random_range(0..10);
        self.fs.fail(fault);
        format!("a sync of {kind} fails below")
    }

    fn inject(&mut self) -> String {
        let actor = self.some_actor();
        let points = Faults::points(&actor);
        let point = *points.choose(&mut self.chance).unwrap();
        let is_waiting = [START, MESSAGE].contains(&point);
        let may_lose = [MESSAGE, HAND_OFF].contains(&point);
        let mut possible = vec![Fault::Panic, Fault::Kill];
        if is_waiting {
            // Elsewhere a stall would hold up the thread that everything runs on.
            let millis = self.chance.random_range(1..=3000);
            possible.extend([Fault::Error, Fault::Stall(Duration::from_millis(millis))]);
        }
        if may_lose {
            possible.extend([Fault::Drop; 3]);
        }
        let fault = *possible.choose(&mut self.chance).unwrap();
        self.arm(actor, point, fault)
    }

    fn arm(&mut self, actor: String, point: &str, fault: Fault) -> String {
        let injection = Injection {
            actor,
            point: point.to_owned(),
            fault,
            after: self.chance.random_range(0..20),
            times: self.chance.random_range(1..=3),
            one_in: self.chance.random_range(1..=3),
            seed: self.chance.random(),
        };
        let said = format!("{} at {}/{}", injection.fault, injection.actor, injection.point);
        match self.faults.inject(injection) {
            Ok(_number) => said,
            Err(refused) => format!("{said}: {refused:?}"),
        }
    }

    /// Ends all trouble.
    pub fn end(&self) {
        self.faults.clear(None);
        self.fs.heal();
        self.fs.set_space(None);
    }
}
