//! A run: rounds of load and trouble on one simulated disk, each ended by a crash, a loss of power, or in peace.

use crate::clients::{Client, Memory, SharedWorld, all_keys};
use crate::machine::{config, machine};
use crate::trouble::Trouble;
use crate::world::World;
use pairdb_node::node::Node;
use pairdb_node::storage::fs::{SimFs, Survival};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const ROUNDS: usize = 4;
const CLIENTS: usize = 5;
/// Within this time a node is well again after the last fault: the longest backoff, a stuck actor, and more.
const WELL_WITHIN: Duration = Duration::from_secs(30);
/// Within this time a node without trouble has started.
const START_WITHIN: Duration = Duration::from_secs(60);

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// All faults end, and the node must be well again. Then it is stopped.
    Peace,
    /// The process is killed.
    Killed,
    /// The power goes in the middle of so manieth operation on the disk from then on.
    PowerLoss(usize),
}

/// What came of a run.
pub struct Outcome {
    pub trace: Vec<String>,
    pub violation: Option<String>,
    pub counts: BTreeMap<&'static str, u64>,
}

struct Run {
    fs: SimFs,
    world: SharedWorld,
    memories: Vec<Arc<Mutex<Memory>>>,
    chance: SmallRng,
    /// What the machine's clock shows.
    clock: Duration,
    config: pairdb_node::config::Config,
}

/// Names the seed when the run itself fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the run of seed {} came to no end", self.0);
        }
    }
}

/// Everything that follows from a seed.
pub fn run(seed: u64) -> Outcome {
    let _named = Named(seed);
    let mut chance = SmallRng::seed_from_u64(seed);
    let config = config(&mut chance);
    let mut run = Run {
        fs: SimFs::default(),
        world: Arc::new(Mutex::new(World::default())),
        memories: (0..CLIENTS).map(|_| Arc::default()).collect(),
        chance,
        clock: Duration::from_secs(1000),
        config,
    };
    let panics = crate::panics();
    for round in 0..ROUNDS {
        run.round(round);
        if crate::panics() > panics {
            run.world
                .lock()
                .violate("something panicked that was not told to".to_owned());
        }
        if run.world.lock().violation.is_some() {
            break;
        }
    }
    let world = &mut *run.world.lock();
    Outcome {
        trace: std::mem::take(&mut world.trace),
        violation: world.violation.take(),
        counts: std::mem::take(&mut world.counts),
    }
}

impl Run {
    fn round(&mut self, round: usize) {
        let ending = match self.chance.random_range(0..5) {
            _ if round + 1 == ROUNDS => Ending::Peace,
            0..=1 => Ending::PowerLoss(self.chance.random_range(0..60)),
            2 => Ending::Killed,
            _ => Ending::Peace,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        self.note(&format!("round {round}, to end with {ending:?}"));
        let begun = self.fs.operations();
        let (passed, survival) = runtime.block_on(self.live(ending));
        if ending != Ending::Peace {
            // What is dropped with the runtime reaches the disk no more.
            self.fs.crash_after(0);
        }
        drop(runtime);
        for operation in self.fs.trace().iter().skip(begun) {
            self.world.lock().note(&format!("  {operation:?}"));
        }
        self.clock += passed + Duration::from_millis(self.chance.random_range(0..20_000));
        match survival {
            Some(survival) => {
                self.note(&format!("{survival:?} of what was not synced survives"));
                self.fs.crash_with(survival);
            }
            None => self.fs.kill(),
        }
        self.fs.heal();
        self.fs.set_space(None);
        let world = &mut *self.world.lock();
        world.crash();
        world.judge();
        if self.chance.random_ratio(1, 4) {
            world.give_up_unfinished();
        }
    }

    fn note(&self, line: &str) {
        self.world
            .lock()
            .note(&format!("{:>9.3} {line}", self.clock.as_secs_f64()));
    }

    fn survival(&mut self) -> Survival {
        match self.chance.random_range(0..8) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            2 => Survival::Torn(self.chance.random_range(0..2000)),
            _ => Survival::Random(self.chance.random()),
        }
    }

