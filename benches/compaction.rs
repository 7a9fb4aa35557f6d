//! What compaction at work costs those who read and write: `cargo bench --bench compaction -- [--rounds N] [--seconds N]
//! [--tables N] [DIR]`.
//!
//! A store is given tables that overlap. Threads then write (each write synced) and read keys, first while nothing
//! compacts them, then while compaction does, with its default workers; in turns, several rounds. Told is the median of each
//! figure, and what compaction wrote while it was measured, by the engine's own count. Exits non-zero when compaction costs a
//! tenth of the throughput, or the p99.9 of writes is more than three times what it is without.
//!
//! Measured is one pace: the one that the engine takes by itself, at its default of 50 MB/s, with the debt that it is given.
//! With the usual number of tables (4) compaction is hardly due, and goes at a part of these; with more it is behind, and
//! goes faster. The cost is that of the MB/s told with it, and says nothing of another pace. DIR (default: the directory for
//! temporary files) says which disk.

use bytes::Bytes;
use hdrhistogram::Histogram;
use pairdb_node::storage::compaction::jobs::JobState;
use pairdb_node::storage::fs::{FileSystem, RealFs};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::store::{Store, StoreOptions};
use pairdb_node::storage::version::Value;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const KEYS_IN_TABLE: u64 = 250_000;
const VALUE_BYTES: usize = 100;
const WRITERS: usize = 16;
const READERS: usize = 2;
/// Workers of a node by default.
const WORKERS: usize = 2;
const MOST_COST: f64 = 0.10;
const MOST_P999: f64 = 3.0;

/// What threads did in one phase.
struct Phase {
    per_second: f64,
    /// Microseconds.
    p999: f64,
    /// Share of the time for which compaction was at work.
    compacting: f64,
    /// Bytes that compaction wrote.
    compacted: u64,
    seconds: f64,
}

/// Bytes that compaction has written so far: the tables of completed jobs, and what running ones have of theirs.
fn compacted(store: &Store) -> u64 {
    let records = store.jobs().records();
    let running = records.iter().filter(|job| job.state == JobState::Running);
    store.jobs().totals().bytes_written + running.map(|job| job.written).sum::<u64>()
}

fn key(number: u64) -> Result<Key> {
    Ok(Key::new("bench", &format!("{number:014}"))?)
}

fn options(dir: &Path, sync_writes: bool) -> StoreOptions {
    let mut options = StoreOptions::at(dir);
    options.sync_writes = sync_writes;
    options.cache_bytes = 16 << 20;
    options
}

/// Each key once, in tables that overlap: what compaction has to do.
fn fill(fs: &Arc<dyn FileSystem>, dir: &Path, tables: u64) -> Result<()> {
    let mut options = options(dir, false);
    // So that each flush below makes the one table that it is to make.
    options.engine.flush_threshold = 1 << 30;
    let store = Store::open(fs, options, "node")?;
    let mut rng = SmallRng::seed_from_u64(7);
    for table in 0..tables {
        for number in (table..tables * KEYS_IN_TABLE).step_by(tables as usize) {
            store.write(&key(number)?, value(&mut rng), Some(clock(1)))?;
        }
        store.flush()?;
    }
    let made = store.published().load().tables.level(0).len() as u64;
    if made != tables {
        return Err(format!("the store has {made} tables at L0, not {tables}").into());
    }
    store.close()?;
    Ok(())
}

/// Half of it random, so that it compresses as text does.
fn value(rng: &mut SmallRng) -> Value {
    let mut bytes = vec![b'.'; VALUE_BYTES];
    rng.fill_bytes(&mut bytes[..VALUE_BYTES / 2]);
    Value::Live(Bytes::from(bytes))
}

fn clock(counter: u64) -> pairdb_node::storage::clock::VectorClock {
    [("coordinator-1", counter)].into_iter().collect()
}

