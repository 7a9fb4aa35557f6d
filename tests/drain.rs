//! Draining: writes stop, reads go on, everything becomes tables, and nothing but `undrain` ends it.

mod common;

use common::*;
use pairdb_node::actors::drain::DrainPhase;
use pairdb_node::node::{Node, NodeError};
use pairdb_node::rpc::pb;
use pairdb_node::storage::drain_mark;
use pairdb_node::storage::fs::{FileSystem, SimFs, Survival};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Code, Status};
use tonic_types::StatusExt;

async fn drain(client: &mut Client, graceful: bool, timeout_seconds: i32) -> pb::DrainResponse {
    let request = pb::DrainRequest {
        graceful,
        timeout_seconds,
    };
    client.drain_node(request).await.unwrap().into_inner()
}

fn is_draining(status: &Status) -> bool {
    let reason = status.get_details_error_info().map(|info| info.reason);
    status.code() == Code::Unavailable && reason.as_deref() == Some("NODE_DRAINING")
}

/// No write of any kind is taken; each says why.
async fn assert_refuses_writes(client: &mut Client) {
    let repair = pb::RepairRequest {
        tenant_id: "tenant".into(),
        key: "refused".into(),
        value: b"v".to_vec(),
        vector_clock: wire_clock(&[("c", 1)]),
    };
    for refused in [
        client.write(write("refused", b"v", &[("c", 1)])).await.err(),
        client.write(write("refused", b"v", &[])).await.err(),
        client.delete(delete("refused", &[("c", 1)])).await.err(),
        client.repair(repair).await.err(),
    ] {
        let status = refused.expect("a refusal");
        assert!(is_draining(&status), "{status:?}");
    }
    assert_eq!(client.read(read("refused")).await.unwrap_err().code(), Code::NotFound);
}

fn holds_nothing_in_memory(node: &Node) -> bool {
    let view = node.requests().handles.published.load();
    view.active.is_empty() && view.sealed.is_empty()
}

async fn health(client: &mut Client) -> pb::HealthResponse {
    let answer = client.health_check(pb::HealthCheckRequest {}).await;
    answer.unwrap().into_inner()
}

