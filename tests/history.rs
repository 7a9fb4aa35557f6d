//! What the node remembers of its last ten minutes: the numbers of the work that was done, in a ring that does not grow.

mod common;

use common::*;
use pairdb_node::actors::cache::CacheStats;
use pairdb_node::actors::history::{EVERY, History, SAMPLES};
use pairdb_node::actors::request_counts::RequestCounts;
use pairdb_node::actors::supervisor::Tree;
use pairdb_node::storage::memtable::Memtable;
use pairdb_node::storage::time::ManualTime;
use pairdb_node::storage::view::{Published, ReadView};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

struct Told {
    time: ManualTime,
    requests: Arc<RequestCounts>,
    cache: Arc<CacheStats>,
    history: Arc<History>,
}

fn told() -> Told {
    let time = ManualTime::default();
    let (requests, cache) = (Arc::new(RequestCounts::default()), Arc::new(CacheStats::default()));
    let view = ReadView {
        active: Arc::new(Memtable::new(1)),
        sealed: Vec::new(),
        tables: Arc::default(),
    };
    let history = History::new(
        Arc::new(time.clone()),
        Arc::clone(&requests),
        Arc::clone(&cache),
        Tree::new(Arc::new(time.clone())),
        Arc::new(Published::new(view, 0)),
    );
    Told {
        time,
        requests,
        cache,
        history,
    }
}

#[test]
fn a_sample_is_of_the_time_since_the_one_before() {
    let Told {
        time,
        requests,
        cache,
        history,
    } = told();
    requests.reads.fetch_add(100, Ordering::Relaxed);
    requests.writes.fetch_add(10, Ordering::Relaxed);
    requests.errors.fetch_add(5, Ordering::Relaxed);
    requests.read_time.add_many(900, 100);
    cache.hits.fetch_add(3, Ordering::Relaxed);
    cache.misses.fetch_add(1, Ordering::Relaxed);
    time.advance(EVERY);
    history.note();
    // Nobody took one for a while: the next is of the whole time.
    requests.writes.fetch_add(40, Ordering::Relaxed);
    requests.write_time.add_many(9_000, 40);
    time.advance(EVERY * 5);
    history.note();
    // None of no time.
    history.note();
    let samples = history.samples();
    assert_eq!(samples.len(), 2, "{samples:?}");
    let (busy, later) = (samples[0], samples[1]);
    assert_eq!((busy.reads, busy.writes, busy.errors), (50.0, 5.0, 2.5));
    assert_eq!((busy.at_ms, later.at_ms), (2000, 12_000));
    assert!(
        (500.0..=1000.0).contains(&busy.read_us.0) && busy.read_us.1 > busy.read_us.0,
        "{busy:?}"
    );
    assert_eq!((busy.write_us, busy.cache_hits), ((0.0, 0.0), Some(0.75)));
    assert_eq!((later.reads, later.writes, later.cache_hits), (0.0, 4.0, None));
    assert!(
        later.read_us == (0.0, 0.0) && (5000.0..=10_000.0).contains(&later.write_us.1),
        "{later:?}"
    );
}

#[test]
fn it_keeps_ten_minutes_and_no_more() {
    let told = told();
    for n in 0..SAMPLES as u64 + 7 {
        told.requests.reads.fetch_add(2 * n, Ordering::Relaxed);
        told.time.advance(EVERY);
        told.history.note();
    }
    let samples = told.history.samples();
    assert_eq!(EVERY * SAMPLES as u32, Duration::from_secs(600));
    assert_eq!(samples.len(), SAMPLES);
    let reads: Vec<f64> = samples.iter().map(|sample| sample.reads).collect();
    assert_eq!(
        (reads[0], reads[SAMPLES - 1]),
        (7.0, SAMPLES as f64 + 6.0),
        "the oldest have gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_node_has_what_it_did_and_what_its_actors_do() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let data = dir.path().join("data");
    let status = || {
        let output = binary(&["status", "--json", "--data-dir", data.to_str().unwrap()])
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let mut client = client(node.address());
    for n in 0..300 {
        client.write(write(&format!("k{n}"), b"v", &[("a", 1)])).await.unwrap();
        client.read(read(&format!("k{n}"))).await.unwrap();
    }
    let sum = |list: &Value| list.as_array().unwrap().iter().filter_map(Value::as_f64).sum::<f64>();
    assert!(node.tree().kill("vitals"));
    // How much a second it was is a matter of the machine; that it was at all is not.
    let did = |history: &Value, name: &str| sum(&history[name]) > 0.0;
    eventually(
        "the samples have it, and what followed after VitalsActor died",
        async || {
            let history = &status()["history"];
            let samples = history["at_ms"].as_array().unwrap().len();
            samples >= 2 && did(history, "writes_per_s") && did(history, "reads_per_s")
        },
    )
    .await;
    let status = status();
    let history = status["history"].as_object().unwrap();
    let samples = history["at_ms"].as_array().unwrap().len();
    for (name, list) in history {
        assert_eq!(list.as_array().unwrap().len(), samples, "{name}");
    }
    assert!(
        sum(&history["read_p99_us"]) > 0.0 && sum(&history["write_p99_us"]) > 0.0,
        "{history:?}"
    );
    assert_eq!(
        (&status["requests"]["reads"], &status["requests"]["writes"]),
        (&300.into(), &300.into())
    );
    assert_eq!(status["supervisor_restarts"], 0);
    assert!(status["process"]["own_bytes"].as_u64().unwrap() > 1 << 20);
    let members = status["members"].as_array().unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0]["address"], format!("127.0.0.1:{}", node.address().port()));
    assert_eq!(
        (&members[0]["is_self"], &members[0]["status"]),
        (&true.into(), &status["health"]["status"])
    );
    let wal = status["actors"]
        .as_array()
        .unwrap()
        .iter()
        .find(|actor| actor["name"] == "wal")
        .unwrap();
    assert_eq!(
        (&wal["parent"], &wal["mailbox"]["messages"]),
        (&"supervisor".into(), &0.into())
    );
    assert!(wal["handling"]["queued_p99_us"].as_f64().unwrap() > 0.0, "{wal}");
    let tables: usize = status["tables"]["levels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|level| level["table_bytes"].as_array().unwrap().len())
        .sum();
    assert_eq!(tables, node.health().handles.published.load().tables.all().count());
    node.shutdown().await;
}
