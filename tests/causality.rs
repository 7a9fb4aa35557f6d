//! The clock rules against an oracle that knows no clocks: random interleavings of coordinators and replicas, judged by
//! causal histories, which are sets of events. 20,000 interleavings; `PAIRDB_TEST_INTERLEAVINGS=1000000` makes it more.
//!
//! Coordinators work as the wire contract says. Their counters are in memory and start again at 0, so the names of events
//! are used again: what a clock entry `(c, n)` claims to know are the events that `c` numbered 1 to n, whichever they were.
//! The oracle takes it at its word. A history is the set of the events claimed; a write is superseded by one whose history
//! holds all of its own and more; everything else stays, so that two writes with the same history and different values are
//! siblings. Where no counter starts again and every coordinator sees its own writes, the names are unique, and the oracle
//! also judges by what each write had truly seen: that must come to the same.
//!
//! Three replicas receive the same writes, in different orders and some of them more than once: bare sets of versions,
//! memtables, and a whole store, which is flushed, compacted, closed and crashed meanwhile.

use bytes::Bytes;
use pairdb_node::storage::clock::VectorClock;
use pairdb_node::storage::compaction::debt::LevelOptions;
use pairdb_node::storage::fs::{FileSystem, SimFs};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::memtable::Memtable;
use pairdb_node::storage::recovery::Options;
use pairdb_node::storage::store::Store;
use pairdb_node::storage::version::{MAX_SIBLINGS, Value, Version, Versions};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const COORDINATORS: usize = 5;
const REPLICAS: usize = 3;
/// Interleavings that share replicas, each with a key of its own.
const CHUNK: u64 = 250;

/// A set of events: for each coordinator, and then for each node that gives clocks itself, the numbers of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct History([u64; COORDINATORS + REPLICAS]);

impl History {
    fn union(mut self, other: Self) -> Self {
        for (events, more) in self.0.iter_mut().zip(other.0) {
            *events |= more;
        }
        self
    }

    /// With the events of `actor` that are numbered 1 to `number`.
    fn with(mut self, actor: usize, number: u32) -> Self {
        assert!(number < 60, "the set has room for fewer events");
        self.0[actor] |= (1 << number) - 1;
        self
    }

    /// The greatest number among the events of `actor`.
    fn greatest(self, actor: usize) -> u32 {
        u64::BITS - self.0[actor].leading_zeros()
    }

    fn is_within(self, other: Self) -> bool {
        self.0.iter().zip(other.0).all(|(events, more)| events & !more == 0)
    }
}

/// A write that was made; its number is its place among those of the interleaving.
#[derive(Debug, Clone)]
struct Made {
    history: History,
    /// The writes that whoever made it had seen, and itself.
    seen: u64,
    value: Option<Bytes>,
    clock: VectorClock,
}

/// What a coordinator read.
#[derive(Debug, Clone)]
struct Observed {
    history: History,
    seen: u64,
    clock: VectorClock,
    /// The key has a live value.
    found: bool,
}

/// One of the three kinds of replica.
trait Replica {
    fn receive(&mut self, key: &Key, value: Value, clock: VectorClock);
    /// Takes a write without a clock, and returns the clock that it was given.
    fn receive_clockless(&mut self, key: &Key, value: Value) -> VectorClock;
    fn get(&self, key: &Key) -> Versions;
    /// Something that must not change what is there.
    fn disturb(&mut self, random: &mut SmallRng);
}

fn version(value: Value, clock: VectorClock, seq: u64) -> Version {
    Version {
        clock,
        value,
        timestamp_ms: seq,
        seq,
    }
}

#[derive(Default)]
struct Sets {
    keys: HashMap<Key, Versions>,
    seq: u64,
}

impl Replica for Sets {
    fn receive(&mut self, key: &Key, value: Value, clock: VectorClock) {
        self.seq += 1;
        let known = self.keys.remove(key).unwrap_or_default();
        let written = Versions::from(version(value, clock, self.seq));
        // The merge knows no sides.
        let merged = if self.seq.is_multiple_of(2) {
            known.merge(written)
        } else {
            written.merge(known)
        };
        self.keys.insert(key.clone(), merged);
    }

