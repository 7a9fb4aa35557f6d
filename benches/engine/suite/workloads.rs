//! The workloads: what a child process does with one engine.
//!
//! Owns: keys, values, and what each workload does and measures. Keys have 16 bytes, values 100 bytes of which LZ4
//! saves about half. The keys of the set have even numbers, so that a missing key lies between two that exist.

use super::engine::{Driver, Engine, Result, Settings};
use super::measure::{self, Watch};
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

const KEY_LEN: usize = 16;
const VALUE_LEN: usize = 100;
const ENTRY_LEN: u64 = (KEY_LEN + VALUE_LEN) as u64;
/// Different values: enough that a block seldom has one twice.
const VALUES: usize = 10_000;
const SHORT_RANGE: usize = 100;
/// The cache holds the set in any engine's form of it.
const CACHE_THAT_FITS: u64 = 4;
/// The part of the set that fits into the cache of all other workloads.
const CACHE_PART: u64 = 10;

/// Memory that a calling thread takes by itself: each has pages of its own in the allocator, for each size of allocation.
const THREAD_BYTES: u64 = 1 << 20;

/// How much is done.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Sizes {
    pub keys: u64,
    pub seconds: f64,
    pub sync_seconds: f64,
    pub overwrite_times: u64,
    pub write_buffer: usize,
}

impl Sizes {
    /// Bytes of the set's keys and values.
    fn set_bytes(&self) -> u64 {
        self.keys * ENTRY_LEN
    }

    fn small_cache(&self) -> u64 {
        self.set_bytes() / CACHE_PART
    }
}

/// What is done.
enum Kind {
    /// Synced puts of random keys for a time.
    SyncFill { threads: u64 },
    /// Each key of the set once, in random order.
    Fill { threads: u64 },
    /// Gets of random keys.
    Read { threads: u64, cached: bool, missing: bool },
    /// The whole set in order.
    ScanAll,
    /// Short ranges from random keys on.
    ScanShort { threads: u64 },
    /// Puts of random keys of a set that is there.
    Overwrite { threads: u64 },
}

/// One of them.
pub struct Workload {
    pub name: &'static str,
    /// What it counts a second.
    pub unit: &'static str,
    pub about: &'static str,
    kind: Kind,
}

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "sync-fill-64",
        unit: "puts",
        about: "random keys, each put durable, 64 threads",
        kind: Kind::SyncFill { threads: 64 },
    },
    Workload {
        name: "fill-1",
        unit: "puts",
        about: "each key once in random order, not synced, 1 thread",
        kind: Kind::Fill { threads: 1 },
    },
    Workload {
        name: "fill-4",
        unit: "puts",
        about: "the same, 4 threads",
        kind: Kind::Fill { threads: 4 },
    },
    Workload {
        name: "read-cached",
        unit: "gets",
        about: "random keys, the cache holds them all, 2 threads",
        kind: Kind::Read {
            threads: 2,
            cached: true,
            missing: false,
        },
    },
    Workload {
        name: "read-uncached",
        unit: "gets",
        about: "random keys, the cache holds a tenth, 2 threads",
        kind: Kind::Read {
            threads: 2,
            cached: false,
            missing: false,
        },
    },
    Workload {
        name: "read-missing",
        unit: "gets",
        about: "keys between those that exist, 2 threads",
        kind: Kind::Read {
            threads: 2,
            cached: false,
            missing: true,
        },
    },
    Workload {
        name: "scan-all",
        unit: "entries",
        about: "the whole set in order, 1 thread",
        kind: Kind::ScanAll,
    },
    Workload {
        name: "scan-100",
        unit: "scans",
        about: "100 entries from a random key on, 2 threads",
        kind: Kind::ScanShort { threads: 2 },
    },
    Workload {
        name: "overwrite",
        unit: "puts",
        about: "random keys of the set, not synced, many times the engine's memory, 2 threads",
        kind: Kind::Overwrite { threads: 2 },
    },
];

impl Workload {
    /// Whether all runs of an engine can share one directory.
    pub fn reads_only(&self) -> bool {
        matches!(self.kind, Kind::Read { .. } | Kind::ScanAll | Kind::ScanShort { .. })
    }

