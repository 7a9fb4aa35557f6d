//! Batches and the stream of operations: each operation has an answer of its own, and is as safe as it is alone.

mod common;

use common::*;
use pairdb_node::actors::faults::{Fault, MESSAGE};
use pairdb_node::node::Node;
use pairdb_node::rpc::pb;
use pairdb_node::rpc::pb::operation::Operation;
use pairdb_node::rpc::pb::operation_result::Result as Outcome;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;
use tonic::Code;

/// What an operation was answered: its response, or code and reason of its failure.
type Answer = Result<Outcome, (Code, pb::ErrorCode)>;

fn answers(response: tonic::Response<pb::BatchResponse>) -> Vec<Answer> {
    response.into_inner().results.into_iter().map(answer).collect()
}

fn answer(result: pb::OperationResult) -> Answer {
    match result.result.expect("a result") {
        Outcome::Failure(failure) => {
            assert!(!failure.message.is_empty(), "a failure says what is wrong");
            Err((failure.code.into(), failure.reason()))
        }
        outcome => Ok(outcome),
    }
}

async fn batch_write(client: &mut Client, operations: Vec<pb::WriteRequest>) -> Vec<Answer> {
    let batch = pb::BatchWriteRequest { operations };
    answers(client.batch_write(batch).await.unwrap())
}

async fn batch_read(client: &mut Client, keys: &[&str]) -> Vec<Answer> {
    let operations = keys.iter().map(|key| read(key)).collect();
    answers(client.batch_read(pb::BatchReadRequest { operations }).await.unwrap())
}

fn value(answer: &Answer) -> &[u8] {
    match answer {
        Ok(Outcome::Read(read)) => &read.value,
        other => panic!("not a value: {other:?}"),
    }
}

