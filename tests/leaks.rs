//! Restarts leave nothing behind: whatever an actor has of memory, tasks, threads, files, maps and names ends with it.
//!
//! Alone in its binary, since it measures the process.

mod common;
#[path = "common/streaming.rs"]
mod streaming;

use common::*;
use pairdb_node::actors::faults::{DISK_IO, Fault, MESSAGE, SUPERVISOR};
use pairdb_node::node::Node;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use streaming::*;

/// Restarts before the first measurement: whatever is made once is there by then.
const WARM_UP: u64 = 300;
/// Every so many rounds the supervisor itself is killed, and with it all.
const SUPERVISOR_EVERY: u64 = 10;

/// What the process holds.
#[derive(Debug)]
struct Held {
    resident_kib: u64,
    tasks: usize,
    threads: usize,
    files: usize,
    maps: usize,
    names: usize,
    groups: usize,
}

impl Held {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let number = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        Self {
            resident_kib: number("RssAnon:"),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            threads: number("Threads:") as usize,
            files: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            maps: std::fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
            names: ractor::registry::registered().len(),
            groups: ractor::pg::which_groups().len(),
        }
    }
}

fn generations(node: &Node) -> BTreeMap<String, u64> {
    let children = node.tree().children().into_iter();
    children.map(|child| (child.name, child.generation)).collect()
}

/// Waits until all of `names` run in a later generation than `before`. Returns how many starts there were.
async fn wait_for_the_next(node: &Node, names: &[String], before: &BTreeMap<String, u64>) -> u64 {
    let mut changed = node.tree().changes();
    let is_back = |name: &String| {
        let children = node.tree().children();
        let mut of_name = children.iter().filter(|child| child.name == *name);
        of_name.any(|child| child.running && child.generation > before.get(name).copied().unwrap_or(0))
    };
    let all = async {
        while !names.iter().all(is_back) {
            changed.changed().await.unwrap();
        }
    };
    let came = tokio::time::timeout(PATIENCE, all).await;
    assert!(came.is_ok(), "{names:?} of {before:?}: {:?}", node.tree().children());
    let now = generations(node);
    names
        .iter()
        .map(|name| now.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0))
        .sum()
}

/// How an actor ends: most can only be killed at once, those on the way of requests meet their next message.
fn end(node: &Node, name: &str, round: u64) -> bool {
    let is_busy = name.starts_with("cache-") || ["wal", "memtable"].contains(&name);
    let fault = match round % 3 {
        1 if is_busy => Fault::Panic,
        2 if is_busy => Fault::Error,
        _ => return node.tree().kill(name),
    };
    let faults = &node.requests().handles.faults;
    faults.inject(injection(name, MESSAGE, fault)).is_ok()
}

/// Ends all actors, one after the other, each as soon as the one before is back, until there were so many restarts.
async fn restart_all(node: &Node, restarts: u64) {
    let (mut done, mut round) = (0, 0);
    while done < restarts {
        round += 1;
        let names: Vec<String> = generations(node).into_keys().collect();
        for name in &names {
            let before = generations(node);
            eventually(&format!("{name} is there to be ended"), async || end(node, name, round)).await;
            done += wait_for_the_next(node, std::slice::from_ref(name), &before).await;
        }
        if round % SUPERVISOR_EVERY == 0 {
            let before = generations(node);
            assert!(node.tree().kill(SUPERVISOR));
            done += wait_for_the_next(node, &names, &before).await;
        }
    }
}

/// What is held when nothing is under way: what has just ended may still be on its way out.
async fn settled(node: &Node, is_enough: impl Fn(&Held) -> bool) -> Held {
    let begun = std::time::Instant::now();
    loop {
        let mailboxes = &node.requests().handles;
        let is_idle = mailboxes.wal.stats().messages + mailboxes.memtable.stats().messages == 0;
        let held = Held::now();
        if (is_idle && is_enough(&held)) || begun.elapsed() > std::time::Duration::from_secs(15) {
            return held;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_restarts_leave_nothing_behind() {
    let restarts = std::env::var("PAIRDB_TEST_RESTARTS").map_or(1000, |said| said.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut config = node_config(dir.path(), "from", 0);
    config.supervisor.max_restarts = 100_000;
    // Nobody answers there, and it tries for as long as it takes.
    config.coordinator.enabled = true;
    config.coordinator.host = "127.0.0.1".to_owned();
    config.coordinator.port = free_port();
    // Nor there.
    config.gossip.enabled = true;
    config.gossip.bind_port = 0;
    config.gossip.seed_nodes = vec![format!("localhost:{}", free_port())];
    let (from, to) = (start(&config).await, node(dir.path(), "to", 0).await);
    let here = client(from.address());
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    completed(&here, "to").await;
    let kinds = generations(&from);
    for kind in [
        "wal",
        "memtable",
        "cache-0",
        "streams",
        "stream-to",
        "gateway",
        "registration",
        "gossip",
        "vitals",
    ] {
        assert!(kinds.contains_key(kind), "{kind} is missing in {kinds:?}");
    }
    assert!(from.requests().handles.faults.actors().contains(&DISK_IO.to_owned()));
    // So that there is something to lose.
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, mut writer) = (Arc::clone(&stop), here.clone());
    let writing = tokio::spawn(async move {
        for n in 1_i64.. {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            let key = format!("k{}", n % 20);
            let _ = writer.write(write(&key, &[7; 100], &[("c", n)])).await;
            let _ = writer.read(read(&key)).await;
        }
    });
    // Tasks are there from the start: with timers of a minute a leak is the same after each minute.
    let fresh = settled(&from, |_| true).await.tasks;
    restart_all(&from, WARM_UP).await;
    let before = settled(&from, |_| true).await;
    let begun = std::time::Instant::now();
    restart_all(&from, restarts).await;
    let took = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    let is_enough = |held: &Held| {
        held.tasks <= fresh + 5
            && held.threads <= before.threads + 10
            && held.files <= before.files + 5
            && held.maps <= before.maps + 60
            && held.resident_kib <= before.resident_kib + 8 * 1024
    };
    let after = settled(&from, is_enough).await;
    println!("{restarts} restarts in {took:?}: {fresh} tasks, {before:?}, then {after:?}");
    // What varies by itself: connections, threads that may block, arenas and tables; none of it grows with the restarts.
    assert!(is_enough(&after), "{fresh} tasks, {before:?}, then {after:?}");
    assert_eq!((after.names, after.groups), (before.names, before.groups));
    assert!(
        from.tree().ends().len() == 100,
        "the ends that are remembered are bounded"
    );
    // And it works.
    insist(async || here.clone().write(write("last", b"v", &[("c", 1)])).await).await;
    completed(&here, "to").await;
    from.shutdown().await;
    to.shutdown().await;
}