    /// Threads that call the engine.
    fn threads(&self) -> u64 {
        match self.kind {
            Kind::SyncFill { threads }
            | Kind::Fill { threads }
            | Kind::Read { threads, .. }
            | Kind::ScanShort { threads }
            | Kind::Overwrite { threads } => threads,
            Kind::ScanAll => 1,
        }
    }

    pub fn is_overwrite(&self) -> bool {
        matches!(self.kind, Kind::Overwrite { .. })
    }
}

/// What one run measured.
#[derive(Clone, Serialize, Deserialize)]
pub struct Figures {
    pub ops: u64,
    pub seconds: f64,
    /// Of puts alone: to time each read would cost a part of what it measures.
    pub latency: Option<Latency>,
    /// Of "overwrite".
    pub cost: Option<Cost>,
    pub peak_resident: Option<u64>,
    pub peak_anonymous: Option<u64>,
    /// Bytes of memory that the engine was given: two write buffers, one of which is flushed, the cache, and for each thread
    /// that calls it a stack and pages of the allocator.
    pub given: u64,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// What it cost to keep what was written.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes of keys and values that were put.
    pub put_bytes: u64,
    /// Bytes written to the disk for them, until the engine had settled.
    pub written_bytes: Option<u64>,
    /// Bytes on disk then.
    pub disk_bytes: u64,
    /// Bytes of the set's keys and values.
    pub set_bytes: u64,
    /// Seconds that the engine worked on after the last put.
    pub settle_seconds: f64,
}

impl Figures {
    /// The peak of anonymous memory as a multiple of what the engine was given.
    pub fn of_given(&self) -> Option<f64> {
        Some(self.peak_anonymous? as f64 / self.given as f64)
    }

    pub fn per_second(&self) -> f64 {
        self.ops as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// `t:` and 14 digits: a tenant and its key for the engine that has tenants, 16 bytes for all.
struct RawKey([u8; KEY_LEN]);

impl RawKey {
    fn new(mut number: u64) -> Self {
        let mut bytes = *b"t:00000000000000";
        for digit in bytes.iter_mut().skip(2).rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        Self(bytes)
    }

    fn existing(index: u64) -> Self {
        Self::new(index * 2)
    }

    fn missing(index: u64) -> Self {
        Self::new(index * 2 + 1)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are text")
    }
}

/// Values that were made beforehand, so that making them is not measured.
struct Values(Vec<[u8; VALUE_LEN]>);

impl Values {
    fn new() -> Self {
        let mut rng = SmallRng::seed_from_u64(7);
        let one = |_| {
            let mut value = [0; VALUE_LEN];
            let (random, repeated) = value.split_at_mut(VALUE_LEN / 2);
            rng.fill_bytes(random);
            repeated.copy_from_slice(random);
            value
        };
        Self((0..VALUES).map(one).collect())
    }

    fn any(&self, rng: &mut SmallRng) -> &[u8] {
        &self.0[rng.random_range(0..VALUES)]
    }
}

/// The numbers below `len` in an order without a pattern, each once, without memory for them: a Feistel network over
/// the next even power of two, walked until it comes back below `len`.
struct Shuffled {
    len: u64,
    half_bits: u32,
}

impl Shuffled {
    fn new(len: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self {
            len,
            half_bits: bits.div_ceil(2).max(1),
        }
    }

    fn at(&self, index: u64) -> u64 {
        let mut number = self.permuted(index);
        while number >= self.len {
            number = self.permuted(number);
        }
        number
    }

    fn permuted(&self, number: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for round in 1..=4_u64 {
            let mixed = (right + round).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (left, right) = (right, left ^ ((mixed >> 32) & mask));
        }
        left << self.half_bits | right
    }
}

/// When the threads of a run end.
enum Until {
    /// After so many calls of all of them together.
    Calls(u64),
    /// After this time.
    Time(Duration),
}

/// How a run is driven.
struct Plan {
    threads: u64,
    until: Until,
    /// How many calls a thread makes between two looks at the clock.
    calls_between_looks: u64,
    latencies: bool,
}

struct Driven {
    ops: u64,
    seconds: f64,
    latencies: Histogram<u64>,
}

/// Calls `op` from all threads. It gets the thread's own random numbers and a number that no other call of the run
/// gets, and returns how many operations it was.
fn drive(plan: &Plan, op: impl Fn(&mut SmallRng, u64) -> Result<u64> + Sync) -> Result<Driven> {
    let start = Barrier::new(usize::try_from(plan.threads)?);
    let one = |thread: u64| -> Result<(u64, Histogram<u64>, Instant, Instant)> {
        let mut rng = SmallRng::seed_from_u64(thread);
        let mut latencies = measure::latencies();
        let (mut ops, mut calls) = (0, 0);
        start.wait();
        let begun = Instant::now();
        let mut before = begun;
        loop {
            let number = calls * plan.threads + thread;
            match plan.until {
                Until::Calls(end) if number >= end => break,
                Until::Time(time) if calls % plan.calls_between_looks == 0 && begun.elapsed() >= time => break,
                _ => {}
            }
            ops += op(&mut rng, number)?;
            calls += 1;
            if plan.latencies {
                let now = Instant::now();
                latencies.saturating_record(u64::try_from((now - before).as_nanos())?.max(1));
                before = now;
            }
        }
        Ok((ops, latencies, begun, Instant::now()))
    };
    thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = (0..plan.threads)
            .map(|thread| scope.spawn(move || one(thread)))
            .collect();
        let mut driven = Driven {
            ops: 0,
            seconds: 0.0,
            latencies: measure::latencies(),
        };
        let mut span: Option<(Instant, Instant)> = None;
        for thread in threads {
            let (ops, latencies, begun, ended) = thread.join().map_err(|_| "a thread panicked")??;
            driven.ops += ops;
            driven.latencies.add(&latencies)?;
            span = Some(span.map_or((begun, ended), |(first, last)| (first.min(begun), last.max(ended))));
        }
        driven.seconds = span.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        Ok(driven)
    })
}

