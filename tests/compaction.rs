//! Compaction, from outside: what it must never change, what it must get rid of, and what it does when a disk fails it.

use bytes::Bytes;
use pairdb_node::storage::clock::VectorClock;
use pairdb_node::storage::compaction::debt::{Debt, LevelOptions};
use pairdb_node::storage::compaction::jobs::JobState;
use pairdb_node::storage::compaction::throttle::Throttle;
use pairdb_node::storage::error::{Error, ErrorKind};
use pairdb_node::storage::fs::{FileSystem, RealFs, SimFs};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::levels::LEVELS;
use pairdb_node::storage::store::{Store, StoreOptions};
use pairdb_node::storage::table::Table;
use pairdb_node::storage::table::block::Compression;
use pairdb_node::storage::time::{ManualTime, Time};
use pairdb_node::storage::version::{Value, Version, Versions};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(3600);

fn options(time: &ManualTime) -> StoreOptions {
    let mut options = StoreOptions::at("/data");
    options.engine.flush_threshold = 40_000;
    options.engine.levels = LevelOptions {
        l0_trigger: 4,
        l0_size: 64_000,
        l1_size: 40_000,
        l2_size: 80_000,
        level_multiplier: 2,
        gc_grace_ms: GRACE.as_millis() as u64,
    };
    options.compaction_bytes_per_second = 0;
    options.time = Arc::new(time.clone());
    options
}

/// The same for real files below `dir`.
fn real_options(dir: &Path) -> StoreOptions {
    let mut options = options(&ManualTime::default());
    options.engine.data_dir = dir.join("data");
    options.engine.sstable_dir = dir.join("data/sstables");
    options.engine.log.dir = dir.join("data/log");
    options
}

struct Bed {
    disk: SimFs,
    time: ManualTime,
    store: Store,
}

fn bed() -> Bed {
    let (disk, time) = (SimFs::default(), ManualTime::default());
    // A tombstone of the year 1970 would be old at once.
    time.advance(Duration::from_secs(1_000_000_000));
    let store = open(&disk, &time);
    Bed { disk, time, store }
}

fn open(disk: &SimFs, time: &ManualTime) -> Store {
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    Store::open(&fs, options(time), "node").unwrap()
}

impl Bed {
    fn reopen(&mut self) {
        let Self { disk, time, store } = self;
        store.close().unwrap();
        disk.crash(0);
        *store = open(disk, time);
    }

    fn compact_all(&self) {
        while self.store.compact().unwrap() {}
    }
}

fn key(n: u32) -> Key {
    Key::new("tenant", &format!("key{n:06}")).unwrap()
}

/// Not compressible, so that tables have the size that their keys suggest.
fn value(n: u32) -> Bytes {
    let mut bytes = vec![0; 100];
    StdRng::seed_from_u64(u64::from(n)).fill(&mut bytes[..]);
    Bytes::from(bytes)
}

fn put(store: &Store, n: u32) {
    store.write(&key(n), Value::Live(value(n)), None).unwrap();
}

fn read(store: &Store, n: u32) -> Result<Option<Bytes>, Error> {
    let versions = store.get(&key(n))?;
    Ok(versions.winner().and_then(|winner| winner.value.live().cloned()))
}

fn tables(store: &Store) -> Vec<Vec<Arc<Table>>> {
    let view = store.published().load();
    (0..LEVELS).map(|level| view.tables.level(level).to_vec()).collect()
}

fn files(disk: &SimFs) -> Vec<String> {
    let names = disk.list(Path::new("/data/sstables")).unwrap();
    names.into_iter().filter(|name| name.ends_with(".sst")).collect()
}

fn tombstones(store: &Store) -> u64 {
    tables(store)
        .iter()
        .flatten()
        .map(|table| table.properties().tombstones)
        .sum()
}

fn shuffled(keys: std::ops::Range<u32>) -> Vec<u32> {
    let mut keys: Vec<u32> = keys.collect();
    keys.shuffle(&mut StdRng::seed_from_u64(1));
    keys
}

