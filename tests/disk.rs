//! A disk that fills up: what is refused, what goes on, and that all of it comes back by itself.

mod common;

use common::*;
use pairdb_node::actors::health::Status;
use pairdb_node::config::{Compression, Config};
use pairdb_node::node::Node;
use pairdb_node::storage::compaction::jobs::JobState;
use pairdb_node::storage::fs::SimFs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Code;

/// A configuration with the thresholds that a node has when nothing else is said.
fn config_with_thresholds(dir: &Path) -> Config {
    let mut config = config(dir);
    config.disk = Config::default().disk;
    config.storage.max_disk_usage = Config::default().storage.max_disk_usage;
    config
}

const LARGE: usize = 256 << 10;

async fn put(client: &mut Client, key: &str, size: usize) -> Result<(), tonic::Status> {
    client.write(write(key, &vec![7; size], &[("c", 1)])).await.map(drop)
}

async fn has(client: &mut Client, key: &str, size: usize) -> bool {
    let read = client.read(read(key)).await;
    read.is_ok_and(|read| read.into_inner().value == vec![7; size])
}

/// Writes and reads what a full disk allows, and checks that it refuses the rest.
async fn check_full(client: &mut Client, deletable: std::ops::Range<u32>) {
    for key in ["refused", "refused too"] {
        let status = put(client, key, LARGE).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("disk full"), "{status}");
        assert_eq!(client.read(read(key)).await.unwrap_err().code(), Code::NotFound);
    }
    assert!(has(client, "kept", 1000).await);
    for n in deletable {
        let clock = &[("c", 2)];
        client.delete(delete(&format!("gone{n}"), clock)).await.unwrap();
        assert_eq!(
            client.read(read(&format!("gone{n}"))).await.unwrap_err().code(),
            Code::NotFound
        );
    }
}

async fn check_resumed(client: &mut Client, since: Instant) {
    let mut attempts = client.clone();
    eventually("writes are taken again", async || {
        put(&mut attempts, "later", LARGE).await.is_ok()
    })
    .await;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(1), "writes resumed after {took:?}");
    assert!(has(client, "later", LARGE).await && has(client, "kept", 1000).await);
}

