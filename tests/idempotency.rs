//! A write that is sent again with its idempotency key is applied once, and answered the same: at once, after a crash of
//! any actor, after a crash of the process.

mod common;

use common::*;
use pairdb_node::actors::faults::Fault;
use pairdb_node::node::Node;
use pairdb_node::rpc::pb;
use pairdb_node::rpc::pb::operation_result::Result as Outcome;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

fn named(key: &str, value: &[u8], clock: &[(&str, i64)], id: &str) -> pb::WriteRequest {
    pb::WriteRequest {
        idempotency_key: id.to_owned(),
        ..write(key, value, clock)
    }
}

/// Changes that were applied: their numbers have no gaps.
fn changes(node: &Node) -> u64 {
    node.requests().handles.published.applied()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_is_applied_and_all_are_answered_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let client = client(node.address());
    for round in 0..20 {
        let key = format!("k{round}");
        let calls: Vec<_> = (0..30)
            .map(|n| {
                // Another value, and even another clock: it is the name that counts.
                let clock: &[(&str, i64)] = if n % 3 == 0 { &[("c", 7)] } else { &[] };
                let (mut client, request) = (client.clone(), named(&key, format!("v{n}").as_bytes(), clock, "id"));
                tokio::spawn(async move { client.write(request).await.unwrap().into_inner() })
            })
            .collect();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.unwrap());
        }
        assert!(answers[0].success && answers[0].applied);
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        assert_eq!(changes(&node), round + 1);
        let held = client.clone().read(read(&key)).await.unwrap().into_inner();
        assert_eq!(
            (held.vector_clock, held.siblings.len()),
            (answers[0].updated_vector_clock.clone(), 0)
        );
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_that_of_one_key_of_one_tenant_and_of_whatever_is_done_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let first = client.write(named("k", b"one", &[], "id")).await.unwrap().into_inner();
    client.write(write("k", b"two", &[])).await.unwrap();
    let again = client
        .write(named("k", b"three", &[("z", 9)], "id"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, first);
    let delete_request = pb::DeleteRequest {
        idempotency_key: "id".into(),
        ..delete("k", &[])
    };
    let deleted = client.delete(delete_request.clone()).await.unwrap().into_inner();
    assert_eq!(deleted.updated_vector_clock, first.updated_vector_clock);
    assert_eq!(client.read(read("k")).await.unwrap().into_inner().value, b"two");
    assert_eq!(changes(&node), 2);
    // Neither another key nor another tenant knows it.
    client.write(named("other", b"v", &[], "id")).await.unwrap();
    let other_tenant = pb::WriteRequest {
        tenant_id: "other".into(),
        ..named("k", b"v", &[], "id")
    };
    client.write(other_tenant).await.unwrap();
    assert_eq!(changes(&node), 4);
    // A delete may be named as well.
    let named_delete = pb::DeleteRequest {
        idempotency_key: "delete".into(),
        ..delete_request
    };
    let gone = client.delete(named_delete.clone()).await.unwrap().into_inner();
    client.write(write("k", b"back", &[])).await.unwrap();
    assert_eq!(client.delete(named_delete).await.unwrap().into_inner(), gone);
    assert_eq!(client.read(read("k")).await.unwrap().into_inner().value, b"back");
    let long = client.write(named("k", b"v", &[], &"x".repeat(257))).await.unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument);
    client.write(named("k", b"v", &[], &"x".repeat(256))).await.unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_may_hold_the_same_write_twice() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let operations: Vec<_> = (0..100)
        .map(|n| named("k", b"v", &[], &format!("id{}", n % 10)))
        .collect();
    let batch = pb::BatchWriteRequest { operations };
    for _ in 0..3 {
        let results = client.batch_write(batch.clone()).await.unwrap().into_inner().results;
        let written = |result: &pb::OperationResult| match &result.result {
            Some(Outcome::Write(write)) => write.clone(),
            other => panic!("{other:?}"),
        };
        for (n, result) in results.iter().enumerate() {
            assert_eq!(written(result), written(&results[n % 10]));
        }
        assert_eq!(changes(&node), 10);
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_window_a_name_is_a_new_one_and_without_a_window_each_is() {
    for window in [Duration::from_millis(300), Duration::ZERO] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.storage.idempotency_window = window;
        let node = start(&config).await;
        let mut client = client(node.address());
        let begun = Instant::now();
        client.write(named("k", b"one", &[], "id")).await.unwrap();
        client.write(named("k", b"two", &[], "id")).await.unwrap();
        let soon = changes(&node);
        if begun.elapsed() < window || window.is_zero() {
            assert_eq!(soon, if window.is_zero() { 2 } else { 1 });
        }
        let address = node.address();
        eventually("it is applied again", async || {
            common::client(address)
                .write(named("k", b"later", &[], "id"))
                .await
                .unwrap();
            changes(&node) > soon
        })
        .await;
        assert!(begun.elapsed() >= window);
        assert_eq!(client.read(read("k")).await.unwrap().into_inner().value, b"later");
        node.shutdown().await;
    }
}