/// Puts each key of the set once, in random order.
fn fill(engine: &dyn Engine, values: &Values, keys: u64, threads: u64) -> Result<Driven> {
    let order = Shuffled::new(keys);
    drive(&puts(threads, Until::Calls(keys)), |rng, number| {
        engine.put(RawKey::existing(order.at(number)).as_str(), values.any(rng))?;
        Ok(1)
    })
}

fn puts(threads: u64, until: Until) -> Plan {
    Plan {
        threads,
        until,
        calls_between_looks: 1,
        latencies: true,
    }
}

fn open(driver: &Driver, dir: &Path, sizes: &Sizes, sync: bool, cache: u64) -> Result<Box<dyn Engine>> {
    std::fs::create_dir_all(dir)?;
    (driver.open)(&Settings {
        dir,
        sync,
        write_buffer: sizes.write_buffer,
        cache: usize::try_from(cache)?,
    })
}

/// Writes the set that the workloads share that only read.
pub fn prepare(driver: &Driver, dir: &Path, sizes: &Sizes) -> Result<()> {
    let engine = open(driver, dir, sizes, false, sizes.small_cache())?;
    fill(engine.as_ref(), &Values::new(), sizes.keys, 2)?;
    engine.settle()
}

/// Runs one workload on one engine.
pub fn run(workload: &Workload, driver: &Driver, dir: &Path, sizes: &Sizes) -> Result<Figures> {
    let watch = Watch::start();
    let sync = matches!(workload.kind, Kind::SyncFill { .. });
    let cache = match workload.kind {
        Kind::Read { cached: true, .. } => sizes.set_bytes() * CACHE_THAT_FITS,
        _ => sizes.small_cache(),
    };
    let engine = open(driver, dir, sizes, sync, cache)?;
    let engine = engine.as_ref();
    let values = Values::new();
    let mut cost = None;
    let driven = match workload.kind {
        Kind::SyncFill { threads } => {
            let until = Until::Time(Duration::try_from_secs_f64(sizes.sync_seconds)?);
            random_puts(engine, &values, sizes.keys, puts(threads, until))?
        }
        Kind::Fill { threads } => fill(engine, &values, sizes.keys, threads)?,
        Kind::Read {
            threads,
            cached,
            missing,
        } => {
            if cached {
                read_all(engine, sizes.keys, threads)?;
            }
            read(engine, sizes, threads, missing)?
        }
        Kind::ScanAll => drive(&timed(1, sizes, 1)?, |_, _| {
            let entries = engine.scan(RawKey::new(0).as_str(), usize::MAX)? as u64;
            if entries == sizes.keys {
                Ok(entries)
            } else {
                Err(format!("a scan found {entries} of {} entries", sizes.keys).into())
            }
        })?,
        Kind::ScanShort { threads } => drive(&timed(threads, sizes, 1)?, |rng, _| {
            let from = RawKey::existing(rng.random_range(0..sizes.keys));
            engine.scan(from.as_str(), SHORT_RANGE)?;
            Ok(1)
        })?,
        Kind::Overwrite { threads } => {
            let (driven, what) = overwrite(engine, &values, dir, sizes, threads)?;
            cost = Some(what);
            driven
        }
    };
    let latency = (!driven.latencies.is_empty()).then(|| Latency {
        p50: driven.latencies.value_at_quantile(0.5) as f64 / 1e3,
        p99: driven.latencies.value_at_quantile(0.99) as f64 / 1e3,
        p999: driven.latencies.value_at_quantile(0.999) as f64 / 1e3,
        max: driven.latencies.max() as f64 / 1e3,
    });
    Ok(Figures {
        ops: driven.ops,
        seconds: driven.seconds,
        latency,
        cost,
        peak_resident: measure::peak_resident(),
        peak_anonymous: watch.end(),
        given: 2 * sizes.write_buffer as u64 + cache + workload.threads() * THREAD_BYTES,
    })
}

