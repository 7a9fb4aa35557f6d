//! Traces: what a request leaves behind at a collector, and that no collector gets in its way.

#[path = "common/collector.rs"]
mod collector;
mod common;
#[path = "common/site.rs"]
mod site;
#[path = "common/streaming.rs"]
mod streaming;

use collector::*;
use common::*;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use pairdb_node::actors::faults::{Fault, MESSAGE};
use pairdb_node::actors::memtable::MemtableMessage;
use pairdb_node::node::Node;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// How long the exporter waits for a collector that hangs.
const HANGS: Duration = Duration::from_secs(20);
/// How long a slow collector takes for its answer.
const SLOW: Duration = Duration::from_secs(1);
/// Longest time that a call may take meanwhile: on a slow machine, too, but not when it waits for the collector.
const CALL_LIMIT: Duration = Duration::from_secs(8);

fn inject(node: &Node, actor: &str, point: &str, fault: Fault) {
    let faults = &node.requests().handles.faults;
    faults.inject(common::injection(actor, point, fault)).unwrap();
}

fn is_child_of(span: &Span, parent: &Span) -> bool {
    span.trace_id == parent.trace_id && span.parent_span_id == parent.span_id
}

/// Asserts that the hops are exactly these, below the root, one behind the other, each with its time apart in queue and work.
fn assert_hops(spans: &[Span], root: &Span, hops: &[&str]) {
    let mut children: Vec<&Span> = spans.iter().filter(|span| is_child_of(span, root)).collect();
    children.sort_by_key(|span| span.end_time_unix_nano);
    let found: Vec<&str> = children.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(found, hops);
    for span in children {
        let (queued, worked) = (
            number(span, "pairdb.queue_us").unwrap(),
            number(span, "pairdb.work_us").unwrap(),
        );
        let took = (span.end_time_unix_nano - span.start_time_unix_nano) as i64 / 1000;
        assert!(
            (0..=2).contains(&(took - queued - worked)),
            "{}: {took} = {queued} + {worked}",
            span.name
        );
        assert!(span.start_time_unix_nano >= root.start_time_unix_nano, "{}", span.name);
        assert!(span.end_time_unix_nano <= root.end_time_unix_nano, "{}", span.name);
        assert_eq!(span.kind, SpanKind::Internal as i32);
    }
}