async fn prepared(config: &Config, disk: &SimFs) -> (Node, Client) {
    let node = start_on(config, Arc::new(disk.clone())).await;
    let mut client = client(node.address());
    put(&mut client, "kept", 1000).await.unwrap();
    for n in 0..200 {
        put(&mut client, &format!("gone{n}"), 100).await.unwrap();
    }
    (node, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_and_reads_go_on_when_the_log_finds_no_space() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_with_thresholds(dir.path());
    // Nobody measures: the log itself meets the full disk.
    config.disk.check_interval = Duration::from_secs(3600);
    let disk = SimFs::default();
    let (node, mut client) = prepared(&config, &disk).await;
    disk.set_space(Some(0));
    check_full(&mut client, 0..100).await;
    // Deletes that share a batch with writes go through, too.
    let mixed: Vec<_> = (100..200)
        .map(|n| {
            let (mut writer, mut deleter) = (client.clone(), client.clone());
            tokio::spawn(async move {
                let (new, old) = (format!("mixed{n}"), format!("gone{n}"));
                let refused = put(&mut writer, &new, LARGE);
                let deleted = deleter.delete(delete(&old, &[("c", 2)]));
                let (refused, deleted) = tokio::join!(refused, deleted);
                assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
                deleted.unwrap();
            })
        })
        .collect();
    for task in mixed {
        task.await.unwrap();
    }
    disk.set_space(None);
    check_resumed(&mut client, Instant::now()).await;
    assert!(node.tree().ends().is_empty(), "nothing was restarted");
    drop(client);
    node.shutdown().await;
    // And all of it survives: what was refused is not there, what was deleted stays so.
    disk.crash(0);
    let node = start_on(&config, Arc::new(disk.clone())).await;
    let mut client = common::client(node.address());
    assert!(has(&mut client, "kept", 1000).await);
    for key in ["gone5", "gone150", "mixed150", "refused"] {
        assert_eq!(
            client.read(read(key)).await.unwrap_err().code(),
            Code::NotFound,
            "{key}"
        );
    }
    node.shutdown().await;
}

/// Bytes that are on a disk, which has no more from here on.
fn taken(disk: &SimFs) -> u64 {
    use pairdb_node::storage::fs::FileSystem;
    disk.set_space(Some(0));
    disk.space(Path::new("/")).unwrap().total
}

/// What must be free so that what is taken is this share of all.
fn free_at(taken: u64, used: f64) -> u64 {
    (taken as f64 * (1.0 - used) / used) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nine_tenths_full_degrades_the_node_wherever_its_warning_begins() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.disk.check_interval = Duration::from_millis(10);
    assert!(config.disk.warn_usage > 0.95, "it does not warn by itself");
    let disk = SimFs::default();
    let (node, mut client) = prepared(&config, &disk).await;
    let taken = taken(&disk);
    let is = async |status: Status, fullness: bool| {
        let (now, reasons) = node.health().status();
        now == status && fullness == reasons.iter().any(|reason| reason.contains("90 % of a disk"))
    };
    disk.set_space(Some(free_at(taken, 0.8)));
    eventually("all is well", async || is(Status::Healthy, false).await).await;
    disk.set_space(Some(free_at(taken, 0.93)));
    eventually("it is degraded for it", async || is(Status::Degraded, true).await).await;
    put(&mut client, "small", 10).await.unwrap();
    assert_eq!(
        node.health().admission.stats().slowed,
        0,
        "nothing else follows from it"
    );
    disk.set_space(Some(free_at(taken, 0.8)));
    eventually("all is well again", async || is(Status::Healthy, false).await).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_warn_then_slow_writes_then_refuse_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_with_thresholds(dir.path());
    config.disk.check_interval = Duration::from_millis(10);
    let disk = SimFs::default();
    let (node, mut client) = prepared(&config, &disk).await;
    let taken = taken(&disk);
    let at = |used: f64| disk.set_space(Some(free_at(taken, used)));
    let health = async |needle: &str| {
        let (status, reasons) = node.health().status();
        status == Status::Degraded && reasons.iter().any(|reason| reason.contains(needle))
    };
    at(0.5);
    eventually("all is well", async || node.health().status().0 == Status::Healthy).await;
    at(0.85);
    eventually("health warns", async || health("85.").await || health("84.").await).await;
    put(&mut client, "small", 10).await.unwrap();
    let slowed = || node.health().admission.stats().slowed;
    assert_eq!(slowed(), 0);
    at(0.93);
    eventually("health says that writes are slow", async || health("slowed").await).await;
    put(&mut client, "slow", 10).await.unwrap();
    assert!(slowed() > 0);
    at(0.97);
    eventually("health says that writes are refused", async || health("refused").await).await;
    check_full(&mut client, 0..10).await;
    disk.set_space(None);
    check_resumed(&mut client, Instant::now()).await;
    assert!(node.tree().ends().is_empty(), "nothing was restarted");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flushes_and_compactions_that_find_no_space_lose_nothing_and_are_done_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_with_thresholds(dir.path());
    config.disk.check_interval = Duration::from_secs(3600);
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(64);
    config.sstable.l0_size = bytesize::ByteSize::mib(1);
    let disk = SimFs::default();
    let (node, mut client) = prepared(&config, &disk).await;
    disk.refuse_new_files(".sst.tmp");
    for n in 0..600 {
        put(&mut client, &format!("more{n}"), 500).await.unwrap();
    }
    let (_, reasons) = node.health().status();
    assert!(
        reasons.iter().any(|reason| reason.contains("flushing fails")),
        "{reasons:?}"
    );
    disk.refuse_new_files("");
    eventually("flushes are made up for", async || {
        node.health().status().0 == Status::Healthy
    })
    .await;
    for n in 0..2000 {
        put(&mut client, &format!("yet more{n}"), 500).await.unwrap();
    }
    let jobs = &node.health().jobs;
    eventually("tables are compacted", async || jobs.totals().completed > 0).await;
    assert_eq!(jobs.totals().failed, 0);
    for n in 0..600 {
        assert!(has(&mut client, &format!("more{n}"), 500).await);
    }
    assert!(node.tree().ends().is_empty(), "nothing was restarted");
    node.shutdown().await;
}

/// A disk with a node on it that has more tables in L0 than it should, and has compacted nothing. Returns the keys that
/// were written.
async fn with_uncompacted_tables(config: &Config, disk: &SimFs) -> u32 {
    let mut config = config.clone();
    config.compaction.workers = 0;
    let (node, client) = prepared(&config, disk).await;
    let keys = 1200;
    for n in 0..keys {
        // Not in order: every table then spans all keys, and none can be moved down as it is.
        let key = format!("table{}", n * 7919 % keys);
        put(&mut client.clone(), &key, 500).await.unwrap();
    }
    let l0 = || node.health().handles.published.load().tables.level(0).len();
    eventually("L0 is due", async || l0() > config.compaction.l0_trigger).await;
    drop(client);
    node.shutdown().await;
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_finds_no_space_fails_visibly_loses_nothing_and_succeeds_when_there_is_some() {
    for by_threshold in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        // The other has thresholds so high that the disk itself is met before them.
        let mut config = if by_threshold {
            config_with_thresholds(dir.path())
        } else {
            config(dir.path())
        };
        config.disk.check_interval = Duration::from_millis(10);
        config.mem_table.flush_threshold = bytesize::ByteSize::kib(64);
        config.sstable.l0_size = bytesize::ByteSize::mib(1);
        config.sstable.compression = Compression::None;
        config.compaction.throttle = 0;
        let disk = SimFs::default();
        let keys = with_uncompacted_tables(&config, &disk).await;
        // Room for the log and the manifest, and for a part of what the compaction would write.
        disk.set_space(Some(64 << 10));
        let node = start_on(&config, Arc::new(disk.clone())).await;
        let mut client = client(node.address());
        let jobs = Arc::clone(&node.health().jobs);
        eventually("a job fails", async || jobs.totals().failed > 1).await;
        assert_eq!(jobs.totals().completed, 0);
        let (status, reasons) = node.health().status();
        assert_eq!(status, Status::Degraded);
        assert!(
            reasons.iter().any(|reason| reason.contains("compaction fails")),
            "{reasons:?}"
        );
        let records = jobs.records();
        let failed = records.iter().find(|job| matches!(job.state, JobState::Failed(_)));
        let JobState::Failed(cause) = &failed.expect("a failed job is remembered").state else {
            unreachable!("it was just found");
        };
        assert!(
            cause.contains("no storage space") || cause.contains("No space"),
            "{cause}"
        );
        // Reads and deletes go on. A write is refused by the threshold; without one it is taken where it fits, and refused
        // only while the compaction holds what is left.
        for n in (0..keys).step_by(97) {
            assert!(has(&mut client, &format!("table{n}"), 500).await);
        }
        if by_threshold {
            let status = put(&mut client, "refused", 100).await.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            assert!(status.message().contains("disk full"), "{status}");
        } else {
            let mut writer = client.clone();
            eventually("a small write fits", async || {
                put(&mut writer, "small", 100).await.is_ok()
            })
            .await;
        }
        // After the write: a delete may take the reserve, and nothing else is taken before that is back.
        client.delete(delete("gone0", &[("c", 2)])).await.unwrap();
        // Nothing is done but that there is space again.
        disk.set_space(None);
        let due = || jobs.is_due() || jobs.active() > 0;
        eventually("the compaction succeeds", async || {
            jobs.totals().completed > 0 && !due() && node.health().status().0 == Status::Healthy
        })
        .await;
        check_resumed(&mut client, Instant::now()).await;
        assert!(node.tree().ends().is_empty(), "nothing was restarted");
        let expect_all = async |client: &mut Client| {
            for n in 0..keys {
                assert!(has(client, &format!("table{n}"), 500).await, "table{n}");
            }
            let gone = client.read(read("gone0")).await.unwrap_err();
            assert_eq!(gone.code(), Code::NotFound);
            assert_eq!(has(client, "small", 100).await, !by_threshold);
        };
        expect_all(&mut client).await;
        drop(client);
        node.shutdown().await;
        disk.crash(0);
        let node = start_on(&config, Arc::new(disk.clone())).await;
        expect_all(&mut common::client(node.address())).await;
        node.shutdown().await;
    }
}

/// A small file system in memory; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    /// [`None`] without the right to mount.
    fn new(dir: &Path, mib: u32) -> Option<Self> {
        let size = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(dir.to_path_buf()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_file_system_fills_up_and_empties() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(dir.path(), 48) else {
        println!("mounting is not allowed here; the other tests have a simulated disk");
        return;
    };
    for by_threshold in [true, false] {
        let mut config = config_with_thresholds(&mount.0.join(format!("node{by_threshold}")));
        if !by_threshold {
            config.disk.check_interval = Duration::from_secs(3600);
        }
        let node = start(&config).await;
        let mut client = client(node.address());
        put(&mut client, "kept", 1000).await.unwrap();
        for n in 0..200 {
            put(&mut client, &format!("gone{n}"), 100).await.unwrap();
        }
        let ballast = mount.0.join("ballast");
        // Somebody else fills the disk, to the last byte.
        let filled = Command::new("dd")
            .args(["if=/dev/zero", "bs=64k", "status=none"])
            .arg(format!("of={}", ballast.display()))
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(!filled.success(), "the disk is full");
        if by_threshold {
            eventually("it is noticed", async || {
                put(&mut client.clone(), "notice", 10).await.is_err()
            })
            .await;
        }
        check_full(&mut client, 0..200).await;
        std::fs::remove_file(&ballast).unwrap();
        check_resumed(&mut client, Instant::now()).await;
        assert!(node.tree().ends().is_empty(), "nothing was restarted");
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_on_a_full_disk_reads_deletes_and_takes_writes_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_with_thresholds(dir.path());
    let disk = SimFs::default();
    let (node, client) = prepared(&config, &disk).await;
    drop(client);
    node.shutdown().await;
    disk.set_space(Some(0));
    let node = start_on(&config, Arc::new(disk.clone())).await;
    let health = node.health();
    eventually("it is noticed", async || health.status().0 == Status::Degraded).await;
    let mut client = common::client(node.address());
    check_full(&mut client, 0..200).await;
    disk.set_space(None);
    check_resumed(&mut client, Instant::now()).await;
    assert!(node.tree().ends().is_empty(), "nothing was restarted");
    node.shutdown().await;
}

#[test]
fn a_library_deletes_on_a_full_disk_too() {
    use pairdb_node::storage::fs::FileSystem;
    use pairdb_node::storage::key::Key;
    use pairdb_node::storage::store::{Store, StoreOptions};
    use pairdb_node::storage::version::Value;
    for sync_writes in [true, false] {
        let disk = SimFs::default();
        let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
        let mut options = StoreOptions::at("/data");
        options.sync_writes = sync_writes;
        let store = Store::open(&fs, options, "node").unwrap();
        let key = |n: u32| Key::new("t", &format!("k{n}")).unwrap();
        let value = || Value::Live(vec![1; LARGE].into());
        for n in 0..10 {
            store.write(&key(n), value(), None).unwrap();
        }
        disk.set_space(Some(0));
        for n in 0..10 {
            let refused = store.write(&key(n), value(), None).unwrap_err();
            assert_eq!(refused.kind(), pairdb_node::storage::error::ErrorKind::DiskFull);
            store.write(&key(n), Value::Tombstone, None).unwrap();
            assert!(store.get(&key(n)).unwrap().winner().unwrap().value.live().is_none());
        }
        disk.set_space(None);
        store.write(&key(0), value(), None).unwrap();
    }
}
