//! A failed sync, at every place that syncs: what is answered, what health says, and what a restart finds.

mod common;

use common::*;
use pairdb_node::actors::faults::{DISK_IO, Fault};
use pairdb_node::actors::memtable::MemtableMessage;
use pairdb_node::node::Node;
use pairdb_node::storage::drain_mark;
use pairdb_node::storage::error::Result;
use pairdb_node::storage::fs::{Failure, Fault as DiskFault, FileSystem, OperationKind, SimFs, Survival};
use pairdb_node::storage::ring::HashRanges;
use pairdb_node::storage::stream_records::{self, Progress, Sent, StreamRecord};
use std::path::Path;

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
const CASES: [(&str, u64, Fault, Work); 14] = [
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
    ("sync-directory", 0, Fault::Error, Work::Backup),
    ("sync-directory", 1, Fault::Error, Work::Backup),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_is_answered_told_of_and_never_passed_over() {
    for case in CASES {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.admin.fault_injection = true;
        config.admin.port = 0;
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