    fn receive_clockless(&mut self, key: &Key, value: Value) -> VectorClock {
        let clock = self.get(key).clock().with("sets", self.seq + 1);
        self.receive(key, value, clock.clone());
        clock
    }

    fn get(&self, key: &Key) -> Versions {
        self.keys.get(key).cloned().unwrap_or_default()
    }

    fn disturb(&mut self, _random: &mut SmallRng) {}
}

struct Memtables {
    active: Memtable,
    sealed: Vec<Memtable>,
    seq: u64,
}

impl Replica for Memtables {
    fn receive(&mut self, key: &Key, value: Value, clock: VectorClock) {
        self.seq += 1;
        self.active.apply(key, version(value, clock, self.seq), MAX_SIBLINGS);
    }

    fn receive_clockless(&mut self, key: &Key, value: Value) -> VectorClock {
        let clock = self.get(key).clock().with("memtables", self.seq + 1);
        self.receive(key, value, clock.clone());
        clock
    }

    fn get(&self, key: &Key) -> Versions {
        self.sealed
            .iter()
            .chain(std::iter::once(&self.active))
            .filter_map(|memtable| memtable.get(key))
            .fold(Versions::default(), Versions::merge)
    }

    fn disturb(&mut self, random: &mut SmallRng) {
        if self.sealed.len() < 8 && random.random_ratio(1, 300) {
            let next = Memtable::new(self.active.id() + 1);
            self.sealed.push(std::mem::replace(&mut self.active, next));
        }
    }
}

struct Stored {
    disk: SimFs,
    fs: Arc<dyn FileSystem>,
    store: Option<Store>,
}

impl Stored {
    fn new() -> Self {
        let disk = SimFs::default();
        let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
        let mut replica = Self { disk, fs, store: None };
        replica.open();
        replica
    }

    fn open(&mut self) {
        let mut options = Options::at("/data");
        options.log.segment_size = 60_000;
        options.flush_threshold = 200_000;
        options.table.block_size = 1024;
        // Small enough that every flush is followed by compactions.
        options.levels = LevelOptions {
            l0_trigger: 2,
            l0_size: 40_000,
            l1_size: 20_000,
            l2_size: 40_000,
            level_multiplier: 2,
            gc_grace_ms: u64::MAX,
        };
        self.store = Some(Store::open(&self.fs, options, "store").unwrap());
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }
}

impl Replica for Stored {
    fn receive(&mut self, key: &Key, value: Value, clock: VectorClock) {
        let known = self.store().write(key, value, Some(clock.clone())).unwrap();
        assert_eq!(known.join(&clock), known, "the answer's clock covers the write's");
    }

    fn receive_clockless(&mut self, key: &Key, value: Value) -> VectorClock {
        self.store().write(key, value, None).unwrap()
    }

    fn get(&self, key: &Key) -> Versions {
        self.store().get(key).unwrap()
    }

    fn disturb(&mut self, random: &mut SmallRng) {
        match random.random_range(0..4000) {
            0..8 => self.store().flush().unwrap(),
            8..14 => while self.store().compact().unwrap() {},
            14 => {
                self.store().close().unwrap();
                self.store = None;
                self.open();
            }
            15 => {
                self.store = None;
                self.disk.crash(random.random_range(0..60));
                self.open();
            }
            _ => {}
        }
    }
}

/// What the interleavings met, so that the test can tell whether they met everything.
#[derive(Debug, Default)]
struct Met {
    interleavings: AtomicU64,
    writes: AtomicU64,
    /// Interleavings that ended with several versions.
    siblings: AtomicU64,
    /// Siblings with the same history.
    twins: AtomicU64,
    /// Writes that were superseded when they were made, because a name was used again or what was read was old.
    stale: AtomicU64,
    deletes: AtomicU64,
    clockless: AtomicU64,
    repairs: AtomicU64,
    restarts: AtomicU64,
    /// Interleavings judged by what was truly seen as well.
    orderly: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

struct Interleaving<'a> {
    random: SmallRng,
    key: Key,
    replicas: &'a mut [Box<dyn Replica>; REPLICAS],
    met: &'a Met,
    /// No counter starts again, and every coordinator sees its own writes.
    orderly: bool,
    made: Vec<Made>,
    /// By replica: the writes that it has received, and those on their way to it.
    received: [Vec<usize>; REPLICAS],
    on_the_way: [Vec<usize>; REPLICAS],
    counters: [u32; COORDINATORS],
    /// By coordinator: its writes, and what it read once.
    own: [Vec<usize>; COORDINATORS],
    remembered: [Option<Observed>; COORDINATORS],
    clockless: [u32; REPLICAS],
}