fn trace_of(number: u128) -> String {
    format!("{number:032x}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_and_its_reads_are_told_in_the_callers_trace() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let node = start(&traced(dir.path(), collector.address, 0.0)).await;
    let mut client = client(node.address());
    let taken = &collector.taken;

    let mut request = in_trace(write("k", b"v", &[("a", 1)]), 1, true);
    request
        .metadata_mut()
        .insert("tracestate", "vendor=opaque".parse().unwrap());
    client.write(request).await.unwrap();
    let spans = taken.trace(&trace_of(1)).await;
    let root = named(&spans, "storage.StorageNodeService/Write");
    assert_eq!(hex(&root.parent_span_id), CALLER);
    assert_eq!(root.kind, SpanKind::Server as i32);
    assert_eq!(root.trace_state, "vendor=opaque");
    assert_eq!(taken.schemas(), ["https://opentelemetry.io/schemas/1.45.0"]);
    assert_eq!(
        root.status.as_ref().map_or(0, |status| status.code),
        StatusCode::Unset as i32
    );
    for (key, expected) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "storage.StorageNodeService/Write"),
        ("rpc.response.status_code", "OK"),
        ("db.system.name", "pairdb"),
        ("db.operation.name", "write"),
        ("db.namespace", "tenant"),
    ] {
        assert_eq!(text(root, key).as_deref(), Some(expected), "{key}");
    }
    assert_hops(&spans, root, &["receive", "wal", "log", "memtable", "answer"]);
    let log = named(&spans, "log");
    let [shared] = &log.links[..] else {
        panic!("{:?}", log.links);
    };
    let write = taken.trace(&hex(&shared.trace_id)).await;
    let [write] = &write[..] else {
        panic!("{:?}", names(&write));
    };
    assert_eq!(
        (write.name.as_str(), &write.span_id),
        ("commit_log write", &shared.span_id)
    );
    assert_eq!(number(write, "pairdb.batch.writes"), Some(1));
    assert!(number(write, "pairdb.sync_us").unwrap() > 0);

    // The cache has only what was read.
    client.read(in_trace(read("k"), 2, true)).await.unwrap();
    let spans = taken.trace(&trace_of(2)).await;
    let root = named(&spans, "storage.StorageNodeService/Read");
    assert_hops(&spans, root, &["receive", "cache", "read", "answer"]);
    assert_eq!(number(named(&spans, "cache"), "pairdb.cache.misses"), Some(1));
    assert_eq!(text(named(&spans, "read"), "pairdb.read.source").unwrap(), "memtable");

    client.read(in_trace(read("k"), 3, true)).await.unwrap();
    let spans = taken.trace(&trace_of(3)).await;
    let root = named(&spans, "storage.StorageNodeService/Read");
    assert_hops(&spans, root, &["receive", "cache", "answer"]);
    assert_eq!(number(named(&spans, "cache"), "pairdb.cache.hits"), Some(1));

    client
        .write(common::write("cold-key", b"v", &[("a", 1)]))
        .await
        .unwrap();
    node.requests()
        .handles
        .memtable
        .send_admitted(MemtableMessage::Seal)
        .unwrap();
    let tables = || node.health().handles.published.load().tables.level(0).len();
    eventually("it is flushed", async || tables() == 1).await;
    client.read(in_trace(read("cold-key"), 4, true)).await.unwrap();
    let spans = taken.trace(&trace_of(4)).await;
    let found = named(&spans, "read");
    assert_eq!(text(found, "pairdb.read.source").unwrap(), "table");
    assert_eq!(number(found, "pairdb.read.level"), Some(0));
    assert_eq!(
        (
            number(found, "pairdb.read.filters"),
            number(found, "pairdb.read.blocks")
        ),
        (Some(1), Some(1))
    );

    // A missing key is no failure, and a batch has one trace.
    client.read(in_trace(read("absent-key"), 5, true)).await.unwrap_err();
    let spans = taken.trace(&trace_of(5)).await;
    let root = named(&spans, "storage.StorageNodeService/Read");
    assert_eq!(text(root, "rpc.response.status_code").unwrap(), "NOT_FOUND");
    assert_eq!(
        root.status.as_ref().map_or(0, |status| status.code),
        StatusCode::Unset as i32
    );
    let operations = (0..9)
        .map(|n| common::write(&format!("b{n}"), b"v", &[("a", 1)]))
        .collect();
    let batch = pairdb_node::rpc::pb::BatchWriteRequest { operations };
    client.batch_write(in_trace(batch, 6, true)).await.unwrap();
    let spans = taken.trace(&trace_of(6)).await;
    let root = named(&spans, "storage.StorageNodeService/BatchWrite");
    assert_hops(&spans, root, &["receive", "wal", "log", "memtable", "answer"]);
    assert_eq!(number(named(&spans, "log"), "pairdb.batch.writes"), Some(9));
    let check = pairdb_node::rpc::pb::HealthCheckRequest {};
    client.health_check(in_trace(check, 7, true)).await.unwrap();
    let spans = taken.trace(&trace_of(7)).await;
    let root = named(&spans, "storage.StorageNodeService/HealthCheck");
    assert_eq!(text(root, "rpc.response.status_code").unwrap(), "OK");
    for span in taken.spans() {
        let said = format!("{span:?}");
        assert!(
            !said.contains("cold-key") && !said.contains("absent-key"),
            "a key: {said}"
        );
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writes_of_a_batch_share_one_span_of_the_log() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let node = start(&traced(dir.path(), collector.address, 0.0)).await;
    let client = client(node.address());
    // While the log is at the first, the others gather.
    inject(&node, "wal", "before-write", Fault::Stall(Duration::from_secs(3)));
    let writes: Vec<_> = (1..=8_u128)
        .map(|n| {
            let mut client = client.clone();
            tokio::spawn(async move {
                client
                    .write(in_trace(write(&format!("k{n}"), b"v", &[("a", 1)]), n, true))
                    .await
            })
        })
        .collect();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    node.shutdown().await;
    let (taken, mut shared) = (&collector.taken, Vec::new());
    for n in 1..=8 {
        let spans = taken.of_trace(&trace_of(n));
        let log = named(&spans, "log");
        assert_eq!(log.links.len(), 1);
        shared.push(hex(&log.links[0].span_id));
    }
    let distinct: BTreeSet<&String> = shared.iter().collect();
    assert!(distinct.len() < 8, "no two writes shared a sync");
    let told: Vec<Span> = taken
        .spans()
        .into_iter()
        .filter(|span| span.name == "commit_log write")
        .collect();
    assert_eq!(told.len(), distinct.len(), "each write of the log is one span");
    for span in told {
        let of_it = shared.iter().filter(|id| **id == hex(&span.span_id)).count();
        assert_eq!(number(&span, "pairdb.batch.writes"), Some(of_it as i64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_seen_in_the_trace_of_its_request_and_in_that_of_the_restart() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let node = start(&traced(dir.path(), collector.address, 0.0)).await;
    let mut client = client(node.address());
    inject(&node, "memtable", MESSAGE, Fault::Panic);
    let failed = client
        .write(in_trace(write("k", b"v", &[("a", 1)]), 7, false))
        .await
        .unwrap_err();
    assert_eq!(failed.code(), tonic::Code::Unavailable, "{failed}");
    let spans = collector.taken.trace(&trace_of(7)).await;
    let root = named(&spans, "storage.StorageNodeService/Write");
    assert_hops(&spans, root, &["receive", "wal", "log", "answer"]);
    assert_eq!(text(root, "rpc.response.status_code").unwrap(), "UNAVAILABLE");
    assert_eq!(text(root, "error.type").unwrap(), "UNAVAILABLE");
    let status = root.status.as_ref().unwrap();
    assert_eq!(status.code, StatusCode::Error as i32);
    assert!(status.message.contains("memtable"), "{status:?}");
    assert!(root.events.iter().any(|event| event.name == "lost"), "{root:?}");
    let restarts = collector.taken.named("restart").await;
    let [restart] = &restarts[..] else {
        panic!("{restarts:?}");
    };
    assert_eq!(text(restart, "pairdb.actor").unwrap(), "memtable");
    assert_eq!(number(restart, "pairdb.actor.generation"), Some(2));
    let [cause] = &restart.links[..] else {
        panic!("{restart:?}");
    };
    assert_eq!((&cause.trace_id, &cause.span_id), (&root.trace_id, &root.span_id));
    assert_ne!(restart.trace_id, root.trace_id);

    // A batch is answered, whatever its operations got.
    inject(&node, "memtable", MESSAGE, Fault::Panic);
    let operations = vec![write("k", b"v", &[("a", 9)])];
    let batch = pairdb_node::rpc::pb::BatchWriteRequest { operations };
    client.batch_write(in_trace(batch, 10, false)).await.unwrap();
    let spans = collector.taken.trace(&trace_of(10)).await;
    let root = named(&spans, "storage.StorageNodeService/BatchWrite");
    assert_eq!(text(root, "rpc.response.status_code").unwrap(), "OK");
    assert_eq!(text(root, "error.type").unwrap(), "UNAVAILABLE");
    eventually("its actor is back", async || {
        collector.taken.named("restart").await.len() == 2
    })
    .await;

    // The thread of the log, which has the write in its hands.
    inject(&node, "wal", "before-sync", Fault::Panic);
    client
        .write(in_trace(write("k", b"v", &[("a", 2)]), 8, false))
        .await
        .unwrap_err();
    let of_wal = || {
        let mut restarts = collector.taken.spans();
        restarts.retain(|span| span.name == "restart" && text(span, "pairdb.actor").unwrap() == "wal");
        restarts
    };
    eventually("the restart is told", async || !of_wal().is_empty()).await;
    assert_eq!(hex(&of_wal()[0].links[0].trace_id), trace_of(8));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_or_is_slow_is_kept_unsampled_and_what_is_good_and_quick_is_not() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let mut config = traced(dir.path(), collector.address, 0.0);
    let limit = Duration::from_secs(2);
    config.tracing.slow_request = limit;
    let node = start(&config).await;
    let mut client = client(node.address());
    // On a slow machine any write may be slow: one that its client has back within the limit is not.
    let (mut quick, mut slow_own, begun) = (None, 0, Instant::now());
    for n in 100.. {
        let at = Instant::now();
        client
            .write(in_trace(write("k", b"v", &[("a", 1)]), n, false))
            .await
            .unwrap();
        quick = quick.or((at.elapsed() < limit).then_some(n));
        let at = Instant::now();
        client.write(write("own", b"v", &[("a", 1)])).await.unwrap();
        let is_own_slow = at.elapsed() >= limit;
        slow_own += usize::from(is_own_slow);
        if quick.is_some() && !is_own_slow {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "no write takes less than {limit:?}");
    }
    inject(
        &node,
        "memtable",
        "before-answer",
        Fault::Stall(Duration::from_millis(2500)),
    );
    client
        .write(in_trace(write("k", b"v", &[("a", 3)]), 3, false))
        .await
        .unwrap();
    inject(&node, "memtable", MESSAGE, Fault::Panic);
    client
        .write(in_trace(write("k", b"v", &[("a", 2)]), 2, false))
        .await
        .unwrap_err();
    node.shutdown().await;
    let requests: Vec<Span> = collector
        .taken
        .spans()
        .into_iter()
        .filter(|span| span.kind == SpanKind::Server as i32)
        .collect();
    let traces: Vec<String> = requests.iter().map(|span| hex(&span.trace_id)).collect();
    for kept in [3, 2] {
        assert!(traces.contains(&trace_of(kept)), "{kept} is not among {traces:?}");
    }
    assert!(!traces.contains(&trace_of(quick.unwrap())), "{traces:?}");
    let roots = requests.iter().filter(|span| span.parent_span_id.is_empty()).count();
    assert!(roots <= slow_own, "{roots} kept, of which {slow_own} were slow");
    let slow = collector.taken.of_trace(&trace_of(3));
    let worked = number(named(&slow, "memtable"), "pairdb.work_us").unwrap();
    assert!(worked >= 2_500_000, "{worked}: the hop that was slow says so");
}

/// Writes and reads, each within the limit.
async fn work(client: &mut Client, times: u32) {
    for n in 0..times {
        let (key, begun) = (format!("k{}", n % 50), Instant::now());
        client.write(write(&key, b"v", &[("a", 1)])).await.unwrap();
        assert!(begun.elapsed() < CALL_LIMIT, "{:?}", begun.elapsed());
        let begun = Instant::now();
        assert_eq!(client.read(read(&key)).await.unwrap().into_inner().value, b"v");
        assert!(begun.elapsed() < CALL_LIMIT, "{:?}", begun.elapsed());
    }
}

async fn read_often(mut client: Client, times: u32) {
    for _ in 0..times {
        let begun = Instant::now();
        assert_eq!(client.read(read("k1")).await.unwrap().into_inner().value, b"v");
        assert!(begun.elapsed() < CALL_LIMIT, "{:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_ends_or_never_was_changes_nothing_and_is_counted() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let mut config = traced(dir.path(), collector.address, 1.0);
    (config.metrics.enabled, config.metrics.port) = (true, 0);
    config.tracing.export_timeout = HANGS;
    config.server.shutdown_timeout = Duration::from_secs(100);
    let node = start(&config).await;
    let mut client = common::client(node.address());
    let counts = &node.health().handles.traces.counts;
    let (exported, failed) = (
        || counts.exported.load(Ordering::Relaxed),
        || counts.failed.load(Ordering::Relaxed),
    );
    work(&mut client, 10).await;
    eventually("the collector takes them", async || exported() > 0).await;
    assert_eq!((failed(), counts.dropped.load(Ordering::Relaxed)), (0, 0));

    collector.taken.behave(Manner::Hangs);
    let asked = collector.taken.asked();
    work(&mut client, 10).await;
    eventually("it is asked and does not answer", async || {
        collector.taken.asked() > asked
    })
    .await;
    let dropped = || counts.dropped.load(Ordering::Relaxed);
    // Nobody waits for the queue either.
    let begun = Instant::now();
    while dropped() == 0 {
        let readers = (0..32).map(|_| tokio::spawn(read_often(client.clone(), 20)));
        for reader in readers.collect::<Vec<_>>() {
            reader.await.unwrap();
        }
        assert!(begun.elapsed() < PATIENCE, "the queue has no end");
    }
    // And writes, whose hops are noted by other tasks, find it as full.
    let before = dropped();
    work(&mut client, 20).await;
    assert!(dropped() >= before + 20, "{} of 40 traces", dropped() - before);
    eventually("it is counted", async || failed() > 0).await;

    let address = collector.address;
    drop(collector);
    eventually("it has ended", async || TcpStream::connect(address).await.is_err()).await;
    let before = failed();
    work(&mut client, 10).await;
    eventually("it is counted", async || failed() > before).await;
    eventually("and shown", async || {
        let (were, are) = ((failed(), dropped()), site::metrics(&node).await);
        // Unless more was lost meanwhile.
        were == (failed(), dropped())
            && are["trace_spans_failed_total"] == were.0 as f64
            && are["traces_dropped_total"] == were.1 as f64
    })
    .await;
    let begun = Instant::now();
    node.shutdown().await;
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());

    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let node = start(&traced(dir.path(), nobody, 1.0)).await;
    let mut client = common::client(node.address());
    work(&mut client, 50).await;
    let counts = &node.health().handles.traces.counts;
    eventually("it is counted", async || counts.failed.load(Ordering::Relaxed) > 0).await;
    assert_eq!(counts.exported.load(Ordering::Relaxed), 0);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_or_is_slow_changes_nothing_and_is_counted() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let node = start(&traced(dir.path(), collector.address, 1.0)).await;
    let mut client = client(node.address());
    let counts = &node.health().handles.traces.counts;
    let (exported, failed) = (
        || counts.exported.load(Ordering::Relaxed),
        || counts.failed.load(Ordering::Relaxed),
    );
    // The exporter gives up one of them at once, and may try the other again.
    for code in [tonic::Code::InvalidArgument, tonic::Code::Unavailable] {
        collector.taken.behave(Manner::Refuses(code));
        let before = failed();
        work(&mut client, 10).await;
        eventually("it is counted", async || failed() > before).await;
    }
    assert_eq!((exported(), collector.taken.spans().len()), (0, 0));

    collector.taken.behave(Manner::Slow(SLOW));
    let (before, begun) = (exported(), Instant::now());
    work(&mut client, 50).await;
    let worked = begun.elapsed();
    eventually("what comes late is taken", async || exported() > before).await;
    assert!(begun.elapsed() >= SLOW, "the collector was not slow");
    assert!(
        worked < 50 * SLOW,
        "{worked:?}: each of a hundred calls would have waited for the collector"
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flushes_compactions_and_streams_are_linked_to_what_caused_them() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let mut config = traced(dir.path(), collector.address, 0.0);
    config.server.node_id = "source".to_owned();
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(64);
    config.compaction.throttle = 0;
    let node = start(&config).await;
    let mut client = common::client(node.address());
    let mut traces = BTreeSet::new();
    let mut n = 0;
    let mut fill = async |sampled: bool, is_enough: &dyn Fn() -> bool| {
        while !is_enough() {
            n += 1;
            let request = in_trace(write(&format!("k{}", n * 7919 % 1000), &[7; 4000], &[]), n, sampled);
            client.write(request).await.unwrap();
            traces.extend(sampled.then(|| trace_of(n)));
        }
    };
    let told = || {
        let spans = collector.taken.spans().into_iter();
        let flushes = spans.filter(|span| span.name == "flush");
        flushes.map(|span| (number(&span, "pairdb.memtable.id").unwrap(), span))
    };
    fill(false, &|| told().count() > 0).await;
    // Which it may be that fills the memtable of the moment.
    let between = i64::try_from(node.health().handles.published.load().active.id()).unwrap();
    let tables = || node.health().jobs.totals().bytes_written;
    fill(true, &|| tables() > 0 && told().any(|(memtable, _)| memtable > between)).await;
    for (memtable, flush) in told() {
        assert!(number(&flush, "pairdb.table.bytes").unwrap() > 0);
        match &flush.links[..] {
            [] => assert!(memtable <= between, "{flush:?}"),
            [cause] => {
                assert!(memtable >= between, "a link to what nobody has: {flush:?}");
                assert!(
                    traces.contains(&hex(&cause.trace_id)),
                    "a write has filled the memtable"
                );
            }
            links => panic!("{links:?}"),
        }
    }
    let of_tables = async || {
        let (flushes, compactions) = (
            collector.taken.named("flush").await,
            collector.taken.named("compaction").await,
        );
        flushes
            .into_iter()
            .chain(compactions)
            .map(|span| span.span_id)
            .collect::<BTreeSet<_>>()
    };
    for compaction in collector.taken.named("compaction").await {
        let [cause] = &compaction.links[..] else {
            panic!("{compaction:?}");
        };
        eventually("what caused it is told", async || {
            of_tables().await.contains(&cause.span_id)
        })
        .await;
    }

    let target = streaming::node(dir.path(), "target", 0).await;
    let order = streaming::order("target", target.address(), &streaming::WHOLE_RING);
    client.start_streaming(in_trace(order, u128::MAX, true)).await.unwrap();
    let streamed = collector.taken.named("stream copy").await;
    let request = collector.taken.trace(&trace_of(u128::MAX)).await;
    let request = named(&request, "storage.StorageNodeService/StartStreaming");
    for copy in &streamed {
        assert_eq!(copy.links[0].span_id, request.span_id);
        assert_eq!(text(copy, "pairdb.stream.target").unwrap(), "target");
    }
    assert!(number(&streamed[0], "pairdb.stream.keys").unwrap() > 0);
    node.shutdown().await;
    target.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_walks_over_keys_says_when_it_was_received_and_how_long_it_waited_for_its_turn() {
    use pairdb_node::rpc::pb;
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let mut config = traced(dir.path(), collector.address, 0.0);
    config.tracing.slow_request = SLOW / 2;
    let to = streaming::node(dir.path(), "to", 0).await;
    config.cluster.nodes.insert("to".to_owned(), to.address().to_string());
    let node = start(&config).await;
    let (mut client, taken) = (client(node.address()), &collector.taken);
    client.write(write("k", b"v", &[("a", 1)])).await.unwrap();

    let tenant_id = || "tenant".to_owned();
    let page = move || pb::KeyRangeRequest {
        tenant_id: tenant_id(),
        ..pb::KeyRangeRequest::default()
    };
    let compared = pb::CompareKeysRequest {
        keys: vec![pb::KeyDigest {
            tenant_id: tenant_id(),
            key: "k".to_owned(),
            digest: 1,
        }],
    };
    let copied = pb::ReplicateRequest {
        tenant_id: tenant_id(),
        target_node_id: "to".to_owned(),
        ..pb::ReplicateRequest::default()
    };
    let scanned = pb::ScanRequest {
        tenant_id: tenant_id(),
        ..pb::ScanRequest::default()
    };
    let streamed = pb::StreamKeysRequest {
        tenant_id: tenant_id(),
        ..pb::StreamKeysRequest::default()
    };
    client.get_key_range(in_trace(page(), 1, true)).await.unwrap();
    client.compare_keys(in_trace(compared, 2, true)).await.unwrap();
    client.replicate_data(in_trace(copied, 3, true)).await.unwrap();
    let mut entries = client.scan(in_trace(scanned, 4, true)).await.unwrap().into_inner();
    while entries.message().await.unwrap().is_some() {}
    let mut entries = client
        .stream_keys(in_trace(streamed, 5, true))
        .await
        .unwrap()
        .into_inner();
    while entries.message().await.unwrap().is_some() {}
    for (trace, method, hops) in [
        (1, "GetKeyRange", &["receive", "walk", "answer"][..]),
        (2, "CompareKeys", &["receive", "walk", "answer"]),
        (3, "ReplicateData", &["receive", "walk", "answer"]),
        (4, "Scan", &["receive", "walk", "answer"]),
        (5, "StreamKeys", &["receive", "walk", "answer"]),
    ] {
        let (trace, name) = (trace_of(trace), format!("storage.StorageNodeService/{method}"));
        // What it asks of another node may be told before.
        let of_node = || {
            let mut spans = taken.of_trace(&trace);
            spans.retain(|span| span.kind != SpanKind::Client as i32);
            spans
        };
        eventually("it is told", async || of_node().iter().any(|span| span.name == name)).await;
        let spans = of_node();
        let root = named(&spans, &name);
        assert_hops(&spans, root, hops);
        assert_eq!(text(root, "db.namespace").as_deref(), Some("tenant"), "{method}");
    }

    // One that waits for its turn among the reads of tables is slow, and kept although nobody asked for it.
    let loads = &node.requests().loads;
    let all = u32::try_from(loads.available_permits()).unwrap();
    let busy = std::sync::Arc::clone(loads).acquire_many_owned(all).await.unwrap();
    let mut asking = client.clone();
    let waiting = tokio::spawn(async move { asking.get_key_range(in_trace(page(), 6, false)).await });
    // For as long as makes it slow.
    tokio::time::sleep(SLOW).await;
    drop(busy);
    waiting.await.unwrap().unwrap();
    let spans = taken.trace(&trace_of(6)).await;
    let walk = named(&spans, "walk");
    let [queued, worked] = ["pairdb.queue_us", "pairdb.work_us"].map(|of| number(walk, of).unwrap());
    let half = (SLOW / 2).as_micros() as i64;
    assert!(
        queued >= half && worked < half,
        "queued {queued} us, worked {worked} us"
    );
    let slowest = node.health().handles.traces.slowest(0);
    assert!(
        slowest.iter().any(|(_, slow)| slow.operation == "get_key_range"),
        "{slowest:?}"
    );
    node.shutdown().await;
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operations_of_a_stream_have_a_trail_each() {
    use pairdb_node::rpc::pb;
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let node = start(&traced(dir.path(), collector.address, 0.0)).await;
    let mut client = client(node.address());
    let operation = |id, operation| pb::Operation {
        id,
        operation: Some(operation),
    };
    let operations = vec![
        operation(1, pb::operation::Operation::Write(write("k", b"v", &[("a", 1)]))),
        operation(2, pb::operation::Operation::Read(read("k"))),
    ];
    let request = in_trace(tokio_stream::iter(operations), 9, true);
    let mut results = client.operations(request).await.unwrap().into_inner();
    let mut count = 0;
    while results.message().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 2);
    node.shutdown().await;
    let spans = collector.taken.of_trace(&trace_of(9));
    let stream = named(&spans, "storage.StorageNodeService/Operations");
    assert_eq!(hex(&stream.parent_span_id), CALLER);
    for (name, hop) in [("operations/write", "memtable"), ("operations/read", "cache")] {
        let operation = named(&spans, name);
        assert!(is_child_of(operation, stream), "{name}");
        assert!(is_child_of(named(&spans, hop), operation), "{hop}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_its_stream_leaves_at_its_deadline_was_late_and_one_that_is_left_before_was_cancelled() {
    use pairdb_node::rpc::pb;
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let node = start(&traced(dir.path(), collector.address, 0.0)).await;
    let mut client = client(node.address());
    let (faults, caches) = (&node.requests().handles.faults, &node.requests().handles.caches);
    let with_them = || caches.iter().map(|cache| cache.mailbox.stats().messages).sum::<usize>();
    let timeout = Duration::from_secs(3);
    for (trace, is_limited, expected) in [(1, true, "DEADLINE_EXCEEDED"), (2, false, "CANCELLED")] {
        // Whichever shard has the key is busy for longer than the client waits.
        for shard in 0..caches.len() {
            let stall = Fault::Stall(2 * timeout);
            inject(&node, &format!("cache-{shard}"), MESSAGE, stall);
        }
        let (sender, operations) = tokio::sync::mpsc::channel(1);
        let operation = Some(pb::operation::Operation::Read(read("k")));
        sender.send(pb::Operation { id: 1, operation }).await.unwrap();
        let mut request = in_trace(tokio_stream::wrappers::ReceiverStream::new(operations), trace, true);
        if is_limited {
            request.set_timeout(timeout);
        }
        let begun = Instant::now();
        let results = client.operations(request).await.unwrap().into_inner();
        eventually("a shard has it", async || with_them() > 0).await;
        if is_limited {
            // What clients do at their deadline.
            tokio::time::sleep_until((begun + timeout).into()).await;
        }
        drop((results, sender));
        let of_read = || {
            let mut spans = collector.taken.of_trace(&trace_of(trace));
            spans.retain(|span| span.name == "operations/read");
            spans.pop()
        };
        eventually("it is told", async || of_read().is_some()).await;
        assert_eq!(text(&of_read().unwrap(), "rpc.response.status_code").unwrap(), expected);
        faults.clear(None);
        eventually("the shards are at peace", async || with_them() == 0).await;
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_says_at_which_level_it_found_the_key_and_which_filters_spared_it_a_look() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let mut config = traced(dir.path(), collector.address, 0.0);
    config.compaction.l0_trigger = 2;
    let node = start(&config).await;
    let mut client = client(node.address());
    let handles = &node.requests().handles;
    let tables = |level: usize| handles.published.load().tables.level(level).len();
    let mut flush = async |keys: [&str; 2]| {
        for key in keys {
            client.write(write(key, b"v", &[("a", 1)])).await.unwrap();
        }
        let filled = Arc::clone(&handles.published.load().active);
        handles.memtable.send_admitted(MemtableMessage::Seal).unwrap();
        eventually("it is flushed", async || {
            let view = handles.published.load();
            !Arc::ptr_eq(&view.active, &filled) && view.sealed.is_empty()
        })
        .await;
    };
    flush(["a", "deep"]).await;
    flush(["b", "z"]).await;
    eventually("they are compacted", async || (tables(0), tables(1)) == (0, 1)).await;
    // Its range has the key; its filter does not.
    flush(["c", "y"]).await;
    assert_eq!((tables(0), tables(1)), (1, 1));
    let mut client = common::client(node.address());
    client.write(write("fresh", b"v", &[("a", 1)])).await.unwrap();
    client.read(in_trace(read("deep"), 1, true)).await.unwrap();
    let operations = ["y", "fresh", "a"].map(read).to_vec();
    let batch = pairdb_node::rpc::pb::BatchReadRequest { operations };
    client.batch_read(in_trace(batch, 2, true)).await.unwrap();
    for (trace, level, counted) in [
        (1, 1, [2, 1, 1]),
        // One in L0, one in the memtable, one in L1; each asks the filters of both tables.
        (2, 0, [6, 4, 2]),
    ] {
        let mut reads = collector.taken.trace(&trace_of(trace)).await;
        reads.retain(|span| span.name == "read");
        let of = |name: &str| -> Vec<i64> {
            let attribute = format!("pairdb.read.{name}");
            reads.iter().filter_map(|span| number(span, &attribute)).collect()
        };
        assert_eq!(of("level").into_iter().min(), Some(level));
        let sums = ["filters", "filters_excluded", "blocks"].map(|name| of(name).iter().sum::<i64>());
        assert_eq!(sums, counted, "{reads:?}");
    }
    node.shutdown().await;
}

/// The spans of both sides of a call, below the span that had it made: the caller's, and the one that goes on on the other node.
fn both_sides<'a>(spans: &'a [Span], method: &str, above: &Span) -> (&'a Span, &'a Span) {
    let name = format!("storage.StorageNodeService/{method}");
    let of_kind = |kind: SpanKind, above: &Span| {
        let mut found = spans
            .iter()
            .filter(|span| span.name == name && is_child_of(span, above));
        let span = found
            .next()
            .unwrap_or_else(|| panic!("no {name} in {:?}", names(spans)));
        assert_eq!((span.kind, found.next()), (kind as i32, None));
        span
    };
    let sent = of_kind(SpanKind::Client, above);
    (sent, of_kind(SpanKind::Server, sent))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_at_the_nodes_that_a_request_or_a_stream_calls() {
    use pairdb_node::rpc::pb;
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let taken = &collector.taken;
    // It keeps nothing of its own accord: what it keeps is what it is told to.
    let mut config = traced(&dir.path().join("to"), collector.address, 0.0);
    config.server.node_id = "to".to_owned();
    let to = start(&config).await;
    let mut config = traced(&dir.path().join("from"), collector.address, 1.0);
    config.server.node_id = "from".to_owned();
    config.cluster.nodes.insert("to".to_owned(), to.address().to_string());
    let from = start(&config).await;
    let mut client = client(from.address());
    client
        .write(in_trace(write("k", b"v", &[("a", 1)]), 1, false))
        .await
        .unwrap();

    let replicate = |trace, sampled| {
        let request = pb::ReplicateRequest {
            tenant_id: "tenant".to_owned(),
            target_node_id: "to".to_owned(),
            keys: vec!["k".to_owned()],
            ..pb::ReplicateRequest::default()
        };
        let mut request = in_trace(request, trace, sampled);
        let state = "vendor=opaque".parse().unwrap();
        request.metadata_mut().insert("tracestate", state);
        request
    };
    client.replicate_data(replicate(2, false)).await.unwrap();
    client.replicate_data(replicate(3, true)).await.unwrap();
    let is_whole = || {
        let spans = taken.of_trace(&trace_of(3)).into_iter();
        spans.filter(|span| span.kind != SpanKind::Internal as i32).count() == 3
    };
    eventually("both nodes have told", async || is_whole()).await;
    let spans = taken.of_trace(&trace_of(3));
    let root = named(&spans, "storage.StorageNodeService/ReplicateData");
    assert_eq!(hex(&root.parent_span_id), CALLER);
    let (sent, received) = both_sides(&spans, "Write", root);
    assert_eq!(number(sent, "server.port"), Some(to.address().port().into()));
    assert_eq!(text(sent, "rpc.response.status_code").unwrap(), "OK");
    for span in [root, sent, received] {
        assert_eq!(span.trace_state, "vendor=opaque", "{}", span.name);
    }
    assert!(
        is_child_of(named(&spans, "memtable"), received),
        "the other node's hops"
    );

    // A call of a stream begins a trace, which also goes on.
    let order = streaming::order("to", to.address(), &streaming::WHOLE_RING);
    client.start_streaming(in_trace(order, 4, true)).await.unwrap();
    let put = taken.named("stream put").await.remove(0);
    assert!(put.parent_span_id.is_empty());
    assert_eq!(hex(&put.links[0].trace_id), trace_of(4));
    assert_eq!(text(&put, "pairdb.stream.target").unwrap(), "to");
    assert_eq!(number(&put, "pairdb.stream.keys"), Some(1));
    let of_put = || taken.of_trace(&hex(&put.trace_id));
    eventually("the target has told", async || {
        of_put().iter().any(|span| span.kind == SpanKind::Server as i32)
    })
    .await;
    let spans = of_put();
    let (_sent, received) = both_sides(&spans, "BatchWrite", &put);
    assert!(is_child_of(named(&spans, "memtable"), received));
    streaming::completed(&client, "to").await;
    // As do the comparison at its end, and what it asks.
    let compare = taken.named("stream compare").await.remove(0);
    assert_eq!(hex(&compare.links[0].trace_id), trace_of(4));
    assert_eq!(text(&compare, "pairdb.stream.target").unwrap(), "to");
    assert_eq!(number(&compare, "pairdb.stream.keys"), Some(0), "nothing differs");
    let ask = taken.named("stream ask").await.remove(0);
    assert_eq!(hex(&ask.links[0].trace_id), trace_of(4));
    assert_eq!(number(&ask, "pairdb.stream.keys"), Some(1));
    let of_ask = || taken.of_trace(&hex(&ask.trace_id));
    eventually("the target has told of what it was asked", async || {
        of_ask().iter().any(|span| span.kind == SpanKind::Server as i32)
    })
    .await;
    both_sides(&of_ask(), "CompareKeys", &ask);
    from.shutdown().await;
    to.shutdown().await;
    let unsampled = taken.of_trace(&trace_of(2));
    assert!(unsampled.is_empty(), "nobody keeps it: {:?}", names(&unsampled));
}
