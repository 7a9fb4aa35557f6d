//! What the node shows over HTTP: the numbers are those of the work that was done, and probes learn what they ask.

mod common;
#[path = "common/site.rs"]
mod site;
#[path = "common/streaming.rs"]
mod streaming;

use common::*;
use pairdb_node::actors::drain::DrainPhase;
use pairdb_node::actors::faults::{DISK_IO, Fault, MESSAGE};
use pairdb_node::actors::memtable::MemtableMessage;
use pairdb_node::actors::vitals;
use pairdb_node::config::{Config, Quota};
use pairdb_node::node::Node;
use pairdb_node::rpc::pb;
use pairdb_node::storage::fs::{FileSystem, SimFs};
use site::{ask, metrics, samples, shown};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use streaming::{WHOLE_RING, completed, start_stream, stop_stream};

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
    compaction_bytes_written_total gossip_members_total gossip_members_healthy gossip_messages_total \
    system_disk_usage_bytes system_disk_available_bytes system_disk_usage_percent system_memory_usage_bytes \
    actor_restarts_total actor_mailbox_depth actor_mailbox_bytes actor_queue_seconds_count actor_handle_seconds_count";

#[tokio::test(flavor = "multi_thread")]
async fn a_known_load_gives_the_known_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let node = start(&shown(dir.path())).await;
    let started_in = begun.elapsed().as_secs_f64();
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
    // What nobody knows beforehand is what the part itself says of the same moment.
    let (log, view) = (node.health().log.stats(), node.health().handles.published.load());
    assert_eq!(number("commitlog_segments_total"), 1.0);
    assert_eq!(number("commitlog_size_bytes"), log.bytes as f64);
    assert!(log.bytes > 4008 && number("memtable_size_bytes") > 4008.0);
    assert_eq!(number("memtable_size_bytes"), view.memtable_bytes() as f64);
    let of_shards = node
        .health()
        .sum_of_shards(|shard| shard.bytes.load(Ordering::Relaxed) as u64);
    assert_eq!(number("cache_size_bytes"), of_shards as f64);
    assert!(of_shards > 308, "{of_shards} bytes of four entries");
    let memory = vitals::memory();
    assert_eq!(number("system_memory_limit_bytes"), memory.limit as f64);
    // Other tests of this process come and go meanwhile.
    for (name, now) in [("usage", memory.own), ("resident", memory.resident)] {
        let seen = number(&format!("system_memory_{name}_bytes"));
        assert!((seen - now as f64).abs() < 256e6, "{name}: {seen}, now {now}");
    }
    assert!(number("system_memory_usage_bytes") > 1e6);
    assert!(number("system_memory_resident_bytes") > number("system_memory_usage_bytes"));
    assert_eq!(number("cache_entries_total"), 4.0);
    assert_eq!(number("memtable_entries_total"), 41.0);
    assert_eq!(number("applied_sequence_total"), 41.0);
    assert_eq!(
        number("commitlog_syncs_total"),
        number("commitlog_sync_duration_seconds_count")
    );
    let (append, rotation) = (
        number("commitlog_append_duration_seconds_count"),
        number("commitlog_rotation_duration_seconds_count"),
    );
    assert_eq!(number("commitlog_appends_total"), append + rotation);
    assert_eq!(rotation, 1.0, "the first batch began a segment");
    assert_eq!(number("tenant_operations_total{tenant=\":other\"}"), 47.0);
    assert_eq!(number("tenant_over_quota_total{tenant=\":other\"}"), 0.0);
    assert!(number("tenant_stored_bytes{tenant=\":other\"}") > 4000.0);
    assert_eq!(number("recovery_log_bytes"), 0.0, "the node began empty");
    let recovery = number("recovery_duration_seconds");
    assert!(
        recovery > 0.0 && recovery <= started_in,
        "recovery took {recovery} s of a start of {started_in} s"
    );
    assert_eq!(number("system_disk_threshold_percent{effect=\"throttle\"}"), 99.0);
    assert_eq!(number("compaction_l0_limit"), 64.0);
    assert!(number("commitlog_syncs_total") >= 1.0);
    assert!(number("storage_write_duration_seconds_sum") > 0.0);
    assert!(number("actor_handle_seconds_count{actor=\"wal\"}") >= 41.0);
    for actor in ["memtable", "supervisor"] {
        // The two are not of one moment: while messages come they differ.
        eventually("what waited is what was worked on", async || {
            let seen = metrics(&node).await;
            let queued = seen[&format!("actor_queue_seconds_count{{actor=\"{actor}\"}}")];
            let worked = seen[&format!("actor_handle_seconds_count{{actor=\"{actor}\"}}")];
            // One that is being worked on has waited already.
            queued >= 1.0 && (queued - 1.0..=queued).contains(&worked)
        })
        .await;
    }
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
    let queued = metrics(&node).await["actor_queue_seconds_count{actor=\"supervisor\"}"];
    assert!(node.tree().kill("supervisor"));
    eventually("the supervisor is back, with what it had counted", async || {
        let seen = metrics(&node).await;
        seen["actor_restarts_total{actor=\"supervisor\"}"] == 1.0
            && seen["actor_queue_seconds_count{actor=\"supervisor\"}"] > queued
            && seen["actor_running{actor=\"memtable\"}"] == 1.0
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

/// Four tables of the same keys become one: what that was is known beforehand, or stands in the files.
#[tokio::test(flavor = "multi_thread")]
async fn flushes_reads_of_tables_and_compactions_are_counted_as_what_they_were() {
    const ROUNDS: u64 = 4;
    let dir = tempfile::tempdir().unwrap();
    let mut config = shown(dir.path());
    config.compaction.l0_trigger = ROUNDS as usize;
    let node = start(&config).await;
    let mut client = client(node.address());
    let mut flushed_bytes = 0.0;
    for round in 1..=ROUNDS {
        for n in 0..25 {
            let request = write(&format!("k{n}"), &[round as u8; 100], &[("a", round as i64)]);
            client.write(request).await.unwrap();
        }
        let gone = delete(&format!("k{round}"), &[("a", round as i64 + 1)]);
        client.delete(gone).await.unwrap();
        let drain = &node.requests().drain;
        let before = metrics(&node).await;
        drain.begin().await.unwrap();
        assert_eq!(drain.settled(PATIENCE).await, DrainPhase::Drained);
        let seen = metrics(&node).await;
        let of_l0 = |seen: &BTreeMap<String, f64>| seen["sstable_size_bytes_by_level{level=\"0\"}"];
        if round < ROUNDS {
            flushed_bytes += of_l0(&seen) - of_l0(&before);
            assert_eq!(seen["sstable_count_by_level{level=\"0\"}"], round as f64);
        }
        drain.end().await.unwrap();
    }
    eventually("they are compacted", async || {
        metrics(&node).await["compaction_jobs_total{status=\"completed\"}"] == 1.0
    })
    .await;
    let seen = metrics(&node).await;
    let number = |name: &str| *seen.get(name).unwrap_or_else(|| panic!("no {name} in {seen:#?}"));
    assert_eq!(
        number("storage_write_requests_total"),
        26.0 * ROUNDS as f64,
        "deletes are writes"
    );
    assert_eq!(number("storage_delete_requests_total"), ROUNDS as f64);
    assert_eq!(number("memtable_flushes_total"), ROUNDS as f64);
    assert_eq!(number("memtable_flush_duration_seconds_count"), ROUNDS as f64);
    assert_eq!(number("compaction_jobs_total{status=\"failed\"}"), 0.0);
    assert_eq!(number("compaction_job_duration_seconds_count"), 1.0);
    assert_eq!(number("compaction_jobs_active"), 0.0);
    assert_eq!(number("sstable_writes_total"), ROUNDS as f64 + 1.0);
    assert_eq!(number("sstable_write_duration_seconds_count"), ROUNDS as f64 + 1.0);
    for (level, tables) in [(0, 0.0), (1, 1.0)] {
        assert_eq!(number(&format!("sstable_count_by_level{{level=\"{level}\"}}")), tables);
    }
    let (processed, written) = (
        number("compaction_bytes_processed_total"),
        number("compaction_bytes_written_total"),
    );
    assert_eq!(written, number("sstable_size_bytes_by_level{level=\"1\"}"));
    assert!(
        processed > flushed_bytes && processed < 2.0 * flushed_bytes,
        "{processed} of four tables, the first three of which were {flushed_bytes}"
    );
    assert!(written < flushed_bytes, "{written}: each key is left once");

    let before = (
        number("sstable_reads_total"),
        number("cache_misses_total"),
        number("cache_hits_total"),
    );
    for expected in [(10.0, 10.0, 0.0), (10.0, 10.0, 10.0)] {
        for n in 10..20 {
            let found = client.read(read(&format!("k{n}"))).await.unwrap().into_inner();
            assert_eq!(found.value, [ROUNDS as u8; 100]);
        }
        eventually("the cache holds them", async || {
            metrics(&node).await["cache_entries_total"] >= 10.0
        })
        .await;
        let seen = metrics(&node).await;
        let more = (
            seen["sstable_reads_total"] - before.0,
            seen["cache_misses_total"] - before.1,
            seen["cache_hits_total"] - before.2,
        );
        assert_eq!(more, expected);
        assert_eq!(seen["sstable_read_duration_seconds_count"], seen["sstable_reads_total"]);
    }
    node.shutdown().await;
}

/// What was read once is in the cache, or has left it.
#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_the_cache_is_counted() {
    const KEYS: u32 = 200;
    const SIZE: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let mut config = shown(dir.path());
    config.cache.max_size = bytesize::ByteSize::mib(1);
    let node = start(&config).await;
    let mut client = client(node.address());
    for n in 0..KEYS {
        let key = format!("k{n}");
        client.write(write(&key, &[7; SIZE], &[("a", 1)])).await.unwrap();
        client.read(read(&key)).await.unwrap();
    }
    eventually("all of them are noted", async || {
        let seen = metrics(&node).await;
        seen["cache_entries_total"] + seen["cache_evictions_total"] == f64::from(KEYS)
    })
    .await;
    let seen = metrics(&node).await;
    assert!(
        seen["cache_evictions_total"] >= 90.0,
        "{}",
        seen["cache_evictions_total"]
    );
    let (entries, bytes) = (seen["cache_entries_total"], seen["cache_size_bytes"]);
    assert!(
        bytes >= entries * SIZE as f64 && bytes <= f64::from(1 << 20),
        "{bytes} of {entries}"
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_an_actor_and_what_its_mailbox_refuses_is_counted() {
    const BYTES: usize = 10;
    let dir = tempfile::tempdir().unwrap();
    let mut config = shown(dir.path());
    config.gossip.enabled = true;
    config.gossip.bind_port = 0;
    let node = start(&config).await;
    let handles = &node.requests().handles;
    let seal = || handles.memtable.send(MemtableMessage::Seal, BYTES);
    let stall = injection("memtable", MESSAGE, Fault::Stall(PATIENCE));
    handles.faults.inject(stall).unwrap();
    seal().unwrap();
    eventually("it stalls", async || handles.faults.armed().is_empty()).await;
    let mut waiting = 1.0;
    while seal().is_ok() {
        waiting += 1.0;
    }
    seal().unwrap_err();
    let seen = metrics(&node).await;
    let of = |name: &str| seen[&format!("actor_mailbox_{name}{{actor=\"memtable\"}}")];
    let bound = handles.memtable.stats().bound;
    assert_eq!((of("depth"), of("limit_messages")), (waiting, waiting));
    assert_eq!(of("bytes"), waiting * BYTES as f64);
    assert_eq!(of("limit_bytes"), bound.bytes as f64);
    assert_eq!(of("refused_total"), 2.0);
    assert_eq!(seen["actor_mailbox_depth{actor=\"wal\"}"], 0.0);
    // One that fills where nobody looks would be found by those who wait for it.
    let (running, depth) = ("actor_running{actor=", "actor_mailbox_depth{actor=");
    let running: Vec<_> = seen.keys().filter_map(|name| name.strip_prefix(running)).collect();
    assert!(
        running.contains(&"\"gossip\"}") && running.contains(&"\"vitals\"}"),
        "{running:?}"
    );
    for actor in running {
        assert!(seen.contains_key(&format!("{depth}{actor}")), "no mailbox of {actor}");
    }
    handles.faults.clear(None);
    node.tree().kill("memtable");
    eventually("the room is free again", async || {
        let seen = metrics(&node).await;
        seen["actor_mailbox_depth{actor=\"memtable\"}"] == 0.0 && seen["actor_mailbox_bytes{actor=\"memtable\"}"] == 0.0
    })
    .await;
    node.shutdown().await;
}

/// A disk of which it is known how full it is, and a node that looks at it often.
#[tokio::test(flavor = "multi_thread")]
async fn how_full_the_disk_is_and_what_that_does_to_writes_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = shown(dir.path());
    config.disk = Config::default().disk;
    config.storage.max_disk_usage = Config::default().storage.max_disk_usage;
    config.disk.check_interval = Duration::from_millis(10);
    let disk = SimFs::default();
    let node = start_on(&config, Arc::new(disk.clone())).await;
    let mut client = client(node.address());
    let of_disk = |seen: &BTreeMap<String, f64>| {
        ["usage_bytes", "available_bytes", "usage_percent"].map(|name| seen[&format!("system_disk_{name}")])
    };
    let mut put = async |used: f64| {
        disk.set_space(Some(0));
        let taken = disk.space(Path::new("/")).unwrap().total;
        disk.set_space(Some((taken as f64 * (1.0 - used) / used) as u64));
        let space = disk.space(Path::new("/")).unwrap();
        let full = (space.total - space.available) as f64;
        let expected = [full, space.available as f64, full * 100.0 / space.total as f64];
        let close = |seen: [f64; 3]| {
            seen.iter()
                .zip(&expected)
                .all(|(seen, expected)| (seen - expected).abs() < 1e-6)
        };
        eventually("it is seen", async || close(of_disk(&metrics(&node).await))).await;
        let put = client.write(write("k", &[7; 1000], &[("a", 1)])).await;
        let seen = metrics(&node).await;
        let held_up = (
            seen["storage_writes_slowed_total"],
            seen["storage_requests_refused_total"],
        );
        (put.is_ok(), held_up)
    };
    assert_eq!(put(0.5).await, (true, (0.0, 0.0)));
    assert_eq!(put(0.93).await, (true, (1.0, 0.0)));
    assert_eq!(put(0.97).await, (false, (1.0, 1.0)));
    assert_eq!(put(0.93).await, (true, (2.0, 1.0)));
    // Where the time went is told.
    let operations = vec![write("of-a-batch", b"v", &[("a", 1)])];
    common::client(node.address())
        .batch_write(pb::BatchWriteRequest { operations })
        .await
        .unwrap();
    let slowest = node.requests().handles.traces.slowest(0);
    let held_up = |operation: &str| {
        let requests = slowest.iter().filter(|(_, request)| request.operation == operation);
        let hops = requests.flat_map(|(_, request)| &request.hops);
        hops.filter(|hop| hop.name == "admission" && !hop.queued.is_zero() && hop.worked.is_zero())
            .count()
    };
    assert_eq!((held_up("write"), held_up("batch_write")), (2, 1), "{slowest:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_shows_until_it_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimFs::default();
    let node = start_on(&shown(dir.path()), Arc::new(disk.clone())).await;
    client(node.address())
        .write(write("k", b"v", &[("a", 1)]))
        .await
        .unwrap();
    let failing = async || metrics(&node).await["memtable_flush_failing"];
    assert_eq!(failing().await, 0.0);
    disk.refuse_new_files(".sst.tmp");
    node.requests()
        .handles
        .memtable
        .send_admitted(MemtableMessage::Seal)
        .unwrap();
    eventually("it fails", async || failing().await == 1.0).await;
    disk.refuse_new_files("");
    eventually("it succeeds", async || failing().await == 0.0).await;
    assert_eq!(metrics(&node).await["memtable_flushes_total"], 1.0);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_counted_each_for_itself_and_all_others_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = shown(dir.path());
    let tight = Quota {
        stored_bytes: bytesize::ByteSize::b(500),
        ..Quota::default()
    };
    config.tenants.quota.insert("tenant".into(), tight);
    config.tenants.quota.insert("idle".into(), Quota::default());
    let node = start(&config).await;
    let mut client = client(node.address());
    let of = |tenant: &str, value: &[u8]| pb::WriteRequest {
        tenant_id: tenant.to_owned(),
        ..write("k", value, &[("a", 1)])
    };
    client.write(of("tenant", b"small")).await.unwrap();
    for _ in 0..3 {
        client.write(of("tenant", &[0; 1000])).await.unwrap_err();
    }
    client.read(read("k")).await.unwrap();
    let operations = ["x", "y"].map(|tenant| of(tenant, &[1; 2000])).to_vec();
    client.batch_write(pb::BatchWriteRequest { operations }).await.unwrap();
    let seen = metrics(&node).await;
    let of = |metric: &str, tenant: &str| seen[&format!("tenant_{metric}{{tenant=\"{tenant}\"}}")];
    let counted = |tenant| (of("operations_total", tenant), of("over_quota_total", tenant));
    assert_eq!(counted("tenant"), (5.0, 3.0));
    assert_eq!(
        seen["storage_request_errors_total"], 0.0,
        "what a quota refuses says nothing of the node"
    );
    assert_eq!(counted("idle"), (0.0, 0.0));
    assert_eq!(counted(":other"), (2.0, 0.0));
    assert_eq!(of("stored_limit_bytes", "tenant"), 500.0);
    assert!((5.0..500.0).contains(&of("stored_bytes", "tenant")));
    assert!((4000.0..8000.0).contains(&of("stored_bytes", ":other")));
    let tenants = seen.keys().filter(|name| name.starts_with("tenant_operations_total"));
    assert_eq!(tenants.count(), 3, "names that clients make up are no series");
    assert!(!seen.contains_key("tenant_stored_limit_bytes{tenant=\"idle\"}"));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_counted_while_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let to = start(&config(&dir.path().join("to"))).await;
    let from = start(&shown(&dir.path().join("from"))).await;
    let source = client(from.address());
    for n in 0..25 {
        let key = format!("k{n}");
        source.clone().write(write(&key, b"v", &[("a", 1)])).await.unwrap();
    }
    start_stream(&source, "to", to.address(), &WHOLE_RING).await;
    completed(&source, "to").await;
    source.clone().write(write("late", b"v", &[("a", 1)])).await.unwrap();
    eventually("the late write is forwarded, and waits no more", async || {
        let seen = metrics(&from).await;
        seen["stream_keys_forwarded_total{target=\"to\"}"] == 1.0 && seen["stream_waiting_bytes{target=\"to\"}"] == 0.0
    })
    .await;
    let seen = metrics(&from).await;
    let of = |metric: &str| seen[&format!("stream_{metric}{{target=\"to\"}}")];
    assert_eq!(of("keys_copied_total"), 25.0);
    assert_eq!((of("waiting_bytes"), of("lag_seconds"), of("stalled")), (0.0, 0.0, 0.0));
    assert_eq!(of("overflows_total"), 0.0);
    assert_eq!(seen["streams{state=\"completed\"}"], 1.0);
    assert_eq!(seen["streams{state=\"failed\"}"], 0.0);
    assert_eq!(seen["actor_running{actor=\"stream-to\"}"], 1.0);

    // What its actor did is remembered by its successor, and by nobody when the stream is over.
    assert!(from.tree().kill("stream-to"));
    eventually("its actor is back", async || {
        let seen = metrics(&from).await;
        seen["actor_restarts_total{actor=\"stream-to\"}"] == 1.0
            && seen.contains_key("actor_queue_seconds_count{actor=\"stream-to\"}")
    })
    .await;
    // While the target is away the stream does not get on.
    to.shutdown().await;
    source.clone().write(write("later", b"v", &[("a", 1)])).await.unwrap();
    eventually("it is told", async || {
        metrics(&from).await["stream_stalled{target=\"to\"}"] == 1.0
    })
    .await;
    stop_stream(&source, "to").await;
    let seen = metrics(&from).await;
    let left = seen
        .keys()
        .find(|name| name.contains("\"to\"") || name.contains("stream-to"));
    assert_eq!(left, None);
    from.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_learn_whether_the_node_is_ready_and_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = shown(dir.path());
    breakable(&mut config);
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
    let failed = injection(DISK_IO, "sync-log", Fault::Error);
    node.requests().handles.faults.inject(failed).unwrap();
    client.write(write("k", b"v", &[("a", 1)])).await.unwrap_err();
    let (status, text) = probe("/health/ready").await;
    assert!(status == 503 && text.contains("latched"), "{status} {text}");
    let (status, text) = probe("/health/serving").await;
    assert!(
        status == 200 && text.contains("latched"),
        "reads go on: {status} {text}"
    );
    client.read(read("before")).await.unwrap();
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

    // Whoever asks while it stops is told so, reads or not.
    let stall = injection("wal", MESSAGE, Fault::Stall(Duration::from_secs(3)));
    node.requests().handles.faults.inject(stall).unwrap();
    let stopping = tokio::spawn(node.shutdown());
    for path in ["/health/ready", "/health/serving"] {
        eventually("it says that it stops", async || {
            let (status, text) = probe(path).await;
            status == 503 && text.contains("\"stopping\"")
        })
        .await;
    }
    assert!(!stopping.is_finished(), "it was asked while it stopped");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_or_has_a_full_disk_is_not_ready_and_serves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let probe = async |node: &Node, path: &'static str| {
        let address = node.metrics_address().unwrap();
        tokio::task::spawn_blocking(move || ask(address, path)).await.unwrap()
    };
    let refuses = async |node: &Node, why: &str| {
        let (status, text) = probe(node, "/health/ready").await;
        let serving = probe(node, "/health/serving").await.0;
        status == 503 && serving == 200 && text.contains("\"ready\":false") && text.contains(why)
    };
    let node = start(&shown(dir.path())).await;
    assert_eq!(probe(&node, "/health/ready").await.0, 200);
    let order = pb::DrainRequest {
        graceful: true,
        timeout_seconds: 10,
    };
    client(node.address()).drain_node(order).await.unwrap();
    eventually("it says that it drains", async || refuses(&node, "drain").await).await;
    node.shutdown().await;

    let dir = tempfile::tempdir().unwrap();
    let mut config = shown(dir.path());
    // Every disk of a machine that runs tests is fuller than that.
    config.disk.warn_usage = 1e-9;
    config.storage.max_disk_usage = 2e-9;
    config.disk.stop_usage = 3e-9;
    let node = start(&config).await;
    eventually("it says that the disk is full", async || refuses(&node, "disk").await).await;
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
    for path in ["/health/ready", "/health/serving"] {
        let (status, text) = ask(address, path);
        assert!(status == 503 && text.contains("starting"), "{status} {text}");
    }
    assert_eq!(ask(address, "/health/live").0, 200);
    assert_eq!(ask(address, "/metrics").0, 503);
    runtime.shutdown_timeout(Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_a_stream_that_waits_until_its_client_takes_answers_is_one_read() {
    const READS: u64 = 6;
    const VALUE: usize = 10 << 20;
    let dir = tempfile::tempdir().unwrap();
    let node = start(&shown(dir.path())).await;
    let mut client = client(node.address());
    client
        .write(write("large", &vec![7; VALUE], &[("a", 1)]))
        .await
        .unwrap();
    let (sender, operations) = tokio::sync::mpsc::channel(READS as usize);
    for id in 0..READS {
        let operation = Some(pb::operation::Operation::Read(read("large")));
        sender.send(pb::Operation { id, operation }).await.unwrap();
    }
    let operations = tokio_stream::wrappers::ReceiverStream::new(operations);
    let mut results = client.operations(operations).await.unwrap().into_inner();
    // All are read once, and most of them wait: two have room.
    eventually("they are read", async || {
        metrics(&node).await["storage_read_requests_total"] >= READS as f64
    })
    .await;
    for _ in 0..READS {
        let result = results.message().await.unwrap().unwrap();
        let Some(pb::operation_result::Result::Read(found)) = result.result else {
            panic!("{result:?}");
        };
        assert_eq!(found.value.len(), VALUE);
    }
    let seen = metrics(&node).await;
    let looked = seen["cache_hits_total"] + seen["cache_misses_total"];
    assert!(looked > READS as f64, "none of them had to wait: {looked}");
    for (name, expected) in [
        ("storage_read_requests_total", READS as f64),
        ("storage_read_duration_seconds_count", READS as f64),
        ("storage_read_bytes_sum", (READS as usize * VALUE) as f64),
        ("tenant_operations_total{tenant=\":other\"}", READS as f64 + 1.0),
        ("storage_request_errors_total", 0.0),
    ] {
        assert_eq!(seen[name], expected, "{name}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_go_on_when_the_actors_end_whose_work_they_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = shown(dir.path());
    breakable(&mut config);
    config.cache.max_size = bytesize::ByteSize::kib(64);
    let node = start(&config).await;
    let mut client = client(node.address());
    let value = vec![7; 1000];
    let keys: Vec<String> = (0..300).map(|n| format!("k{n}")).collect();
    for key in &keys {
        client.write(write(key, &value, &[("a", 1)])).await.unwrap();
    }
    for key in &keys {
        client.read(read(key)).await.unwrap();
    }
    let before = metrics(&node).await;
    let evictions = before["cache_evictions_total"];
    assert!(evictions > 50.0 && before["cache_entries_total"] > 0.0, "{before:?}");
    let restarted = |seen: &BTreeMap<String, f64>| {
        let caches = seen
            .iter()
            .filter(|(name, _)| name.starts_with("actor_restarts_total{actor=\"cache-"));
        let (all, back) = caches.fold((0, 0), |(all, back), (_, restarts)| {
            (all + 1, back + usize::from(*restarts == 1.0))
        });
        all == back
    };
    for child in node.tree().children() {
        if child.name.starts_with("cache-") {
            assert!(node.tree().kill(&child.name));
        }
    }
    eventually("all of the cache is back", async || restarted(&metrics(&node).await)).await;
    let seen = metrics(&node).await;
    assert_eq!(seen["cache_evictions_total"], evictions);
    assert_eq!(
        [seen["cache_entries_total"], seen["cache_size_bytes"]],
        [0.0, 0.0],
        "it is empty, and says so"
    );
    for key in &keys {
        client.read(read(key)).await.unwrap();
    }
    assert!(metrics(&node).await["cache_evictions_total"] > evictions + 50.0);

    // A flush goes on when its actor ends, and is one, whoever saw its end.
    let handles = &node.requests().handles;
    let stall = injection(DISK_IO, "sync-table", Fault::Stall(Duration::from_millis(700)));
    handles.faults.inject(stall).unwrap();
    handles.memtable.send_admitted(MemtableMessage::Seal).unwrap();
    eventually("it is under way", async || handles.faults.armed().is_empty()).await;
    assert!(node.tree().kill("flush"));
    eventually("the memtable is a table", async || {
        let view = handles.published.load();
        view.sealed.is_empty() && view.tables.level(0).len() == 1
    })
    .await;
    let counts = [
        "memtable_flushes_total",
        "memtable_flush_duration_seconds_count",
        "sstable_writes_total",
        "actor_restarts_total{actor=\"flush\"}",
    ];
    eventually("it is counted", async || {
        metrics(&node).await["memtable_flushes_total"] == 1.0
    })
    .await;
    // Whoever came after it has looked by then, and found nothing to do.
    handles.memtable.send_admitted(MemtableMessage::Seal).unwrap();
    client.write(write("last", b"v", &[("a", 1)])).await.unwrap();
    let seen = metrics(&node).await;
    assert_eq!(counts.map(|name| seen[name]), [1.0; 4], "{seen:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_where_the_configuration_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = shown(dir.path());
    config.metrics.path = "/numbers".to_owned();
    let node = start(&config).await;
    let address = node.metrics_address().unwrap();
    let asked = tokio::task::spawn_blocking(move || ["/numbers", "/metrics", "/"].map(|path| ask(address, path)));
    let [numbers, elsewhere, page] = asked.await.unwrap();
    assert!(numbers.0 == 200 && numbers.1.ends_with("# EOF\n"), "{numbers:?}");
    assert!(elsewhere.0 == 404 && elsewhere.1.contains("/numbers"), "{elsewhere:?}");
    assert!(
        page.0 == 200 && page.1.contains("href=\"/numbers\"") && !page.1.contains("/metrics"),
        "the page leads there"
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_health_check_is_in_the_document() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = streaming::node_config(dir.path(), "from", 0);
    config.gossip.enabled = true;
    config.gossip.bind_port = 0;
    config.tenants.quota.insert("tenant".to_owned(), Quota::default());
    let (node, to) = (start(&config).await, streaming::node(dir.path(), "to", 0).await);
    let here = client(node.address());
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    completed(&here, "to").await;
    let (_, section) = include_str!("../observability/README.md")
        .split_once("\n## HealthCheck\n")
        .unwrap();
    let section = section.split("\n## ").next().unwrap();
    let metrics = node.health().metrics();
    assert!(
        metrics.contains_key("gossip_members") && metrics.contains_key("stream to to"),
        "{metrics:?}"
    );
    for name in metrics.keys() {
        let general = name
            .replace("stream to to", "stream to NODE")
            .replace("member.from", "member.NODE");
        let general = general.replace(".tenant", ".NAME");
        assert!(section.contains(&format!("`{general}`")), "{name} is in no document");
    }
    node.shutdown().await;
    to.shutdown().await;
}
