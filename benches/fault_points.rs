//! What the injection of faults costs a node into which nothing is injected: `cargo bench --bench fault_points`.
//!
//! Measures a passed point beside an empty call. How many points a read and a write pass is not taken from the source but
//! counted: on a node with a single client, so that each write is a batch of its own, every point is armed with what is due
//! only after more passes than there will be. Their time is put in relation to what the engine alone takes for a read of a
//! table and for a write that is not synced: a node does either more slowly. The exit code is 1 when a share is above
//! [`MOST_SHARE`].

use bytes::Bytes;
use pairdb_node::actors::faults::{Fault, Faults, Injected, Injection, MESSAGE, Passed};
use pairdb_node::actors::requests::Requests;
use pairdb_node::actors::write::NewWrite;
use pairdb_node::config::Config;
use pairdb_node::node::Node;
use pairdb_node::storage::fs::{FileSystem, RealFs};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::log::record::Operation;
use pairdb_node::storage::store::{Store, StoreOptions};
use pairdb_node::storage::version::Value;
use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Passes of a point in one round.
const PASSES: u32 = 2_000_000;
/// Keys that are written and read: few, so that all of them stay in the processor's caches, and the engine is fast.
const KEYS: u32 = 2000;
/// Rounds of each measurement; the median counts.
const ROUNDS: usize = 15;
/// What the points may take of a read and of a write.
const MOST_SHARE: f64 = 0.01;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn key(number: u32) -> Outcome<Key> {
    Ok(Key::new(
        "bench",
        &format!("key{:08}", number.wrapping_mul(7919) % KEYS),
    )?)
}

fn value() -> Value {
    Value::Live(Bytes::from_static(&[7; 100]))
}

/// Nanoseconds of one of `times` that `work` does in a round.
fn ns_of(times: u32, mut work: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        work()?;
        rounds.push(begun.elapsed().as_secs_f64() * 1e9 / f64::from(times));
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}

#[inline(never)]
fn empty(faults: &Faults, actor: &str, point: &'static str) -> Result<Passed, Injected> {
    black_box((faults, actor, point));
    Ok(Passed::On)
}

#[inline(never)]
fn passed(faults: &Faults, actor: &str, point: &'static str) -> Result<Passed, Injected> {
    black_box((faults, actor, point));
    faults.pass(actor, point)
}

async fn empty_waiting(faults: &Faults, actor: &str, point: &'static str) -> Result<Passed, Injected> {
    black_box((faults, actor, point));
    Ok(Passed::On)
}

/// A point where the actor waits, as it passes one before each message.
async fn passed_waiting(faults: &Faults, actor: &str, point: &'static str) -> Result<Passed, Injected> {
    black_box((faults, actor, point));
    faults.pass_waiting(actor, point, true).await
}

/// Of the points before messages, and of all others.
#[derive(Clone, Copy, Default)]
struct Kinds {
    messages: f64,
    others: f64,
}