#[test]
fn levels_keep_to_their_sizes_without_overlap_and_nothing_is_lost() {
    let mut bed = bed();
    let keys = shuffled(0..6000);
    for n in &keys {
        put(&bed.store, *n);
        while bed.store.compact().unwrap() {}
    }
    for reopened in [false, true] {
        if reopened {
            bed.reopen();
        }
        let levels = options(&bed.time).engine.levels;
        let by_level = tables(&bed.store);
        for (number, level) in by_level.iter().enumerate() {
            let bytes: u64 = level.iter().map(|table| table.size()).sum();
            assert!(bytes <= levels.size_of(number), "L{number} has {bytes} bytes");
            for pair in level.windows(2).filter(|_| number > 0) {
                assert!(pair[0].range().1 < pair[1].range().0, "L{number} overlaps");
            }
            // Index, filter and properties come on top of the data.
            let most = levels.table_bytes(bytes) * 3 / 2;
            assert!(level.iter().all(|table| number == 0 || table.size() <= most));
        }
        assert!(by_level[4].len() > 10, "{} tables in L4", by_level[4].len());
        for n in &keys {
            assert_eq!(read(&bed.store, *n).unwrap(), Some(value(*n)), "key {n}");
        }
        assert_eq!(bed.store.scan(&Key::start_of("tenant", "")).count(), keys.len());
    }
    let named: usize = tables(&bed.store).iter().map(Vec::len).sum();
    assert_eq!(files(&bed.disk).len(), named, "no file is left of what was replaced");
}

#[test]
fn keys_that_come_in_order_are_moved_down_and_not_written_again() {
    let bed = bed();
    for n in 0..4000 {
        put(&bed.store, n);
        bed.compact_all();
    }
    let totals = bed.store.jobs().totals();
    assert!(totals.completed > 10, "{totals:?}");
    assert_eq!(totals.bytes_written, 0, "{totals:?}");
}

#[test]
fn overwriting_costs_no_space_in_the_end() {
    let bed = bed();
    for round in 0..10 {
        for n in shuffled(0..500) {
            let value = Value::Live(value(n + round));
            bed.store.write(&key(n), value, None).unwrap();
            bed.compact_all();
        }
    }
    bed.store.flush().unwrap();
    bed.compact_all();
    let bytes: u64 = tables(&bed.store).iter().flatten().map(|table| table.size()).sum();
    assert!(bytes < 3 * 500 * 140, "{bytes} bytes for 500 entries of 140");
}

/// Pushes what tables have of the key space to the bottom, by filling the levels above.
fn push_down(bed: &Bed, keys: std::ops::Range<u32>) {
    for n in shuffled(keys) {
        put(&bed.store, n);
    }
    bed.store.flush().unwrap();
    bed.compact_all();
}

#[test]
fn a_tombstone_stays_for_its_grace_and_goes_after_it() {
    let mut bed = bed();
    push_down(&bed, 0..1000);
    for n in 0..1000 {
        bed.store.write(&key(n), Value::Tombstone, None).unwrap();
    }
    bed.store.flush().unwrap();
    bed.compact_all();
    bed.time.advance(GRACE / 2);
    push_down(&bed, 5000..7000);
    // All of them: those that met the values that they hide, too.
    assert_eq!(
        tombstones(&bed.store),
        1000,
        "younger than its grace, a tombstone is kept"
    );
    bed.time.advance(GRACE);
    // Nothing else is due: the tombstones alone are reason enough.
    bed.compact_all();
    push_down(&bed, 5000..7000);
    bed.time.advance(GRACE);
    bed.compact_all();
    assert_eq!(tombstones(&bed.store), 0);
    assert!(bed.store.jobs().totals().tombstones_dropped > 0);
    for _ in 0..2 {
        for n in 0..1000 {
            assert!(bed.store.get(&key(n)).unwrap().is_empty(), "key {n} came back");
        }
        bed.reopen();
    }
}

