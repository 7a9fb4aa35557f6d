//! A failed sync, at every place that syncs: what is answered, what health says, and what a restart finds.

mod common;
#[path = "common/streaming.rs"]
mod streaming;

use bytes::Bytes;
use common::*;
use pairdb_node::actors::faults::{DISK_IO, Fault, Faults};
use pairdb_node::actors::memtable::MemtableMessage;
use pairdb_node::config::Config;
use pairdb_node::node::Node;
use pairdb_node::rpc::pb;
use pairdb_node::storage::drain_mark;
use pairdb_node::storage::error::{Error, Result};
use pairdb_node::storage::fs::{Failure, Fault as DiskFault, FileSystem, OperationKind, SimFs, Survival};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::ring::HashRanges;
use pairdb_node::storage::store::{Store, StoreOptions};
use pairdb_node::storage::stream_records::{self, Progress, Sent, StreamRecord};
use pairdb_node::storage::version::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use streaming::order;

/// What is done while the sync fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// The first write of a node, which begins a segment of the log.
    FirstWrite,
    /// One that follows.
    Write,
    Flush,
    Drain,
    Backup,
}

/// Which sync fails, how many of its kind succeed before, and how.
const CASES: [(&str, u64, Fault, Work); 12] = [
    ("sync-log", 0, Fault::Error, Work::FirstWrite),
    ("sync-log", 0, Fault::DiskFull, Work::FirstWrite),
    ("sync-log", 1, Fault::Error, Work::FirstWrite),
    ("sync-directory", 0, Fault::Error, Work::FirstWrite),
    ("sync-directory", 0, Fault::DiskFull, Work::FirstWrite),
    ("sync-log", 0, Fault::Error, Work::Write),
    ("sync-table", 0, Fault::Error, Work::Flush),
    ("sync-manifest", 0, Fault::Error, Work::Flush),
    ("sync-directory", 0, Fault::Error, Work::Flush),
    ("sync-other", 0, Fault::Error, Work::Drain),
    ("sync-directory", 0, Fault::Error, Work::Drain),
    ("sync-manifest", 0, Fault::Error, Work::Backup),
];

fn reasons(node: &Node) -> String {
    node.health().status().1.join("; ")
}

fn backup(dir: &Path, name: &str) -> bool {
    let (data, to) = (dir.join("data"), dir.join("backups"));
    let (data, to) = (data.to_str().unwrap(), to.to_str().unwrap());
    let made = binary(&["backup", "--data-dir", data, "--to", to, "--name", name]);
    { made }.output().unwrap().status.success()
}

/// Does it while the sync fails, and says whether the log is latched then.
async fn fail(node: &Node, client: &mut Client, dir: &Path, case: (&str, u64, Fault, Work)) -> bool {
    let (point, after, fault, work) = case;
    let handles = &node.requests().handles;
    let mut failing = injection(DISK_IO, point, fault);
    failing.after = after;
    handles.faults.inject(failing).unwrap();
    match work {
        Work::FirstWrite | Work::Write => {
            // The second as well, although nothing fails any more: what a disk lost once is lost.
            for _ in 0..2 {
                let refused = client.write(write("lost", b"v", &[("a", 1)])).await.unwrap_err();
                assert_eq!(refused.code(), tonic::Code::Internal, "{case:?}: {refused}");
                assert!(reasons(node).contains("latched"), "{case:?}: {}", reasons(node));
            }
        }
        Work::Flush => {
            handles.memtable.send_admitted(MemtableMessage::Seal).unwrap();
            eventually("health tells of it", async || reasons(node).contains("flushing fails")).await;
            eventually("it is tried anew", async || {
                handles.published.load().tables.level(0).len() == 1 && !reasons(node).contains("flushing fails")
            })
            .await;
        }
        Work::Drain => {
            node.requests().drain.begin().await.unwrap_err();
            assert!(!reasons(node).contains("drain"), "{case:?}: {}", reasons(node));
        }
        Work::Backup => {
            assert!(!backup(dir, "2"), "{case:?}: it is said to be made");
            let manifest = dir.join("backups/2/sstables/MANIFEST");
            assert!(!manifest.exists(), "{case:?}: it passes for whole");
        }
    }
    assert!(handles.faults.armed().is_empty(), "{case:?}: nothing failed");
    matches!(work, Work::FirstWrite | Work::Write)
}

