//! What grows has a bound: compaction that does not keep up makes writes slower and slower until they are refused, and
//! come back by themselves; and tables grow with their level, so that there are never more than a process may map.

mod common;

use bytes::Bytes;
use common::*;
use pairdb_node::actors::health::Status;
use pairdb_node::storage::compaction::debt::LevelOptions;
use pairdb_node::storage::error::ErrorKind;
use pairdb_node::storage::fs::{FileSystem, RealFs, SimFs};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::store::{Store, StoreOptions};
use pairdb_node::storage::table::block::Compression;
use pairdb_node::storage::time::{ManualTime, Time};
use pairdb_node::storage::version::Value;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

/// 16 times the default trigger, and the least there is.
const MOST: usize = 64;
/// The same for deletes.
const MOST_FOR_DELETES: usize = 128;

fn key(name: &str) -> Key {
    Key::new("tenant", name).unwrap()
}

fn value(n: usize) -> Value {
    Value::Live(Bytes::from(n.to_string()))
}

fn l0(store: &Store) -> usize {
    store.published().load().tables.level(0).len()
}

/// Writes a table of L0 that overlaps all others: none is moved out of the way.
fn put(store: &Store, n: usize) {
    store.write(&key("a"), value(n), None).unwrap();
    store.write(&key("z"), value(n), None).unwrap();
    store.flush().unwrap();
}

/// The same of tombstones.
fn delete(store: &Store) {
    for name in ["0", "zz"] {
        store.write(&key(name), Value::Tombstone, None).unwrap();
    }
    store.flush().unwrap();
}

#[test]
fn the_bound_follows_the_trigger() {
    for (l0_trigger, most) in [(1, 64), (4, 64), (5, 80), (100, 1600), (usize::MAX, usize::MAX)] {
        let options = LevelOptions {
            l0_trigger,
            ..LevelOptions::default()
        };
        let most_for_deletes = most.saturating_mul(2);
        assert_eq!(
            (options.l0_most(), options.l0_most_for_deletes()),
            (most, most_for_deletes)
        );
    }
}

#[test]
fn ten_terabytes_need_fewer_tables_than_a_process_may_map() {
    let options = LevelOptions::default();
    assert_eq!(options.table_bytes(0), 16 << 20);
    assert_eq!(
        options.table_bytes(64 << 30),
        16 << 20,
        "a level of the usual size has tables of the usual size"
    );
    assert_eq!(options.table_bytes(u64::MAX), 256 << 20);
    // The worst that merges make of it: no table of the last level is ever written again as the level grows.
    let (mut bytes, mut tables) = (0, 0);
    while bytes < 10 << 40 {
        bytes += options.table_bytes(bytes);
        tables += 1;
    }
    assert!(tables < 60_000, "{tables} tables");
}

#[test]
fn tables_of_a_level_grow_with_the_level() {
    let fs: Arc<dyn FileSystem> = Arc::new(SimFs::default());
    let mut options = StoreOptions::at("/data");
    options.engine.flush_threshold = 1 << 20;
    options.engine.table.compression = Compression::None;
    options.engine.levels = LevelOptions {
        l1_size: 32 << 10,
        l2_size: 64 << 10,
        ..LevelOptions::default()
    };
    options.sync_writes = false;
    options.compaction_bytes_per_second = 0;
    let store = Store::open(&fs, options, "node").unwrap();
    // What comes in key order is moved down as it is, and soon the last level has 40 MiB.
    let put = |n: usize, round: u8| {
        let clock = [("c", u64::from(round))].into_iter().collect();
        let value = Value::Live(Bytes::from(vec![round; 1000]));
        store.write(&key(&format!("{n:06}")), value, Some(clock)).unwrap();
    };
    let compact = || while store.compact().unwrap() {};
    for n in 0..40_000 {
        put(n, 1);
        compact();
    }
    let before = store.published().load();
    let last = before.tables.level(4);
    assert!(
        before.tables.level_bytes(4) > 36 << 20,
        "{} tables in the last level",
        last.len()
    );
    // Then something that overlaps it.
    for n in (0..40_000).step_by(100) {
        put(n, 2);
    }
    store.flush().unwrap();
    compact();
    let after = store.published().load();
    let is_new = |id: u64| last.iter().all(|table| table.id() != id);
    let new: Vec<u64> = after
        .tables
        .level(4)
        .iter()
        .filter(|t| is_new(t.id()))
        .map(|t| t.size())
        .collect();
    let mean = new.iter().sum::<u64>() / new.len() as u64;
    // Nine entries of 1000 bytes, not four.
    assert!(
        mean > 8 << 10 && new.len() > 100,
        "{} new tables of {mean} bytes",
        new.len()
    );
}

