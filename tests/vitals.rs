//! What HealthCheck says of the last minute: processor, memory, disk, requests, errors, hits, measured and not made up.

mod common;

use common::*;
use pairdb_node::actors::cache::CacheStats;
use pairdb_node::actors::disk::DiskWatch;
use pairdb_node::actors::health::Status;
use pairdb_node::actors::overload::Kind;
use pairdb_node::actors::refusal::Refusal;
use pairdb_node::actors::request_counts::RequestCounts;
use pairdb_node::actors::vitals::Vitals;
use pairdb_node::rpc::pb;
use pairdb_node::storage::space::SpaceThresholds;
use pairdb_node::storage::time::ManualTime;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Disks of which nobody has seen anything.
fn disk() -> Arc<DiskWatch> {
    DiskWatch::new(SpaceThresholds {
        warn: 0.8,
        throttle: 0.9,
        stop: 0.95,
    })
}

#[test]
fn rates_are_those_of_the_last_minute() {
    let time = ManualTime::default();
    let (requests, cache) = (Arc::new(RequestCounts::default()), Arc::new(CacheStats::default()));
    requests.reads.store(1_000_000, Ordering::Relaxed);
    let vitals = Vitals::new(
        Arc::new(time.clone()),
        Arc::clone(&requests),
        Arc::clone(&cache),
        disk(),
    );
    let none = vitals.rates();
    assert_eq!((none.requests, none.errors, none.cache_hits), (0.0, 0.0, 0.0));
    // A busy half minute after the start: 20 requests a second, of which a tenth fails.
    for _ in 0..30 {
        time.advance(Duration::from_secs(1));
        requests.reads.fetch_add(15, Ordering::Relaxed);
        requests.writes.fetch_add(5, Ordering::Relaxed);
        requests.errors.fetch_add(2, Ordering::Relaxed);
        cache.hits.fetch_add(3, Ordering::Relaxed);
        cache.misses.fetch_add(1, Ordering::Relaxed);
        vitals.note();
    }
    let busy = vitals.rates();
    assert_eq!((busy.requests, busy.errors, busy.cache_hits), (20.0, 0.1, 0.75));
    // After a quiet half minute it is half of that, and after a minute of quiet nothing.
    for quiet in 1..=90 {
        time.advance(Duration::from_secs(1));
        vitals.note();
        match quiet {
            30 => assert_eq!((vitals.rates().requests, vitals.rates().errors), (10.0, 0.1)),
            45 => assert_eq!(vitals.rates().requests, 5.0),
            60.. => assert_eq!((vitals.rates().requests, vitals.rates().errors), (0.0, 0.0), "{quiet}"),
            _ => {}
        }
    }
    // Nobody noted anything for long: what there is counts.
    time.advance(Duration::from_secs(600));
    requests.writes.fetch_add(660, Ordering::Relaxed);
    assert!((0.9..1.2).contains(&vitals.rates().requests), "{:?}", vitals.rates());
}

#[test]
fn what_is_refused_since_the_node_drains_is_no_error_of_it_and_what_fails_is() {
    let time = ManualTime::default();
    let requests = Arc::new(RequestCounts::default());
    let vitals = Vitals::new(Arc::new(time.clone()), Arc::clone(&requests), Arc::default(), disk());
    let refuse = |why: fn() -> Refusal| {
        time.advance(Duration::from_secs(1));
        for _ in 0..100 {
            requests.refused(Kind::Write, &Err::<(), _>(why()));
        }
        vitals.note();
        let rates = vitals.rates();
        ((rates.errors, rates.faults), vitals.strain())
    };
    assert_eq!(refuse(|| Refusal::Draining), ((1.0, 0.0), Vec::new()));
    let (shares, strain) = refuse(|| Refusal::ShuttingDown);
    assert_eq!(shares, (1.0, 0.5));
    assert!(
        matches!(&strain[..], [(Status::Unhealthy, reason)] if reason.contains("failed")),
        "{strain:?}"
    );
}

async fn metrics(client: &mut Client) -> HashMap<String, String> {
    let answer = client.health_check(pb::HealthCheckRequest {}).await;
    answer.unwrap().into_inner().metrics
}

fn number(metrics: &HashMap<String, String>, name: &str) -> f64 {
    let value = metrics.get(name).unwrap_or_else(|| panic!("no {name}: {metrics:?}"));
    value.parse().unwrap_or_else(|_| panic!("{name} = {value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_what_is_used_and_what_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    for n in 0..200 {
        client.write(write(&format!("k{n}"), b"v", &[("c", 1)])).await.unwrap();
    }
    for _ in 0..3 {
        for n in 0..200 {
            client.read(read(&format!("k{n}"))).await.unwrap();
        }
    }
    eventually("the disk was measured", async || {
        number(&metrics(&mut client.clone()).await, "disk_usage_percent") > 0.0
    })
    .await;
    let seen = metrics(&mut client).await;
    for name in ["cpu_usage_percent", "memory_usage_percent", "disk_usage_percent"] {
        let percent = number(&seen, name);
        assert!(percent > 0.0 && percent <= 100.0, "{name} = {percent}");
    }
    let (own, resident) = (
        number(&seen, "memory_usage_bytes"),
        number(&seen, "memory_resident_bytes"),
    );
    assert!(own > 1e6 && resident > own, "{own} of {resident}");
    assert!(number(&seen, "request_rate") > 1.0);
    assert_eq!(number(&seen, "error_rate"), 0.0);
    assert!(number(&seen, "cache_hit_rate") > 0.5, "{}", seen["cache_hit_rate"]);
    // Refusals are errors, and a dead actor takes no number away.
    node.requests().drain.begin().await.unwrap();
    assert!(node.tree().kill("vitals"));
    for n in 0..800 {
        assert!(client.write(write(&format!("k{n}"), b"v", &[("c", 2)])).await.is_err());
    }
    let seen = metrics(&mut client).await;
    assert!(
        (0.4..0.6).contains(&number(&seen, "error_rate")),
        "{}",
        seen["error_rate"]
    );
    node.shutdown().await;
}