/// Sends a request until it is answered.
async fn insist(client: &mut Client, request: &pb::WriteRequest) -> pb::WriteResponse {
    let begun = Instant::now();
    loop {
        match client.write(request.clone()).await {
            Ok(answer) => return answer.into_inner(),
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "no answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_applied_once_although_actors_die() {
    const WRITERS: u64 = 6;
    const WRITES: u64 = 150;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(32);
    config.commit_log.segment_size = bytesize::ByteSize::kib(64);
    let node = start(&config).await;
    let done = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (client, done) = (client(node.address()), Arc::clone(&done));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                for n in 0..WRITES {
                    let request = named(
                        &format!("w{writer}-{}", n % 5),
                        format!("{n}").as_bytes(),
                        &[],
                        &format!("{n}"),
                    );
                    // Two at once, each as stubborn as the other.
                    let (mut one, mut two) = (client.clone(), client.clone());
                    let (first, second) = tokio::join!(insist(&mut one, &request), insist(&mut two, &request));
                    assert_eq!(first, second);
                    answers.push((request, first));
                    done.fetch_add(1, Ordering::Relaxed);
                }
                answers
            })
        })
        .collect();
    let mut kills = 0;
    while done.load(Ordering::Relaxed) < WRITERS * WRITES - 60 {
        let before = done.load(Ordering::Relaxed);
        if node.tree().kill(["wal", "memtable"][kills % 2]) {
            kills += 1;
        }
        eventually("writes are answered", async || {
            done.load(Ordering::Relaxed) > before + 10
        })
        .await;
    }
    let mut answers = Vec::new();
    for writer in writers {
        answers.extend(writer.await.unwrap());
    }
    assert!(kills > 10, "{kills} kills");
    assert_eq!(changes(&node), WRITERS * WRITES, "each was logged once");
    let mut client = client(node.address());
    for (request, answer) in &answers {
        assert_eq!(insist(&mut client, request).await, *answer);
    }
    assert_eq!(changes(&node), WRITERS * WRITES);
    node.shutdown().await;
    // And so after an orderly stop.
    let node = start(&config).await;
    let mut client = common::client(node.address());
    for (request, answer) in &answers {
        assert_eq!(insist(&mut client, request).await, *answer);
    }
    assert_eq!(changes(&node), WRITERS * WRITES);
    node.shutdown().await;
}

async fn applied_seq(client: &mut Client) -> u64 {
    let health = client
        .health_check(pb::HealthCheckRequest {})
        .await
        .unwrap()
        .into_inner();
    health.metrics["applied_seq"].parse().unwrap()
}

