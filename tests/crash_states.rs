//! Power is lost at every operation of a workload, and what was not synced survives in many ways: the store always opens,
//! every acknowledged write is there, and of the others at most the one that was under way. The same for a crash during
//! the recovery, and for every operation that fails without a crash.
//!
//! `PAIRDB_TEST_CRASH_STATES=20000` makes it that many states.

use bytes::Bytes;
use pairdb_node::storage::backup;
use pairdb_node::storage::clock::VectorClock;
use pairdb_node::storage::compaction::debt::LevelOptions;
use pairdb_node::storage::error::{Error, ErrorKind};
use pairdb_node::storage::fs::{Failure, Fault, FileSystem, Operation, OperationKind, SimFs, Survival};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::recovery::Options;
use pairdb_node::storage::store::{Store, StoreOptions};
use pairdb_node::storage::time::ManualTime;
use pairdb_node::storage::version::{Value, Version, Versions};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As in the node itself. Disks are copied all the time here, which keeps other allocators busy returning memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Crash states of the bounded form.
const BOUNDED_STATES: usize = 1200;
/// Where backups go.
const BACKUPS: &str = "/disk/backups";
const SECTOR_BYTES: usize = 512;
/// Of so many crash states one has its recovery crash too, at each of its operations.
const NESTED_EVERY: usize = 127;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A write without a clock, of so many bytes.
    Set(u8, usize),
    Delete(u8),
    /// A write with a clock of its own: coordinator, counter, bytes.
    Concurrent(u8, u8, u64, usize),
    Flush,
    /// A flush during which the disk refuses to sync the manifest, so that the next one writes it anew.
    UnrecordedFlush,
    /// Everything that is due.
    Compact,
    /// A compaction during which the disk refuses to sync the manifest.
    UnrecordedCompaction,
    Backup,
    /// A clean end and a start.
    Reopen,
    /// An end as by a kill, and a start.
    Restart,
}

/// Small records and such that span sectors, segments that are closed after a few of them, and everything that makes,
/// replaces or deletes a file.
const WORKLOAD: &[Step] = &[
    Step::Set(0, 40),
    Step::Set(1, 700),
    Step::Concurrent(2, 0, 1, 90),
    Step::Concurrent(2, 1, 1, 600),
    Step::Set(3, 1300),
    Step::Delete(1),
    Step::Set(4, 20),
    Step::Flush,
    Step::Set(0, 400),
    Step::Restart,
    Step::Concurrent(2, 2, 3, 10),
    Step::Set(1, 30),
    Step::Delete(3),
    Step::UnrecordedFlush,
    Step::Set(5, 900),
    Step::Set(5, 901),
    Step::Set(0, 902),
    Step::Flush,
    Step::UnrecordedCompaction,
    Step::Set(5, 10),
    Step::Compact,
    Step::Backup,
    Step::Delete(0),
    Step::Reopen,
    Step::Concurrent(3, 1, 7, 2500),
    Step::Set(6, 300),
    Step::Set(7, 300),
    Step::Set(4, 300),
    Step::Restart,
    Step::Restart,
    Step::Delete(4),
    Step::Flush,
    Step::Set(2, 60),
    Step::Set(8, 5000),
    Step::Flush,
    Step::Backup,
    Step::Compact,
    Step::Reopen,
    Step::Set(9, 50),
];

/// Nothing above the root exists before: the node makes the directories down to its own.
fn options() -> StoreOptions {
    let mut options = Options::at("/disk/node/data");
    options.log.segment_size = 1500;
    options.table.block_size = 512;
    // Two flushes fill L0, and what they hold fills L1 and L2.
    options.levels = LevelOptions {
        l0_trigger: 2,
        l0_size: 1 << 20,
        l1_size: 1000,
        l2_size: 2000,
        level_multiplier: 2,
        gc_grace_ms: u64::MAX,
    };
    let mut options = StoreOptions::from(options);
    // Every run takes the same steps at the same time.
    options.time = Arc::new(ManualTime::default());
    options
}

fn open(disk: &SimFs) -> Result<Store, Error> {
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    Store::open(&fs, options(), "node")
}

/// Opens as an application does: a table that could not be read stands aside, and comes back with the next start.
fn open_whole(disk: &SimFs) -> Result<Store, Error> {
    let store = open(disk)?;
    if store.published().load().tables.quarantine().is_empty() {
        return Ok(store);
    }
    drop(store);
    open(disk)
}