fn refused(store: &Store, value: Value, why: &str) {
    let error = store.write(&key("a"), value, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    let said = error.to_string();
    assert!(
        said.contains(why) && said.contains("more than 64") && said.contains("more than 128"),
        "{said}"
    );
}

#[test]
fn while_compaction_fails_writes_slow_down_smoothly_then_are_refused_and_resume_by_themselves() {
    let (disk, time) = (SimFs::default(), ManualTime::default());
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let mut options = StoreOptions::at("/data");
    options.engine.flush_threshold = usize::MAX;
    options.time = Arc::new(time.clone());
    let store = Store::open(&fs, options, "node").unwrap();
    let (mut written, mut longest) = (0, Duration::ZERO);
    while l0(&store) <= MOST {
        let begun = time.elapsed();
        put(&store, written);
        written += 1;
        let each = (time.elapsed() - begun) / 2;
        assert!(
            each >= longest && each - longest < Duration::from_millis(1),
            "{longest:?}, then {each:?}"
        );
        longest = each;
        if l0(&store) >= 4 {
            disk.refuse_new_files(".sst.tmp");
            store.compact().unwrap_err();
            disk.refuse_new_files("");
        }
    }
    assert_eq!(longest, Duration::from_millis(20));
    refused(&store, value(0), "65 tables");
    store.flush().unwrap();
    assert_eq!(l0(&store), MOST + 1, "nothing more comes");
    // But deletes do, which give space back.
    while l0(&store) <= MOST_FOR_DELETES {
        delete(&store);
        refused(&store, value(0), "tables");
    }
    refused(&store, Value::Tombstone, "129 tables");
    refused(&store, value(0), "129 tables");
    store.flush().unwrap();
    assert_eq!(l0(&store), MOST_FOR_DELETES + 1, "nothing more comes");
    for name in ["a", "z"] {
        let found = store.get(&key(name)).unwrap();
        assert_eq!(found.winner().unwrap().value, value(written - 1));
    }
    // The fault is gone: compactions that succeed are enough.
    while l0(&store) > MOST {
        assert!(store.compact().unwrap());
    }
    put(&store, written);
    while store.compact().unwrap() {}
    assert!(l0(&store) < 4);
    assert_eq!(store.get(&key("a")).unwrap().winner().unwrap().value, value(written));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_compact_refuses_writes_at_the_bound_deletes_at_theirs_and_takes_them_when_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let with_store = |fill: &dyn Fn(&Store)| {
        let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
        let mut options = StoreOptions::at(dir.path().join("data"));
        options.sync_writes = false;
        options.time = Arc::new(ManualTime::default());
        let store = Store::open(&fs, options, "node").unwrap();
        fill(&store);
        store.close().unwrap();
    };
    config.compaction.workers = 0;
    for takes_deletes in [true, false] {
        if takes_deletes {
            with_store(&|store| (0..=MOST).for_each(|n| put(store, n)));
        } else {
            with_store(&|store| (l0(store)..=MOST_FOR_DELETES).for_each(|_| delete(store)));
        }
        let node = start(&config).await;
        let mut client = client(node.address());
        let is_refused = |status: tonic::Status| {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            assert!(status.message().contains("L0 has too many tables"), "{status}");
        };
        is_refused(client.write(write("new", b"value", &[("c", 1)])).await.unwrap_err());
        let deleted = client.delete(common::delete("z", &[("node", 1000)])).await;
        if takes_deletes {
            deleted.unwrap();
        } else {
            is_refused(deleted.unwrap_err());
        }
        let found = client.read(read("a")).await.unwrap().into_inner();
        assert_eq!(found.value, MOST.to_string().as_bytes());
        assert_eq!(client.read(read("z")).await.unwrap_err().code(), Code::NotFound);
        let (status, reasons) = node.health().status();
        assert_eq!(status, Status::Degraded);
        assert!(
            reasons.iter().any(|reason| reason.contains("more than 64")),
            "{reasons:?}"
        );
        drop(client);
        node.shutdown().await;
    }
    config.compaction.workers = 2;
    let node = start(&config).await;
    let client = common::client(node.address());
    eventually("writes are taken again", async || {
        client.clone().write(write("new", b"value", &[("c", 1)])).await.is_ok()
    })
    .await;
    assert_eq!(
        client.clone().read(read("new")).await.unwrap().into_inner().value,
        b"value"
    );
    node.shutdown().await;
}