/// Runs `operation` on `threads` threads for some time, or until compaction has nothing left where it is to be at work.
fn drive(
    store: &Store,
    threads: usize,
    longest: Duration,
    while_compacting: bool,
    operation: impl Fn(&Store, &mut SmallRng) -> Result<()> + Sync,
) -> Result<Phase> {
    let stop = AtomicBool::new(false);
    let (begun, compacted_before) = (Instant::now(), compacted(store));
    let (mut looks, mut active) = (0_u32, 0_u32);
    let (histogram, seconds, compacted) = thread::scope(|scope| -> Result<_> {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                let (stop, operation) = (&stop, &operation);
                scope.spawn(move || -> Result<Histogram<u64>> {
                    let mut rng = SmallRng::seed_from_u64(number as u64);
                    let mut histogram = Histogram::new(3)?;
                    while !stop.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        operation(store, &mut rng)?;
                        histogram.record(begun.elapsed().as_nanos() as u64)?;
                    }
                    Ok(histogram)
                })
            })
            .collect();
        loop {
            thread::sleep(Duration::from_millis(20));
            looks += 1;
            let works = store.jobs().active() > 0;
            active += u32::from(works);
            if begun.elapsed() >= longest || while_compacting && !works && !store.jobs().is_due() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        let seconds = begun.elapsed().as_secs_f64();
        let compacted = compacted(store).saturating_sub(compacted_before);
        let mut all = Histogram::<u64>::new(3)?;
        for worker in workers {
            all.add(worker.join().map_err(|_| "a thread panicked")??)?;
        }
        Ok((all, seconds, compacted))
    })?;
    Ok(Phase {
        per_second: histogram.len() as f64 / seconds,
        p999: histogram.value_at_quantile(0.999) as f64 / 1e3,
        compacting: f64::from(active) / f64::from(looks),
        compacted,
        seconds,
    })
}

/// The store that each phase gets a copy of.
struct Filled<'a> {
    fs: &'a Arc<dyn FileSystem>,
    dir: &'a Path,
    keys: u64,
}

/// Writes, or reads, with compaction or without, on a copy of the filled store.
fn measure(filled: &Filled<'_>, writes: bool, compact: bool, longest: Duration) -> Result<Phase> {
    let (fs, keys) = (filled.fs, filled.keys);
    let dir = tempfile::tempdir_in(filled.dir.parent().ok_or("the store has no parent")?)?;
    copy(filled.dir, dir.path())?;
    let store = Arc::new(Store::open(fs, options(dir.path(), true), "node")?);
    let background = store.start_background(if compact { WORKERS } else { 0 })?;
    let phase = if writes {
        drive(&store, WRITERS, longest, compact, |store, rng| {
            let key = key(rng.random_range(0..keys))?;
            store.write(&key, value(rng), Some(clock(2)))?;
            Ok(())
        })
    } else {
        drive(&store, READERS, longest, compact, |store, rng| {
            let found = store.get(&key(rng.random_range(0..keys))?)?;
            black_box(found.winner().ok_or("a key is gone")?);
            Ok(())
        })
    };
    drop(background);
    phase
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn median(of: &[Phase], figure: impl Fn(&Phase) -> f64) -> f64 {
    let mut figures: Vec<_> = of.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() -> Result<ExitCode> {
    let (mut rounds, mut seconds, mut tables, mut at) = (5_usize, 2, 4, std::env::temp_dir());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--rounds" => rounds = args.next().ok_or("--rounds needs a number")?.parse()?,
            "--seconds" => seconds = args.next().ok_or("--seconds needs a number")?.parse()?,
            "--tables" => tables = args.next().ok_or("--tables needs a number")?.parse()?,
            dir => at = PathBuf::from(dir),
        }
    }
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let base = tempfile::tempdir_in(&at)?;
    let dir = base.path().join("filled");
    fill(&fs, &dir, tables)?;
    let filled = Filled {
        fs: &fs,
        dir: &dir,
        keys: tables * KEYS_IN_TABLE,
    };
    let mut well = true;
    for (name, writes) in [
        ("synced writes, 16 threads", true),
        ("reads from tables, 2 threads", false),
    ] {
        let (mut idle, mut busy) = (Vec::new(), Vec::new());
        for _ in 0..rounds.max(1) {
            let longest = Duration::from_secs(seconds);
            idle.push(measure(&filled, writes, false, longest)?);
            busy.push(measure(&filled, writes, true, longest)?);
        }
        let rate = |of: &[Phase]| median(of, |phase| phase.per_second);
        let p999 = |of: &[Phase]| median(of, |phase| phase.p999);
        let cost = 1.0 - rate(&busy) / rate(&idle);
        let slower = p999(&busy) / p999(&idle);
        println!(
            "{name}: {:.0}/s idle, {:.0}/s while compaction was at work {:.0} % of the time and wrote {:.0} bytes, \
             {:.1} MB/s: it costs {:.1} %; p99.9 {:.0} µs idle, {:.0} µs at work: {slower:.2} times",
            rate(&idle),
            rate(&busy),
            100.0 * median(&busy, |phase| phase.compacting),
            median(&busy, |phase| phase.compacted as f64),
            median(&busy, |phase| phase.compacted as f64 / phase.seconds / 1e6),
            100.0 * cost,
            p999(&idle),
            p999(&busy),
        );
        well &= cost < MOST_COST && (!writes || slower <= MOST_P999);
    }
    println!(
        "{}",
        if well {
            "within the demands"
        } else {
            "NOT within the demands"
        }
    );
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