fn key(number: u8) -> Key {
    Key::new("tenant", &format!("key{number:02}")).unwrap()
}

/// Bytes that no other write has, and that do not compress away.
fn value(time: u64, size: usize) -> Value {
    let mut state = time;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    Value::Live((0..size).map(|_| byte()).collect())
}

type Contents = BTreeMap<Key, Vec<(VectorClock, Option<Bytes>)>>;

/// What a key's versions say, without what is local to a node.
fn contents(versions: &Versions) -> Vec<(VectorClock, Option<Bytes>)> {
    let content = |v: &Version| (v.clock.clone(), v.value.live().cloned());
    versions.all().iter().map(content).collect()
}

/// What the writes of a workload should have led to.
#[derive(Debug, Clone, Default)]
struct Expected {
    acknowledged: BTreeMap<Key, Versions>,
    /// A write that was refused when it may have reached the disk already.
    under_way: Option<(Key, Version)>,
    /// Backups that were said to be whole: name, and what they hold.
    backups: Vec<(String, Contents)>,
}

impl Expected {
    fn acknowledge(&mut self, key: Key, version: Version) {
        let known = self.acknowledged.remove(&key).unwrap_or_default();
        self.acknowledged.insert(key, known.merge(version.into()));
    }

    fn contents(&self) -> Contents {
        let entries = self.acknowledged.iter();
        entries
            .map(|(key, versions)| (key.clone(), contents(versions)))
            .collect()
    }

    /// Writes, and takes note of it.
    fn write(&mut self, store: &Store, key: Key, value: Value, clock: Option<VectorClock>) -> Result<(), Error> {
        let result = store.write(&key, value.clone(), clock.clone());
        let applied = store.published().applied();
        let seq = if result.is_ok() { applied } else { applied + 1 };
        let known = self.acknowledged.get(&key).map(Versions::clock).unwrap_or_default();
        let version = Version {
            clock: clock.unwrap_or_else(|| known.with("node", seq)),
            value,
            timestamp_ms: 0,
            seq,
        };
        match &result {
            Ok(_) => self.acknowledge(key, version),
            // These promise that nothing of the write is kept.
            Err(Error::Latched { .. }) => {}
            Err(error) if error.kind() == ErrorKind::DiskFull => {}
            Err(_) => self.under_way = Some((key, version)),
        }
        result.map(drop)
    }

    /// Takes a step. Without a store to go on with, an opening failed.
    fn step(&mut self, disk: &SimFs, store: &mut Option<Store>, step: Step, time: u64) -> Result<(), Error> {
        let open_store = store.as_ref().expect("a step needs a store");
        match step {
            Step::Set(number, size) => self.write(open_store, key(number), value(time, size), None),
            Step::Delete(number) => self.write(open_store, key(number), Value::Tombstone, None),
            Step::Concurrent(number, coordinator, counter, size) => {
                let clock = [(format!("c{coordinator}"), counter)].into_iter().collect();
                self.write(open_store, key(number), value(time, size), Some(clock))
            }
            Step::Flush => open_store.flush(),
            Step::UnrecordedFlush => {
                disk.fail(Fault::next(OperationKind::Sync, "MANIFEST", Failure::Device));
                match open_store.flush() {
                    Err(error) if error.to_string().contains("os error 5") => Ok(()),
                    other => other,
                }
            }
            Step::Compact => {
                while open_store.compact()? {}
                Ok(())
            }
            Step::Backup => {
                let name = time.to_string();
                open_store.backup(Path::new(BACKUPS), &name)?;
                self.backups.push((name, self.contents()));
                Ok(())
            }
            Step::UnrecordedCompaction => {
                disk.fail(Fault::next(OperationKind::Sync, "MANIFEST", Failure::Device));
                match open_store.compact() {
                    Err(error) if error.to_string().contains("os error 5") => Ok(()),
                    other => other.map(drop),
                }
            }
            Step::Reopen => {
                let closed = store.take().map_or(Ok(()), |store| store.close());
                *store = Some(open_whole(disk)?);
                closed
            }
            Step::Restart => {
                *store = None;
                *store = Some(open_whole(disk)?);
                Ok(())
            }
        }
    }

