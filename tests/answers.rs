//! Answers that clients ask for and do not take: what they hold is bounded, in bytes, and the others are answered.

mod common;

use common::*;
use pairdb_node::actors::answer_room::{ALL_BYTES, AnswerRoom, CONNECTION_BYTES, STREAMED_BYTES, SURE_BYTES};
use pairdb_node::rpc::pb;
use pairdb_node::rpc::pb::operation::Operation;
use pairdb_node::rpc::pb::operation_result::Result as Outcome;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

const MIB: usize = 1 << 20;
const VALUE: usize = 10 * MIB;
/// Operations of each stream, of which nothing is taken.
const READS: u64 = 60;

/// A stream that is open as long as both are there.
type Asked = (mpsc::Sender<pb::Operation>, Streaming<pb::OperationResult>);

/// Has a stream read the large value many times.
async fn ask(client: &Client) -> Asked {
    let (sender, operations) = mpsc::channel(READS as usize);
    for id in 0..READS {
        let operation = Some(Operation::Read(read("large")));
        sender.send(pb::Operation { id, operation }).await.unwrap();
    }
    let results = client.clone().operations(ReceiverStream::new(operations)).await;
    (sender, results.unwrap().into_inner())
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
        // However slow the machine is: those that take nothing are to stay.
        ("PAIRDB__SERVER__READ_TIMEOUT", "10m"),
    ];
    let node = Process::start(dir.path(), free_port(), &environment);
    let mut other = client(&node.addr);
    other.write(write("large", &vec![7; VALUE], &[("c", 1)])).await.unwrap();
    other.write(write("small", b"v", &[("c", 1)])).await.unwrap();
    other.read(read("large")).await.unwrap();

    let first = client(&node.addr);
    let (_sender, mut results) = ask(&first).await;
    eventually("its room is used up", async || {
        waiting(&other).await > STREAMED_BYTES - VALUE
    })
    .await;
    // Calls of their own are answered, on that connection and on another.
    for client in [&first, &other] {
        let found = client.clone().read(read("large")).await.unwrap().into_inner();
        assert_eq!(found.value.len(), VALUE);
    }

    let mut others = Vec::new();
    for _ in 0..12 {
        let client = client(&node.addr);
        others.push((ask(&client).await, client));
    }
    // Each is answered as far as it may be, and the next gets what is left.
    let mut held = 0;
    eventually("nobody gets more", async || {
        held = waiting(&other).await;
        held > ALL_BYTES - VALUE
    })
    .await;
    assert!(held <= ALL_BYTES + 14 * SURE_BYTES, "{held}");
    assert_eq!(other.read(read("small")).await.unwrap().into_inner().value, b"v");
    // Where there is no room left, what would need much is refused at once, and not waited with.
    let batch = pb::BatchReadRequest {
        operations: vec![read("large")],
    };
    for refused in [
        other.read(read("large")).await.unwrap_err(),
        other.batch_read(batch).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(refused.message().contains("wait to be taken"), "{refused}");
    }
    let bound = 2 * (2 * 16 + 32) + 2 + 128 + 96;
    let peak = node.peak_memory() as usize / MIB;
    println!("peak {peak} MiB, bound {bound} MiB");
    assert!(peak < bound, "peak {peak} MiB, bound {bound} MiB");

    // Who takes them gets all of them; and who goes away holds nothing.
    drop(others);
    eventually("the others are gone", async || waiting(&other).await <= STREAMED_BYTES).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_take_nothing_give_others_their_room_and_one_that_takes_slowly_stays() {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::start(dir.path(), free_port(), &[("PAIRDB__SERVER__READ_TIMEOUT", "5s")]);
    let mut other = client(&node.addr);
    other.write(write("large", &vec![7; VALUE], &[("c", 1)])).await.unwrap();
    let slow = client(&node.addr);
    let (_sender, mut results) = ask(&slow).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        let client = client(&node.addr);
        idle.push((ask(&client).await, client));
    }
    eventually("there is no room left", async || {
        waiting(&other).await > ALL_BYTES - VALUE
    })
    .await;
    let (begun, mut pace) = (Instant::now(), tokio::time::interval(Duration::from_secs(1)));
    let mut taken = 0;
    let mut take = async || {
        let result = results.message().await.expect("who takes answers stays").unwrap();
        assert!(matches!(result.result, Some(Outcome::Read(_))), "{:?}", result.result);
        taken += 1;
        taken
    };
    let found = loop {
        pace.tick().await;
        take().await;
        match other.read(read("large")).await {
            Ok(found) => break found.into_inner(),
            Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}"),
        }
        assert!(begun.elapsed() < PATIENCE, "nobody gives room");
    };
    assert_eq!(found.value.len(), VALUE);
    let log = std::fs::read_to_string(dir.path().join("node.log")).unwrap();
    assert!(
        log.contains("a connection is closed: its client takes no answers"),
        "{log}"
    );
    while take().await < READS {}
}

#[test]
fn a_connection_is_in_the_way_when_it_takes_nothing_and_others_are_refused() {
    let room: Arc<AnswerRoom> = Arc::default();
    let connections: Vec<_> = (0..40).map(|_| room.of_connection()).collect();
    let (first, last) = (&connections[0], &connections[39]);
    let mut held = vec![first.try_hold(VALUE).unwrap()];
    assert!(!first.is_in_the_way(), "it is looked at for the first time");
    assert!(!first.is_in_the_way(), "nobody wants its room");
    // Past its own bound it is its own fault.
    assert!(first.try_hold_streamed(STREAMED_BYTES).is_none());
    assert!(!first.is_in_the_way());
    for connection in &connections[1..] {
        held.extend(std::iter::from_fn(|| connection.try_hold(MIB)));
    }
    let refused = || assert!(last.try_hold(VALUE).is_none());
    refused();
    first.taken(SURE_BYTES);
    assert!(!first.is_in_the_way(), "it takes what it asked for");
    refused();
    assert!(first.is_in_the_way());
    assert!(!first.is_in_the_way(), "nobody was refused since");
    assert!(!last.is_in_the_way(), "it holds nothing");
    refused();
    assert!(!last.is_in_the_way(), "it holds nothing");
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