fn command(dir: &Path, arguments: &[&str]) -> (bool, String) {
    let data = dir.join("data");
    let arguments = [arguments, &["--data-dir", data.to_str().unwrap()]].concat();
    let output = binary(&arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

async fn run(dir: &Path, arguments: &'static [&'static str]) -> (bool, String) {
    let dir = dir.to_path_buf();
    tokio::task::spawn_blocking(move || command(&dir, arguments))
        .await
        .unwrap()
}

/// Writes ascending numbers to keys of its own until the node drains; what was acknowledged.
async fn write_until_drained(address: SocketAddr, writer: u32) -> BTreeMap<String, i64> {
    let mut client = client(address);
    let mut acknowledged = BTreeMap::new();
    for number in 1.. {
        let key = format!("writer-{writer}-{}", number % 100);
        let request = write(&key, number.to_string().as_bytes(), &[("c", number)]);
        match client.write(request).await {
            Ok(_) => {
                acknowledged.insert(key, number);
            }
            Err(status) if is_draining(&status) => break,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_under_load_loses_nothing_while_actors_die_and_outlives_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(64);
    let node = start(&config).await;
    let mut client = client(node.address());
    let writers: Vec<_> = (0..8)
        .map(|n| tokio::spawn(write_until_drained(node.address(), n)))
        .collect();
    eventually("there is load", async || {
        node.requests().handles.published.applied() > 2000
    })
    .await;
    let mut asking = client.clone();
    let draining = tokio::spawn(async move { drain(&mut asking, true, 30).await });
    let begun = Instant::now();
    while node.requests().drain.phase() != DrainPhase::Drained {
        for victim in ["memtable", "wal", "flush", "cache-0"] {
            node.tree().kill(victim);
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
        // The kills end before the actors' restarts are given up on.
        if begun.elapsed() > Duration::from_millis(150) {
            break;
        }
    }
    let drained = draining.await.unwrap();
    assert_eq!(
        (drained.success, drained.status.as_str()),
        (true, "drained"),
        "{drained:?}"
    );
    assert!(holds_nothing_in_memory(&node));
    let log = &node.health().log;
    assert_eq!(
        node.requests().handles.published.applied(),
        log.last_seq(),
        "the log holds more"
    );
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(acknowledged.len() > 500, "{} acknowledged", acknowledged.len());
    assert_refuses_writes(&mut client).await;
    assert!(holds_nothing_in_memory(&node));
    let is_there = async |client: &mut Client| {
        for (key, number) in &acknowledged {
            let value = client.read(read(key)).await.expect(key).into_inner().value;
            let value: i64 = String::from_utf8(value).unwrap().parse().unwrap();
            assert!(value >= *number, "{key}: {value}, but {number} was acknowledged");
        }
    };
    is_there(&mut client).await;
    let health = health(&mut client).await;
    assert_eq!((health.healthy, health.status.as_str()), (true, "degraded"));
    assert!(health.metrics["reasons"].contains("drained"), "{health:?}");
    assert_eq!(health.metrics["draining"], "1");
    assert_eq!(drain(&mut client, true, 1).await.status, "drained", "again");
    drop(client);
    node.shutdown().await;

    let node = start(&config).await;
    let mut client = common::client(node.address());
    assert_refuses_writes(&mut client).await;
    is_there(&mut client).await;
    eventually("it says so again", async || {
        drain(&mut client, false, 0).await.status == "drained"
    })
    .await;
    let (done, said) = run(dir.path(), &["undrain"]).await;
    assert!(done, "{said}");
    client.write(write("refused", b"taken", &[("c", 1)])).await.unwrap();
    assert_eq!(self::health(&mut client).await.metrics["draining"], "0");
    drop(client);
    node.shutdown().await;
    let node = start(&config).await;
    let mut client = common::client(node.address());
    client
        .write(write("refused", b"taken again", &[("c", 2)]))
        .await
        .unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_longer_than_asked_goes_on_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimFs::default();
    let node = start_on(&config(dir.path()), Arc::new(disk.clone())).await;
    let mut client = client(node.address());
    client.write(write("kept", b"v", &[("c", 1)])).await.unwrap();
    disk.refuse_new_files(".sst.tmp");
    // At once, without being waited for.
    let begun = Instant::now();
    assert_eq!(drain(&mut client, false, 60).await.status, "draining");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_refuses_writes(&mut client).await;
    let begun = Instant::now();
    assert_eq!(drain(&mut client, true, 1).await.status, "draining");
    assert!((1..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!(!holds_nothing_in_memory(&node));
    assert_eq!(client.read(read("kept")).await.unwrap().into_inner().value, b"v");
    disk.refuse_new_files("");
    eventually("it is drained", async || {
        node.requests().drain.phase() == DrainPhase::Drained
    })
    .await;
    assert!(holds_nothing_in_memory(&node));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_would_not_outlive_a_restart_fails_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimFs::default();
    let node = start_on(&config(dir.path()), Arc::new(disk.clone())).await;
    let mut client = client(node.address());
    disk.refuse_new_files("DRAINING.tmp");
    let failed = drain(&mut client, true, 5).await;
    assert_eq!((failed.success, failed.status.as_str()), (false, "failed"));
    assert_eq!(failed.error_code(), pb::ErrorCode::DiskFull, "{failed:?}");
    assert!(failed.error_message.contains("DRAINING"), "{failed:?}");
    client.write(write("k", b"v", &[("c", 1)])).await.unwrap();
    disk.refuse_new_files("");
    assert_eq!(drain(&mut client, true, 30).await.status, "drained");
    node.requests().drain.end().await.unwrap();
    client.write(write("k", b"w", &[("c", 2)])).await.unwrap();
    node.shutdown().await;
}

#[test]
fn a_power_loss_at_any_step_leaves_a_whole_mark_or_none() {
    let dir = Path::new("/data");
    let mut seen = [0; 2];
    for setting in [true, false] {
        for step in 0..12 {
            for seed in 0..20 {
                let disk = SimFs::default();
                disk.create_dir_all(dir).unwrap();
                disk.sync_dir(Path::new("/")).unwrap();
                if !setting {
                    drain_mark::set(&disk, dir, 7).unwrap();
                }
                disk.crash_after(step);
                let done = if setting {
                    drain_mark::set(&disk, dir, 7)
                } else {
                    drain_mark::clear(&disk, dir)
                };
                disk.crash_with(Survival::Random(seed));
                let left = drain_mark::load(&disk, dir).unwrap();
                assert!(left.is_none() || left == Some(7), "{left:?}");
                if done.is_ok() {
                    assert_eq!(left.is_some(), setting, "what was answered is lost, step {step}");
                }
                seen[usize::from(left.is_some())] += 1;
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 40), "{seen:?}");
}

/// Root drains a node that does not run, and the node's user has to read the mark.
#[tokio::test(flavor = "multi_thread")]
async fn the_mark_of_a_stopped_node_belongs_to_whom_the_directory_does() {
    let dir = tempfile::tempdir().unwrap();
    start(&config(dir.path())).await.shutdown().await;
    let data = dir.path().join("data");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&data, Some(1234), Some(1235)).unwrap();
    }
    let (done, said) = run(dir.path(), &["drain"]).await;
    assert!(done, "{said}");
    let whose = |path: &Path| std::fs::metadata(path).map(|meta| (meta.uid(), meta.gid())).unwrap();
    assert_eq!(whose(&data.join(drain_mark::NAME)), whose(&data));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_mark_is_named_and_undrain_removes_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    start(&config).await.shutdown().await;
    // Without a node, the commands mark the directory itself.
    let (done, said) = run(dir.path(), &["drain"]).await;
    assert!(done && said.contains("no node runs"), "{said}");
    let node = start(&config).await;
    assert_refuses_writes(&mut client(node.address())).await;
    let (done, said) = run(dir.path(), &["drain", "--timeout", "10s"]).await;
    assert!(done && said.contains("drained"), "{said}");
    node.shutdown().await;
    let (done, said) = run(dir.path(), &["verify"]).await;
    assert!(done && said.contains("takes no writes"), "{said}");
    let data = dir.path().join("data");
    let shown = binary(&["inspect", data.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(shown.stdout).unwrap();
    assert!(
        said.contains("DRAINING: drain mark: the node takes no writes since 20"),
        "{said}"
    );

    let mark = dir.path().join("data").join(drain_mark::NAME);
    let whole = std::fs::read(&mark).unwrap();
    let mut flipped = whole.clone();
    flipped[14] ^= 1;
    for damaged in [flipped, whole[..10].to_vec(), [&whole[..], b"x"].concat(), Vec::new()] {
        std::fs::write(&mark, damaged).unwrap();
        let refused = Node::start(&config, Arc::new(pairdb_node::storage::fs::RealFs)).await;
        match refused.err().expect("a node with a damaged mark") {
            NodeError::Storage(error) => assert!(error.to_string().contains(mark.to_str().unwrap()), "{error}"),
            other => panic!("{other}"),
        }
        let (well, said) = run(dir.path(), &["verify"]).await;
        assert!(!well && said.contains(drain_mark::NAME), "{said}");
    }
    let (done, said) = run(dir.path(), &["undrain"]).await;
    assert!(done, "{said}");
    let node = start(&config).await;
    client(node.address()).write(write("k", b"v", &[])).await.unwrap();
    node.shutdown().await;
}