    /// Checks that a store has what is expected of it, and settles whether the write under way became part of that.
    fn check(&mut self, store: &Store) -> Result<(), String> {
        let mut scanned = Contents::new();
        for item in store.scan(&Key::least()) {
            let (key, versions) = item.map_err(|error| format!("a scan: {error}"))?;
            scanned.insert(key, contents(&versions));
        }
        for key in (0..=9).map(key).chain([after()]) {
            let got = store.get(&key).map_err(|error| format!("a get of {key:?}: {error}"))?;
            if contents(&got) != scanned.get(&key).cloned().unwrap_or_default() {
                return Err(format!("a get of {key:?} and the scan do not agree"));
            }
        }
        if scanned == self.contents() {
            self.under_way = None;
            return Ok(());
        }
        if let Some((key, version)) = self.under_way.take() {
            self.acknowledge(key, version);
            if scanned == self.contents() {
                return Ok(());
            }
        }
        let keys: Vec<_> = scanned.keys().chain(self.acknowledged.keys()).collect();
        let expected = self.contents();
        let wrong = keys.into_iter().find(|key| scanned.get(*key) != expected.get(*key));
        Err(format!("{wrong:?} is not as it was acknowledged"))
    }

    /// Checks a disk after a crash: it opens, has what it should, takes a write and a flush, and has them after yet more
    /// crashes.
    fn check_disk(&mut self, disk: &SimFs, survival: Survival) -> Result<(), String> {
        for round in ["at first", "after a write", "after a flush"] {
            let store = open(disk).map_err(|error| format!("{round} it does not open: {error}"))?;
            self.check(&store).map_err(|wrong| format!("{round}: {wrong}"))?;
            match round {
                "at first" => self.write(&store, after(), value(1, 100), None),
                "after a write" => store.flush(),
                _ => store.close(),
            }
            .map_err(|error| format!("{round}, what comes next is refused: {error}"))?;
            drop(store);
            disk.crash_with(survival);
        }
        for (name, held) in &self.backups {
            check_backup(disk, name, held).map_err(|wrong| format!("backup {name}: {wrong}"))?;
        }
        let store = open(disk).map_err(|error| format!("after a clean end it does not open: {error}"))?;
        self.check(&store)
            .map_err(|wrong| format!("after a clean end: {wrong}"))
    }
}

/// Restores a backup and checks that it holds what it should.
fn check_backup(disk: &SimFs, name: &str, held: &Contents) -> Result<(), String> {
    let restored = Options::at(Path::new("/disk/restored").join(name));
    let from = Path::new(BACKUPS).join(name);
    backup::restore(disk, &from, &restored.sstable_dir, &restored.log.dir).map_err(|error| error.to_string())?;
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let store = Store::open(&fs, restored, "node").map_err(|error| error.to_string())?;
    let entries = store
        .scan(&Key::least())
        .map(|item| item.map(|(key, versions)| (key, contents(&versions))));
    let found: Contents = entries.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if found == *held {
        Ok(())
    } else {
        Err("it does not hold what it held".to_owned())
    }
}

/// The key that is written after a crash.
fn after() -> Key {
    Key::new("tenant", "after").unwrap()
}

/// Runs a workload until an operation fails.
fn run(disk: &SimFs, workload: &[Step]) -> (Expected, Result<(), Error>) {
    let mut expected = Expected::default();
    let mut store = match open(disk) {
        Ok(store) => Some(store),
        Err(error) => return (expected, Err(error)),
    };
    for (time, step) in (1..).zip(workload) {
        if let Err(error) = expected.step(disk, &mut store, *step, time) {
            return (expected, Err(error));
        }
    }
    (expected, Ok(()))
}