#[test]
fn a_tombstone_stays_as_long_as_anything_may_need_it() {
    let clock = |n: u64| -> VectorClock { [("c", n)].into_iter().collect() };
    let write = |bed: &Bed, value: Value, counter: u64| {
        bed.store.write(&key(1), value, Some(clock(counter))).unwrap();
    };
    // Two tables of L0 hold a delete, twice, and are merged while an older value is elsewhere: in a memtable, or in a
    // table that takes no part.
    for late_in_memory in [true, false] {
        let bed = bed();
        write(&bed, Value::Live(value(1)), 1);
        if !late_in_memory {
            bed.store.flush().unwrap();
            push_down(&bed, 2..3000);
        }
        let l0_before = tables(&bed.store)[0].len();
        for _ in l0_before..4 {
            write(&bed, Value::Tombstone, 5);
            bed.store.flush().unwrap();
        }
        bed.time.advance(2 * GRACE);
        if late_in_memory {
            write(&bed, Value::Live(value(1)), 2);
        }
        bed.compact_all();
        let versions = bed.store.get(&key(1)).unwrap();
        assert!(
            versions.winner().is_none_or(|v| v.value.live().is_none()),
            "{versions:?}"
        );
    }
}

#[test]
fn an_open_scan_sees_its_snapshot_and_keeps_its_files() {
    let bed = bed();
    let write_all = |from: u32| {
        for n in shuffled(0..1000) {
            bed.store.write(&key(n), Value::Live(value(n + from)), None).unwrap();
        }
        bed.store.flush().unwrap();
    };
    write_all(0);
    let scan = bed.store.scan(&Key::start_of("tenant", ""));
    let held = files(&bed.disk);
    write_all(10_000);
    bed.compact_all();
    bed.store.tables().sweep().unwrap();
    let now = files(&bed.disk);
    assert!(held.iter().all(|file| now.contains(file)), "what is read stays");
    assert!(bed.store.tables().collect_garbage() > 0);
    let seen: Vec<_> = scan.map(Result::unwrap).collect();
    assert_eq!(seen.len(), 1000);
    for (n, (_, versions)) in (0..).zip(seen) {
        assert_eq!(versions.winner().unwrap().value.live(), Some(&value(n)));
    }
    assert_eq!(bed.store.tables().collect_garbage(), 0);
    let now = files(&bed.disk);
    assert!(held.iter().all(|file| !now.contains(file)), "what nobody reads goes");
}

#[test]
fn a_sweep_leaves_what_is_being_written() {
    let bed = bed();
    let tables = bed.store.tables();
    let version = Version {
        clock: VectorClock::default(),
        value: Value::Live(value(1)),
        timestamp_ms: 0,
        seq: 1,
    };
    let mut open = tables.create(0).unwrap();
    open.builder().add(key(1).as_str(), &Versions::from(version)).unwrap();
    tables.sweep().unwrap();
    let written = open.finish().unwrap();
    tables.sweep().unwrap();
    assert_eq!(files(&bed.disk).len(), 1, "it is yet to be installed");
    drop(written);
    tables.sweep().unwrap();
    assert!(files(&bed.disk).is_empty(), "what was given up goes");
}

#[test]
fn the_number_of_a_table_is_never_used_again() {
    let mut bed = bed();
    for value in [Value::Live(value(1)), Value::Tombstone] {
        for _ in 0..2 {
            bed.store.write(&key(1), value.clone(), None).unwrap();
            bed.store.flush().unwrap();
        }
    }
    let used = tables(&bed.store)[0].iter().map(|table| table.id()).max().unwrap();
    bed.time.advance(2 * GRACE);
    bed.compact_all();
    // Nothing is left that a number could be counted on from. Each start writes the manifest anew.
    assert!(tables(&bed.store).iter().all(Vec::is_empty));
    bed.reopen();
    bed.reopen();
    put(&bed.store, 1);
    bed.store.flush().unwrap();
    let id = tables(&bed.store)[0][0].id();
    assert!(id > used, "table {id} comes after table {used}");
}