impl<'a> Interleaving<'a> {
    fn new(seed: u64, replicas: &'a mut [Box<dyn Replica>; REPLICAS], met: &'a Met) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        Self {
            key: Key::new("t", &format!("key{seed}")).unwrap(),
            replicas,
            met,
            orderly: random.random_ratio(1, 4),
            made: Vec::new(),
            received: Default::default(),
            on_the_way: Default::default(),
            // Other keys were written before.
            counters: std::array::from_fn(|_| random.random_range(0..4)),
            own: Default::default(),
            remembered: Default::default(),
            clockless: [0; REPLICAS],
            random,
        }
    }

    fn run(mut self) {
        count(&self.met.interleavings);
        if self.orderly {
            count(&self.met.orderly);
            self.counters.iter_mut().for_each(|counter| *counter += 1);
        }
        let coordinators = self.random.random_range(1..=COORDINATORS);
        let most = self.random.random_range(2..=MAX_SIBLINGS);
        while self.made.len() < most {
            let replica = self.random.random_range(0..REPLICAS);
            let coordinator = self.random.random_range(0..coordinators);
            match self.random.random_range(0..100) {
                0..45 => self.write(coordinator, replica),
                45..52 => self.write_clockless(replica),
                52..60 => self.repair(replica),
                60..65 if !self.orderly => {
                    self.counters[coordinator] = 0;
                    count(&self.met.restarts);
                }
                60..68 => self.remembered[coordinator] = Some(self.observe(replica)),
                68..97 => self.deliver_one(replica),
                _ => self.replicas[replica].disturb(&mut self.random),
            }
        }
        for replica in 0..REPLICAS {
            self.on_the_way[replica].shuffle(&mut self.random);
            while let Some(write) = self.on_the_way[replica].pop() {
                self.deliver(replica, write);
            }
            self.check(replica);
        }
        self.check_alike();
    }

    /// The writes among `received` that no other supersedes, by their histories; of those that are the same, one.
    fn standing(&self, received: &[usize]) -> Vec<usize> {
        let mut standing: Vec<usize> = Vec::new();
        for write in received {
            let made = &self.made[*write];
            let superseded = received.iter().any(|other| {
                let other = &self.made[*other];
                made.history != other.history && made.history.is_within(other.history)
            });
            let known = standing.iter().any(|other| {
                let other = &self.made[*other];
                made.history == other.history && made.value == other.value
            });
            if !superseded && !known {
                standing.push(*write);
            }
        }
        if self.orderly {
            let truly = |write: &&usize| {
                let seen = self.made[**write].seen;
                received.iter().all(|other| {
                    let other = self.made[*other].seen;
                    seen == other || seen & !other != 0
                })
            };
            let mut by_sight: Vec<_> = received
                .iter()
                .filter(truly)
                .map(|write| self.content(*write))
                .collect();
            by_sight.sort();
            by_sight.dedup();
            let mut by_name: Vec<_> = standing.iter().map(|write| self.content(*write)).collect();
            by_name.sort();
            assert_eq!(
                by_name, by_sight,
                "the names of events say something else than what was seen"
            );
        }
        standing
    }

    fn content(&self, write: usize) -> (Vec<(String, u64)>, Option<Bytes>) {
        let made = &self.made[write];
        (entries(&made.clock), made.value.clone())
    }

    /// A replica holds exactly what stands of the writes that it received: nothing is lost, and nothing too much.
    fn check(&self, replica: usize) -> (Versions, Vec<usize>) {
        let versions = self.replicas[replica].get(&self.key);
        let standing = self.standing(&self.received[replica]);
        let mut found: Vec<_> = versions
            .all()
            .iter()
            .map(|version| (entries(&version.clock), version.value.live().cloned()))
            .collect();
        let mut expected: Vec<_> = standing.iter().map(|write| self.content(*write)).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "replica {replica} after {:#?}", self.made);
        (versions, standing)
    }

    fn check_alike(&self) {
        let contents = |versions: &Versions| {
            let content = |v: &Version| (v.clock.clone(), v.value.clone());
            versions.all().iter().map(content).collect::<Vec<_>>()
        };
        let all: Vec<_> = self.replicas.iter().map(|replica| replica.get(&self.key)).collect();
        for other in &all[1..] {
            // The same order, and so the same winner.
            assert_eq!(contents(&all[0]), contents(other), "the replicas differ");
        }
        let live = |v: &Version| v.value.live().is_some();
        let winner = all[0].winner().expect("something was written");
        assert_eq!(
            live(winner),
            all[0].all().iter().any(live),
            "a tombstone won over a value"
        );
        if all[0].all().len() > 1 {
            count(&self.met.siblings);
        }
        let standing = self.standing(&self.received[0]);
        let twins = |a: &usize, b: &usize| a < b && self.made[*a].history == self.made[*b].history;
        if standing.iter().any(|a| standing.iter().any(|b| twins(a, b))) {
            count(&self.met.twins);
        }
    }

    fn deliver(&mut self, replica: usize, write: usize) {
        let made = &self.made[write];
        let value = made.value.clone().map_or(Value::Tombstone, Value::Live);
        self.replicas[replica].receive(&self.key, value, made.clock.clone());
        self.received[replica].push(write);
    }

    fn deliver_one(&mut self, replica: usize) {
        let waiting = self.on_the_way[replica].len();
        if waiting > 0 {
            let write = self.on_the_way[replica].swap_remove(self.random.random_range(0..waiting));
            self.deliver(replica, write);
        } else if !self.received[replica].is_empty() {
            // Once more, as after a timeout.
            let again = self.random.random_range(0..self.received[replica].len());
            self.deliver(replica, self.received[replica][again]);
        }
    }

    fn observe(&self, replica: usize) -> Observed {
        let (versions, standing) = self.check(replica);
        let all = standing.iter().map(|write| &self.made[*write]);
        Observed {
            history: all
                .clone()
                .fold(History::default(), |all, made| all.union(made.history)),
            seen: all.fold(0, |all, made| all | made.seen),
            clock: versions.clock(),
            found: versions.winner().is_some_and(|winner| winner.value.live().is_some()),
        }
    }

    /// A value that nothing else has, or now and then a tombstone.
    fn value(&mut self) -> Option<Bytes> {
        if self.random.random_ratio(1, 6) {
            count(&self.met.deletes);
            return None;
        }
        Some(Bytes::from(self.made.len().to_string()))
    }

    fn make(&mut self, made: Made) -> usize {
        count(&self.met.writes);
        let standing = |other: &Made| made.history != other.history && made.history.is_within(other.history);
        if self.made.iter().any(standing) {
            count(&self.met.stale);
        }
        self.made.push(made);
        self.made.len() - 1
    }

    fn write(&mut self, coordinator: usize, replica: usize) {
        if self.orderly {
            for write in self.own[coordinator].clone() {
                self.deliver(replica, write);
                self.on_the_way[replica].retain(|waiting| *waiting != write);
            }
        }
        let remembered = self.remembered[coordinator]
            .clone()
            .filter(|_| !self.orderly && self.random.random_ratio(1, 3));
        let observed = remembered.unwrap_or_else(|| self.observe(replica));
        // To the coordinator a deleted key is one that was not found; others use the clock that comes with it.
        let heeds_tombstones = self.orderly || self.random.random();
        let is_new = observed.clock.is_empty() || (!observed.found && !heeds_tombstones);
        let counter = self.counters[coordinator];
        let (before, number) = if is_new {
            (
                Observed {
                    history: History::default(),
                    seen: 0,
                    clock: VectorClock::default(),
                    found: false,
                },
                counter,
            )
        } else {
            let number = observed.history.greatest(coordinator).max(counter) + 1;
            (observed, number)
        };
        if number == 0 {
            // A clock whose only entry is 0 names no event: it is none.
            return self.write_clockless(replica);
        }
        // Whether the counter moves on after a key that was not found, nobody has to know.
        let moves_on = self.orderly || !is_new || self.random.random();
        self.counters[coordinator] = number + u32::from(is_new && moves_on);
        let value = self.value();
        let write = self.make(Made {
            history: before.history.with(coordinator, number),
            seen: before.seen | 1 << self.made.len(),
            value,
            clock: before.clock.with(&format!("c{coordinator}"), u64::from(number)),
        });
        self.own[coordinator].push(write);
        for waiting in &mut self.on_the_way {
            waiting.push(write);
        }
    }

    fn write_clockless(&mut self, replica: usize) {
        let observed = self.observe(replica);
        let value = self.value();
        let live = value.clone().map_or(Value::Tombstone, Value::Live);
        let clock = self.replicas[replica].receive_clockless(&self.key, live);
        count(&self.met.clockless);
        self.clockless[replica] += 1;
        let write = self.make(Made {
            history: observed.history.with(COORDINATORS + replica, self.clockless[replica]),
            seen: observed.seen | 1 << self.made.len(),
            value,
            clock,
        });
        self.received[replica].push(write);
        let winner = self.check(replica).1;
        assert_eq!(winner, [write], "it supersedes everything that its node has");
        self.send_to_others(replica, write);
    }

    fn send_to_others(&mut self, replica: usize, write: usize) {
        for other in (0..REPLICAS).filter(|other| *other != replica) {
            self.on_the_way[other].push(write);
        }
    }

    /// What one replica answers is written to the others: its winner, with the clock of all that it has.
    fn repair(&mut self, replica: usize) {
        let observed = self.observe(replica);
        let versions = self.replicas[replica].get(&self.key);
        let Some(value) = versions.winner().and_then(|winner| winner.value.live()).cloned() else {
            return;
        };
        count(&self.met.repairs);
        let write = self.make(Made {
            history: observed.history,
            seen: observed.seen,
            value: Some(value),
            clock: observed.clock,
        });
        self.on_the_way[replica].push(write);
        self.send_to_others(replica, write);
    }
}