/// Nanoseconds that a passed point with nothing armed adds to an empty call; prints both.
fn ns_of_points(faults: &Faults) -> Outcome<Kinds> {
    let nothing = ns_of(PASSES, || {
        for _ in 0..PASSES {
            let _on = black_box(empty(faults, "wal", "before-write")?);
        }
        Ok(())
    })?;
    let pass = ns_of(PASSES, || {
        for _ in 0..PASSES {
            let _on = black_box(passed(faults, "wal", "before-write")?);
        }
        Ok(())
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let nothing_waiting = ns_of(PASSES, || {
        runtime.block_on(async {
            for _ in 0..PASSES {
                let _on = black_box(empty_waiting(faults, "wal", "message").await?);
            }
            Ok(())
        })
    })?;
    let waiting = ns_of(PASSES, || {
        runtime.block_on(async {
            for _ in 0..PASSES {
                let _on = black_box(passed_waiting(faults, "wal", "message").await?);
            }
            Ok(())
        })
    })?;
    println!("a passed point with nothing armed: {pass:.2} ns; an empty call: {nothing:.2} ns");
    println!("where the actor waits, as before a message: {waiting:.2} ns; an empty call: {nothing_waiting:.2} ns");
    Ok(Kinds {
        messages: (waiting - nothing_waiting).max(0.0),
        others: (pass - nothing).max(0.0),
    })
}

/// Nanoseconds of the engine for a read of a table and for a write that is not synced.
fn ns_of_the_engine(dir: &Path) -> Outcome<(f64, f64)> {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let options = StoreOptions {
        sync_writes: false,
        ..StoreOptions::at(dir)
    };
    let store = Store::open(&fs, options, "bench")?;
    let keys = (0..KEYS).map(key).collect::<Outcome<Vec<_>>>()?;
    let mut round = 0;
    let write = ns_of(KEYS, || {
        round += 1;
        for key in &keys {
            store.write(key, value(), Some([("bench", round)].into_iter().collect()))?;
        }
        Ok(())
    })?;
    store.flush()?;
    let read = ns_of(KEYS, || {
        for key in &keys {
            if black_box(store.get(key)?).is_empty() {
                return Err("a key that was written is not there".into());
            }
        }
        Ok(())
    })?;
    store.close()?;
    Ok((read, write))
}

/// Arms every point of every actor with what is never due.
fn count_passes(faults: &Faults) -> Outcome<()> {
    for actor in faults.actors() {
        for point in Faults::points(&actor) {
            let injection = Injection {
                actor: actor.clone(),
                point: point.to_owned(),
                fault: Fault::Stall(Duration::ZERO),
                after: u64::MAX,
                times: 1,
                one_in: 1,
                seed: 0,
            };
            faults.inject(injection).map_err(|refused| refused.0)?;
        }
    }
    Ok(())
}

/// How often points were passed since they were armed, for each key.
fn passes(faults: &Faults) -> Kinds {
    let mut kinds = Kinds::default();
    for (_, injection) in faults.armed() {
        let kind = match injection.point.as_str() {
            MESSAGE => &mut kinds.messages,
            _ => &mut kinds.others,
        };
        *kind += (u64::MAX - injection.after) as f64 / f64::from(KEYS);
    }
    kinds
}

fn passes_since(before: Kinds, faults: &Faults) -> Kinds {
    let now = passes(faults);
    Kinds {
        messages: now.messages - before.messages,
        others: now.others - before.others,
    }
}

/// Reads every key; returns how many points one read passed.
async fn points_of_reads(requests: &Requests) -> Outcome<Kinds> {
    let before = passes(&requests.handles.faults);
    for number in 0..KEYS {
        let read = requests.read(key(number)?).await;
        read.map_err(|refusal| format!("a read was refused: {refusal:?}"))?;
    }
    Ok(passes_since(before, &requests.handles.faults))
}

/// How many points a read that no cache answers passes, one that the cache answers, and a write.
async fn points_of_a_node(requests: &Requests) -> Outcome<(Kinds, Kinds, Kinds)> {
    let faults = &requests.handles.faults;
    count_passes(faults)?;
    let before = passes(faults);
    for number in 0..KEYS {
        let write = NewWrite {
            operation: Operation::Write,
            key: key(number)?,
            value: value(),
            clock: Some([("bench", 1)].into_iter().collect()),
            id: None,
            is_copy: false,
        };
        let written = requests.write(write).await;
        written.map_err(|refusal| format!("a write was refused: {refusal:?}"))?;
    }
    let write = passes_since(before, faults);
    let miss = points_of_reads(requests).await?;
    let hit = points_of_reads(requests).await?;
    faults.clear(None);
    Ok((miss, hit, write))
}

fn main() -> Outcome<ExitCode> {
    let dir = tempfile::tempdir()?;
    let (read_ns, write_ns) = ns_of_the_engine(&dir.path().join("engine"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut config = Config::default();
    config.server.port = 0;
    config.metrics.enabled = false;
    config.storage.data_dir = dir.path().join("node");
    let node = runtime.block_on(Node::start(&config, Arc::new(RealFs)))?;
    let point_ns = ns_of_points(&node.requests().handles.faults)?;
    let (miss, hit, write) = runtime.block_on(points_of_a_node(node.requests()))?;
    runtime.block_on(node.shutdown());
    println!(
        "a read that the cache answers passes {:.1} points",
        hit.messages + hit.others
    );
    let mut is_cheap = true;
    for (what, points, ns) in [
        ("a read that no cache answers", miss, read_ns),
        ("a write", write, write_ns),
    ] {
        let taken = points.messages * point_ns.messages + points.others * point_ns.others;
        let share = taken / ns;
        is_cheap &= share <= MOST_SHARE;
        println!(
            "{what} passes {:.1} points, {:.1} of them before messages: {taken:.1} ns, {:.2} % of the engine's {ns:.0} ns (at most {:.0} %)",
            points.messages + points.others,
            points.messages,
            share * 100.0,
            MOST_SHARE * 100.0
        );
    }
    Ok(if is_cheap { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
