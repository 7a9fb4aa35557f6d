//! Clients: each does one thing after the other, as its seed says, and notes what it asked and heard.

use crate::machine::CALL_WITHIN;
use crate::world::{Intent, Open, Reading, World};
use bytes::Bytes;
use compact_str::CompactString;
use pairdb_node::actors::ranges::KeyRange;
use pairdb_node::actors::refusal::Refusal;
use pairdb_node::actors::requests::Requests;
use pairdb_node::actors::write::{NewWrite, WriteOutcome};
use pairdb_node::storage::clock::VectorClock;
use pairdb_node::storage::key::Key;
use pairdb_node::storage::log::record::Operation;
use pairdb_node::storage::version::{Value, Versions};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const TENANT: &str = "t";
const REGISTERS: usize = 5;
const CLOCKED: usize = 2;
/// How often a write with a name is sent.
const TRIES: usize = 5;
/// A call may take this much longer than its limit: timers count whole milliseconds.
const SLACK: Duration = Duration::from_millis(10);

pub type SharedWorld = Arc<Mutex<World>>;

pub fn registers() -> impl Iterator<Item = Key> {
    (0..REGISTERS).map(|n| Key::new(TENANT, &format!("r{n}")).unwrap())
}

pub fn all_keys() -> impl Iterator<Item = Key> {
    registers().chain((0..CLOCKED).map(|n| Key::new(TENANT, &format!("c{n}")).unwrap()))
}

/// What a client knows of the keys with clocks, from round to round.
#[derive(Debug, Default)]
pub struct Memory {
    known: BTreeMap<Key, VectorClock>,
    counter: u64,
}

pub struct Client {
    pub name: String,
    pub requests: Requests,
    pub world: SharedWorld,
    pub memory: Arc<Mutex<Memory>>,
    pub chance: SmallRng,
    /// What the machine's clock showed when the runtime's began.
    pub before: Duration,
    pub origin: Instant,
}

fn tell<T>(answer: &Result<T, Refusal>, ok: impl Fn(&T) -> String) -> String {
    match answer {
        Ok(answer) => ok(answer),
        Err(refusal) => format!("refused: {refusal}"),
    }
}

fn tell_clock(clock: &VectorClock) -> String {
    let entries = clock.entries().iter();
    entries
        .map(|entry| format!("{}={} ", entry.id, entry.counter))
        .collect()
}

fn tell_outcome(outcome: &WriteOutcome) -> String {
    format!("applied={} {}", outcome.applied, tell_clock(&outcome.clock))
}

fn tell_versions(versions: &Versions) -> String {
    let tell = |value: &Value| match value.live() {
        Some(bytes) => u64::from_be_bytes(bytes[..8].try_into().unwrap()).to_string(),
        None => "deleted".to_owned(),
    };
    let all = versions.all().iter();
    all.map(|version| format!("[{} {}]", tell(&version.value), tell_clock(&version.clock)))
        .collect()
}

impl Client {
    /// A client of its own for `seed`, that goes on as `name`.
    pub fn seeded(&self, name: String, memory: Arc<Mutex<Memory>>, seed: u64) -> Self {
        Self {
            name,
            requests: self.requests.clone(),
            world: Arc::clone(&self.world),
            memory,
            chance: SmallRng::seed_from_u64(seed),
            before: self.before,
            origin: self.origin,
        }
    }

    pub fn note(&self, line: &str) {
        let at = self.before + self.origin.elapsed();
        let line = format!("{:>9.3} {} {line}", at.as_secs_f64(), self.name);
        self.world.lock().note(&line);
    }

    /// Does one thing after the other until `end`.
    pub async fn work(mut self, end: Instant) {
        let unfinished = std::mem::take(&mut self.world.lock().unfinished);
        for open in unfinished {
            if let (Some(name), Some(write)) = (open.name.clone(), self.again(&open)) {
                let call = self.world.lock().reopen(open);
                self.send_named(call, &name, write, true).await;
            }
        }
        while Instant::now() < end {
            self.act().await;
            match self.chance.random_range(0..4) {
                0 => tokio::task::yield_now().await,
                1 => {}
                _ => tokio::time::sleep(Duration::from_millis(self.chance.random_range(0..30))).await,
            }
        }
    }