const INVALID: Answer = Err((Code::InvalidArgument, pb::ErrorCode::InvalidRequest));
const NOT_FOUND: Answer = Err((Code::NotFound, pb::ErrorCode::KeyNotFound));

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_of_a_batch_is_answered_on_its_own_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    client.write(write("old", b"newer", &[("a", 5)])).await.unwrap();
    let written = batch_write(
        &mut client,
        vec![
            write("k1", b"one", &[("a", 1)]),
            write("", b"no key", &[("a", 1)]),
            write("old", b"stale", &[("a", 2)]),
            write("k2", b"", &[("a", 1)]),
            write("k1", b"two", &[("a", 2)]),
            write("k3", b"without a clock", &[]),
        ],
    )
    .await;
    let applied: Vec<_> = written
        .iter()
        .map(|answer| match answer {
            Ok(Outcome::Write(write)) => Some((write.success, write.applied)),
            _ => None,
        })
        .collect();
    let (done, kept_out) = (Some((true, true)), Some((true, false)));
    assert_eq!(applied, [done, None, kept_out, None, done, done]);
    assert_eq!((&written[1], &written[3]), (&INVALID, &INVALID));
    match &written[2] {
        Ok(Outcome::Write(stale)) => assert_eq!(stale.updated_vector_clock, wire_clock(&[("a", 5)])),
        other => panic!("{other:?}"),
    }
    let found = batch_read(&mut client, &["k1", "none", "old", "", "k3", "k1"]).await;
    assert_eq!(
        value(&found[0]),
        b"two",
        "the writes of one key are applied in their order"
    );
    assert_eq!((&found[1], &found[3]), (&NOT_FOUND, &INVALID));
    assert_eq!(value(&found[2]), b"newer");
    assert_eq!(value(&found[4]), b"without a clock");
    assert_eq!(value(&found[5]), b"two");
    let operations = vec![
        delete("k1", &[("a", 3)]),
        delete("bad\u{1}", &[]),
        delete("old", &[("a", 1)]),
    ];
    let deleted = answers(
        client
            .batch_delete(pb::BatchDeleteRequest { operations })
            .await
            .unwrap(),
    );
    assert!(matches!(&deleted[0], Ok(Outcome::Delete(delete)) if delete.success && delete.applied));
    assert_eq!(deleted[1], INVALID);
    assert!(matches!(&deleted[2], Ok(Outcome::Delete(delete)) if delete.success && !delete.applied));
    // The clock of a deleted key goes with its failure.
    let operations = vec![read("k1"), read("old")];
    let response = client.batch_read(pb::BatchReadRequest { operations }).await.unwrap();
    match &response.get_ref().results[0].result {
        Some(Outcome::Failure(failure)) => assert_eq!(failure.vector_clock, wire_clock(&[("a", 3)])),
        other => panic!("{other:?}"),
    }
    assert_eq!(value(&answers(response)[1]), b"newer");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_one_to_a_thousand_operations() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let writes = |count: usize| pb::BatchWriteRequest {
        operations: (0..count).map(|n| write(&format!("k{n}"), b"v", &[])).collect(),
    };
    for count in [0, 1001] {
        let refused = client.batch_write(writes(count)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{count}: {refused}");
    }
    assert_eq!(node.requests().handles.published.applied(), 0);
    let written = answers(client.batch_write(writes(1000)).await.unwrap());
    assert_eq!(written.iter().filter(|answer| answer.is_ok()).count(), 1000);
    assert_eq!(node.requests().handles.published.applied(), 1000);
    let refused = client.batch_read(pb::BatchReadRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = client
        .batch_delete(pb::BatchDeleteRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_writes_is_one_batch_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // Far less than the batch has.
    config.commit_log.buffer_size = bytesize::ByteSize::kib(4);
    let node = start(&config).await;
    let mut client = client(node.address());
    client.write(write("first", b"v", &[])).await.unwrap();
    let before = node.health().log.stats();
    let operations = (0..500)
        .map(|n| write(&format!("k{n}"), &[7; 1000], &[("a", 1)]))
        .collect();
    assert!(batch_write(&mut client, operations).await.iter().all(Result::is_ok));
    let after = node.health().log.stats();
    assert_eq!((after.batches - before.batches, after.syncs - before.syncs), (1, 1));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_without_clocks_leave_one_winner_each() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    client.write(write("k", b"a", &[("a", 5)])).await.unwrap();
    client.write(write("k", b"b", &[("b", 5)])).await.unwrap();
    let batches: Vec<_> = (0..20)
        .map(|round| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let operations = (0..50)
                    .map(|n| write("k", format!("{round}-{n}").as_bytes(), &[]))
                    .collect();
                batch_write(&mut client, operations).await
            })
        })
        .collect();
    for batch in batches {
        assert!(batch.await.unwrap().iter().all(Result::is_ok));
    }
    let left = client.read(read("k")).await.unwrap().into_inner();
    assert!(left.siblings.is_empty(), "{} siblings", left.siblings.len());
    assert!(left.value.ends_with(b"-49"), "the last of a batch: {:?}", left.value);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_are_too_large_together_are_refused_and_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // Nothing so large is cached: all of it is loaded.
    config.cache.max_size = bytesize::ByteSize::mib(1);
    let node = start(&config).await;
    let mut client = client(node.address());
    let keys: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
    for key in &keys {
        let value = [key.as_bytes(), &vec![7; 4 << 20]].concat();
        while client.write(write(key, &value, &[("a", 1)])).await.is_err() {}
    }
    let mut open: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut rounds = 0;
    while !open.is_empty() {
        rounds += 1;
        let mut other = client.clone();
        let single = client.read(read(open[0]));
        let (single, found) = tokio::join!(single, batch_read(&mut other, &open));
        // Whoever reads one of the keys alone is not refused with the batch.
        assert!(single.is_ok());
        let full = Err((Code::ResourceExhausted, pb::ErrorCode::MemoryPressure));
        let read = found.iter().filter(|answer| answer.is_ok()).count();
        assert!((1..=4).contains(&read), "{read} values of 4 MiB in one answer");
        let mut left = Vec::new();
        for (key, answer) in open.into_iter().zip(&found) {
            if *answer == full {
                left.push(key);
            } else {
                assert!(value(answer).starts_with(key.as_bytes()));
            }
        }
        open = left;
    }
    assert!(rounds >= 3, "{rounds}");
    node.shutdown().await;
}

const WRITERS: u64 = 6;
const BATCH: u64 = 40;

/// What a writer knows of its keys: the last number tried and the last acknowledged.
type Known = HashMap<u64, (u64, u64)>;

/// Checks what a read found against what is known: not older than what was acknowledged, and never anything else.
fn check(name: &str, answer: &Answer, (tried, confirmed): (u64, u64)) {
    match answer {
        Err((Code::Unavailable, _)) => {}
        Err((Code::NotFound, _)) => assert_eq!(confirmed, 0, "{name} is lost"),
        Err(other) => panic!("{name}: {other:?}"),
        Ok(_) => {
            let found: u64 = std::str::from_utf8(value(answer)).unwrap().parse().unwrap();
            assert!(
                (confirmed..=tried).contains(&found),
                "{name}: {found}, of {confirmed} to {tried}"
            );
        }
    }
}

