//! Answers that clients ask for and do not take: what they hold is bounded, in bytes, and the others are answered.

mod common;

use common::*;
use pairdb_node::actors::answer_room::{ALL_BYTES, AnswerRoom, CONNECTION_BYTES, SURE_BYTES};
use pairdb_node::rpc::pb;
use pairdb_node::rpc::pb::operation::Operation;
use pairdb_node::rpc::pb::operation_result::Result as Outcome;
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::{Code, Streaming};

const MIB: usize = 1 << 20;
const VALUE: usize = 10 * MIB;
/// Operations of each stream, of which nothing is taken.
const READS: u64 = 60;

/// Has a stream read the large value many times.
async fn ask(client: &Client) -> Streaming<pb::OperationResult> {
    let reads = (0..READS).map(|id| pb::Operation {
        id,
        operation: Some(Operation::Read(read("large"))),
    });
    // It stays open: an end would not make the client take anything, but a stream is to be met as it is used.
    let operations = tokio_stream::StreamExt::chain(tokio_stream::iter(reads), tokio_stream::pending());
    client.clone().operations(operations).await.unwrap().into_inner()
}

async fn waiting(client: &Client) -> usize {
    let health = client.clone().health_check(pb::HealthCheckRequest {}).await.unwrap();
    health.into_inner().metrics["answer_bytes_waiting"].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_take_nothing_hold_no_more_than_the_stated_bound_and_the_others_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [
        ("PAIRDB__MEM_TABLE__MAX_SIZE", "16MiB"),
        ("PAIRDB__MEM_TABLE__FLUSH_THRESHOLD", "14MiB"),
        ("PAIRDB__CACHE__MAX_SIZE", "32MiB"),
    ];
    let node = Process::start(dir.path(), free_port(), &environment);
    let mut other = client(&node.addr);
    other.write(write("large", &vec![7; VALUE], &[("c", 1)])).await.unwrap();
    other.write(write("small", b"v", &[("c", 1)])).await.unwrap();
    other.read(read("large")).await.unwrap();

    let first = client(&node.addr);
    let mut results = ask(&first).await;
    eventually("its connection's room is used up", async || {
        waiting(&other).await > CONNECTION_BYTES - VALUE
    })
    .await;
    // A call of its own on that connection is not waited with.
    let refused = first.clone().read(read("large")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("wait to be taken"), "{refused}");
    let batch = pb::BatchReadRequest {
        operations: vec![read("large")],
    };
    let refused = first.clone().batch_read(batch).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(other.read(read("large")).await.unwrap().into_inner().value.len(), VALUE);

    let mut others = Vec::new();
    for _ in 0..12 {
        let client = client(&node.addr);
        others.push((ask(&client).await, client));
    }
    // Each is answered as far as it may be, and the next gets what is left.
    let mut before = usize::MAX;
    eventually("nobody gets more", async || {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = waiting(&other).await;
        std::mem::replace(&mut before, now) == now && now > CONNECTION_BYTES
    })
    .await;
    assert!(before <= ALL_BYTES + 14 * SURE_BYTES, "{before}");
    assert_eq!(other.read(read("small")).await.unwrap().into_inner().value, b"v");
    let bound = 2 * (2 * 16 + 32) + 2 + 128 + 96;
    let peak = node.peak_memory() as usize / MIB;
    println!("peak {peak} MiB, bound {bound} MiB");
    assert!(peak < bound, "peak {peak} MiB, bound {bound} MiB");

    // Who takes them gets all of them; and who goes away holds nothing.
    drop(others);
    let mut ids = BTreeSet::new();
    while ids.len() < READS as usize {
        let result = results.message().await.unwrap().unwrap();
        match result.result {
            Some(Outcome::Read(found)) => assert_eq!(found.value, vec![7; VALUE]),
            outcome => panic!("{outcome:?}"),
        }
        assert!(ids.insert(result.id));
    }
    eventually("nothing is held", async || waiting(&other).await == 0).await;
    first.clone().read(read("large")).await.unwrap();
}

#[tokio::test]
async fn a_connection_holds_no_more_than_is_left_to_the_others_but_a_little() {
    const STEP: usize = 16 << 10;
    let room: Arc<AnswerRoom> = Arc::default();
    let connections: Vec<_> = (0..40).map(|_| room.of_connection()).collect();
    let mut held = Vec::new();
    for connection in &connections {
        let (before, left) = (held.len(), ALL_BYTES.saturating_sub(room.held()));
        while let Some(more) = connection.try_hold(STEP) {
            held.push(more);
        }
        let own = (held.len() - before) * STEP;
        assert!(own >= SURE_BYTES, "one is left without");
        assert!(own <= CONNECTION_BYTES.min(left).max(SURE_BYTES), "{own} of {left}");
    }
    assert!(room.held() <= ALL_BYTES + connections.len() * SURE_BYTES);
    assert!(connections[39].try_hold(STEP).is_none());
    let waiting = {
        let connection = Arc::clone(&connections[0]);
        tokio::spawn(async move { drop(connection.hold(2 * VALUE).await) })
    };
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    held.clear();
    waiting.await.unwrap();
    assert!(room.held() == 0 && connections[0].is_empty());
    // More than it may ever hold passes alone.
    assert!(connections[0].try_hold(10 * ALL_BYTES).is_some());
}