/// The operations of a run, without a crash.
fn operations() -> Vec<Operation> {
    let disk = SimFs::default();
    let (mut expected, end) = run(&disk, WORKLOAD);
    end.unwrap();
    let trace = disk.trace();
    let store = open(&disk).unwrap();
    expected.check(&store).unwrap();
    let view = store.published().load();
    let deep = view.tables.levels().skip(2).any(|level| !level.is_empty());
    assert!(deep, "compaction went down more than one level");
    // The workload is what it says: tables went down several levels, and their predecessors are gone. A manifest is written anew at each opening, and after the flush and the compaction that were not recorded.
    let made = |suffix: &str| {
        let made = |o: &&Operation| o.kind == OperationKind::Create && o.path.to_string_lossy().ends_with(suffix);
        trace.iter().filter(made).count()
    };
    let openings = 1 + WORKLOAD
        .iter()
        .filter(|s| matches!(s, Step::Reopen | Step::Restart))
        .count();
    let backups = WORKLOAD.iter().filter(|s| matches!(s, Step::Backup)).count();
    assert_eq!(made("MANIFEST.tmp"), openings + 2 + backups);
    let removed = |suffix: &str| {
        let removed = |o: &&Operation| o.kind == OperationKind::Remove && o.path.to_string_lossy().ends_with(suffix);
        trace.iter().filter(removed).count()
    };
    let counts = [made(".log.tmp"), made(".sst.tmp"), removed(".log"), removed(".sst")];
    assert!(
        counts.iter().zip([8, 9, 6, 6]).all(|(n, least)| *n >= least),
        "{counts:?}"
    );
    trace
}

/// Where a crash can leave something that a crash at the operation before could not.
fn crash_points(trace: &[Operation]) -> Vec<usize> {
    let matters = |kind: OperationKind| kind.is_change() || kind.is_sync();
    (0..trace.len()).filter(|at| matters(trace[*at].kind)).collect()
}

/// What survives in the state with this number at an operation.
fn survival(operation: usize, number: usize) -> Survival {
    match number {
        0 => Survival::Nothing,
        1 => Survival::Everything,
        _ => Survival::Random((operation * 1_000_003 + number) as u64),
    }
}

/// Calls `check` with each of `items`, on as many threads as there are processors; panics with the first failure.
fn on_all_processors<T: Sync>(items: &[T], check: impl Fn(&T) -> Result<(), String> + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(failure) = check(item) {
                next.store(items.len(), Ordering::Relaxed);
                return Err(failure);
            }
        }
        Ok(())
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .filter_map(|worker| worker.join().unwrap().err())
            .collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Crashes the recovery of `disk` at each of its operations, and checks what is left. Returns the number of states.
fn crash_the_recovery(disk: &SimFs, expected: &Expected, seed: usize) -> Result<usize, String> {
    let whole = disk.copied();
    drop(open(&whole).map_err(|error| format!("it does not open: {error}"))?);
    let trace = whole.trace();
    let points = crash_points(&trace);
    for at in &points {
        let disk = disk.copied();
        disk.crash_after(*at);
        let opened = open(&disk).is_ok();
        // The reserve for deletes may wait; nothing else may.
        assert!(
            !opened || trace[*at].path.ends_with("RESERVE"),
            "a recovery without power"
        );
        for number in [0, 1, seed + 2] {
            let (disk, survival) = (disk.copied(), survival(seed + at, number));
            disk.crash_with(survival);
            let checked = expected.clone().check_disk(&disk, survival);
            checked.map_err(|wrong| format!("recovery cut off at {:?}, {survival:?}: {wrong}", trace[*at]))?;
        }
    }
    Ok(points.len() * 3)
}