async fn write_batches(
    address: std::net::SocketAddr,
    writer: u64,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> Known {
    let mut client = client(address);
    let mut known = Known::new();
    let name = |n: u64| format!("w{writer}-{n}");
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        // Every other batch has another half of the keys.
        let keys: Vec<u64> = (0..BATCH).map(|n| n + BATCH * (number % 2)).collect();
        let operations = keys
            .iter()
            .map(|n| write(&name(*n), number.to_string().as_bytes(), &[("c", number as i64)]))
            .collect();
        let begun = Instant::now();
        for n in &keys {
            known.entry(*n).or_default().0 = number;
        }
        match client.batch_write(pb::BatchWriteRequest { operations }).await {
            Ok(response) => {
                let answers = answers(response);
                assert_eq!(answers.len(), keys.len());
                for (n, answer) in keys.iter().zip(answers) {
                    match answer {
                        Ok(_) => {
                            known.entry(*n).or_default().1 = number;
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                        Err((code, _)) => assert_eq!(code, Code::Unavailable),
                    }
                }
            }
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
        let names: Vec<String> = (0..2 * BATCH).map(name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = batch_read(&mut client, &names).await;
        for (n, answer) in (0..).zip(&found) {
            check(&name(n), answer, known.get(&n).copied().unwrap_or_default());
        }
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "hung for {:?}",
            begun.elapsed()
        );
    }
    known
}

async fn check_all(node: &Node, expected: &[Known]) {
    let mut client = client(node.address());
    for (writer, known) in expected.iter().enumerate() {
        for (n, state) in known {
            let name = format!("w{writer}-{n}");
            let found = batch_read(&mut client, &[&name]).await;
            assert!(found[0].is_ok() || state.1 == 0, "{name}: {found:?}");
            check(&name, &found[0], *state);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_in_a_batch_is_lost_when_actors_die() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(64);
    config.commit_log.segment_size = bytesize::ByteSize::kib(64);
    config.cache.max_size = bytesize::ByteSize::kib(8);
    let node = start(&config).await;
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tokio::spawn(write_batches(node.address(), writer, stop, acknowledged))
        })
        .collect();
    let kills = 60;
    for kill in 0..kills {
        let name = ["wal", "memtable", "cache-0"][kill % 3];
        assert!(node.tree().kill(name), "{name} was not running");
        let before = acknowledged.load(Ordering::Relaxed);
        let served = async || acknowledged.load(Ordering::Relaxed) > before + 3 * BATCH;
        eventually("writes are acknowledged", served).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut expected = Vec::new();
    for writer in writers {
        expected.push(writer.await.unwrap());
    }
    assert_eq!(node.tree().ends().len(), kills);
    check_all(&node, &expected).await;
    node.shutdown().await;
    let node = start(&config).await;
    check_all(&node, &expected).await;
    node.shutdown().await;
}

fn operation(id: u64, operation: Operation) -> pb::Operation {
    pb::Operation {
        id,
        operation: Some(operation),
    }
}

/// Opens a stream: where to put operations, and where results come from.
async fn open(
    client: &mut Client,
) -> (
    tokio::sync::mpsc::Sender<pb::Operation>,
    tonic::Streaming<pb::OperationResult>,
) {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let results = client.operations(outgoing).await.unwrap().into_inner();
    (sender, results)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_answers_every_operation_and_an_invalid_one_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let (sender, mut results) = open(&mut client).await;
    let count = 3000_u64;
    let sending = tokio::spawn(async move {
        for id in 0..count {
            let key = format!("k{id}");
            let next = match id % 5 {
                0 => Operation::Write(write(&key, b"v", &[("a", 1)])),
                1 => Operation::Write(write("", b"invalid", &[])),
                2 => Operation::Read(read("missing")),
                3 => Operation::Delete(delete(&key, &[("a", 1)])),
                _ => Operation::Repair(pb::RepairRequest {
                    tenant_id: "tenant".into(),
                    key,
                    value: b"r".to_vec(),
                    vector_clock: wire_clock(&[("a", 1)]),
                }),
            };
            sender.send(operation(id, next)).await.unwrap();
        }
        sender
            .send(pb::Operation {
                id: count,
                operation: None,
            })
            .await
            .unwrap();
    });
    let mut seen = BTreeMap::new();
    while let Some(result) = results.next().await {
        let result = result.unwrap();
        let id = result.id;
        assert!(seen.insert(id, answer(result)).is_none(), "{id} twice");
    }
    sending.await.unwrap();
    assert_eq!(seen.len() as u64, count + 1);
    for (id, answer) in &seen {
        match id % 5 {
            0 if *id < count => assert!(matches!(answer, Ok(Outcome::Write(write)) if write.applied)),
            0 | 1 => assert_eq!(*answer, INVALID),
            2 => assert_eq!(*answer, NOT_FOUND),
            3 => assert!(matches!(answer, Ok(Outcome::Delete(delete)) if delete.applied)),
            _ => assert!(matches!(answer, Ok(Outcome::Repair(repair)) if repair.applied)),
        }
    }
    assert_eq!(client.read(read("k0")).await.unwrap().into_inner().value, b"v");
    assert_eq!(client.read(read("k4")).await.unwrap().into_inner().value, b"r");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_results_is_made_to_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // In the end there are answers that nobody takes: it is not to wait for that.
    config.server.shutdown_timeout = Duration::from_secs(1);
    let node = start(&config).await;
    let mut client = client(node.address());
    client
        .write(write("large", &vec![7; 1 << 20], &[("a", 1)]))
        .await
        .unwrap();
    let (sender, mut results) = open(&mut client).await;
    // More questions than buffers on the way hold, and far more answers.
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let count = 400_000;
    let sending = tokio::spawn(async move {
        for id in 0..count {
            let next = Operation::Read(read("large"));
            if sender.send(operation(id, next)).await.is_err() {
                break;
            }
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut last = u64::MAX;
    eventually("sending comes to a halt", async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::Relaxed);
        std::mem::replace(&mut last, now) == now
    })
    .await;
    let taken = node.health().requests.reads.load(Ordering::Relaxed);
    assert!(taken <= 400, "{taken} operations were carried out for nobody");
    assert!(sent.load(Ordering::Relaxed) < count, "everything was sent");
    // The others are served, and the stream goes on as soon as its results are taken.
    assert!(client.read(read("large")).await.is_ok());
    for _ in 0..500 {
        assert!(matches!(
            answer(results.next().await.unwrap().unwrap()),
            Ok(Outcome::Read(_))
        ));
    }
    sending.abort();
    drop((results, client));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_lives_on_and_ends_when_the_node_stops() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let (sender, mut results) = open(&mut client).await;
    sender
        .send(operation(1, Operation::Write(write("k", b"v", &[]))))
        .await
        .unwrap();
    assert!(answer(results.next().await.unwrap().unwrap()).is_ok());
    // A request that made no progress for so long would be ended.
    tokio::time::sleep(Duration::from_secs(11)).await;
    sender.send(operation(2, Operation::Read(read("k")))).await.unwrap();
    let again = results.next().await.unwrap().unwrap();
    assert_eq!((again.id, value(&answer(again))), (2, &b"v"[..]));
    let begun = Instant::now();
    node.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "it held up the stop");
    let end = results.next().await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_budget_of_requests_passes_through_one_stream() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let (sender, mut results) = open(&mut client).await;
    // 180 MiB, where 128 MiB may be under way at once.
    let count = 90_u64;
    let sending = tokio::spawn(async move {
        for id in 0..count {
            let next = Operation::Write(write("k", &vec![7; 2 << 20], &[("a", id as i64 + 1)]));
            sender.send(operation(id, next)).await.unwrap();
        }
    });
    let mut done = 0;
    while let Some(result) = results.next().await {
        match answer(result.unwrap()) {
            Ok(Outcome::Write(_)) => done += 1,
            // The memtables may be full for a while; but no write is refused for what the stream has carried before.
            Err((code, _)) => assert_eq!(code, Code::ResourceExhausted),
            other => panic!("{other:?}"),
        }
    }
    sending.await.unwrap();
    assert!(done > 0);
    node.shutdown().await;
}

/// Each step of a batch may take nearly the time that the whole has.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_the_time_of_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.server.read_timeout = Duration::from_millis(1500);
    config.server.write_timeout = Duration::from_millis(1500);
    config.server.max_queue_delay = Duration::ZERO;
    let node = start(&config).await;
    let mut client = client(node.address());
    let faults = &node.requests().handles.faults;
    let names: Vec<String> = node.tree().children().into_iter().map(|child| child.name).collect();
    let caches = names.iter().filter(|name| name.starts_with("cache-"));
    let slow = caches
        .map(|name| (name.as_str(), MESSAGE))
        .chain([("wal", "before-sync")]);
    for (actor, point) in slow {
        let stall = injection(actor, point, Fault::Stall(Duration::from_millis(1000)));
        faults.inject(stall).unwrap();
    }
    let begun = Instant::now();
    // Without clocks, so that each is looked at first.
    let operations = (0..20).map(|n| write(&format!("k{n}"), b"v", &[])).collect();
    let written = batch_write(&mut client, operations).await;
    assert!(faults.armed().is_empty(), "{:?}", faults.armed());
    for answer in written {
        assert!(
            matches!(answer, Err((Code::Unavailable, _))),
            "{answer:?}, after {:?}",
            begun.elapsed()
        );
    }
    node.shutdown().await;
}