#[test]
fn jobs_at_a_time_share_no_table() {
    let bed = bed();
    for n in shuffled(0..5000) {
        put(&bed.store, n);
    }
    // With all of L0 in it, L1 is so large that several jobs are due.
    while tables(&bed.store)[0].len() >= 4 {
        assert!(bed.store.compact().unwrap());
    }
    let jobs: Vec<_> = std::iter::from_fn(|| bed.store.jobs().next()).take(100).collect();
    assert!(jobs.len() > 1, "{} jobs", jobs.len());
    let records = bed.store.jobs().records();
    let waiting = records.iter().filter(|record| record.state == JobState::Pending);
    let mut inputs: Vec<u64> = waiting.flat_map(|record| record.inputs.clone()).collect();
    let taken = inputs.len();
    inputs.sort_unstable();
    inputs.dedup();
    assert_eq!(inputs.len(), taken, "a table is taken by two jobs");
    // Whichever ends first, the others fit.
    for job in jobs.into_iter().rev() {
        job.run().unwrap();
    }
    for n in 0..5000 {
        assert_eq!(read(&bed.store, n).unwrap(), Some(value(n)));
    }
}

#[test]
fn a_job_that_the_disk_fails_changes_nothing_and_is_done_later() {
    let mut bed = bed();
    for n in shuffled(0..2000) {
        put(&bed.store, n);
    }
    let before = files(&bed.disk);
    bed.disk.refuse_new_files(".sst.tmp");
    let error = bed.store.compact().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    let records = bed.store.jobs().records();
    assert!(
        matches!(&records[0].state, JobState::Failed(why) if why.contains("create")),
        "{records:?}"
    );
    bed.disk.set_space(Some(20_000));
    bed.disk.refuse_new_files("");
    let error = bed.store.compact().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    assert_eq!(files(&bed.disk), before, "nothing is left of what was written");
    assert_eq!(bed.store.jobs().active(), 0);
    bed.disk.set_space(None);
    assert!(bed.store.compact().unwrap());
    let records = bed.store.jobs().records();
    assert_eq!(records[0].state, JobState::Completed);
    bed.reopen();
    for n in 0..2000 {
        assert_eq!(read(&bed.store, n).unwrap(), Some(value(n)));
    }
}

/// A store with 20 tables of as many keys in L0, each of which spans all keys; and the bytes that one takes.
fn bed_with_l0() -> (Bed, u64) {
    let bed = bed();
    for table in 0..20 {
        for n in 0..100 {
            put(&bed.store, 20 * n + table);
        }
        bed.store.flush().unwrap();
    }
    let bytes = tables(&bed.store)[0].iter().map(|table| table.size()).max().unwrap();
    (bed, bytes)
}

fn l0(store: &Store) -> Vec<u64> {
    tables(store)[0].iter().map(|table| table.id()).collect()
}

/// Runs a job, which must take so many of the oldest tables of L0, and says whether there was space for it.
fn compact_l0(bed: &Bed, taken: usize) -> bool {
    let before = l0(&bed.store);
    let compacted = bed.store.compact();
    let job = &bed.store.jobs().records()[0];
    let upper: Vec<_> = job.inputs.iter().copied().filter(|id| before.contains(id)).collect();
    assert_eq!(upper, before[..taken], "the oldest, and all of them");
    match compacted {
        Ok(any) => {
            assert!(any);
            assert_eq!(l0(&bed.store), before[taken..]);
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
            assert_eq!(l0(&bed.store), before);
            false
        }
    }
}

#[test]
fn with_space_for_a_small_job_alone_l0_shrinks() {
    let (mut bed, bytes) = bed_with_l0();
    bed.disk.set_space(Some(5 * bytes));
    assert!(!compact_l0(&bed, 16) && !compact_l0(&bed, 8));
    assert!(compact_l0(&bed, 4));
    // What was in the way may be gone.
    assert!(!compact_l0(&bed, 16));
    bed.disk.set_space(None);
    assert!(compact_l0(&bed, 8) && compact_l0(&bed, 8));
    assert_eq!(l0(&bed.store).len(), 0);
    bed.reopen();
    for n in 0..2000 {
        assert_eq!(read(&bed.store, n).unwrap(), Some(value(n)));
    }
}

