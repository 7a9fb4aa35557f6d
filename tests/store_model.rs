//! The engine against a model: random writes, deletes, concurrent clocks, flushes, reopenings and crashes.

use bytes::Bytes;
use pairdb_node::storage::clock::VectorClock;
use pairdb_node::storage::compaction::debt::LevelOptions;
use pairdb_node::storage::fs::{FileSystem, SimFs};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::recovery::Options;
use pairdb_node::storage::store::Store;
use pairdb_node::storage::version::{Value, Version, Versions};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone)]
enum Step {
    Write {
        key: u8,
        value: Option<u8>,
        clock: Option<Vec<(u8, u64)>>,
    },
    Flush,
    /// Everything that is due, or at most so many jobs.
    Compact {
        jobs: usize,
    },
    /// A clean end and a start.
    Reopen,
    /// Power loss, this many bytes of each unsynced tail surviving, and a start.
    Crash {
        torn: usize,
    },
    Scan {
        from: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let clock = proptest::option::of(proptest::collection::vec((0_u8..3, 1_u64..5), 1..3));
    let value = proptest::option::weighted(0.8, any::<u8>());
    prop_oneof![
        20 => (0_u8..12, value, clock).prop_map(|(key, value, clock)| Step::Write { key, value, clock }),
        2 => Just(Step::Flush),
        2 => (1_usize..20).prop_map(|jobs| Step::Compact { jobs }),
        1 => Just(Step::Reopen),
        1 => (0_usize..60).prop_map(|torn| Step::Crash { torn }),
        2 => (0_u8..12).prop_map(|from| Step::Scan { from }),
    ]
}

fn key(number: u8) -> Key {
    Key::new("tenant", &format!("key{number:02}")).unwrap()
}

fn options() -> Options {
    let mut options = Options::at("/data");
    options.log.segment_size = 2000;
    options.flush_threshold = 5_000;
    options.table.block_size = 512;
    // Small enough that a few writes fill every level.
    options.levels = LevelOptions {
        l0_trigger: 2,
        l0_size: 4_000,
        l1_size: 400,
        l2_size: 600,
        level_multiplier: 2,
        gc_grace_ms: u64::MAX,
    };
    options
}

/// What a version says, without what is local to a node.
fn contents(versions: &Versions) -> Vec<(VectorClock, Option<Bytes>)> {
    let content = |v: &Version| (v.clock.clone(), v.value.live().cloned());
    versions.all().iter().map(content).collect()
}

fn check(steps: Vec<Step>) {
    let disk = SimFs::default();
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let mut store = Store::open(&fs, options(), "node").unwrap();
    let mut model: BTreeMap<Key, Versions> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Write {
                key: number,
                value,
                clock,
            } => {
                let key = key(number);
                let value = value.map_or(Value::Tombstone, |byte| Value::Live(Bytes::from(vec![byte; 40])));
                let given: Option<VectorClock> =
                    clock.map(|entries| entries.into_iter().map(|(id, n)| (format!("c{id}"), n)).collect());
                let known = model.remove(&key).unwrap_or_default();
                let answered = store.write(&key, value.clone(), given.clone()).unwrap();
                let clock = match given {
                    Some(clock) => clock,
                    None => {
                        // It must supersede everything that was there; that is what its clock says.
                        let seq = store.published().applied();
                        known.clock().with("node", seq)
                    }
                };
                let version = Version {
                    clock: clock.clone(),
                    value,
                    timestamp_ms: 0,
                    seq: 0,
                };
                assert_eq!(answered.join(&clock), answered, "the answer's clock covers the write's");
                model.insert(key, known.merge(version.into()));
            }
            Step::Flush => store.flush().unwrap(),
            Step::Compact { jobs } => for _ in (0..jobs).take_while(|_| store.compact().unwrap()) {},
            Step::Reopen => {
                store.close().unwrap();
                drop(store);
                store = Store::open(&fs, options(), "node").unwrap();
            }
            Step::Crash { torn } => {
                drop(store);
                disk.crash(torn);
                store = Store::open(&fs, options(), "node").unwrap();
            }
            Step::Scan { from } => {
                let scanned: Vec<_> = store
                    .scan(&key(from))
                    .map(|item| item.map(|(key, versions)| (key, contents(&versions))).unwrap())
                    .collect();
                let expected: Vec<_> = model
                    .range(key(from)..)
                    .map(|(key, versions)| (key.clone(), contents(versions)))
                    .collect();
                assert_eq!(scanned, expected);
            }
        }
        for number in 0..12 {
            let key = key(number);
            let expected = model.get(&key).map(contents).unwrap_or_default();
            assert_eq!(contents(&store.get(&key).unwrap()), expected, "{key:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_store_holds_what_the_model_holds(steps in proptest::collection::vec(step(), 1..120)) {
        check(steps);
    }
}

#[test]
fn a_delete_stays_deleted_through_flush_and_crash() {
    let write = |value| Step::Write {
        key: 1,
        value,
        clock: None,
    };
    let crash = Step::Crash { torn: 0 };
    check(vec![
        write(Some(1)),
        Step::Flush,
        write(None),
        crash.clone(),
        Step::Flush,
        crash,
        Step::Reopen,
    ]);
}

#[test]
fn a_scan_longer_than_its_batches_meets_every_key_once_and_sees_no_later_write() {
    let fs: Arc<dyn FileSystem> = Arc::new(SimFs::default());
    let mut options = Options::at("/data");
    options.flush_threshold = usize::MAX;
    let store = Store::open(&fs, options, "node").unwrap();
    let name = |n: u32| Key::new("t", &format!("k{n:05}")).unwrap();
    let value = |n: u32| Value::Live(Bytes::from(n.to_string()));
    for n in (0..2000).step_by(2) {
        store.write(&name(n), value(n), None).unwrap();
    }
    store.flush().unwrap();
    for n in (1..2000).step_by(2) {
        store.write(&name(n), value(n), None).unwrap();
    }
    let scan = store.scan(&Key::start_of("t", ""));
    store.write(&name(700), value(9999), None).unwrap();
    store.write(&name(5000), value(5000), None).unwrap();
    let seen: Vec<_> = scan.map(|item| item.unwrap()).collect();
    let expected: Vec<_> = (0..2000).map(|n| (name(n), Bytes::from(n.to_string()))).collect();
    let winners: Vec<_> = seen
        .into_iter()
        .map(|(key, versions)| (key, versions.winner().unwrap().value.live().unwrap().clone()))
        .collect();
    assert_eq!(winners, expected);
}
