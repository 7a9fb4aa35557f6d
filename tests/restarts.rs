//! Every actor is killed under load: no acknowledged write is lost, no read is wrong, no call hangs.

mod common;

use common::*;
use pairdb_node::actors::faults::{Fault, MESSAGE};
use pairdb_node::node::Node;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest time that any call may take while actors are killed. Generous: the machines that run this are slow.
const CALL_LIMIT: Duration = Duration::from_secs(5);
const WRITERS: u64 = 8;

/// Keys that each writer takes in turn: most are left alone for a while, so that what an actor forgot stays forgotten.
const KEYS_PER_WRITER: u64 = 50;

/// The last number tried and the last acknowledged, for each key of a writer.
type Known = Vec<(u64, u64)>;

struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<tokio::task::JoinHandle<Known>>,
}

fn key(writer: u64, key: u64) -> String {
    format!("writer-{writer}-{key}")
}

/// As [`holds_number`], which must not take long.
async fn check(client: &mut Client, name: &str, (tried, confirmed): (u64, u64)) -> bool {
    let begun = Instant::now();
    let is_answered = holds_number(client, name, (confirmed, tried)).await;
    assert!(begun.elapsed() < CALL_LIMIT, "a read hung for {:?}", begun.elapsed());
    is_answered
}

/// Each writer has keys of its own, writes ascending numbers to them in turn, and reads back the one just written and the
/// one written longest ago.
fn load(node: &Node) -> Load {
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let address = node.address();
    let writers = (0..WRITERS)
        .map(|writer| {
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let mut client = client(address);
                let mut known = vec![(0, 0); KEYS_PER_WRITER as usize];
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let turn = number % KEYS_PER_WRITER;
                    let name = key(writer, turn);
                    let state = &mut known[turn as usize];
                    state.0 = number;
                    let begun = Instant::now();
                    let request = write(
                        &name,
                        number.to_string().as_bytes(),
                        &[("c", i64::try_from(number).unwrap())],
                    );
                    match client.write(request).await {
                        Ok(_) => {
                            state.1 = number;
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status}"),
                    }
                    assert!(begun.elapsed() < CALL_LIMIT, "a write hung for {:?}", begun.elapsed());
                    check(&mut client, &name, *state).await;
                    let oldest = (number + 1) % KEYS_PER_WRITER;
                    check(&mut client, &key(writer, oldest), known[oldest as usize]).await;
                }
                known
            })
        })
        .collect();
    Load {
        stop,
        acknowledged,
        writers,
    }
}

async fn check_all(node: &Node, expected: &[Known]) {
    let mut client = client(node.address());
    for (writer, known) in (0..).zip(expected) {
        for (turn, state) in (0..).zip(known) {
            let name = key(writer, turn);
            eventually("every key can be read", async || {
                check(&mut client, &name, *state).await
            })
            .await;
        }
    }
}

async fn generation(node: &Node, name: &str) -> u64 {
    let children = node.tree().children();
    children
        .iter()
        .find(|child| child.name == name)
        .map_or(0, |child| child.generation)
}

async fn kill_under_load(names: &[&str], kills: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // Small, so that flushes and rotations happen while actors die.
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(64);
    config.commit_log.segment_size = bytesize::ByteSize::kib(64);
    // Every flush brings a compaction about.
    config.compaction.l0_trigger = 1;
    // Most reads go past the cache: what it remembers must not hide what another actor forgot.
    config.cache.max_size = bytesize::ByteSize::kib(8);
    let node = start(&config).await;
    let load = load(&node);
    for kill in 0..kills {
        let name = names[(kill % names.len() as u64) as usize];
        let before = generation(&node, name).await;
        assert!(node.tree().kill(name), "{name} was not running");
        eventually("the actor is back", async || generation(&node, name).await > before).await;
        // And the node serves: writes are acknowledged again.
        let acknowledged = load.acknowledged.load(Ordering::Relaxed);
        let served = async || load.acknowledged.load(Ordering::Relaxed) > acknowledged + WRITERS;
        eventually("writes are acknowledged", served).await;
    }
    load.stop.store(true, Ordering::Relaxed);
    let mut expected = Vec::new();
    for writer in load.writers {
        expected.push(writer.await.unwrap());
    }
    assert_eq!(node.tree().ends().len() as u64, kills.min(100));
    if names.contains(&"compaction") {
        assert!(
            node.health().jobs.totals().completed > 0,
            "tables were compacted meanwhile"
        );
    }
    check_all(&node, &expected).await;
    node.shutdown().await;
    // What was acknowledged is on disk.
    let node = start(&config).await;
    check_all(&node, &expected).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_may_die() {
    kill_under_load(&["wal"], 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memtable_may_die() {
    kill_under_load(&["memtable"], 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flush_may_die() {
    kill_under_load(&["flush"], 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_compaction_may_die() {
    kill_under_load(&["compaction"], 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_over_the_disk_may_die() {
    kill_under_load(&["disk", "scrub"], 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_may_die() {
    kill_under_load(&["cache-0"], 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_may_die() {
    kill_under_load(&["gateway"], 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_may_die_in_turn() {
    kill_under_load(&["wal", "cache-0", "memtable", "gateway", "flush", "compaction"], 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_restart_intensity_the_node_gives_up_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.supervisor.max_restarts = 3;
    let node = start(&config).await;
    for _ in 0..3 {
        let before = generation(&node, "wal").await;
        assert!(node.tree().kill("wal"));
        eventually("the log is back", async || generation(&node, "wal").await > before).await;
    }
    assert!(node.tree().kill("wal"));
    let why = tokio::time::timeout(Duration::from_secs(10), node.failed())
        .await
        .unwrap();
    assert!(why.contains("wal ended 4 times"), "{why}");
}

/// What MemtableActor does not get is read back from the log, and whoever waits for a write behind it need not wait for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_behind_one_that_is_missing_is_answered_at_once_and_both_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    client.write(write("before", b"v", &[("c", 1)])).await.unwrap();
    let faults = &node.requests().handles.faults;
    faults.inject(injection("memtable", MESSAGE, Fault::Drop)).unwrap();
    for key in ["missing", "behind"] {
        let begun = Instant::now();
        let answer = client.write(write(key, b"v", &[("c", 1)])).await;
        assert!(begun.elapsed() < CALL_LIMIT, "{key} hung for {:?}", begun.elapsed());
        assert_eq!(answer.unwrap_err().code(), tonic::Code::Unavailable, "{key}");
    }
    assert!(faults.armed().is_empty());
    for key in ["missing", "behind"] {
        eventually("it is there", async || client.clone().read(read(key)).await.is_ok()).await;
    }
    node.shutdown().await;
}