#[test]
fn without_any_space_a_job_of_l0_takes_two_tables_and_another_failure_says_nothing_of_them() {
    let (bed, bytes) = bed_with_l0();
    bed.disk.set_space(Some(bytes));
    for taken in [16, 8, 4, 2, 2, 2] {
        assert!(!compact_l0(&bed, taken));
    }
    bed.disk.set_space(None);
    assert!(compact_l0(&bed, 2));
    bed.disk.fail_syncs(1);
    let error = bed.store.compact().unwrap_err();
    assert_ne!(error.kind(), ErrorKind::DiskFull, "{error}");
    assert!(compact_l0(&bed, 16));
}

/// Makes a store with several tables at the bottom, and returns one of them.
fn bed_with_tables() -> (Bed, PathBuf, (String, String)) {
    let bed = bed();
    push_down(&bed, 0..3000);
    let by_level = tables(&bed.store);
    let lowest = by_level.iter().rev().find(|level| level.len() >= 3).unwrap();
    let table = &lowest[1];
    let (first, last) = table.range();
    (bed, table.path().to_path_buf(), (first.to_owned(), last.to_owned()))
}

fn in_range(n: u32, (first, last): &(String, String)) -> bool {
    let key = key(n);
    (first.as_str()..=last.as_str()).contains(&key.as_str())
}

#[test]
fn a_damaged_block_loses_its_keys_alone_stands_aside_and_comes_back_when_it_is_restored() {
    let (mut bed, path, range) = bed_with_tables();
    let whole = bed.disk.read(&path).unwrap().to_vec();
    let mut damaged = whole.clone();
    damaged[5000] ^= 0x10;
    bed.disk.overwrite(&path, damaged.clone()).unwrap();
    // A running store has the bytes that it mapped; a store that starts has those on disk.
    bed.reopen();
    let lost = |store: &Store| -> Vec<u32> {
        let failing = |n: &u32| match read(store, *n) {
            Ok(found) => {
                assert_eq!(found, Some(value(*n)));
                false
            }
            Err(error) => {
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                true
            }
        };
        (0..3000).filter(failing).collect()
    };
    let first_lost = lost(&bed.store);
    assert!((1..100).contains(&first_lost.len()), "{} keys lost", first_lost.len());
    assert!(first_lost.iter().all(|n| in_range(*n, &range)));
    // Compaction meets the damage, sets the table aside, and goes on with the others.
    bed.reopen();
    let (mut round, mut failures) = (0, 0);
    while bed.store.published().load().tables.quarantine().is_empty() {
        round += 1;
        assert!(round < 20, "compaction never meets the damage");
        let later: VectorClock = [("node", 1_000_000 + round)].into_iter().collect();
        for n in shuffled(0..3000) {
            let value = Value::Live(value(n));
            bed.store.write(&key(n), value, Some(later.clone())).unwrap();
            while bed.store.compact().unwrap_or_else(|_damage| {
                failures += 1;
                assert!(failures < 20, "compaction meets the same damage again and again");
                true
            }) {}
        }
    }
    assert!(bed.store.jobs().totals().failed > 0);
    let completed = bed.store.jobs().totals().completed;
    push_down(&bed, 10_000..11_000);
    let view = bed.store.published().load();
    assert_eq!(view.tables.quarantine().len(), 1);
    assert!(
        view.tables.quarantine()[0].cause.contains("checksum"),
        "{:?}",
        view.tables.quarantine()
    );
    assert!(
        bed.store.jobs().totals().completed > completed,
        "the other tables go on"
    );
    assert_eq!(
        lost(&bed.store),
        first_lost,
        "a damaged block may hold a sibling of what was written since"
    );
    drop(view);
    bed.reopen();
    assert_eq!(bed.store.published().load().tables.quarantine().len(), 1);
    assert_eq!(lost(&bed.store), first_lost);
    // Restored, it is read again.
    bed.disk.overwrite(&path, whole).unwrap();
    bed.reopen();
    assert!(bed.store.published().load().tables.quarantine().is_empty());
    assert!(lost(&bed.store).is_empty());
}