fn entries(clock: &VectorClock) -> Vec<(String, u64)> {
    let entry = |entry: &pairdb_node::storage::clock::ClockEntry| (entry.id.to_string(), entry.counter);
    clock.entries().iter().map(entry).collect()
}

fn run_chunk(first: u64, end: u64, met: &Met) {
    let mut replicas: [Box<dyn Replica>; REPLICAS] = [
        Box::new(Sets::default()),
        Box::new(Memtables {
            active: Memtable::new(0),
            sealed: Vec::new(),
            seq: 0,
        }),
        Box::new(Stored::new()),
    ];
    for seed in first..end {
        Interleaving::new(seed, &mut replicas, met).run();
    }
    // What was written long ago is there as well.
    for seed in first..end {
        let key = Key::new("t", &format!("key{seed}")).unwrap();
        let [expected, memory, store] = [0, 1, 2].map(|replica: usize| {
            let versions = replicas[replica].get(&key);
            let content = |v: &Version| (v.clock.clone(), v.value.clone());
            versions.all().iter().map(content).collect::<Vec<_>>()
        });
        assert!(expected == memory && expected == store, "key{seed} has changed since");
    }
}

#[test]
fn replicas_hold_what_causal_histories_say() {
    let total: u64 = std::env::var("PAIRDB_TEST_INTERLEAVINGS").map_or(20_000, |total| total.parse().unwrap());
    let met = Met::default();
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let first = next.fetch_add(CHUNK, Ordering::Relaxed);
                    if first >= total {
                        break;
                    }
                    run_chunk(first, (first + CHUNK).min(total), &met);
                }
            });
        }
    });
    println!("{met:?}");
    assert_eq!(met.interleavings.load(Ordering::Relaxed), total);
    let share = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64 / total as f64;
    for (what, counter, least) in [
        ("writes", &met.writes, 5.0),
        ("siblings", &met.siblings, 0.2),
        ("twins", &met.twins, 0.01),
        ("stale writes", &met.stale, 0.2),
        ("deletes", &met.deletes, 0.5),
        ("writes without a clock", &met.clockless, 0.5),
        ("repairs", &met.repairs, 0.2),
        ("restarts", &met.restarts, 0.2),
        ("orderly ones", &met.orderly, 0.2),
    ] {
        assert!(share(counter) >= least, "too few {what}: {} each", share(counter));
    }
}