    async fn act(&mut self) {
        match self.chance.random_range(0..20) {
            0..=4 => drop(self.write().await),
            5..=6 => self.write_named().await,
            7..=8 => self.write_batch().await,
            9..=11 => self.write_clocked().await,
            12 => self.read_batch().await,
            13 => self.scan(),
            _ => {
                let keys: Vec<Key> = all_keys().collect();
                let key = keys.choose(&mut self.chance).unwrap().clone();
                drop(self.read(key).await);
            }
        }
    }

    /// Bytes that begin with a number, and are as many as chance wants.
    fn bytes(&mut self, number: u64) -> Value {
        let mut bytes = number.to_be_bytes().to_vec();
        let length = if self.chance.random_ratio(1, 10) { 4000 } else { 300 };
        bytes.resize(8 + self.chance.random_range(0..length), 7);
        Value::Live(Bytes::from(bytes))
    }

    fn some_register(&mut self) -> Key {
        let keys: Vec<Key> = registers().collect();
        keys.choose(&mut self.chance).unwrap().clone()
    }

    fn new_write(&mut self, key: Key) -> (Intent, NewWrite) {
        let intent = if self.chance.random_ratio(1, 6) {
            Intent::Delete
        } else {
            Intent::Put(self.world.lock().new_value())
        };
        let write = self.of(&key, &intent);
        (intent, write)
    }

    fn of(&mut self, key: &Key, intent: &Intent) -> NewWrite {
        let (operation, value, clock) = match intent {
            Intent::Put(value) => (Operation::Write, self.bytes(*value), None),
            Intent::Delete => (Operation::Delete, Value::Tombstone, None),
            Intent::Clocked(clock, Some(value)) => (Operation::Write, self.bytes(*value), Some(clock.clone())),
            Intent::Clocked(clock, None) => (Operation::Delete, Value::Tombstone, Some(clock.clone())),
        };
        NewWrite {
            operation,
            key: key.clone(),
            value,
            clock,
            id: None,
            is_copy: false,
        }
    }

    fn again(&mut self, open: &Open) -> Option<NewWrite> {
        let mut write = self.of(&open.key, &open.intent);
        write.id = Some(CompactString::from(open.name.as_ref()?));
        Some(write)
    }

    /// Waits for an answer, unless the node is dead to all when it comes: then nobody hears it.
    async fn hear<T>(&self, what: &str, call: impl Future<Output = T>, tell: impl Fn(&T) -> String) -> T {
        self.note(what);
        let begun = Instant::now();
        let answer = call.await;
        if self.world.lock().is_dead {
            std::future::pending::<()>().await;
        }
        let took = begun.elapsed();
        self.note(&format!("{what} -> {}", tell(&answer)));
        if took > CALL_WITHIN + SLACK {
            self.world.lock().violate(format!("{} {what} took {took:?}", self.name));
        }
        answer
    }

    /// Writes to any key without a clock.
    pub async fn write(&mut self) -> Result<(), Refusal> {
        let key = self.some_register();
        let (intent, write) = self.new_write(key.clone());
        let call = self.world.lock().begin_write(&key, intent.clone(), None);
        let what = format!("{} {intent:?}", key.key());
        let told = |answer: &_| tell(answer, tell_outcome);
        let answer = self.hear(&what, self.requests.write(write), told).await;
        self.world.lock().end_write(call, &answer, false);
        answer.map(drop)
    }

    async fn write_named(&mut self) {
        let key = self.some_register();
        let (intent, mut write) = self.new_write(key.clone());
        let name = format!("{}-{}", self.name, self.world.lock().new_value());
        write.id = Some(CompactString::from(&name));
        let call = self.world.lock().begin_write(&key, intent, Some(name.clone()));
        self.send_named(call, &name, write, false).await;
    }

