//! Damage in a table of a running node: named, contained, and found before a client meets it.

mod common;
#[path = "common/site.rs"]
mod site;

use common::*;
use pairdb_node::actors::health::Status;
use pairdb_node::config::Config;
use pairdb_node::node::Node;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::Code;

const KEYS: u32 = 2000;

/// A directory with one table, a byte of which is not what it was.
async fn damaged(config: &Config, dir: &Path) -> PathBuf {
    let node = start(config).await;
    let mut client = client(node.address());
    for n in 0..KEYS {
        let value: Vec<u8> = (0..100_u32).map(|i| (n * 31 + i * i * 7) as u8).collect();
        client
            .write(write(&format!("key{n:05}"), &value, &[("c", 1)]))
            .await
            .unwrap();
    }
    drop(client);
    node.shutdown().await;
    let tables = std::fs::read_dir(dir.join("data/sstables")).unwrap();
    let mut tables = tables.map(|entry| entry.unwrap().path());
    let table = tables
        .find(|path| path.extension().is_some_and(|e| e == "sst"))
        .unwrap();
    let mut content = std::fs::read(&table).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0x40;
    std::fs::write(&table, content).unwrap();
    table
}

fn names(node: &Node, table: &Path) -> bool {
    let (status, reasons) = node.health().status();
    status == Status::Degraded && reasons.iter().any(|reason| reason.contains(table.to_str().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_a_damaged_block_answer_data_loss_and_all_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.disk.scrub_interval = Duration::ZERO;
    (config.metrics.enabled, config.metrics.port) = (true, 0);
    let table = damaged(&config, dir.path()).await;
    let node = start(&config).await;
    assert_eq!(node.health().status().0, Status::Healthy, "nobody has met it yet");
    assert_eq!(site::metrics(&node).await["sstable_quarantined"], 0.0);
    let mut client = client(node.address());
    let mut lost = 0;
    for n in 0..KEYS {
        match client.read(read(&format!("key{n:05}"))).await {
            Ok(read) => assert_eq!(read.into_inner().value[0], (n * 31) as u8),
            Err(status) => {
                assert_eq!(status.code(), Code::DataLoss, "{status}");
                assert!(status.message().contains(table.to_str().unwrap()), "{status}");
                lost += 1;
            }
        }
    }
    assert!((1..100).contains(&lost), "{lost} keys lost");
    eventually("the table is set aside and named", async || names(&node, &table)).await;
    assert_eq!(site::metrics(&node).await["sstable_quarantined"], 1.0);
    // Who asks is told, too: the node runs, and is asked.
    let data = dir.path().join("data");
    let asked = tokio::task::spawn_blocking(move || binary(&["verify", "--data-dir", data.to_str().unwrap()]).output());
    let asked = asked.await.unwrap().unwrap();
    assert_eq!(asked.status.code(), Some(1));
    let said = String::from_utf8(asked.stdout).unwrap();
    assert!(said.contains(table.file_name().unwrap().to_str().unwrap()), "{said}");
    // Nobody who may only look learns a key; who administers the node does.
    let address = node.metrics_address().unwrap();
    let name = table.file_name().unwrap().to_str().unwrap();
    for (path, is_named) in [
        ("/status", true),
        ("/health/ready", true),
        ("/health/serving", true),
        ("/metrics", false),
    ] {
        let shown = tokio::task::spawn_blocking(move || site::ask(address, path))
            .await
            .unwrap();
        assert_eq!(shown.0, 200, "{path}");
        assert!(!is_named || shown.1.contains(name), "{path}: {}", shown.1);
        assert!(!shown.1.contains("key0"), "{path}: {}", shown.1);
    }
    let data = dir.path().join("data");
    let asked = tokio::task::spawn_blocking(move || binary(&["status", "--data-dir", data.to_str().unwrap()]).output());
    let said = String::from_utf8(asked.await.unwrap().unwrap().stdout).unwrap();
    assert!(said.contains("key00000") && said.contains("key01999"), "{said}");
    client.write(write("key00000", b"new", &[("c", 2)])).await.unwrap();
    assert_eq!(client.read(read("key00000")).await.unwrap().into_inner().value, b"new");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrub_finds_damage_before_a_client_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.disk.scrub_interval = Duration::from_millis(100);
    let table = damaged(&config, dir.path()).await;
    let node = start(&config).await;
    eventually("the scrub names the table", async || names(&node, &table)).await;
    let metrics = node.health().metrics();
    assert_eq!(metrics["sstables_quarantined"], "1");
    assert!(metrics["scrubs_completed"].parse::<u64>().unwrap() > 0);
    // It goes on after a crash of its actor.
    assert!(node.tree().kill("scrub"));
    let before: u64 = metrics["scrubs_completed"].parse().unwrap();
    eventually("it reads everything again", async || {
        node.health().metrics()["scrubs_completed"].parse::<u64>().unwrap() > before + 1
    })
    .await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_a_table_and_names_it_loudly() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let table = damaged(&config, dir.path()).await;
    std::fs::remove_file(&table).unwrap();
    let port = free_port();
    let (at, name) = (dir.path().to_path_buf(), table.to_str().unwrap().to_owned());
    let process = tokio::task::spawn_blocking(move || Process::start(&at, port, &[]));
    let mut process = process.await.unwrap();
    let mut client = client(&process.addr);
    let status = client.read(read("key00007")).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    assert!(status.message().contains(&name), "{status}");
    client.write(write("other", b"new", &[("c", 2)])).await.unwrap();
    assert_eq!(client.read(read("other")).await.unwrap().into_inner().value, b"new");
    drop(client);
    assert_eq!(process.terminate(), Some(0));
    let log = std::fs::read_to_string(dir.path().join("node.log")).unwrap();
    let line = log.lines().find(|line| line.contains("ERROR") && line.contains(&name));
    assert!(line.is_some_and(|line| line.contains("missing")), "{log}");
    // And so does its health.
    let node = start(&config).await;
    assert!(names(&node, &table), "{:?}", node.health().status());
    node.shutdown().await;
}