#[test]
fn a_table_that_cannot_be_read_at_all_loses_its_range_alone() {
    let (mut bed, path, range) = bed_with_tables();
    let whole = bed.disk.read(&path).unwrap();
    bed.disk.overwrite(&path, whole[..whole.len() / 2].to_vec()).unwrap();
    bed.reopen();
    let mut lost = 0;
    for n in 0..3000 {
        match read(&bed.store, n) {
            Ok(found) => assert_eq!((found, in_range(n, &range)), (Some(value(n)), false)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption);
                assert!(in_range(n, &range));
                lost += 1;
            }
        }
    }
    assert!(lost > 10);
    // A scan goes up to the damage and says so; one that begins behind it goes on.
    let scanned: Vec<_> = bed.store.scan(&Key::start_of("tenant", "")).collect();
    let (error, before) = scanned.split_last().unwrap();
    assert!(error.is_err() && before.iter().all(Result::is_ok));
    let whole_before = (0..3000).filter(|n| key(*n).as_str() < range.0.as_str()).count();
    assert_eq!(before.len(), whole_before);
    let behind = Key::from_stored(&range.1).unwrap().successor();
    assert!(bed.store.scan(&behind).all(|item| item.is_ok()));
    let whole_behind = (0..3000).filter(|n| key(*n).as_str() > range.1.as_str()).count();
    assert_eq!(bed.store.scan(&behind).count(), whole_behind);
}

#[test]
fn a_tombstone_stays_while_a_table_that_stands_aside_may_hold_what_it_hides() {
    let (mut bed, path, range) = bed_with_tables();
    let whole = bed.disk.read(&path).unwrap().to_vec();
    bed.disk.overwrite(&path, whole[..whole.len() / 2].to_vec()).unwrap();
    bed.reopen();
    // A clock of its own: what the damaged table has cannot be asked.
    let later: VectorClock = [("node", 1_000_000)].into_iter().collect();
    for n in 0..3000 {
        bed.store.write(&key(n), Value::Tombstone, Some(later.clone())).unwrap();
    }
    bed.store.flush().unwrap();
    // Each round brings the tombstones down by a level at least.
    for _ in 0..LEVELS {
        bed.time.advance(2 * GRACE);
        push_down(&bed, 5000..5500);
    }
    let hidden = (0..3000).filter(|n| in_range(*n, &range)).count() as u64;
    let kept = tombstones(&bed.store);
    assert!(kept >= hidden, "{kept} tombstones are left for {hidden} keys");
    assert!(bed.store.jobs().totals().tombstones_dropped > 0, "the others go");
    bed.disk.overwrite(&path, whole).unwrap();
    bed.reopen();
    for n in 0..3000 {
        assert_eq!(read(&bed.store, n).unwrap(), None, "key {n} came back");
    }
}

#[test]
fn a_missing_key_costs_no_read_and_a_present_one_costs_one() {
    let mut bed = bed();
    for n in shuffled(0..6000) {
        put(&bed.store, 2 * n);
        bed.compact_all();
    }
    bed.reopen();
    assert!(tables(&bed.store).iter().filter(|level| !level.is_empty()).count() >= 4);
    let counts = bed.store.tables().read_counts();
    let blocks = || counts.blocks.load(Ordering::Relaxed);
    let before = blocks();
    for n in 0..6000 {
        assert_eq!(read(&bed.store, 2 * n + 1).unwrap(), None);
    }
    let wanted = 0.01 * 6000.0;
    let for_missing = blocks() - before;
    assert!(
        (for_missing as f64) < 1.5 * wanted,
        "{for_missing} blocks read for 6000 missing keys"
    );
    let before = blocks();
    for n in 0..6000 {
        assert!(read(&bed.store, 2 * n).unwrap().is_some());
    }
    let for_present = blocks() - before;
    assert!(
        (for_present as f64) < 6000.0 + 1.5 * wanted,
        "{for_present} blocks read for 6000 keys"
    );
}

