//! Faults that are injected into the actors of streams: what was written arrives all the same, and a stream that cannot go on
//! fails alone.

mod common;
#[path = "common/site.rs"]
mod site;
#[path = "common/streaming.rs"]
mod streaming;

use common::*;
use pairdb_node::actors::faults::{BEFORE_SAVE, DISK_IO, Fault, Faults, START};
use pairdb_node::actors::health::Status;
use pairdb_node::actors::supervisor::ChildEnd;
use pairdb_node::node::Node;
use pairdb_node::rpc::pb;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use streaming::*;

/// The actor of the stream to the node `to`.
const STREAM: &str = "stream-to";
/// Keys that are copied: three batches or more, and two parts.
const KEYS: usize = 600;
/// Keys that are written to meanwhile.
const LIVE: u64 = 20;

/// Writes all keys anew.
async fn fill(client: &Client, round: i64) {
    let operation = |n| write(&format!("k{n:04}"), &[round as u8; 4000], &[("c", round)]);
    for keys in (0..KEYS).collect::<Vec<_>>().chunks(300) {
        let operations = keys.iter().map(operation).collect();
        let answer = client.clone().batch_write(pb::BatchWriteRequest { operations }).await;
        assert_eq!(answer.unwrap().into_inner().results.len(), keys.len());
    }
}

