//! What a node does of itself while nobody asks anything of it.

mod common;

use common::*;
use pairdb_node::node::Node;
use pairdb_node::storage::fs::{FileSystem, SimFs};
use pairdb_node::storage::log;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The numbers of the log segments on a disk, in order.
fn segments(disk: &SimFs, dir: &Path) -> Vec<u64> {
    let names = disk.list(&dir.join("data/commitlog")).unwrap();
    let mut ids: Vec<u64> = names.iter().filter_map(|name| log::id_of(name)).collect();
    ids.sort_unstable();
    ids
}

async fn reads(node: &Node, key: &str) -> Vec<u8> {
    let mut client = client(node.address());
    client.read(read(key)).await.unwrap().into_inner().value
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_log_segment_goes_although_nothing_is_written_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.commit_log.max_age = Duration::from_millis(400);
    let disk = SimFs::default();
    let node = start_on(&config, Arc::new(disk.clone())).await;
    let mut client = client(node.address());
    client.write(write("k", b"v", &[])).await.unwrap();
    let written = segments(&disk, dir.path());
    assert_eq!(written.len(), 1);
    // Its age closes it and has it flushed; then nothing happens that would bring another flush.
    eventually("the segment goes", async || {
        let left = segments(&disk, dir.path());
        left.len() == 1 && left > written
    })
    .await;
    assert_eq!(node.health().metrics()["commitlog_segments"], "1");
    // A power loss right after it takes nothing with it, and the log goes on.
    let lost_power = disk.copied();
    lost_power.crash(0);
    node.shutdown().await;
    let node = start_on(&config, Arc::new(lost_power.clone())).await;
    assert_eq!(reads(&node, "k").await, b"v");
    let mut client = common::client(node.address());
    client.write(write("k2", b"v2", &[])).await.unwrap();
    node.shutdown().await;
    let node = start_on(&config, Arc::new(lost_power)).await;
    assert_eq!(
        (reads(&node, "k").await, reads(&node, "k2").await),
        (b"v".to_vec(), b"v2".to_vec())
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stop_left_of_the_log_goes_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let disk = SimFs::default();
    let node = start_on(&config, Arc::new(disk.clone())).await;
    let mut client = client(node.address());
    client.write(write("k", &[7; 100_000], &[])).await.unwrap();
    drop(client);
    // The stop flushes it all, and has nobody left who would delete the segment.
    node.shutdown().await;
    let left = segments(&disk, dir.path());
    assert_eq!(left.len(), 1);
    config.commit_log.max_age = Duration::from_millis(400);
    let node = start_on(&config, Arc::new(disk.clone())).await;
    eventually("the segment goes", async || {
        let now = segments(&disk, dir.path());
        now.len() == 1 && now > left
    })
    .await;
    assert_eq!(reads(&node, "k").await, [7; 100_000]);
    node.shutdown().await;
}