/// Which of the directories is synced when is not for this test to know: each fails once, those above the backup and, last, its own
/// when the manifest has its name already.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_one_of_whose_directories_is_not_synced_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    common::breakable(&mut config);
    let node = start(&config).await;
    client(node.address())
        .write(write("k", b"v", &[("a", 1)]))
        .await
        .unwrap();
    assert!(backup(dir.path(), "first"));
    let faults = &node.requests().handles.faults;
    let mut failed = 0;
    loop {
        let mut failing = injection(DISK_IO, "sync-directory", Fault::Error);
        failing.after = failed;
        faults.inject(failing).unwrap();
        let name = format!("after-{failed}");
        let manifest = dir.path().join("backups").join(&name).join("sstables/MANIFEST");
        if backup(dir.path(), &name) {
            assert!(manifest.exists());
            break;
        }
        assert!(faults.armed().is_empty(), "{name}: nothing failed");
        assert!(!manifest.exists(), "{name}: it passes for whole");
        failed += 1;
    }
    assert!(failed >= 3, "only {failed}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_is_answered_told_of_and_never_passed_over() {
    for case in CASES {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        common::breakable(&mut config);
        let node = start(&config).await;
        let mut client = client(node.address());
        let mut kept = Vec::new();
        if case.3 != Work::FirstWrite {
            client.write(write("before", b"v", &[("a", 1)])).await.unwrap();
            kept.push("before");
        }
        if case.3 == Work::Backup {
            // Nothing is left to be flushed.
            assert!(backup(dir.path(), "1"), "{case:?}");
        }
        if !fail(&node, &mut client, dir.path(), case).await {
            client.write(write("after", b"v", &[("a", 1)])).await.unwrap();
            kept.push("after");
        }
        for key in &kept {
            assert_eq!(
                client.read(read(key)).await.unwrap().into_inner().value,
                b"v",
                "{case:?}"
            );
        }
        node.shutdown().await;
        let node = start(&config).await;
        let mut client = common::client(node.address());
        for key in &kept {
            assert_eq!(
                client.read(read(key)).await.unwrap().into_inner().value,
                b"v",
                "{case:?}"
            );
        }
        // It takes writes, whatever there was.
        client.write(write("again", b"v", &[("a", 1)])).await.unwrap();
        assert!(!reasons(&node).contains("drain"), "{case:?}: {}", reasons(&node));
        node.shutdown().await;
    }
}

/// A sync that succeeds after one that failed may have had nothing to do. What is removed is gone for good all the same when its
/// removal is answered, and what is stored is there.
#[test]
fn what_is_tried_again_after_a_failed_sync_is_durable_when_it_is_answered() {
    let dir = Path::new("/data");
    let record = StreamRecord {
        target: "target".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: 1,
        ranges: HashRanges::from_iter([(0, u64::MAX)]),
        progress: Progress::default(),
        sent: Sent::default(),
    };
    type Step<'a> = &'a dyn Fn(&SimFs) -> Result<()>;
    let set: Step = &|disk| drain_mark::set(disk, dir, 7);
    let clear: Step = &|disk| drain_mark::clear(disk, dir);
    let store: Step = &|disk| stream_records::store(disk, dir, std::slice::from_ref(&record));
    let empty: Step = &|disk| stream_records::store(disk, dir, &[]);
    // What is there before, what is done, and how many of the mark and of the streams are there afterwards.
    let cases = [
        (set, clear, (0, 0)),
        (clear, set, (1, 0)),
        (store, empty, (0, 0)),
        (empty, store, (0, 1)),
    ];
    for (case, (before, done, left)) in cases.into_iter().enumerate() {
        for seed in 0..50 {
            let disk = SimFs::default();
            disk.create_dir_all(dir).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            before(&disk).unwrap();
            for attempt in 0..2 {
                disk.fail(DiskFault::next(OperationKind::SyncDir, "", Failure::Device));
                assert!(done(&disk).is_err(), "case {case}, attempt {attempt}");
            }
            done(&disk).unwrap();
            disk.crash_with(Survival::Random(seed));
            let marks = drain_mark::load(&disk, dir).unwrap().into_iter().count();
            let streams = stream_records::load(&disk, dir).unwrap().len();
            assert_eq!((marks, streams), left, "case {case}, seed {seed}");
        }
    }
}