    /// Starts the node, lets it work, and returns how long that took on the machine's clock, and what a loss of power leaves, if it
    /// comes to one.
    async fn live(&mut self, ending: Ending) -> (Duration, Option<Survival>) {
        let origin = Instant::now();
        let survival = match ending {
            Ending::Killed => None,
            Ending::PowerLoss(_) | Ending::Peace => Some(self.survival()),
        };
        let machine = machine(&self.fs, self.clock, self.chance.random());
        let time = Arc::clone(&machine.time);
        let starting = Node::start_on(&self.config, machine);
        match tokio::time::timeout(START_WITHIN, starting).await {
            Ok(Ok(node)) => self.with(node, ending, origin).await,
            Ok(Err(error)) => self.world.lock().violate(format!("the node does not start: {error}")),
            Err(_elapsed) => self.world.lock().violate("the node hangs as it starts".to_owned()),
        }
        (time.elapsed().saturating_sub(self.clock), survival)
    }

    async fn with(&mut self, node: Node, ending: Ending, origin: Instant) {
        let mut reader = Client {
            name: "reader".to_owned(),
            requests: node.requests().clone(),
            world: Arc::clone(&self.world),
            memory: Arc::default(),
            chance: SmallRng::seed_from_u64(0),
            before: self.clock,
            origin,
        };
        reader.note("serving");
        for key in all_keys() {
            let _ = reader.read(key).await;
        }
        let mut trouble = Trouble::of(&node, &self.fs, SmallRng::seed_from_u64(self.chance.random()));
        trouble.jitter();
        let end = Instant::now() + Duration::from_millis(self.chance.random_range(500..3000));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let memory = Arc::clone(&self.memories[number]);
                let client = reader.seeded(format!("n{number}"), memory, self.chance.random());
                tokio::spawn(client.work(end))
            })
            .collect();
        while Instant::now() < end {
            let pause = self.chance.random_range(1..250);
            sleep(Duration::from_millis(pause)).await;
            let what = trouble.strike();
            reader.note(&what);
        }
        match ending {
            Ending::Killed => {}
            Ending::PowerLoss(operations) => {
                self.fs.crash_after(operations);
                let end = Instant::now() + Duration::from_secs(5);
                while self.fs.has_power() && Instant::now() < end {
                    sleep(Duration::from_millis(1)).await;
                }
            }
            Ending::Peace => {
                trouble.end();
                reader.note("peace");
                for client in clients {
                    if let Err(ended) = client.await {
                        self.world.lock().violate(format!("a client ended: {ended}"));
                    }
                }
                self.expect_well(&node, &mut reader).await;
                self.note_node(&node, &reader);
                node.shutdown().await;
                reader.note("stopped");
                return;
            }
        }
        self.world.lock().is_dead = true;
        self.note_node(&node, &reader);
    }

    /// What happened in the node, as it tells.
    fn note_node(&self, node: &Node, reader: &Client) {
        for happened in node.requests().handles.faults.happened() {
            reader.note(&format!("happened: {happened:?}"));
        }
        for end in node.tree().ends() {
            reader.note(&format!("ended: {end:?}"));
        }
    }

    /// Waits until every actor runs, everything is answered, and the node takes writes, if its log may.
    async fn expect_well(&mut self, node: &Node, reader: &mut Client) {
        let until = Instant::now() + WELL_WITHIN;
        loop {
            let why = self.what_is_wrong(node, reader).await;
            let Some(why) = why else { return };
            if Instant::now() > until {
                self.world
                    .lock()
                    .violate(format!("not well within {WELL_WITHIN:?}: {why}"));
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn what_is_wrong(&self, node: &Node, reader: &mut Client) -> Option<String> {
        if let Some(child) = node.tree().children().into_iter().find(|child| !child.running) {
            return Some(format!("{child:?}"));
        }
        for key in all_keys() {
            if let Err(refusal) = reader.read(key).await {
                return Some(format!("a read is refused: {refusal}"));
            }
        }
        if node.health().log.latched().is_none()
            && let Err(refusal) = reader.write().await
        {
            return Some(format!("a write is refused: {refusal}"));
        }
        // A latched log says nothing of the others.
        let reasons = node.health().status().1;
        if let Some(failing) = reasons.into_iter().find(|reason| reason.contains(" fails: ")) {
            return Some(failing);
        }
        let under_way = node.requests().admission.stats();
        if (under_way.writes, under_way.reads) != (0, 0) {
            return Some(format!("what nobody waits for is under way: {under_way:?}"));
        }
        None
    }
}