fn timed(threads: u64, sizes: &Sizes, calls_between_looks: u64) -> Result<Plan> {
    Ok(Plan {
        threads,
        until: Until::Time(Duration::try_from_secs_f64(sizes.seconds)?),
        calls_between_looks,
        latencies: false,
    })
}

fn random_puts(engine: &dyn Engine, values: &Values, keys: u64, plan: Plan) -> Result<Driven> {
    drive(&plan, |rng, _| {
        let key = RawKey::existing(rng.random_range(0..keys));
        engine.put(key.as_str(), values.any(rng))?;
        Ok(1)
    })
}

/// Reads each key once, so that the cache has what it can hold.
fn read_all(engine: &dyn Engine, keys: u64, threads: u64) -> Result<Driven> {
    let order = Shuffled::new(keys);
    let plan = Plan {
        threads,
        until: Until::Calls(keys),
        calls_between_looks: 1,
        latencies: false,
    };
    drive(&plan, |_, number| {
        get(engine, &RawKey::existing(order.at(number)), Some(VALUE_LEN))
    })
}

/// Reads random keys: a tenth of the time unmeasured, for caches to come to what they are in the long run.
fn read(engine: &dyn Engine, sizes: &Sizes, threads: u64, missing: bool) -> Result<Driven> {
    let op = |rng: &mut SmallRng, _| {
        let index = rng.random_range(0..sizes.keys);
        if missing {
            get(engine, &RawKey::missing(index), None)
        } else {
            get(engine, &RawKey::existing(index), Some(VALUE_LEN))
        }
    };
    let mut warm_up = *sizes;
    warm_up.seconds /= 10.0;
    drive(&timed(threads, &warm_up, 32)?, op)?;
    drive(&timed(threads, sizes, 32)?, op)
}

fn get(engine: &dyn Engine, key: &RawKey, expected: Option<usize>) -> Result<u64> {
    let found = engine.get(key.as_str())?;
    if found == expected {
        Ok(1)
    } else {
        Err(format!("{} has {found:?} bytes, not {expected:?}", key.as_str()).into())
    }
}

/// Overwrites keys of a set that has settled, until many times the engine's memory is written, and lets it settle
/// again.
fn overwrite(engine: &dyn Engine, values: &Values, dir: &Path, sizes: &Sizes, threads: u64) -> Result<(Driven, Cost)> {
    fill(engine, values, sizes.keys, threads)?;
    engine.settle()?;
    let before = measure::written_bytes();
    let memory = sizes.write_buffer as u64 + sizes.small_cache();
    let count = memory * sizes.overwrite_times / ENTRY_LEN;
    let driven = random_puts(engine, values, sizes.keys, puts(threads, Until::Calls(count)))?;
    let ended = Instant::now();
    engine.settle()?;
    let cost = Cost {
        put_bytes: driven.ops * ENTRY_LEN,
        written_bytes: measure::written_bytes()
            .zip(before)
            .map(|(after, before)| after - before)
            // A file system in memory: nothing is written that could be counted.
            .filter(|written| *written > 0),
        disk_bytes: measure::disk_bytes(dir),
        set_bytes: sizes.set_bytes(),
        settle_seconds: ended.elapsed().as_secs_f64(),
    };
    Ok((driven, cost))
}
