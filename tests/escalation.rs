//! What ends again and again: past the restart intensity the node ends, and says why. What makes no progress: it is told of,
//! and ended where that helps, the supervisor included.

mod common;

use common::*;
use pairdb_node::actors::faults::{Fault, MESSAGE, START, SUPERVISOR};
use pairdb_node::config::Config;
use pairdb_node::node::Node;
use std::path::Path;
use std::time::{Duration, Instant};

const RESTARTS: usize = 3;

fn strict(dir: &Path) -> Config {
    let mut config = config(dir);
    config.supervisor.max_restarts = RESTARTS;
    config
}

fn impatient(dir: &Path) -> Config {
    let mut config = config(dir);
    config.supervisor.stuck_after = Duration::from_millis(300);
    config
}

async fn all_run(node: &Node, supervisor_restarts: u64) {
    eventually("all run", async || {
        let children = node.tree().children();
        node.tree().supervisor_restarts() == supervisor_restarts && children.iter().all(|child| child.running)
    })
    .await;
}

/// Kills an actor, and waits until it is back.
async fn kill(node: &Node, name: &str) {
    let generation = || {
        let children = node.tree().children();
        children
            .into_iter()
            .find(|child| child.name == name)
            .unwrap()
            .generation
    };
    let before = generation();
    eventually("it is there to be killed", async || node.tree().kill(name)).await;
    eventually("it is back", async || generation() > before).await;
    all_run(node, node.tree().supervisor_restarts()).await;
}

async fn gave_up(node: &Node) -> String {
    let why = tokio::time::timeout(PATIENCE, node.failed()).await;
    why.expect("the node gives up")
}

fn reasons(node: &Node) -> Vec<String> {
    node.health().status().1
}

#[test]
fn a_process_whose_actor_ends_too_often_exits_with_1_and_the_reason() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port().to_string());
    let environment = [
        ("PAIRDB__ADMIN__FAULT_INJECTION", "true"),
        ("PAIRDB__ADMIN__PORT", port.as_str()),
        ("PAIRDB__METRICS__ENABLED", "false"),
        ("PAIRDB__SUPERVISOR__MAX_RESTARTS", "3"),
    ];
    let mut node = Process::start(dir.path(), free_port(), &environment);
    let address = format!("http://127.0.0.1:{port}");
    let (begun, mut kills) = (Instant::now(), 0);
    let code = loop {
        if let Some(code) = node.exit_code() {
            break code;
        }
        assert!(begun.elapsed() < PATIENCE, "it goes on after {kills} kills");
        let killed = binary(&["fault", "inject", "--admin-addr", &address, "memtable", "kill"])
            .output()
            .unwrap();
        kills += usize::from(killed.status.success());
    };
    assert_eq!(code, 1);
    assert!(kills >= RESTARTS, "it ended after {kills} kills");
    let said = std::fs::read_to_string(dir.path().join("node.log")).unwrap();
    assert!(said.contains("memtable ended 4 times within"), "{said}");
    // What is durable is there for the next one.
    let mut node = Process::start(dir.path(), free_port(), &[("PAIRDB__METRICS__ENABLED", "false")]);
    assert_eq!(node.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_ends_too_often_ends_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&strict(dir.path())).await;
    for restarts in 1..=RESTARTS as u64 {
        assert!(node.tree().kill(SUPERVISOR));
        all_run(&node, restarts).await;
    }
    assert!(node.tree().kill(SUPERVISOR));
    let why = gave_up(&node).await;
    assert!(why.contains("the supervisor ended 4 times within"), "{why}");
}

/// Otherwise a child that takes its supervisor with it now and then would be started again for ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_ends_of_a_child_count_on_under_the_next_supervisor() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&strict(dir.path())).await;
    for _ in 1..RESTARTS {
        kill(&node, "flush").await;
    }
    assert!(node.tree().kill(SUPERVISOR));
    all_run(&node, 1).await;
    kill(&node, "flush").await;
    eventually("it is there to be killed", async || node.tree().kill("flush")).await;
    let why = gave_up(&node).await;
    assert!(why.contains("flush ended 4 times within"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_makes_no_progress_is_told_of_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&impatient(dir.path())).await;
    let faults = &node.requests().handles.faults;
    let hang = Fault::Stall(Duration::from_secs(600));
    faults.inject(injection(SUPERVISOR, MESSAGE, hang)).unwrap();
    eventually("health tells of it", async || {
        reasons(&node)
            .iter()
            .any(|reason| reason.contains("supervisor makes no progress"))
    })
    .await;
    all_run(&node, 1).await;
    let ends = node.tree().ends();
    let of_supervisor = ends.iter().find(|end| end.name == SUPERVISOR).unwrap();
    assert!(of_supervisor.reason.contains("makes no progress"), "{ends:?}");
    let mut client = client(node.address());
    eventually("it takes writes", async || {
        client.write(write("k", b"v", &[("a", 1)])).await.is_ok()
    })
    .await;
    eventually("health is well", async || reasons(&node).is_empty()).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_whose_start_hangs_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&impatient(dir.path())).await;
    let faults = &node.requests().handles.faults;
    let late = Fault::Stall(Duration::from_secs(3));
    faults.inject(injection("memtable", START, late)).unwrap();
    assert!(node.tree().kill("memtable"));
    eventually("health tells of it", async || {
        reasons(&node)
            .iter()
            .any(|reason| reason.contains("memtable makes no progress"))
    })
    .await;
    all_run(&node, 0).await;
    eventually("health is well", async || reasons(&node).is_empty()).await;
    let ends = node.tree().ends();
    assert_eq!(
        ends.len(),
        1,
        "what hung in its start was not there to be ended: {ends:?}"
    );
    node.shutdown().await;
}