#[test]
fn block_size_and_index_interval_say_how_much_a_block_holds() {
    for (block_size, index_interval, most_keys) in [(1024, 100, 9), (64 << 10, 20, 20)] {
        let disk: Arc<dyn FileSystem> = Arc::new(SimFs::default());
        let mut options = options(&ManualTime::default());
        options.engine.table.block_size = block_size;
        options.engine.table.index_interval = index_interval;
        options.engine.flush_threshold = usize::MAX;
        let store = Store::open(&disk, options, "node").unwrap();
        for n in 0..1000 {
            put(&store, n);
        }
        store.flush().unwrap();
        let findings = tables(&store)[0][0].check(|_| Ok(())).unwrap();
        assert!(findings.damage.is_empty());
        assert_eq!(findings.keys, 1000);
        let keys_a_block = 1000 / findings.blocks;
        assert!(
            (most_keys - 2..=most_keys).contains(&keys_a_block),
            "{keys_a_block} keys a block"
        );
    }
}

#[test]
fn the_throttle_lets_no_more_through_than_its_rate() {
    let time = ManualTime::default();
    let throttle = Throttle::new(Arc::new(time.clone()), 1_000_000);
    for (factor, seconds) in [(1.0, 10.0), (4.0, 2.5)] {
        let begun = time.elapsed();
        for _ in 0..100 {
            throttle.draw(100_000, || Some(factor));
        }
        let took = (time.elapsed() - begun).as_secs_f64();
        assert!((seconds * 0.95..seconds * 1.05).contains(&took), "10 MB took {took} s");
    }
    let begun = time.elapsed();
    throttle.draw(100_000_000, || None);
    assert_eq!(time.elapsed(), begun, "nothing holds back what is far behind");
    // A long rest is not made up for by a burst.
    time.advance(Duration::from_secs(1000));
    throttle.draw(1_000_000, || Some(1.0));
    assert!(time.elapsed() - begun >= Duration::from_secs(1000) + Duration::from_millis(800));
}

#[test]
fn writes_slow_down_smoothly_and_compaction_speeds_up_first() {
    let at = |pressure: f64| Debt {
        pressure,
        ..Debt::default()
    };
    assert_eq!(at(1.0).haste(), Some(0.1), "hardly due, it takes nobody's turn");
    assert_eq!(at(1.5).haste(), Some(1.0));
    assert_eq!(at(3.9).write_delay(), Duration::ZERO);
    assert_eq!(
        at(4.0).haste(),
        None,
        "before a write is held up, nothing holds compaction back"
    );
    let mut before = Duration::ZERO;
    for step in 0..2000 {
        let delay = at(f64::from(step) / 100.0).write_delay();
        assert!(delay >= before, "it never falls as the debt grows");
        assert!(delay - before < Duration::from_micros(50), "it never jumps");
        before = delay;
    }
    assert_eq!(before, Duration::from_millis(20));
}