#[test]
fn after_a_crash_at_any_operation_every_acknowledged_write_is_there() {
    let trace = operations();
    let points = crash_points(&trace);
    let wanted = std::env::var("PAIRDB_TEST_CRASH_STATES").map_or(BOUNDED_STATES, |states| states.parse().unwrap());
    let each = wanted.div_ceil(points.len()).max(2);
    let (states, nested) = (AtomicUsize::new(0), AtomicUsize::new(0));
    on_all_processors(&points, |at| {
        let crashing = SimFs::default();
        crashing.crash_after(*at);
        let (expected, end) = run(&crashing, WORKLOAD);
        end.expect_err("a run without power");
        for number in 0..each {
            let (disk, survival) = (crashing.copied(), survival(*at, number));
            disk.crash_with(survival);
            let failed = |wrong| format!("operation {at}, {:?}, {survival:?}: {wrong}", trace[*at]);
            if (at * each + number).is_multiple_of(NESTED_EVERY) {
                let more = crash_the_recovery(&disk, &expected, *at).map_err(failed)?;
                nested.fetch_add(more, Ordering::Relaxed);
            }
            expected.clone().check_disk(&disk, survival).map_err(failed)?;
            states.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    println!(
        "{} operations, {} of them crash points; {} crash states and {} of crashed recoveries, all recovered",
        trace.len(),
        points.len(),
        states.into_inner(),
        nested.into_inner()
    );
}

#[test]
fn a_batch_torn_between_any_two_sectors_is_no_damage() {
    let mut states = 0;
    // The mark and the record of the second write move over the end of a sector. A small record may survive without its
    // mark, a large one in part.
    let cases = (0..SECTOR_BYTES)
        .step_by(8)
        .flat_map(|before| [(before, 60, 16), (before, 2 * SECTOR_BYTES, 4)]);
    for (before, size, each) in cases {
        let workload = [Step::Set(0, before), Step::Set(1, size)];
        let whole = SimFs::default();
        run(&whole, &workload).1.unwrap();
        let crashing = SimFs::default();
        crashing.crash_after(
            whole
                .trace()
                .iter()
                .rposition(|o| o.kind == OperationKind::Sync)
                .unwrap(),
        );
        let (expected, _) = run(&crashing, &workload);
        assert!(expected.under_way.is_some());
        for number in 0..each {
            let (disk, survival) = (crashing.copied(), survival(before, number));
            disk.crash_with(survival);
            let checked = expected.clone().check_disk(&disk, survival);
            checked.unwrap_or_else(|wrong| panic!("{size} bytes behind {before}, {survival:?}: {wrong}"));
            states += 1;
        }
    }
    println!("{states} torn batches, all recovered");
}

/// Runs the workload on a disk of which one operation fails, as an application does that goes on after an error: what is
/// latched is opened again, and so is what did not open.
fn run_with_a_fault(disk: &SimFs, fault: Fault) -> Result<Expected, String> {
    let mut expected = Expected::default();
    disk.fail(fault);
    let mut store = None;
    for (time, step) in (1..).zip(WORKLOAD) {
        // The workload has a fault of its own beside this one.
        for _ in 0..3 {
            if store.is_none()
                && let Ok(opened) = open_whole(disk)
            {
                expected.check(&opened)?;
                store = Some(opened);
            }
        }
        if store.is_none() {
            return Err("it does not open when the fault is over".to_owned());
        }
        let result = expected.step(disk, &mut store, *step, time);
        // What was under way may be there when the store was opened anew, and not before.
        let opened = matches!(step, Step::Reopen | Step::Restart);
        if let Some(open_store) = store.as_ref().filter(|_| opened || result.is_err()) {
            if opened {
                expected.check(open_store)
            } else {
                let mut visible = expected.clone();
                visible.under_way = None;
                visible.check(open_store)
            }
            .map_err(|wrong| format!("after {step:?}, {result:?}: {wrong}"))?;
        }
        let Err(error) = result else {
            continue;
        };
        if error.kind() == ErrorKind::Corruption {
            return Err(format!("{step:?}: {error}"));
        }
        if matches!(error, Error::Latched { .. }) {
            store = None;
        }
    }
    Ok(expected)
}

#[test]
fn an_operation_that_fails_is_an_error_and_loses_nothing() {
    let trace = operations();
    let each = if std::env::var_os("PAIRDB_TEST_CRASH_STATES").is_some() {
        6
    } else {
        1
    };
    let faults: Vec<(usize, Failure, usize)> = (0..trace.len())
        .flat_map(|at| {
            [
                (at, Failure::Device, 1),
                (at, Failure::Device, 2),
                (at, Failure::Full, 1),
            ]
        })
        .filter(|(at, failure, _)| *failure == Failure::Device || trace[*at].kind.is_change())
        .collect();
    let states = AtomicUsize::new(0);
    on_all_processors(&faults, |(at, failure, times)| {
        let mut fault = Fault::at(*at, *failure);
        fault.times = *times;
        let disk = SimFs::default();
        let failed = |wrong| format!("operation {at}, {:?}, {failure:?} {times} times: {wrong}", trace[*at]);
        let expected = run_with_a_fault(&disk, fault).map_err(failed)?;
        for number in 0..each {
            let (disk, survival) = (disk.copied(), survival(*at, (at + number) % 6));
            disk.crash_with(survival);
            let checked = expected.clone().check_disk(&disk, survival);
            checked.map_err(|wrong| failed(format!("{survival:?}: {wrong}")))?;
            states.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    println!(
        "{} faults, and {} crashes after them, all recovered",
        faults.len(),
        states.into_inner()
    );
}
