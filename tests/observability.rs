//! What the node shows over HTTP: the numbers are those of the work that was done, and probes learn what they ask.

mod common;

use common::*;
use pairdb_node::actors::faults::{DISK_IO, Fault, Injection};
use pairdb_node::config::Config;
use pairdb_node::node::Node;
use pairdb_node::rpc::pb;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Every name that PairDB's dashboards and alerts know.
const KNOWN: &str = "storage_write_requests_total storage_write_duration_seconds_count storage_write_bytes_sum \
    storage_read_requests_total storage_read_duration_seconds_count storage_read_bytes_sum \
    storage_repair_requests_total storage_repair_duration_seconds_count \
    cache_hits_total cache_misses_total cache_evictions_total cache_size_bytes cache_entries_total \
    memtable_size_bytes memtable_entries_total memtable_flushes_total memtable_flush_duration_seconds_count \
    sstable_count_by_level sstable_size_bytes_by_level sstable_reads_total sstable_writes_total \
    sstable_read_duration_seconds_count sstable_write_duration_seconds_count \
    commitlog_segments_total commitlog_size_bytes commitlog_appends_total commitlog_append_duration_seconds_count \
    commitlog_syncs_total commitlog_sync_duration_seconds_count \
    compaction_jobs_total compaction_job_duration_seconds_count compaction_bytes_processed_total \
    compaction_bytes_written_total gossip_members_total gossip_members_healthy \
    system_disk_usage_bytes system_disk_available_bytes system_disk_usage_percent system_memory_usage_bytes \
    actor_restarts_total actor_mailbox_depth actor_mailbox_bytes actor_queue_seconds_count actor_handle_seconds_count";

fn shown(dir: &Path) -> Config {
    let mut config = config(dir);
    config.metrics.enabled = true;
    config.metrics.port = 0;
    config
}

/// Asks for a path. Returns the status and the body.
fn ask(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// All samples by name and labels, but for the label that all have.
fn samples(text: &str, node_id: &str) -> BTreeMap<String, f64> {
    let constant = format!("node_id=\"{node_id}\"");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect(line);
        assert!(name.starts_with("pairdb_") && name.contains(&constant), "{line}");
        let name = name
            .replace(&format!("{constant},"), "")
            .replace(&format!("{{{constant}}}"), "");
        (
            name.trim_start_matches("pairdb_").to_owned(),
            value.parse().expect(line),
        )
    };
    lines.map(sample).collect()
}

