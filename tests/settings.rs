//! What the keys of the configuration do, seen from outside the parts that they set.

mod common;

use bytesize::ByteSize;
use common::*;
use pairdb_node::node::Node;
use pairdb_node::storage::fs::SimFs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

fn segments(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir.join("data/commitlog")).unwrap();
    names
        .filter(|name| name.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".log"))
        .count()
}

fn metric(node: &Node, name: &str) -> u64 {
    node.health().metrics()[name].parse().unwrap()
}

async fn write_many(node: &Node, from: u64, count: u64, size: usize) {
    let mut client = client(node.address());
    for n in from..from + count {
        client
            .write(write(&format!("k{n}"), &vec![1; size], &[("c", 1)]))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_rotates_at_its_size_and_flushed_segments_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.commit_log.segment_size = ByteSize::kib(64);
    config.mem_table.flush_threshold = ByteSize::kib(256);
    let node = start(&config).await;
    // 4 MB in segments of 64 KiB: without deletion there would be more than 60.
    write_many(&node, 0, 4000, 1000).await;
    assert!(metric(&node, "memtable_flushes") >= 8);
    eventually("flushed segments are deleted", async || segments(dir.path()) <= 16).await;
    assert!(segments(dir.path()) >= 1);
    node.shutdown().await;
    let node = start(&config).await;
    let mut client = client(node.address());
    for n in [0, 1999, 3999] {
        assert_eq!(
            client.read(read(&format!("k{n}"))).await.unwrap().into_inner().value,
            vec![1; 1000]
        );
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_segment_is_flushed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.commit_log.max_age = Duration::from_millis(400);
    let node = start(&config).await;
    write_many(&node, 0, 10, 100).await;
    let before = std::fs::read_dir(dir.path().join("data/commitlog")).unwrap().count();
    assert!(before >= 1);
    eventually("age alone has the memtable flushed", async || {
        metric(&node, "memtable_flushes") >= 1
    })
    .await;
    write_many(&node, 10, 1, 100).await;
    let first = dir.path().join("data/commitlog/commitlog-000000000001.log");
    eventually("the old segment is deleted", async || !first.exists()).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_writes_says_whether_a_write_waits_for_the_disk() {
    for (sync_writes, survive) in [(true, true), (false, false)] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.commit_log.sync_writes = sync_writes;
        config.commit_log.sync_interval = Duration::from_secs(3600);
        let disk = SimFs::default();
        let node = start_on(&config, Arc::new(disk.clone())).await;
        write_many(&node, 0, 5, 100).await;
        // What a crash would leave now.
        let after = crashed_copy(&disk, &config.commit_log_dir());
        let holds = after.windows(2).any(|pair| pair == b"k4");
        assert_eq!(holds, survive, "sync_writes = {sync_writes}");
        node.shutdown().await;
    }
}

/// The bytes of the log that would survive a power loss.
fn crashed_copy(disk: &SimFs, log: &Path) -> Vec<u8> {
    use pairdb_node::storage::fs::FileSystem;
    let mut bytes = Vec::new();
    for name in disk.list(log).unwrap() {
        bytes.extend(disk.durable(&log.join(name)).unwrap());
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sync_writes_the_interval_bounds_what_is_not_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.commit_log.sync_writes = false;
    config.commit_log.sync_interval = Duration::from_millis(50);
    let disk = SimFs::default();
    let node = start_on(&config, Arc::new(disk.clone())).await;
    write_many(&node, 0, 5, 100).await;
    let log = config.commit_log_dir();
    let on_disk = async || crashed_copy(&disk, &log).windows(2).any(|pair| pair == b"k4");
    eventually("the log is synced by time alone", on_disk).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_buffer_takes_more_batches() {
    let mut batches = Vec::new();
    for buffer_size in [ByteSize::kib(4), ByteSize::mib(1)] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.commit_log.buffer_size = buffer_size;
        let node = start(&config).await;
        let tasks: Vec<_> = (0..256)
            .map(|n| {
                let mut client = client(node.address());
                tokio::spawn(async move { client.write(write(&format!("k{n}"), &[1; 3000], &[("c", 1)])).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        batches.push(node.health().log.stats().batches);
        node.shutdown().await;
    }
    // 4 KiB hold one such write, or two.
    assert!(batches[0] >= 128, "{batches:?}");
    assert!(batches[1] < batches[0], "{batches:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_memtables_slow_writes_then_refuse_them_and_never_hold_more_than_configured() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.mem_table.max_size = ByteSize::mib(16);
    config.mem_table.flush_threshold = ByteSize::mib(8);
    let disk = SimFs::default();
    let node = start_on(&config, Arc::new(disk.clone())).await;
    let most = 2 * 16 * 1024 * 1024;
    // Tables cannot be written, the log can: every sync but the log's fails.
    disk.refuse_new_files(".sst.tmp");
    let mut client = client(node.address());
    let mut refused = None;
    for n in 0..200_u32 {
        match client
            .write(write(&format!("k{n}"), &vec![1; 512 * 1024], &[("c", 1)]))
            .await
        {
            Ok(_) => assert!(metric(&node, "memtable_bytes") <= most),
            Err(status) => {
                refused = Some((n, status));
                break;
            }
        }
    }
    let (stored, status) = refused.expect("writes are refused in the end");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(
        stored >= 40,
        "refused after {stored} writes of half a MiB, with room for 32 MiB"
    );
    assert!(metric(&node, "writes_slowed") > 0);
    assert_eq!(node.health().status().0.as_str(), "degraded");
    // Reads go on, and nothing that was acknowledged is missing.
    for n in 0..stored {
        assert_eq!(
            client
                .read(read(&format!("k{n}")))
                .await
                .unwrap()
                .into_inner()
                .value
                .len(),
            512 * 1024
        );
    }
    disk.refuse_new_files("");
    let mut again = client.clone();
    let accepted = async || again.write(write("later", b"v", &[("c", 1)])).await.is_ok();
    eventually("writes are taken again by themselves", accepted).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_resource_exhausted_and_passes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimFs::default();
    let node = start_on(&config(dir.path()), Arc::new(disk.clone())).await;
    let mut client = client(node.address());
    client.write(write("before", b"v", &[("c", 1)])).await.unwrap();
    disk.set_space(Some(0));
    let status = client
        .write(write("k", &vec![1; 1 << 20], &[("c", 1)]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(client.read(read("before")).await.unwrap().into_inner().value, b"v");
    disk.set_space(None);
    client.write(write("k", b"v", &[("c", 1)])).await.unwrap();
    assert!(node.tree().ends().is_empty(), "nothing was restarted");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_latches_writes_and_health_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimFs::default();
    let node = start_on(&config(dir.path()), Arc::new(disk.clone())).await;
    let mut client = client(node.address());
    client.write(write("before", b"v", &[("c", 1)])).await.unwrap();
    disk.fail_syncs(1);
    client.write(write("k", b"v", &[("c", 1)])).await.unwrap_err();
    // Not even a new generation of the writer takes up where the disk is in doubt.
    assert!(node.tree().kill("wal"));
    eventually("the log is back", async || {
        node.tree().children().iter().all(|c| c.running)
    })
    .await;
    for _ in 0..3 {
        client.write(write("k", b"v", &[("c", 2)])).await.unwrap_err();
    }
    assert_eq!(client.read(read("before")).await.unwrap().into_inner().value, b"v");
    assert_eq!(client.read(read("k")).await.unwrap_err().code(), Code::NotFound);
    let health = client
        .health_check(pairdb_node::rpc::pb::HealthCheckRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(!health.healthy && health.status == "unhealthy");
    node.shutdown().await;
}