    /// Sends a write until it is answered; with `unsure`, it may have been written before.
    async fn send_named(&mut self, call: u64, name: &str, write: NewWrite, mut unsure: bool) {
        for attempt in 1..=TRIES {
            let what = format!("{} {name}, time {attempt}", write.key.key());
            let told = |answer: &_| tell(answer, tell_outcome);
            let mut answer = self.hear(&what, self.requests.write(write.clone()), told).await;
            if unsure && answer.is_err() {
                // Of this time nothing is left, but perhaps of an earlier one.
                answer = Err(Refusal::Restarting("it"));
            }
            let again = attempt < TRIES && matches!(answer, Err(Refusal::Restarting(_) | Refusal::TimedOut(_)));
            self.world.lock().end_write(call, &answer, again);
            if !again {
                return;
            }
            unsure = true;
            let pause = self.chance.random_range(0..100);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn write_batch(&mut self) {
        let keys: Vec<Key> = registers().collect();
        let count = self.chance.random_range(2..=REGISTERS);
        let keys: Vec<Key> = keys.choose_multiple(&mut self.chance, count).cloned().collect();
        let (mut calls, mut writes, mut what) = (Vec::new(), Vec::new(), "batch".to_owned());
        for key in keys {
            let (intent, write) = self.new_write(key.clone());
            what += &format!(" {} {intent:?}", key.key());
            calls.push(self.world.lock().begin_write(&key, intent, None));
            writes.push(write);
        }
        let told = |answers: &Vec<_>| answers.iter().map(|answer| tell(answer, tell_outcome) + "; ").collect();
        let answers = self.hear(&what, self.requests.write_batch(writes), told).await;
        for (call, answer) in calls.iter().zip(&answers) {
            self.world.lock().end_write(*call, answer, false);
        }
    }

    async fn write_clocked(&mut self) {
        let key = Key::new(TENANT, &format!("c{}", self.chance.random_range(0..CLOCKED))).unwrap();
        let clock = {
            let memory = &mut *self.memory.lock();
            memory.counter += 1;
            let known = memory.known.entry(key.clone()).or_default();
            *known = known.with(&self.name, memory.counter);
            known.clone()
        };
        let value = (!self.chance.random_ratio(1, 6)).then(|| self.world.lock().new_value());
        let intent = Intent::Clocked(clock, value);
        let write = self.of(&key, &intent);
        let what = format!("{} {value:?} {}", key.key(), tell_clock(write.clock.as_ref().unwrap()));
        let call = self.world.lock().begin_write(&key, intent, None);
        let told = |answer: &_| tell(answer, tell_outcome);
        let answer = self.hear(&what, self.requests.write(write), told).await;
        self.world.lock().end_write(call, &answer, false);
    }

    pub async fn read(&mut self, key: Key) -> Result<(), Refusal> {
        let reading = self.world.lock().begin_read(&key);
        let what = format!("{}?", key.key());
        let told = |answer: &_| tell(answer, tell_versions);
        let answer = self.hear(&what, self.requests.read(key.clone()), told).await;
        self.saw(&key, &reading, &answer);
        answer.map(drop)
    }

    async fn read_batch(&mut self) {
        let keys: Vec<Key> = all_keys().collect();
        let count = self.chance.random_range(2..=keys.len());
        let keys: Vec<Key> = keys.choose_multiple(&mut self.chance, count).cloned().collect();
        let readings: Vec<Reading> = keys.iter().map(|key| self.world.lock().begin_read(key)).collect();
        let names: Vec<&str> = keys.iter().map(Key::key).collect();
        let told = |answers: &Vec<_>| {
            answers
                .iter()
                .map(|answer| tell(answer, tell_versions) + "; ")
                .collect()
        };
        let what = format!("batch {names:?}?");
        let answers = self.hear(&what, self.requests.read_batch(keys.clone()), told).await;
        for ((key, reading), answer) in keys.iter().zip(&readings).zip(&answers) {
            self.saw(key, reading, answer);
        }
    }

    /// Walks all keys at one moment.
    fn scan(&mut self) {
        let readings: Vec<Reading> = all_keys().map(|key| self.world.lock().begin_read(&key)).collect();
        let range = KeyRange {
            tenant: TENANT.to_owned(),
            start: String::new(),
            end: String::new(),
        };
        let entries: Result<BTreeMap<Key, Versions>, Refusal> =
            self.requests.scan(range).and_then(|walk| walk.collect());
        self.note(&format!(
            "scan -> {}",
            tell(&entries, |entries| entries.len().to_string())
        ));
        if let Ok(entries) = entries {
            for (key, reading) in all_keys().zip(&readings) {
                let versions = entries.get(&key).cloned().unwrap_or_default();
                self.saw(&key, reading, &Ok(versions));
            }
        }
    }

    fn saw(&self, key: &Key, reading: &Reading, answer: &Result<Versions, Refusal>) {
        if let Ok(versions) = answer {
            self.world.lock().end_read(reading, versions);
            let known = &mut self.memory.lock().known;
            let known = known.entry(key.clone()).or_default();
            *known = known.join(&versions.clock());
        }
    }
}