fn breakable(dir: &Path) -> Config {
    let mut config = config(dir);
    common::breakable(&mut config);
    config.commit_log.segment_size = bytesize::ByteSize::kib(64);
    config
}

fn faults(node: &Node) -> &Arc<Faults> {
    &node.requests().handles.faults
}

/// Has the sync fail that comes after `after` others at this point.
fn break_sync(node: &Node, point: &str, after: u64) {
    strike_sync(node, point, after, Fault::Error);
}

/// Has this happen at the sync that comes after `after` others at this point.
fn strike_sync(node: &Node, point: &str, after: u64, fault: Fault) {
    let mut failing = injection(DISK_IO, point, fault);
    failing.after = after;
    faults(node).inject(failing).unwrap();
}

/// Those to whom the node streams.
fn streams(node: &Node) -> Vec<String> {
    let streams = node.requests().streaming.streams.all();
    streams.iter().map(|stream| stream.order().target.clone()).collect()
}

async fn value(client: &mut Client, key: &str) -> Vec<u8> {
    client.read(read(key)).await.unwrap().into_inner().value
}

/// The sync that makes writes durable later, which were answered before it: of a segment that is full, after the end of WalActor,
/// and of an orderly stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_that_no_write_waits_for_latches_as_well() {
    for place in ["a full segment", "a successor", "a stop"] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = breakable(dir.path());
        config.commit_log.sync_writes = false;
        config.commit_log.sync_interval = Duration::from_secs(3600);
        let node = start(&config).await;
        let mut client = client(node.address());
        client.write(write("kept", &[1; 70_000], &[("a", 1)])).await.unwrap();
        break_sync(&node, "sync-log", 0);
        match place {
            "a full segment" => {
                let refused = client.write(write("next", b"v", &[("a", 1)])).await.unwrap_err();
                assert_eq!(refused.code(), tonic::Code::Internal, "{place}: {refused}");
            }
            "a successor" => assert!(faults(&node).kill("wal")),
            _ => {}
        }
        if place != "a stop" {
            eventually(place, async || reasons(&node).contains("latched")).await;
            // Although nothing fails any more.
            let refused = client.write(write("next", b"v", &[("a", 2)])).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Internal, "{place}: {refused}");
            assert_eq!(value(&mut client, "kept").await, [1; 70_000], "{place}");
        }
        let armed = Arc::clone(faults(&node));
        node.shutdown().await;
        assert!(armed.armed().is_empty(), "{place}: nothing failed");
        let node = start(&config).await;
        let mut client = common::client(node.address());
        assert_eq!(value(&mut client, "kept").await, [1; 70_000], "{place}");
        client.write(write("next", b"w", &[("a", 3)])).await.unwrap();
        assert_eq!(reasons(&node), "", "{place}");
        node.shutdown().await;
    }
}

/// What the log remembers of named writes is kept in a file of its own before the segments go that have them.
#[tokio::test(flavor = "multi_thread")]
async fn segments_stay_until_what_they_remember_is_kept() {
    for point in ["sync-other", "sync-directory"] {
        let dir = tempfile::tempdir().unwrap();
        let config = breakable(dir.path());
        let node = start(&config).await;
        let mut client = client(node.address());
        let named = || pb::WriteRequest {
            idempotency_key: "id".to_owned(),
            vector_clock: None,
            ..write("named", b"v", &[])
        };
        let clock = client.write(named()).await.unwrap().into_inner().updated_vector_clock;
        for (key, size) in [("fills", 70_000), ("next", 1)] {
            client.write(write(key, &vec![1; size], &[("a", 1)])).await.unwrap();
        }
        let log = dir.path().join("data/commitlog");
        let segments = || {
            let names = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().ends_with(".log")).count()
        };
        assert_eq!(segments(), 2);
        // The directory of the tables is synced by the flush, once for the table.
        break_sync(&node, point, u64::from(point == "sync-directory"));
        let handles = &node.requests().handles;
        handles.memtable.send_admitted(MemtableMessage::Seal).unwrap();
        eventually("it failed", async || faults(&node).armed().is_empty()).await;
        assert_eq!(segments(), 2, "{point}: what they remember is on no disk");
        client.write(write("again", b"v", &[("a", 1)])).await.unwrap();
        handles.memtable.send_admitted(MemtableMessage::Seal).unwrap();
        eventually("they go with the next flush", async || segments() == 1).await;
        node.shutdown().await;
        let node = start(&config).await;
        let mut client = common::client(node.address());
        let again = client.write(named()).await.unwrap().into_inner().updated_vector_clock;
        assert_eq!(again, clock, "{point}: it was applied once more");
        node.shutdown().await;
    }
}