async fn metrics(node: &Node) -> BTreeMap<String, f64> {
    let address = node.metrics_address().unwrap();
    let (status, text) = tokio::task::spawn_blocking(move || ask(address, "/metrics"))
        .await
        .unwrap();
    assert_eq!(status, 200, "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    samples(&text, &node.health().node_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_load_gives_the_known_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&shown(dir.path())).await;
    let mut client = client(node.address());
    for n in 0..40 {
        client
            .write(write(&format!("k{n}"), &[b'v'; 100], &[("a", 1)]))
            .await
            .unwrap();
    }
    let repair = pb::RepairRequest {
        tenant_id: write("k0", b"", &[]).tenant_id,
        key: "k0".to_owned(),
        value: b"repaired".to_vec(),
        vector_clock: write("k0", b"", &[("a", 2)]).vector_clock,
    };
    client.repair(repair).await.unwrap();
    for _ in 0..3 {
        client.read(read("k1")).await.unwrap();
    }
    client.read(read("missing")).await.unwrap_err();
    client.write(write("", b"v", &[])).await.unwrap_err();
    client
        .batch_read(pb::BatchReadRequest {
            operations: vec![read("k2"), read("k3")],
        })
        .await
        .unwrap();

    // An answer is sent before what the cache holds is noted.
    eventually("the cache has noted what it holds", async || {
        metrics(&node).await["cache_entries_total"] == 4.0
    })
    .await;
    let seen = metrics(&node).await;
    let number = |name: &str| *seen.get(name).unwrap_or_else(|| panic!("no {name} in {seen:#?}"));
    assert_eq!(number("storage_write_requests_total"), 41.0);
    assert_eq!(number("storage_write_duration_seconds_count"), 41.0);
    assert_eq!(number("storage_write_duration_seconds_bucket{le=\"+Inf\"}"), 41.0);
    assert_eq!(number("storage_write_bytes_sum"), 4008.0);
    assert_eq!(number("storage_write_bytes_bucket{le=\"64.0\"}"), 1.0);
    assert_eq!(number("storage_repair_requests_total"), 1.0);
    assert_eq!(number("storage_repair_duration_seconds_count"), 1.0);
    assert_eq!(number("storage_delete_requests_total"), 0.0);
    assert_eq!(number("storage_read_requests_total"), 6.0);
    assert_eq!(number("storage_read_bytes_sum"), 500.0);
    assert_eq!(
        number("storage_request_errors_total"),
        0.0,
        "a missing key and a wrong request are no failures"
    );
    assert_eq!((number("cache_hits_total"), number("cache_misses_total")), (2.0, 4.0));
    assert_eq!(number("sstable_reads_total"), 0.0, "there are no tables yet");
    assert_eq!(number("cache_entries_total"), 4.0);
    assert_eq!(number("memtable_entries_total"), 41.0);
    assert_eq!(number("applied_sequence_total"), 41.0);
    assert_eq!(
        number("commitlog_syncs_total"),
        number("commitlog_sync_duration_seconds_count")
    );
    assert_eq!(
        number("commitlog_appends_total"),
        number("commitlog_append_duration_seconds_count")
    );
    assert!(number("commitlog_syncs_total") >= 1.0);
    assert!(number("storage_write_duration_seconds_sum") > 0.0);
    assert!(number("actor_handle_seconds_count{actor=\"wal\"}") >= 41.0);
    let (queued, worked) = (
        "actor_queue_seconds_count{actor=\"memtable\"}",
        "actor_handle_seconds_count{actor=\"memtable\"}",
    );
    assert!(number(queued) >= 1.0 && number(queued) == number(worked));
    assert_eq!(number("node_health{status=\"healthy\"}"), 1.0);
    assert_eq!(number("gossip_members_total"), 1.0);
    for name in KNOWN.split_whitespace() {
        assert!(seen.keys().any(|key| key.split('{').next() == Some(name)), "no {name}");
    }

    let documented = include_str!("../observability/README.md");
    for name in seen.keys().map(|key| key.split('{').next().unwrap()) {
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let is_told = |name: &str| {
            ["`", "{"]
                .iter()
                .any(|end| documented.contains(&format!("`pairdb_{name}{end}")))
        };
        assert!(is_told(name) || family.is_some_and(is_told), "{name} is in no document");
    }

    // A flush, and the end of an actor, show.
    assert!(node.tree().kill("memtable"));
    eventually("the memtable's actor is back", async || {
        metrics(&node).await["actor_restarts_total{actor=\"memtable\"}"] == 1.0
    })
    .await;
    let address = node.metrics_address().unwrap();
    node.requests().drain.begin().await.unwrap();
    eventually("what is in memory is flushed", async || {
        let seen = metrics(&node).await;
        let flushed = [
            "memtable_flushes_total",
            "sstable_writes_total",
            "sstable_count_by_level{level=\"0\"}",
        ];
        flushed.iter().all(|name| seen[*name] == 1.0) && seen["memtable_entries_total"] == 0.0
    })
    .await;
    assert_eq!(metrics(&node).await["node_draining"], 1.0);
    node.shutdown().await;
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_learn_whether_the_node_is_ready_and_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = shown(dir.path());
    config.admin.fault_injection = true;
    config.admin.port = 0;
    let node = start(&config).await;
    let address = node.metrics_address().unwrap();
    let probe = async |path: &'static str| {
        let (status, text) = tokio::task::spawn_blocking(move || ask(address, path)).await.unwrap();
        (status, text)
    };
    assert_eq!(probe("/health/live").await, (200, "alive\n".to_owned()));
    let (status, text) = probe("/health/ready").await;
    assert!(status == 200 && text.contains("\"ready\":true"), "{status} {text}");
    let (status, text) = probe("/status").await;
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &whole["health"]["status"]),
        (200, &serde_json::json!("healthy"))
    );
    assert!(
        whole["actors"]
            .as_array()
            .unwrap()
            .iter()
            .any(|actor| actor["name"] == "wal")
    );
    let (status, text) = probe("/elsewhere").await;
    assert!(status == 404 && text.contains("/metrics"), "{text}");

    // A first sync that fails is that of a new segment, which is then not used.
    let mut client = client(node.address());
    client.write(write("before", b"v", &[("a", 1)])).await.unwrap();
    let failed = Injection {
        actor: DISK_IO.to_owned(),
        point: "sync-log".to_owned(),
        fault: Fault::Error,
        after: 0,
        times: 1,
        one_in: 1,
        seed: 0,
    };
    node.requests().handles.faults.inject(failed).unwrap();
    client.write(write("k", b"v", &[("a", 1)])).await.unwrap_err();
    let (status, text) = probe("/health/ready").await;
    assert!(status == 503 && text.contains("latched"), "{status} {text}");
    assert_eq!(
        probe("/health/live").await.0,
        200,
        "a restart would mend nothing that a person must look at"
    );
    let (_, text) = probe("/metrics").await;
    let seen = samples(&text, &node.health().node_id);
    assert_eq!(
        (seen["commitlog_latched"], seen["node_health{status=\"unhealthy\"}"]),
        (1.0, 1.0)
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_the_port_hold_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&shown(dir.path())).await;
    let address = node.metrics_address().unwrap();
    // More connections than there are places: those that say nothing give theirs back after a while.
    let silent: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut garbage = TcpStream::connect(address).unwrap();
    let _ = garbage.write_all(&[0xff; 1 << 16]);
    let (status, _) = tokio::task::spawn_blocking(move || ask(address, "/health/live"))
        .await
        .unwrap();
    assert_eq!(status, 200);
    drop(silent);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_metrics_port_is_taken_serves() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = shown(dir.path());
    config.metrics.port = taken.local_addr().unwrap().port();
    let node = start(&config).await;
    assert_eq!(node.metrics_address(), None);
    client(node.address())
        .write(write("k", b"v", &[("a", 1)]))
        .await
        .unwrap();
    node.shutdown().await;
}

#[test]
fn a_probe_learns_that_the_node_starts() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(pairdb_node::http::serve(
            listener,
            std::sync::Arc::default(),
            "/metrics".to_owned(),
        ));
        address
    });
    let (status, text) = ask(address, "/health/ready");
    assert!(status == 503 && text.contains("starting"), "{status} {text}");
    assert_eq!(ask(address, "/health/live").0, 200);
    assert_eq!(ask(address, "/metrics").0, 503);
    runtime.shutdown_timeout(Duration::from_secs(5));
}