#[test]
fn threads_that_write_read_flush_and_compact_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let mut options = real_options(dir.path());
    options.sync_writes = false;
    options.cache_bytes = 1 << 20;
    let store = Arc::new(Store::open(&fs, options.clone(), "node").unwrap());
    let background = store.start_background(2).unwrap();
    let (keys, written) = (300_u32, AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let value_of = |counter: u64| Value::Live(Bytes::from(counter.to_string()));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (store, written) = (&store, &written);
                scope.spawn(move || {
                    // Each writer has its own keys, so that what it wrote last is what must be there.
                    for counter in 1..=60_u64 {
                        for n in (writer..keys).step_by(2) {
                            let clock: VectorClock = [("c", counter)].into_iter().collect();
                            store.write(&key(n), value_of(counter), Some(clock)).unwrap();
                            written.fetch_add(1, Ordering::Relaxed);
                            let seen = store.get(&key(n)).unwrap();
                            assert_eq!(seen.winner().map(|v: &Version| &v.value), Some(&value_of(counter)));
                        }
                    }
                })
            })
            .collect();
        let (store, stop) = (&store, &stop);
        scope.spawn(move || {
            let mut before = 0;
            while !stop.load(Ordering::Relaxed) {
                let seen = store.scan(&Key::start_of("tenant", "")).map(Result::unwrap).count();
                assert!(seen >= before, "a key vanished: {seen} after {before}");
                before = seen;
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    store.settle();
    let totals = store.jobs().totals();
    assert!(totals.completed > 3 && totals.failed == 0, "{totals:?}");
    drop(background);
    let check = |store: &Store| {
        for n in 0..keys {
            let seen = store.get(&key(n)).unwrap();
            assert_eq!(seen.winner().map(|v| &v.value), Some(&value_of(60)), "key {n}");
        }
    };
    check(&store);
    store.close().unwrap();
    drop(store);
    check(&Store::open(&fs, options, "node").unwrap());
}

#[test]
fn compressible_values_are_paced_as_what_is_written() {
    let time = ManualTime::default();
    let mut options = options(&time);
    options.engine.levels = LevelOptions::default();
    options.engine.flush_threshold = 4 << 20;
    options.compaction_bytes_per_second = 1_000_000;
    let disk: Arc<dyn FileSystem> = Arc::new(SimFs::default());
    let store = Store::open(&disk, options, "node").unwrap();
    for n in shuffled(0..40_000) {
        let mut half = value(n).to_vec();
        half.extend_from_slice(&[0; 300]);
        store.write(&key(n), Value::Live(Bytes::from(half)), None).unwrap();
    }
    store.flush().unwrap();
    let begun = time.elapsed();
    while store.compact().unwrap() {}
    let (written, took) = (
        store.jobs().totals().bytes_written,
        (time.elapsed() - begun).as_secs_f64(),
    );
    assert!(written > 3_000_000, "{written} bytes");
    let seconds = written as f64 / 1_000_000.0;
    assert!(took < 1.5 * seconds + 1.0, "{written} bytes at 1 MB/s took {took} s");
    // Here only the pauses take time, and those are no part of the time that it takes to write a table.
    let (jobs, tables) = (store.jobs().times().counted(), store.jobs().table_times().counted());
    assert!(jobs.sum > 1_000_000 && tables.total() > 0, "{jobs:?} {tables:?}");
    assert_eq!(tables.sum, 0, "{tables:?}");
}

#[test]
fn a_block_that_rots_after_it_was_read_is_not_written_again_as_if_it_were_well() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let mut options = real_options(dir.path());
    options.engine.flush_threshold = usize::MAX;
    // Compressed, the block would not unpack.
    options.engine.table.compression = Compression::None;
    options.engine.levels.l0_trigger = 2;
    let store = Store::open(&fs, options, "node").unwrap();
    for round in 0..2 {
        for n in 0..200 {
            let value = Value::Live(Bytes::from(vec![b'a' + round; 100]));
            store.write(&key(2 * n + u32::from(round)), value, None).unwrap();
        }
        store.flush().unwrap();
    }
    assert_eq!(
        store.scan(&Key::start_of("tenant", "")).filter(Result::is_ok).count(),
        400
    );
    let path = tables(&store)[0][0].path().to_path_buf();
    let content = std::fs::read(&path).unwrap();
    let at = content.windows(50).position(|bytes| bytes == [b'a'; 50]).unwrap();
    // In place: the store has the file mapped.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"z", at as u64 + 10).unwrap();
    let error = store.compact().unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
    assert_eq!(store.published().load().tables.quarantine().len(), 1);
}