/// Writes ascending numbers to a few keys until it is stopped.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    fn begin(node: &Node, round: i64) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count, mut client) = (Arc::clone(&stop), Arc::clone(&written), client(node.address()));
        let task = tokio::spawn(async move {
            for number in 1.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("live-{}", number as u64 % LIVE);
                let clock = [("c", round * 1_000_000 + number)];
                client.write(write(&key, &number.to_le_bytes(), &clock)).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, written, task }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

async fn caught_up(node: &Node) {
    eventually("the target has everything", async || {
        let status = node.requests().streaming.status("to").unwrap();
        status.state.as_str() == "completed" && status.backlog.changes == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_misses_nothing_whatever_its_actors_suffer_at_each_point() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (node(dir.path(), "from", 0).await, node(dir.path(), "to", 0).await);
    let here = client(from.address());
    let faults = Arc::clone(&from.requests().handles.faults);
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    completed(&here, "to").await;
    assert!(faults.actors().iter().any(|actor| actor == STREAM), "it is listed");
    let points = Faults::points(STREAM);
    assert_eq!(points.len(), 7, "{points:?}");
    let kinds = [
        Fault::Panic,
        Fault::Stall(Duration::from_millis(20)),
        Fault::Kill,
        Fault::Error,
    ];
    let targets = points
        .into_iter()
        .map(|point| (STREAM, point))
        .chain([("streams", BEFORE_SAVE)]);
    for (round, (actor, point)) in (1..).zip(targets) {
        let arm = || {
            for kind in kinds {
                faults.inject(injection(actor, point, kind)).unwrap();
                if point == "message" {
                    // It has no message but that its work ended.
                    faults.inject(injection(actor, "before-forward", Fault::Error)).unwrap();
                }
            }
        };
        if actor == STREAM {
            arm();
        }
        // What is injected stays for the actor of the next stream. The target has nothing of what that copies.
        stop_stream(&here, "to").await;
        fill(&here, round).await;
        let writer = Writer::begin(&from, round);
        start_stream(&here, "to", to.address(), &WHOLE_RING).await;
        if actor != STREAM {
            // An order that cannot be saved is refused.
            arm();
        }
        eventually(&format!("all happens to {actor} at {point}"), async || {
            let is_done = faults.armed().is_empty();
            if point == "start" && !is_done {
                let _ = faults.kill(actor);
            }
            is_done
        })
        .await;
        completed(&here, "to").await;
        let enough = writer.written() + 100;
        eventually("more is written", async || writer.written() > enough).await;
        writer.end().await;
        caught_up(&from).await;
        assert_same(&held(&to), &held(&from));
        let happened = faults.happened();
        for kind in kinds {
            assert!(
                happened
                    .iter()
                    .any(|h| (&*h.actor, &*h.point, h.fault) == (actor, point, kind)),
                "{kind} of {actor} at {point}"
            );
        }
        // The copy itself missed nothing: what a comparison finds is what is being written.
        let status = stream_status(&here, "to").await;
        assert!(status.keys_copied >= KEYS as i64, "{point}: {status:?}");
        assert!(status.keys_resent < 200, "{point}: {status:?}");
    }
    let ends = from.tree().ends();
    assert!(
        ends.iter()
            .any(|end| end.name == STREAM && end.reason.contains("injected panic")),
        "{ends:?}"
    );
    from.shutdown().await;
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_actor_dies_again_and_again_fails_alone_and_can_be_ordered_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = node_config(dir.path(), "from", 0);
    config.supervisor.max_restarts = 5;
    config.metrics.enabled = true;
    config.metrics.port = 0;
    let from = start(&config).await;
    let (to, other) = (node(dir.path(), "to", 0).await, node(dir.path(), "other", 0).await);
    let mut here = client(from.address());
    here.write(write("k", b"v", &[("c", 1)])).await.unwrap();
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    start_stream(&here, "other", other.address(), &WHOLE_RING).await;
    completed(&here, "to").await;
    completed(&here, "other").await;
    let faults = &from.requests().handles.faults;
    let mut always = injection(STREAM, "before-forward", Fault::Panic);
    always.times = 0;
    faults.inject(always).unwrap();
    here.write(write("k", b"w", &[("c", 2)])).await.unwrap();
    eventually("it fails", async || stream_status(&here, "to").await.state == "failed").await;
    let status = stream_status(&here, "to").await;
    assert!(
        status.problem.contains("ended 6 times within") && status.problem.contains("injected panic at before-forward"),
        "{status:?}"
    );
    let ends = from.tree().ends().into_iter().filter(|end| end.name == STREAM);
    assert_eq!(ends.map(|end| end.generation).max(), Some(6));
    eventually("nobody waits for it to be back", async || {
        from.tree().children().iter().all(|child| child.name != STREAM)
    })
    .await;
    let seen = site::metrics(&from).await;
    assert_eq!(
        (seen["streams{state=\"failed\"}"], seen["stream_stalled{target=\"to\"}"]),
        (1.0, 0.0),
        "it does not try again by itself"
    );
    // Nobody else minds.
    here.write(write("k", b"x", &[("c", 3)])).await.unwrap();
    eventually("the other stream goes on", async || {
        held(&other)
            .values()
            .next()
            .is_some_and(|all| all[0].1.as_deref() == Some(b"x"))
    })
    .await;
    assert_eq!(stream_status(&here, "other").await.state, "completed");
    let gave_up = tokio::time::timeout(Duration::ZERO, from.failed()).await;
    assert!(gave_up.is_err(), "the node gave up: {gave_up:?}");
    faults.clear(None);
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    completed(&here, "to").await;
    caught_up(&from).await;
    assert_same(&held(&to), &held(&from));
    from.shutdown().await;
    to.shutdown().await;
    other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_of_a_stream_that_makes_no_progress_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = node_config(dir.path(), "from", 0);
    config.supervisor.stuck_after = Duration::from_secs(2);
    let (from, to) = (start(&config).await, node(dir.path(), "to", 0).await);
    let here = client(from.address());
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    completed(&here, "to").await;
    let faults = &from.requests().handles.faults;
    let stall = Fault::Stall(Duration::from_secs(600));
    faults.inject(injection(STREAM, "message", stall)).unwrap();
    faults
        .inject(injection(STREAM, "before-forward", Fault::Error))
        .unwrap();
    insist(async || here.clone().write(write("k", b"v", &[("c", 1)])).await).await;
    eventually("what was written arrives", async || held(&to).len() == 1).await;
    assert!(faults.armed().is_empty());
    let ends = from.tree().ends();
    let is_told = |end: &ChildEnd| end.name == STREAM && end.reason.contains("makes no progress");
    assert!(ends.iter().any(is_told), "{ends:?}");
    from.shutdown().await;
    to.shutdown().await;
}

/// A disk that hangs is no reason to end the streams: how far they are is saved beside them.
#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_while_their_save_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = node_config(dir.path(), "from", 0);
    breakable(&mut config);
    config.supervisor.stuck_after = Duration::from_secs(1);
    let (from, to) = (start(&config).await, node(dir.path(), "to", 0).await);
    let here = client(from.address());
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    completed(&here, "to").await;
    let faults = &from.requests().handles.faults;
    let hangs = Fault::Stall(Duration::from_secs(4));
    faults.inject(injection(DISK_IO, "sync-other", hangs)).unwrap();
    insist(async || here.clone().write(write("k", b"v", &[("c", 1)])).await).await;
    eventually("it is saved how far they are", async || faults.armed().is_empty()).await;
    let begun = Instant::now();
    for n in 2.. {
        if begun.elapsed() > Duration::from_secs(3) {
            break;
        }
        insist(async || here.clone().write(write("k", b"v", &[("c", n)])).await).await;
        caught_up(&from).await;
    }
    let ends = from.tree().ends();
    assert!(!ends.iter().any(|end| end.name == "streams"), "{ends:?}");
    from.shutdown().await;
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_never_started_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (node(dir.path(), "from", 0).await, node(dir.path(), "to", 0).await);
    let here = client(from.address());
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    completed(&here, "to").await;
    let faults = &from.requests().handles.faults;
    let mut always = injection(STREAM, START, Fault::Panic);
    always.times = 0;
    faults.inject(always).unwrap();
    // The one that comes after it is another, which has never run.
    stop_stream(&here, "to").await;
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    let does_not_start = || {
        let (status, reasons) = from.health().status();
        status == Status::Degraded && reasons.contains(&format!("{STREAM} does not start"))
    };
    eventually("it is told", async || does_not_start()).await;
    faults.clear(None);
    completed(&here, "to").await;
    assert!(!does_not_start());
    from.shutdown().await;
    to.shutdown().await;
}