/// A job that panics where it records what it made must leave no tables in the manifest that reads do not have.
#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_whose_sync_fails_is_told_of_and_done_anew() {
    let points = ["sync-table", "sync-manifest", "sync-directory"];
    let cases = points.map(|point| [(point, Fault::Error), (point, Fault::Panic)]);
    for (point, fault) in cases.into_iter().flatten() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = breakable(dir.path());
        config.compaction.l0_trigger = 2;
        let node = start(&config).await;
        let mut client = client(node.address());
        let handles = &node.requests().handles;
        for (number, key) in ["one", "two"].into_iter().enumerate() {
            client.write(write(key, b"v", &[("a", 1)])).await.unwrap();
            client
                .write(write("both", key.as_bytes(), &[("a", 1 + number as i64)]))
                .await
                .unwrap();
            if number == 1 {
                // The flush's own comes first.
                strike_sync(&node, point, 1, fault);
            }
            handles.memtable.send_admitted(MemtableMessage::Seal).unwrap();
            if number == 0 {
                eventually("it is flushed", async || {
                    handles.published.load().tables.level(0).len() == 1
                })
                .await;
            }
        }
        eventually("health tells of it", async || {
            reasons(&node).contains("compaction fails")
        })
        .await;
        assert!(faults(&node).armed().is_empty(), "{point}: nothing failed");
        eventually("it is done anew", async || {
            handles.published.load().tables.level(0).is_empty() && reasons(&node).is_empty()
        })
        .await;
        node.shutdown().await;
        let node = start(&config).await;
        let mut client = common::client(node.address());
        for (key, expected) in [("one", "v"), ("two", "v"), ("both", "two")] {
            assert_eq!(value(&mut client, key).await, expected.as_bytes(), "{point}");
        }
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_order_cannot_be_kept_is_refused_and_one_that_is_there_outlives_a_restart() {
    for point in ["sync-other", "sync-directory"] {
        let dir = tempfile::tempdir().unwrap();
        let config = breakable(dir.path());
        let node = start(&config).await;
        let mut client = client(node.address());
        let nobody = ([127, 0, 0, 1], free_port()).into();
        let ordered = || order("target", nobody, &streaming::WHOLE_RING);
        break_sync(&node, point, 0);
        let refused = client.start_streaming(ordered()).await;
        assert!(!refused.is_ok_and(|answer| answer.into_inner().success), "{point}");
        assert_eq!(streams(&node), [""; 0], "{point}");
        assert!(faults(&node).armed().is_empty(), "{point}: nothing failed");
        assert!(
            client.start_streaming(ordered()).await.unwrap().into_inner().success,
            "{point}"
        );
        node.shutdown().await;
        let node = start(&config).await;
        let there = streams(&node);
        assert_eq!(there, ["target"], "{point}: it is forgotten");
        node.shutdown().await;
    }
}

/// A sync beside the writer, whose failure no write meets by itself.
#[test]
fn a_failed_sync_ahead_latches_the_log() {
    let disk = SimFs::default();
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let mut options = StoreOptions::at("/data");
    options.sync_writes = false;
    let store = Arc::new(Store::open(&fs, options, "node").unwrap());
    let _background = store.start_background(0).unwrap();
    disk.fail(DiskFault::next(OperationKind::Sync, ".log", Failure::Device));
    let write = |bytes: usize| {
        let value = Value::Live(Bytes::from(vec![1; bytes]));
        store.write(&Key::new("tenant", "key").unwrap(), value, None)
    };
    for _ in 0..8 {
        write(1 << 20).unwrap();
    }
    // Too little for a sync of its own.
    let begun = std::time::Instant::now();
    let refused = loop {
        match write(1) {
            Err(refused) => break refused,
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(20), "no sync failed"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(matches!(refused, Error::Latched { .. }), "{refused}");
}
