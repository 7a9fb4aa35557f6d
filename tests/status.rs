//! `status`: what it says of a node that has worked, of one that fails, and of none.

mod common;
#[path = "common/site.rs"]
mod site;

use common::*;
use pairdb_node::actors::faults::{Fault, START};
use pairdb_node::config::Config;
use pairdb_node::node::Node;
use pairdb_node::storage::fs::SimFs;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// A node that seals small memtables and compacts them as fast as it can.
fn busy_config(dir: &Path) -> Config {
    let mut config = config(dir);
    config.server.node_id = "node under test".to_owned();
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(32);
    config.compaction.throttle = 0;
    config
}

/// What `status` prints; fails the test when it does not succeed.
fn status(config: &Config, more: &[&str]) -> String {
    let data = config.storage.data_dir.to_str().unwrap();
    let output = binary(&[&["status", "--data-dir", data], more].concat())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn status_json(config: &Config) -> Value {
    serde_json::from_str(&status(config, &["--json"])).unwrap()
}

async fn put_many(node: &Node, keys: u32) {
    let client = client(node.address());
    for n in 0..keys {
        // Not in order: every table then spans all keys, and none can be moved down as it is.
        let key = format!("k{}", n * 7919 % keys);
        client.clone().write(write(&key, &[7; 500], &[])).await.unwrap();
    }
}

fn jobs(status: &Value, state: &str) -> Vec<Value> {
    let jobs = status["compaction"]["jobs"].as_array().unwrap();
    jobs.iter().filter(|job| job["state"] == state).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_what_a_node_has_done() {
    let dir = tempfile::tempdir().unwrap();
    let config = busy_config(dir.path());
    let node = start(&config).await;
    put_many(&node, 1500).await;
    let totals = || node.health().jobs.totals();
    eventually("it compacts", async || totals().bytes_written > 0).await;
    let mut reader = client(node.address());
    for _ in 0..9 {
        reader.read(read("k1")).await.unwrap();
    }
    let begun_ms = node.health().time.now_ms();
    assert!(node.tree().kill("scrub"));
    eventually("it is restarted", async || {
        node.tree()
            .children()
            .iter()
            .any(|child| child.name == "scrub" && child.generation == 2 && child.running)
    })
    .await;
    eventually("nothing is under way", async || {
        let view = node.health().handles.published.load();
        view.sealed.is_empty() && node.health().jobs.active() == 0 && !node.health().jobs.is_due()
    })
    .await;
    let shown = status_json(&config);
    assert_eq!(shown["node_id"], "node under test");
    assert_eq!(shown["version"], env!("CARGO_PKG_VERSION"));
    assert!(shown["uptime_ms"].as_u64().unwrap() > 0);
    assert_eq!(shown["health"]["status"], "healthy");
    // The same numbers as HealthCheck's, by the same names.
    let view = node.health().handles.published.load();
    let tables = view.tables.all().count();
    assert_eq!(shown["health"]["metrics"]["sstables"], tables.to_string());
    assert_eq!(shown["health"]["metrics"]["actor_restarts"], "1");
    let resident = view.tables.resident_bytes();
    assert!(resident > 0);
    assert_eq!(shown["tables"]["resident_bytes"], resident);
    assert_eq!(
        shown["health"]["metrics"]["sstable_resident_bytes"],
        resident.to_string()
    );
    let actors = shown["actors"].as_array().unwrap();
    assert_eq!(actors.len(), node.tree().children().len());
    for actor in actors {
        let killed = actor["name"] == "scrub";
        assert_eq!(actor["state"], "running");
        assert_eq!(actor["restarts"], u64::from(killed), "{actor}");
        assert_eq!(actor["generation"], 1 + u64::from(killed), "{actor}");
        assert_eq!(actor["last_end"] != "", killed, "{actor}");
    }
    let ends = shown["ends"].as_array().unwrap();
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!(
        (&ends[0]["actor"], &ends[0]["generation"]),
        (&"scrub".into(), &1.into())
    );
    assert!(ends[0]["reason"].as_str().unwrap().contains("killed"), "{ends:?}");
    let now_ms = node.health().time.now_ms();
    assert!(
        (begun_ms..=now_ms).contains(&ends[0]["at_ms"].as_u64().unwrap()),
        "{ends:?}"
    );
    for (number, level) in shown["tables"]["levels"].as_array().unwrap().iter().enumerate() {
        assert_eq!(level["level"], number);
        assert_eq!(level["tables"], view.tables.level(number).len());
        assert_eq!(level["bytes"], view.tables.level_bytes(number));
    }
    assert!(
        shown["tables"]["levels"][1]["tables"].as_u64().unwrap() > 0,
        "it has compacted into L1"
    );
    let completed = jobs(&shown, "completed");
    assert_eq!(completed.len() as u64, totals().completed);
    let job = completed
        .iter()
        .find(|job| job["from_level"] == 0 && job["bytes_written"] != 0);
    let job = job.expect("tables of L0 were merged");
    assert_eq!(job["to_level"], 1, "{job}");
    assert!(
        job["inputs"].as_array().unwrap().len() >= config.compaction.l0_trigger,
        "{job}"
    );
    assert_eq!(job["bytes_read"], job["input_bytes"], "{job}");
    assert_eq!(job["error"], "");
    assert_eq!(shown["compaction"]["bytes_written"], totals().bytes_written);
    assert_eq!(shown["memtables"].as_array().unwrap().len(), 1);
    assert_eq!(shown["memtables"][0]["state"], "active");
    assert_eq!(shown["commit_log"]["applied_seq"], 1500);
    assert!(shown["cache"]["hit_ratio"].as_f64().unwrap() > 0.0);
    let weights = ["frequency_weight", "recency_weight"].map(|name| shown["cache"][name].as_f64().unwrap());
    assert_eq!(weights, [0.5, 0.5], "as configured");
    assert!(shown["disks"][0]["total_bytes"].as_u64().unwrap() > 0);
    assert_eq!(shown["scrub"]["completed"], 0);
    // And for a person.
    let text = status(&config, &[]);
    let heads = ["Requests", "Actors", "Tables", "Compaction", "Memory and disks"];
    for head in heads {
        assert!(text.lines().any(|line| line == head), "no {head} in\n{text}");
    }
    assert!(text.lines().count() <= 46 + actors.len(), "it is one screen\n{text}");
    for part in ["memtables", "cache", "commit log", "disk", "scrub"] {
        assert!(
            text.lines().any(|line| line.starts_with(&format!("  {part} "))),
            "no {part} in\n{text}"
        );
    }
    assert!(
        text.starts_with("node under test, version ") && text.contains("completed  L0 to L1"),
        "{text}"
    );
    assert!(
        text.contains("Last ends of actors") && text.contains("Z  scrub  generation 1  killed"),
        "{text}"
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_the_last_ends_of_actors_with_their_reasons() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.supervisor.max_restarts = 1000;
    let node = start(&config).await;
    let faults = &node.requests().handles.faults;
    for n in 0..105 {
        // In turn: one that does not settle is started again ever later.
        let name = ["scrub", "disk", "vitals", "flush", "compaction"][n % 5];
        let generation = || {
            let children = node.tree().children().into_iter();
            let mut of_name = children.filter(|child| child.name == name && child.running);
            of_name.next().map_or(0, |child| child.generation)
        };
        // Each kill is an end, and so is the start that panics.
        if n % 2 == 0 {
            let panics = injection(name, START, Fault::Panic);
            faults.inject(panics).unwrap();
        }
        let before = generation();
        assert!(node.tree().kill(name));
        eventually("it is back", async || {
            generation() > before && faults.armed().is_empty()
        })
        .await;
    }
    assert!(node.tree().kill("gateway"));
    eventually("its end is told", async || {
        node.tree().ends().last().is_some_and(|end| end.name == "gateway")
    })
    .await;
    let shown = status_json(&config);
    let ends = shown["ends"].as_array().unwrap();
    assert_eq!(ends.len(), 100);
    assert_eq!(ends[0]["actor"], "gateway");
    let panics = ends[1..].iter().filter(|end| {
        let reason = end["reason"].as_str().unwrap();
        reason.contains("did not start") && reason.contains("injected panic at start")
    });
    assert!((31..=35).contains(&panics.count()), "{ends:?}");
    let text = status(&config, &[]);
    let (_, section) = text.split_once("Last ends of actors\n").unwrap();
    let lines: Vec<_> = section.lines().take(6).collect();
    assert!(
        lines[0].contains("gateway") && lines[1].contains("compaction"),
        "{section}"
    );
    assert_eq!(lines[5], "  (95 earlier ones with --json)", "{section}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_a_job_that_fails_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = busy_config(dir.path());
    config.compaction.workers = 0;
    (config.metrics.enabled, config.metrics.port) = (true, 0);
    let disk = SimFs::default();
    let node = start_on(&config, Arc::new(disk.clone())).await;
    put_many(&node, 1000).await;
    node.shutdown().await;
    disk.refuse_new_files(".sst.tmp");
    config.compaction.workers = 1;
    // The data are on a simulated disk, the socket is not.
    std::fs::create_dir(&config.storage.data_dir).unwrap();
    let node = start_on(&config, Arc::new(disk.clone())).await;
    eventually("a job fails", async || node.health().jobs.totals().failed > 0).await;
    let shown = status_json(&config);
    assert_eq!(shown["health"]["status"], "degraded");
    // Nothing is written, and no job succeeds: the debt stays what it is.
    let seen = site::metrics(&node).await;
    assert_eq!(seen["compaction_failing"], 1.0);
    let pressure = shown["compaction"]["pressure"].as_f64().unwrap();
    assert!(pressure > 1.0 && pressure == seen["compaction_pressure"], "{pressure}");
    let failed = jobs(&shown, "failed");
    let error = failed[0]["error"].as_str().unwrap();
    assert!(error.contains("cannot create") && error.contains(".sst.tmp"), "{error}");
    assert!(!failed[0]["inputs"].as_array().unwrap().is_empty());
    assert_eq!(failed[0]["bytes_written"], 0);
    let text = status(&config, &[]);
    assert!(
        text.contains("compaction fails") && text.contains("cannot create"),
        "{text}"
    );
    node.shutdown().await;
}

#[test]
fn without_a_node_it_names_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("data/admin.sock");
    let data = dir.path().join("data");
    for _left_by_a_killed_node in [false, true] {
        let output = binary(&["status", "--data-dir", data.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(!output.status.success() && output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains(socket.to_str().unwrap()) && said.contains("is it running"),
            "{said}"
        );
        std::fs::create_dir_all(&data).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&socket));
    }
}