/// Writes its keys in turn until the node is gone. Returns the request that was not answered, if there is one.
async fn write_on(
    addr: String,
    writer: u64,
    mut first: Option<pb::WriteRequest>,
    mut number: u64,
) -> (
    Vec<(pb::WriteRequest, pb::WriteResponse)>,
    Option<pb::WriteRequest>,
    u64,
) {
    let mut client = client(addr);
    let mut answers = Vec::new();
    loop {
        let request = first.take().unwrap_or_else(|| {
            number += 1;
            named(
                &format!("w{writer}-{}", number % 7),
                &[7; 100],
                &[],
                &format!("{writer}-{number}"),
            )
        });
        match client.write(request.clone()).await {
            Ok(answer) => answers.push((request, answer.into_inner())),
            Err(_status) => return (answers, Some(request), number),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_applied_once_although_the_process_is_killed_and_the_log_deleted() {
    const WRITERS: u64 = 8;
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    // Small, so that most of the log is gone by the next start.
    let environment = [
        ("PAIRDB__MEM_TABLE__FLUSH_THRESHOLD", "100KiB"),
        ("PAIRDB__COMMIT_LOG__SEGMENT_SIZE", "64KiB"),
        ("PAIRDB__LOGGING__LEVEL", "warn"),
    ];
    let mut answers: Vec<(pb::WriteRequest, pb::WriteResponse)> = Vec::new();
    let mut open: Vec<(Option<pb::WriteRequest>, u64)> = vec![(None, 0); WRITERS as usize];
    for round in 0..8 {
        let mut node = Process::start(dir.path(), port, &environment);
        let mut client = client(&node.addr);
        for (request, answer) in answers.iter().rev().take(300).chain(answers.iter().step_by(17)) {
            assert_eq!(
                client.write(request.clone()).await.unwrap().into_inner(),
                *answer,
                "round {round}"
            );
        }
        let tasks: Vec<_> = (0..)
            .zip(open.drain(..))
            .map(|(writer, (first, number))| tokio::spawn(write_on(node.addr.clone(), writer, first, number)))
            .collect();
        tokio::time::sleep(Duration::from_millis(150 + 40 * round)).await;
        node.kill();
        for task in tasks {
            let (answered, unanswered, number) = task.await.unwrap();
            answers.extend(answered);
            open.push((unanswered, number));
        }
    }
    let mut node = Process::start(dir.path(), port, &environment);
    let mut client = client(&node.addr);
    for request in open.iter().filter_map(|(request, _)| request.as_ref()) {
        answers.push((
            request.clone(),
            client.write(request.clone()).await.unwrap().into_inner(),
        ));
    }
    for (request, answer) in &answers {
        assert_eq!(client.write(request.clone()).await.unwrap().into_inner(), *answer);
    }
    let names: u64 = open.iter().map(|(_, number)| number).sum();
    assert_eq!(answers.len() as u64, names);
    assert!(names > 1000, "only {names} writes");
    assert_eq!(applied_seq(&mut client).await, names, "each was logged once");
    let log = dir.path().join("data/commitlog");
    assert!(log.join("REMEMBERED").exists());
    assert!(
        !log.join("commitlog-000000000001.log").exists(),
        "the log is as long as it was"
    );
    assert_eq!(node.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_follow_from_the_write_survives_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let environment = [("PAIRDB__LOGGING__LEVEL", "warn")];
    let mut node = Process::start(dir.path(), port, &environment);
    let mut client = client(&node.addr);
    client.write(write("k", b"newer", &[("a", 5)])).await.unwrap();
    let stale = named("k", b"stale", &[("a", 2)], "stale");
    let concurrent = named("k", b"concurrent", &[("b", 1)], "concurrent");
    let kept_out = client.write(stale.clone()).await.unwrap().into_inner();
    assert!(kept_out.success && !kept_out.applied);
    assert_eq!(kept_out.updated_vector_clock, wire_clock(&[("a", 5)]));
    let sibling = client.write(concurrent.clone()).await.unwrap().into_inner();
    assert_eq!(sibling.updated_vector_clock, wire_clock(&[("a", 5), ("b", 1)]));
    client.write(write("k", b"after", &[("a", 6), ("b", 2)])).await.unwrap();
    for _ in 0..2 {
        node.kill();
        node = Process::start(dir.path(), port, &environment);
        let mut client = common::client(&node.addr);
        assert_eq!(client.write(stale.clone()).await.unwrap().into_inner(), kept_out);
        assert_eq!(client.write(concurrent.clone()).await.unwrap().into_inner(), sibling);
        assert_eq!(applied_seq(&mut client).await, 4);
    }
    assert_eq!(node.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_of_remembered_writes_is_named_at_the_start_and_by_verify() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(32);
    config.commit_log.segment_size = bytesize::ByteSize::kib(64);
    let node = start(&config).await;
    let mut client = client(node.address());
    let file = dir.path().join("data/commitlog/REMEMBERED");
    let mut n = 0;
    eventually("a segment is deleted", async || {
        for _ in 0..200 {
            n += 1;
            client
                .write(named(&format!("k{n}"), &[7; 500], &[], "id"))
                .await
                .unwrap();
        }
        file.exists()
    })
    .await;
    node.shutdown().await;
    let mut content = std::fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&file, content).unwrap();
    let refused = Node::start(&config, Arc::new(pairdb_node::storage::fs::RealFs))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("REMEMBERED") && refused.contains("checksum"),
        "{refused}"
    );
    let verified = binary(&["verify", "--data-dir", dir.path().join("data").to_str().unwrap()])
        .output()
        .unwrap();
    assert!(!verified.status.success());
    assert!(String::from_utf8_lossy(&[verified.stdout, verified.stderr].concat()).contains("REMEMBERED"));
    // Without it the node starts.
    std::fs::remove_file(&file).unwrap();
    start(&config).await.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_refused_may_be_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = pairdb_node::storage::fs::SimFs::default();
    let mut config = config(dir.path());
    // Nobody measures: the log itself meets the full disk.
    config.disk.check_interval = Duration::from_secs(3600);
    let node = start_on(&config, Arc::new(disk.clone())).await;
    let mut client = client(node.address());
    client.write(named("k", b"first", &[("a", 1)], "first")).await.unwrap();
    disk.set_space(Some(0));
    let refused: Status = client
        .write(named("k", &[7; 1 << 20], &[("a", 2)], "second"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    disk.set_space(None);
    let again = client
        .write(named("k", b"second", &[("a", 2)], "second"))
        .await
        .unwrap()
        .into_inner();
    assert!(again.applied);
    assert_eq!(client.read(read("k")).await.unwrap().into_inner().value, b"second");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_answers_before_an_orderly_stop_are_given_again_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let node = start(&config).await;
    let client_ = client(node.address());
    client_.clone().write(write("k", b"newer", &[("c", 9)])).await.unwrap();
    // The writes are in the log and applied, and the node stops before they are answered.
    let stall = injection("memtable", "before-answer", Fault::Stall(Duration::from_millis(700)));
    node.requests().handles.faults.inject(stall).unwrap();
    let requests = [
        named("k", b"stale", &[("c", 1)], "stale"),
        named("k", b"concurrent", &[("d", 1)], "concurrent"),
    ];
    let before = changes(&node);
    let operations = requests.to_vec();
    let mut sender = client_.clone();
    let sending = tokio::spawn(async move { sender.batch_write(pb::BatchWriteRequest { operations }).await });
    eventually("they are applied", async || changes(&node) == before + 2).await;
    sending.abort();
    drop(client_);
    node.shutdown().await;

    let node = start(&config).await;
    let mut client = client(node.address());
    let [stale, concurrent] = requests;
    let stale = client.write(stale).await.unwrap().into_inner();
    assert!(!stale.applied, "{stale:?}");
    assert_eq!(stale.updated_vector_clock, wire_clock(&[("c", 9)]));
    let concurrent = client.write(concurrent).await.unwrap().into_inner();
    assert!(concurrent.applied, "{concurrent:?}");
    assert_eq!(concurrent.updated_vector_clock, wire_clock(&[("c", 9), ("d", 1)]));
    assert_eq!(changes(&node), before + 2, "they were applied again");
    node.shutdown().await;
}
