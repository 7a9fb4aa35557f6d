//! Streams: everything of the ranges reaches the target, and goes on reaching it, whatever breaks meanwhile.

mod common;
#[path = "common/streaming.rs"]
mod streaming;

use common::*;
use pairdb_node::actors::streaming::tap::{TAP_BYTES, Taps};
use pairdb_node::node::{Node, NodeError};
use pairdb_node::rpc::pb;
use pairdb_node::rpc::pb::storage_node_service_server::{StorageNodeService, StorageNodeServiceServer};
use pairdb_node::storage::fs::{FileSystem, RealFs, SimFs, Survival};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::ring::{self, HashRanges};
use pairdb_node::storage::stream_records::{self, Pass, Progress, Sent, StreamRecord};
use pairdb_node::storage::version::{Value, Version};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use streaming::*;
use tonic::{Code, Request, Response, Status};

/// A range that goes around, and one that does not: about half of the ring.
const HALF: [(u64, u64); 2] = [(u64::MAX - (1 << 61), 1 << 62), (1 << 63, (1 << 63) + (1 << 60))];

#[test]
fn places_are_the_first_bytes_of_sha_256_and_ranges_have_both_ends() {
    let place = |tenant, key| ring::place(&Key::new(tenant, key).unwrap());
    assert_eq!(place("tenant", "key"), 0x9358_2127_e2bf_98dc);
    assert_eq!(place("default", "greeting"), 0xf3c4_0f05_66c6_0c3f);
    assert_eq!(place("t", "ä"), 0x9963_f702_661b_be60);
    let ranges = |pairs: &[(u64, u64)]| pairs.iter().copied().collect::<HashRanges>();
    for (pairs, inside, outside) in [
        (&[(5, 9)][..], &[5, 7, 9][..], &[0, 4, 10, u64::MAX][..]),
        (&[(9, 5)], &[9, u64::MAX, 0, 5], &[6, 8]),
        (&[(7, 7)], &[0, 7, u64::MAX], &[]),
        (&[(1, 2), (4, 6), (3, 3 + 1)], &[1, 2, 3, 4, 5, 6], &[0, 7]),
        (&[], &[], &[0, u64::MAX]),
    ] {
        let ranges = ranges(pairs);
        for place in inside {
            assert!(ranges.contains(*place), "{ranges:?} lacks {place}");
        }
        for place in outside {
            assert!(!ranges.contains(*place), "{ranges:?} has {place}");
        }
    }
    assert_eq!(ranges(&[(4, 6), (1, 3)]), ranges(&[(1, 6)]));
    // What one place is left of does not become the whole ring.
    let upper = ranges(&[(1 << 63, 0)]);
    assert!(upper.contains(0) && upper.contains(u64::MAX) && !upper.contains(1));
    assert_eq!(upper.union(&upper), upper);
    let stored: HashRanges = serde_json::from_str(&serde_json::to_string(&upper).unwrap()).unwrap();
    assert_eq!(stored, upper);
    assert_eq!(ranges(&[(1, 3)]).union(&ranges(&[(3, 6)])), ranges(&[(1, 6)]));
}

/// Clients that write ascending numbers to keys of their own until they are told to stop, and sometimes delete.
struct Writers {
    writing: Writing,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Clone)]
struct Writing {
    address: SocketAddr,
    /// Keys of each writer, and bytes of each value.
    keys: i64,
    size: usize,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    slowest: Arc<Mutex<Duration>>,
}

impl Writing {
    async fn run(self, writer: u32) {
        let mut client = client(self.address);
        for number in 1_i64.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let key = format!("live-{writer}-{}", number % self.keys);
            let begun = Instant::now();
            let mut value = number.to_string().into_bytes();
            value.resize(self.size.max(value.len()), b'.');
            let done = if number % 17 == 0 {
                client.delete(delete(&key, &[("c", number)])).await.map(drop)
            } else {
                client.write(write(&key, &value, &[("c", number)])).await.map(drop)
            };
            match done {
                Ok(()) => {
                    self.written.fetch_add(1, Ordering::Relaxed);
                    let mut slowest = self.slowest.lock();
                    *slowest = slowest.max(begun.elapsed());
                }
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
            }
        }
    }
}

impl Writers {
    fn begin(address: SocketAddr, writers: u32, keys: i64, size: usize) -> Self {
        let writing = Writing {
            address,
            keys,
            size,
            stop: Arc::default(),
            written: Arc::default(),
            slowest: Arc::default(),
        };
        let tasks = (0..writers)
            .map(|writer| tokio::spawn(writing.clone().run(writer)))
            .collect();
        Self { writing, tasks }
    }

    fn written(&self) -> u64 {
        self.writing.written.load(Ordering::Relaxed)
    }

    async fn end(self) -> (u64, Duration) {
        self.writing.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        (
            self.writing.written.load(Ordering::Relaxed),
            *self.writing.slowest.lock(),
        )
    }
}

/// Fills a node with keys, in batches.
async fn fill(client: &Client, keys: usize, value: &[u8]) {
    let operations: Vec<_> = (0..keys)
        .map(|n| write(&format!("k{n:05}"), value, &[("c", 5)]))
        .collect();
    for operations in operations.chunks(500) {
        let operations = operations.to_vec();
        let batch = pb::BatchWriteRequest { operations };
        client.clone().batch_write(batch).await.unwrap();
    }
}

/// Waits until the target has acknowledged everything that was written until now.
async fn caught_up(node: &Node, target: &str) {
    let waits = async || {
        let status = node.requests().streaming.status(target).unwrap();
        status.state.as_str() == "completed" && status.backlog.changes == 0
    };
    eventually("the target has everything", waits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_ranges_arrive_with_all_that_they_have_while_they_are_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (node(dir.path(), "from", 0).await, node(dir.path(), "to", 0).await);
    let (mut here, mut there) = (client(from.address()), client(to.address()));
    fill(&here, 5000, &[7; 200]).await;
    for n in (0..5000).step_by(50) {
        here.delete(delete(&format!("k{n:05}"), &[("c", 6)])).await.unwrap();
        let sibling = write(&format!("k{:05}", n + 1), b"beside", &[("d", 1)]);
        here.write(sibling).await.unwrap();
    }
    let other_tenant = pb::WriteRequest {
        tenant_id: "another".into(),
        ..write("k", b"v", &[("c", 1)])
    };
    here.write(other_tenant).await.unwrap();
    // Newer, and older, at the target; of all keys, so that some are in the ranges.
    for n in (2..5000).step_by(50) {
        there
            .write(write(&format!("k{n:05}"), b"newer", &[("c", 9)]))
            .await
            .unwrap();
        let older = write(&format!("k{:05}", n + 1), b"older", &[("c", 1)]);
        there.write(older).await.unwrap();
    }
    let before = held(&to);
    let writers = Writers::begin(from.address(), 4, 300, 100);
    start_stream(&here, "to", to.address(), &HALF).await;
    completed(&here, "to").await;
    // What is written afterwards arrives as well.
    let enough = writers.written() + 500;
    eventually("more is written", async || writers.written() > enough).await;
    writers.end().await;
    caught_up(&from, "to").await;

    let mut expected = within(held(&from), &HALF);
    let in_ranges = expected.len();
    assert!(
        (1500..4500).contains(&in_ranges),
        "{in_ranges} keys in about half of the ring"
    );
    for (key, versions) in &before {
        let is_newer = versions[0].1.as_deref() == Some(b"newer");
        if is_newer || !expected.contains_key(key) {
            expected.insert(key.clone(), versions.clone());
        }
    }
    assert_same(&held(&to), &expected);
    let status = stream_status(&here, "to").await;
    assert!(status.active, "{status:?}");
    assert!(status.keys_copied as usize >= in_ranges - 4 * 300, "{status:?}");
    assert!(status.keys_copied as usize <= in_ranges + 4 * 300, "{status:?}");
    assert!(
        status.bytes_copied > 200 * 1500 && status.keys_streamed > 100,
        "{status:?}"
    );
    assert!(status.bytes_streamed > 80 * status.keys_streamed, "{status:?}");
    assert_eq!((status.keys_waiting, status.problem.as_str()), (0, ""));

    let health = here.health_check(pb::HealthCheckRequest {}).await.unwrap().into_inner();
    let words = format!("completed; {} keys copied", status.keys_copied);
    assert!(health.metrics["stream to to"].starts_with(&words), "{health:?}");
    assert_eq!(health.metrics["streams_completed"], "1");

    // StartStreaming told the node where the other is.
    let order = pb::ReplicateRequest {
        tenant_id: "tenant".into(),
        keys: vec!["k00002".into()],
        target_node_id: "to".into(),
        ..pb::ReplicateRequest::default()
    };
    assert_eq!(
        here.replicate_data(order).await.unwrap().into_inner().keys_replicated,
        1
    );
    stop_stream(&here, "to").await;
    let status = stream_status(&here, "to").await;
    assert_eq!((status.active, status.state.as_str()), (false, "not_found"));
    assert!(from.requests().handles.taps.is_idle());
    here.write(write("after", b"v", &[("c", 1)])).await.unwrap();
    assert_same(&held(&to), &expected);
    from.shutdown().await;
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_stalls_holds_up_no_write_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = node_config(dir.path(), "from", 0);
    config.server.write_timeout = Duration::from_secs(2);
    config.mem_table.flush_threshold = bytesize::ByteSize::mib(4);
    let (from, to) = (start(&config).await, node(dir.path(), "to", 0).await);
    let here = client(from.address());
    fill(&here, 1000, &[7; 100]).await;
    let proxy = Proxy::to(to.address()).await;
    start_stream(&here, "to", proxy.address, &WHOLE_RING).await;
    completed(&here, "to").await;

    proxy.set(Way::Stalled);
    let writers = Writers::begin(from.address(), 4, 200, 60_000);
    let overflows = || from.requests().streaming.status("to").unwrap().backlog.overflows;
    eventually("more waits than is kept", async || overflows() > 0).await;
    let much = writers.written() + 200;
    eventually("writes go on", async || writers.written() > much).await;
    let status = stream_status(&here, "to").await;
    assert_eq!(status.state, "copying", "it goes back: {status:?}");
    let most = i64::try_from(TAP_BYTES).unwrap() + (1 << 20);
    assert!(status.bytes_waiting <= most, "{status:?}");
    let mut asking = here.clone();
    eventually("it says so", async || {
        let health = asking
            .health_check(pb::HealthCheckRequest {})
            .await
            .unwrap()
            .into_inner();
        health.metrics["stream_overflows"] != "0"
            && health
                .metrics
                .get("reasons")
                .is_some_and(|why| why.contains("the stream to to"))
    })
    .await;
    proxy.set(Way::Open);
    let (written, slowest) = writers.end().await;
    assert!(
        written > 400 && slowest < Duration::from_secs(5),
        "{written} writes, {slowest:?}"
    );
    completed(&here, "to").await;
    caught_up(&from, "to").await;
    assert_same(&held(&to), &held(&from));
    from.shutdown().await;
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_so_slow_that_nothing_much_is_answered_in_time_is_got_over_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = node_config(dir.path(), "from", 0);
    config.server.write_timeout = Duration::from_millis(500);
    let (from, to) = (start(&config).await, node(dir.path(), "to", 0).await);
    let here = client(from.address());
    fill(&here, 1500, &[7; 1000]).await;
    let proxy = Proxy::to(to.address()).await;
    // What may be under way at a time takes sixteen times as long as an answer may.
    proxy.set(Way::Slow(512 << 10));
    start_stream(&here, "to", proxy.address, &WHOLE_RING).await;
    completed(&here, "to").await;
    assert_same(&held(&to), &held(&from));
    // And little was sent twice.
    assert!(proxy.passed() < 6 << 20, "{} bytes", proxy.passed());
    from.shutdown().await;
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_way_and_a_target_that_was_away_are_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let from = node(dir.path(), "from", 0).await;
    let port = free_port();
    let to = node(dir.path(), "to", port).await;
    let proxy = Proxy::to(to.address()).await;
    let here = client(from.address());
    // What was under way at a cut arrives together afterwards: far less than all.
    fill(&here, 16_000, &[7; 1000]).await;
    proxy.set(Way::Slow(8 << 20));
    let writers = Writers::begin(from.address(), 2, 300, 100);
    start_stream(&here, "to", proxy.address, &WHOLE_RING).await;
    let copied = async |more: i64| {
        let least = stream_status(&here, "to").await.keys_copied + more;
        eventually("it copies", async || {
            stream_status(&here, "to").await.keys_copied >= least
        })
        .await;
    };
    copied(500).await;
    for _ in 0..3 {
        proxy.set(Way::Cut);
        eventually("it is noticed", async || {
            !stream_status(&here, "to").await.problem.is_empty()
        })
        .await;
        proxy.set(Way::Slow(8 << 20));
        copied(500).await;
    }
    to.shutdown().await;
    eventually("it is noticed", async || {
        !stream_status(&here, "to").await.problem.is_empty()
    })
    .await;
    assert!(stream_status(&here, "to").await.active);
    proxy.set(Way::Open);
    let to = node(dir.path(), "to", port).await;
    completed(&here, "to").await;
    let (live, _) = writers.end().await;
    caught_up(&from, "to").await;
    assert_same(&held(&to), &held(&from));
    // Nothing was begun anew: what was acknowledged was not sent again.
    let status = stream_status(&here, "to").await;
    let most = 16_000 + i64::try_from(live).unwrap();
    assert!((16_000..=most).contains(&status.keys_copied), "{status:?}");
    from.shutdown().await;
    to.shutdown().await;
}

fn records(dir: &Path, id: &str) -> Vec<StreamRecord> {
    stream_records::load(&RealFs, &dir.join(id).join("data")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_killed_goes_on_where_it_was() {
    const KEYS: u64 = 6000;
    let dir = tempfile::tempdir().unwrap();
    let to = node(dir.path(), "to", 0).await;
    let proxy = Proxy::to(to.address()).await;
    let port = free_port();
    std::fs::create_dir_all(dir.path().join("from")).unwrap();
    let place = dir.path().join("from");
    let begin = || Process::start(&place, port, &[("NODE_ID", "from")]);
    let mut process = begin();
    let here = client(&process.addr);
    fill(&here, KEYS as usize, &[7; 1000]).await;
    proxy.set(Way::Slow(2 << 20));
    start_stream(&here, "to", proxy.address, &WHOLE_RING).await;
    let saved = || {
        records(dir.path(), "from")
            .pop()
            .unwrap_or_else(|| panic!("the order is not durable"))
    };
    assert_eq!(saved().target, "to");
    eventually("a part is saved", async || saved().sent.keys_copied > KEYS / 4).await;
    process.kill();
    let saved = saved();
    assert!(saved.sent.keys_copied < KEYS, "it was over too soon: {saved:?}");
    assert!(
        saved.progress.pass.as_ref().is_some_and(|pass| !pass.from.is_empty()),
        "{saved:?}"
    );
    proxy.set(Way::Open);
    // What was on its way arrives or not; then nothing does.
    let written = || to.health().requests.writes.load(Ordering::Relaxed);
    let mut before = u64::MAX;
    eventually("nothing is on its way", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        std::mem::replace(&mut before, written()) == written()
    })
    .await;

    let mut process = {
        drop(process);
        begin()
    };
    let status = stream_status(&here, "to").await;
    assert!(
        status.active && status.keys_copied as u64 >= saved.sent.keys_copied,
        "{status:?}"
    );
    here.clone().write(write("since", b"v", &[("c", 1)])).await.unwrap();
    completed(&here, "to").await;
    let again = written() - before;
    // A batch may have been counted and not yet noted when the record was made.
    let most = KEYS - saved.sent.keys_copied + 500 + 2;
    assert!(
        again <= most,
        "{again} keys were sent after the restart, {most} were left"
    );
    let status = stream_status(&here, "to").await;
    assert!((KEYS..KEYS + 503).contains(&(status.keys_copied as u64)), "{status:?}");
    assert_eq!(held(&to).len() as u64, KEYS + 1);

    // An orderly restart of a completed stream sends nothing again.
    process.terminate();
    let before = written();
    let mut process = {
        drop(process);
        begin()
    };
    completed(&here, "to").await;
    here.clone()
        .write(write("since then", b"v", &[("c", 1)]))
        .await
        .unwrap();
    eventually("it arrives", async || held(&to).len() as u64 == KEYS + 2).await;
    assert!(written() - before <= 2, "{} were sent", written() - before);
    // An end is as durable as a beginning.
    stop_stream(&here, "to").await;
    process.kill();
    let _process = {
        drop(process);
        begin()
    };
    assert_eq!(stream_status(&here, "to").await.state, "not_found");
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_while_actors_die_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (node(dir.path(), "from", 0).await, node(dir.path(), "to", 0).await);
    let here = client(from.address());
    fill(&here, 4000, &[7; 300]).await;
    let proxy = Proxy::to(to.address()).await;
    proxy.set(Way::Slow(3 << 20));
    let writers = Writers::begin(from.address(), 4, 200, 100);
    start_stream(&here, "to", proxy.address, &WHOLE_RING).await;
    let mut kills = 0;
    for round in 0..60 {
        let victim = ["stream-to", "memtable", "streams", "wal"][round % 4];
        kills += u32::from(from.tree().kill(victim));
        if round % 5 == 0 {
            to.tree().kill(["memtable", "wal"][round / 5 % 2]);
        }
        let written = writers.written();
        eventually("writes go on", async || writers.written() > written + 20).await;
        if round == 40 {
            proxy.set(Way::Open);
            completed(&here, "to").await;
        }
    }
    assert!(kills >= 50, "{kills} kills");
    writers.end().await;
    completed(&here, "to").await;
    caught_up(&from, "to").await;
    assert_same(&held(&to), &held(&from));
    let restarts = |name: &str| {
        let children = from.tree().children();
        children
            .iter()
            .find(|child| child.name == name)
            .map_or(0, |child| child.restarts())
    };
    assert!(
        restarts("stream-to") > 10 && restarts("streams") > 10,
        "{:?}",
        from.tree().children()
    );
    from.shutdown().await;
    to.shutdown().await;
}

/// A node between source and target that does not do all that it says.
struct Liar {
    node: Client,
    /// Keys whose first write it acknowledges and forgets.
    forgets: Mutex<BTreeSet<String>>,
    /// Whether it knows what the coordinator knows, and nothing more.
    is_plain: bool,
    /// What it answers to every write instead.
    refuses: Mutex<Option<Status>>,
}

#[tonic::async_trait]
impl StorageNodeService for Liar {
    async fn write(&self, request: Request<pb::WriteRequest>) -> Result<Response<pb::WriteResponse>, Status> {
        if let Some(status) = self.refuses.lock().clone() {
            return Err(status);
        }
        self.node.clone().write(request.into_inner()).await
    }

    async fn delete(&self, request: Request<pb::DeleteRequest>) -> Result<Response<pb::DeleteResponse>, Status> {
        self.node.clone().delete(request.into_inner()).await
    }

    async fn batch_write(
        &self,
        request: Request<pb::BatchWriteRequest>,
    ) -> Result<Response<pb::BatchResponse>, Status> {
        if self.is_plain {
            return Err(Status::unimplemented("no batches"));
        }
        let (mut kept, mut forgotten) = (Vec::new(), Vec::new());
        for (place, mut operation) in request.into_inner().operations.into_iter().enumerate() {
            if self.forgets.lock().remove(&operation.key) {
                // Every second one it takes for something older.
                if forgotten.len() % 2 == 0 {
                    operation.value = b"altered".to_vec();
                    operation.vector_clock = wire_clock(&[("c", 1)]);
                    self.node.clone().write(operation).await.unwrap();
                }
                forgotten.push(place);
            } else {
                kept.push(operation);
            }
        }
        let mut results = Vec::new();
        if !kept.is_empty() {
            let batch = pb::BatchWriteRequest { operations: kept };
            results = self.node.clone().batch_write(batch).await?.into_inner().results;
        }
        let done = pb::operation_result::Result::Write(pb::WriteResponse::default());
        for place in forgotten {
            let result = Some(done.clone());
            results.insert(place, pb::OperationResult { id: 0, result });
        }
        Ok(Response::new(pb::BatchResponse { results }))
    }

    async fn batch_delete(
        &self,
        request: Request<pb::BatchDeleteRequest>,
    ) -> Result<Response<pb::BatchResponse>, Status> {
        if self.is_plain {
            return Err(Status::unimplemented("no batches"));
        }
        self.node.clone().batch_delete(request.into_inner()).await
    }

    async fn compare_keys(
        &self,
        request: Request<pb::CompareKeysRequest>,
    ) -> Result<Response<pb::CompareKeysResponse>, Status> {
        if self.is_plain {
            return Err(Status::unimplemented("no comparison"));
        }
        self.node.clone().compare_keys(request.into_inner()).await
    }
}

async fn liar(node: &Node, forgets: BTreeSet<String>, is_plain: bool) -> (Arc<Liar>, SocketAddr) {
    let liar = Arc::new(Liar {
        node: client(node.address()),
        forgets: Mutex::new(forgets),
        is_plain,
        refuses: Mutex::new(None),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let service = StorageNodeServiceServer::from_arc(Arc::clone(&liar)).max_decoding_message_size(64 << 20);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    (liar, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_comparison_finds_missing_or_altered_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (node(dir.path(), "from", 0).await, node(dir.path(), "to", 0).await);
    let here = client(from.address());
    fill(&here, 3000, &[7; 100]).await;
    here.clone().delete(delete("k00001", &[("c", 6)])).await.unwrap();
    let forgets: BTreeSet<_> = (0..3000).step_by(100).map(|n| format!("k{n:05}")).collect();
    let (liar, address) = liar(&to, forgets.clone(), false).await;
    start_stream(&here, "to", address, &WHOLE_RING).await;
    completed(&here, "to").await;
    assert!(liar.forgets.lock().is_empty(), "nothing was forgotten");
    assert_same(&held(&to), &held(&from));
    let status = stream_status(&here, "to").await;
    assert_eq!(status.keys_resent, 30, "{status:?}");
    assert_eq!(status.keys_copied, 3000, "{status:?}");
    from.shutdown().await;
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_knows_only_plain_writes_gets_everything_and_one_that_refuses_fails_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (node(dir.path(), "from", 0).await, node(dir.path(), "to", 0).await);
    let here = client(from.address());
    fill(&here, 1000, &[7; 100]).await;
    here.clone().delete(delete("k00001", &[("c", 6)])).await.unwrap();
    let (liar, address) = liar(&to, BTreeSet::new(), true).await;
    *liar.refuses.lock() = Some(Status::invalid_argument("not this one"));
    start_stream(&here, "to", address, &WHOLE_RING).await;
    eventually("it fails", async || stream_status(&here, "to").await.state == "failed").await;
    let status = stream_status(&here, "to").await;
    assert!(!status.active && status.problem.contains("not this one"), "{status:?}");
    assert!(
        !status.problem.contains("k0"),
        "anybody may read it, and it names a key: {status:?}"
    );
    // What passes is tried again, for as long as it takes.
    *liar.refuses.lock() = Some(Status::resource_exhausted("full"));
    start_stream(&here, "to", address, &WHOLE_RING).await;
    eventually("it tries", async || {
        stream_status(&here, "to").await.problem.contains("full")
    })
    .await;
    assert!(stream_status(&here, "to").await.active);
    *liar.refuses.lock() = None;
    completed(&here, "to").await;
    assert_same(&held(&to), &held(&from));
    from.shutdown().await;
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_checked_and_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (node(dir.path(), "from", 0).await, node(dir.path(), "to", 0).await);
    let mut here = client(from.address());
    fill(&here, 1000, &[7; 100]).await;
    let good = order("to", to.address(), &[HALF[0]]);
    let too_many = vec![
        pb::StreamKeyRange {
            start_hash: 1,
            end_hash: 2
        };
        4097
    ];
    for (field, wrong) in [
        (
            "source_node_id",
            pb::StartStreamingRequest {
                source_node_id: "other".into(),
                ..good.clone()
            },
        ),
        (
            "target_node_id",
            pb::StartStreamingRequest {
                target_node_id: String::new(),
                ..good.clone()
            },
        ),
        (
            "target_node_id",
            pb::StartStreamingRequest {
                target_node_id: "from".into(),
                ..good.clone()
            },
        ),
        (
            "target_node_id",
            pb::StartStreamingRequest {
                target_node_id: "a\nb".into(),
                ..good.clone()
            },
        ),
        (
            "target_node_id",
            pb::StartStreamingRequest {
                target_node_id: "a".repeat(129),
                ..good.clone()
            },
        ),
        (
            "target_host",
            pb::StartStreamingRequest {
                target_host: String::new(),
                ..good.clone()
            },
        ),
        (
            "target_host",
            pb::StartStreamingRequest {
                target_host: "a b".into(),
                ..good.clone()
            },
        ),
        (
            "target_host",
            pb::StartStreamingRequest {
                target_host: "a/b".into(),
                ..good.clone()
            },
        ),
        (
            "target_port",
            pb::StartStreamingRequest {
                target_port: 0,
                ..good.clone()
            },
        ),
        (
            "target_port",
            pb::StartStreamingRequest {
                target_port: 65536,
                ..good.clone()
            },
        ),
        (
            "key_ranges",
            pb::StartStreamingRequest {
                key_ranges: Vec::new(),
                ..good.clone()
            },
        ),
        (
            "key_ranges",
            pb::StartStreamingRequest {
                key_ranges: too_many,
                ..good.clone()
            },
        ),
    ] {
        let refused = here.start_streaming(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(field), "{field}: {refused}");
    }
    let refused = here
        .get_stream_status(pb::StreamStatusRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = here
        .stop_streaming(pb::StopStreamingRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = here.compare_keys(pb::CompareKeysRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(from.requests().streaming.all().is_empty());
    assert!(stop_stream(&here, "to").await.contains("no stream"));

    start_stream(&here, "to", to.address(), &[HALF[0]]).await;
    completed(&here, "to").await;
    let first = stream_status(&here, "to").await;
    // Once more: the same stream.
    start_stream(&here, "to", to.address(), &[HALF[0]]).await;
    completed(&here, "to").await;
    assert_eq!(stream_status(&here, "to").await.keys_copied, first.keys_copied);
    assert_same(&held(&to), &within(held(&from), &[HALF[0]]));
    // With more ranges: those, too.
    start_stream(&here, "to", to.address(), &[HALF[1]]).await;
    completed(&here, "to").await;
    assert_same(&held(&to), &within(held(&from), &HALF));
    // At another address: from there on.
    let proxy = Proxy::to(to.address()).await;
    let before = stream_status(&here, "to").await.keys_copied;
    start_stream(&here, "to", proxy.address, &HALF).await;
    completed(&here, "to").await;
    for n in 0..40 {
        here.write(write(&format!("k{n:05}"), b"moved", &[("c", 9)]))
            .await
            .unwrap();
    }
    caught_up(&from, "to").await;
    assert_same(&held(&to), &within(held(&from), &HALF));
    assert!(proxy.passed() > 0);
    assert_eq!(stream_status(&here, "to").await.keys_copied, before, "it began anew");
    let told = pb::StreamingCompleteRequest {
        source_node_id: "from".into(),
        target_node_id: "to".into(),
    };
    let mut there = client(to.address());
    assert!(
        there
            .notify_streaming_complete(told.clone())
            .await
            .unwrap()
            .into_inner()
            .success
    );
    let status = binary(&["status", "--data-dir", dir.path().join("from/data").to_str().unwrap()]);
    let output = tokio::task::spawn_blocking(move || {
        let mut status = status;
        status.output().unwrap()
    })
    .await
    .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("Streams") && shown.contains("completed"), "{shown}");
    from.shutdown().await;
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_lost_everything_gets_it_again_when_the_stream_is_ordered_again() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (node(dir.path(), "from", 0).await, node(dir.path(), "to", 0).await);
    let mut here = client(from.address());
    for n in 0..200 {
        here.write(write(&format!("k{n}"), b"v", &[("c", 1)])).await.unwrap();
    }
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    completed(&here, "to").await;
    to.shutdown().await;
    let empty = node(other.path(), "to", 0).await;
    start_stream(&here, "to", empty.address(), &WHOLE_RING).await;
    completed(&here, "to").await;
    assert_eq!(held(&empty).len(), 200);
    from.shutdown().await;
    empty.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_until_what_was_acknowledged_has_arrived() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (node(dir.path(), "from", 0).await, node(dir.path(), "to", 0).await);
    let mut here = client(from.address());
    let proxy = Proxy::to(to.address()).await;
    start_stream(&here, "to", proxy.address, &WHOLE_RING).await;
    completed(&here, "to").await;
    proxy.set(Way::Slow(256 << 10));
    for n in 0..20 {
        here.write(write(&format!("k{n}"), &[7; 10_000], &[("c", 1)]))
            .await
            .unwrap();
    }
    assert!(held(&to).len() < 20, "the way is not slow");
    stop_stream(&here, "to").await;
    assert_eq!(held(&to).len(), 20);
    // From a target that is not there nothing is waited for without end.
    start_stream(&here, "to", proxy.address, &WHOLE_RING).await;
    completed(&here, "to").await;
    proxy.set(Way::Cut);
    here.write(write("lost", b"v", &[("c", 1)])).await.unwrap();
    let begun = Instant::now();
    let said = stop_stream(&here, "to").await;
    assert!(said.contains("1 changes were not acknowledged"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    from.shutdown().await;
    to.shutdown().await;
}

#[tokio::test]
async fn a_tap_that_was_not_fed_something_closes() {
    let taps = Taps::default();
    let tap = taps.add(WHOLE_RING.iter().copied().collect());
    let change = |seq| {
        let version = Version {
            clock: [("c", seq)].into_iter().collect(),
            value: Value::Tombstone,
            timestamp_ms: 1,
            seq,
        };
        (Key::new("t", "k").unwrap(), version)
    };
    taps.feed(0, 1, &[change(1)]);
    assert_eq!(tap.backlog().changes, 0, "it is closed");
    tap.open(1);
    taps.feed(1, 3, &[change(2), change(3)]);
    assert!(tap.is_open());
    assert_eq!((tap.backlog().changes, tap.acknowledged()), (2, (1, 1)));
    // 4 was applied by somebody who ended before he fed it.
    taps.feed(4, 5, &[change(5)]);
    assert!(!tap.is_open());
    assert_eq!(tap.acknowledged(), (1, 1));
}

fn record(target: &str, done_seq: u64) -> StreamRecord {
    StreamRecord {
        target: target.into(),
        host: "host".into(),
        port: 1,
        ranges: HALF.iter().copied().collect(),
        progress: Progress {
            done_seq,
            pass: Some(Pass {
                seq: done_seq + 5,
                from: "t:k".into(),
            }),
            compared: true,
            compare_from: String::new(),
        },
        sent: Sent {
            keys_copied: 7,
            ..Sent::default()
        },
    }
}

#[test]
fn a_power_loss_at_any_step_leaves_the_records_from_before_or_after() {
    let dir = Path::new("/data");
    let (old, new) = (vec![record("a", 1)], vec![record("a", 9), record("b", 3)]);
    let mut seen = [0; 3];
    for after in [&new, &Vec::new()] {
        for step in 0..12 {
            for seed in 0..20 {
                let disk = SimFs::default();
                disk.create_dir_all(dir).unwrap();
                disk.sync_dir(Path::new("/")).unwrap();
                stream_records::store(&disk, dir, &old).unwrap();
                disk.crash_after(step);
                let done = stream_records::store(&disk, dir, after);
                disk.crash_with(Survival::Random(seed));
                let left = stream_records::load(&disk, dir).unwrap();
                assert!(left == old || left == *after, "{left:?}");
                if done.is_ok() {
                    assert_eq!(left, *after, "what was said to be stored is lost, step {step}");
                }
                seen[left.len()] += 1;
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
}

#[test]
fn numbers_that_the_log_lost_are_taken_back_before_they_are_given_out_anew() {
    let (disk, dir) = (SimFs::default(), Path::new("/data"));
    disk.create_dir_all(dir).unwrap();
    stream_records::store(&disk, dir, &[record("a", 100)]).unwrap();
    let recovered = stream_records::recover(&disk, dir, 60).unwrap();
    assert_eq!(recovered[0].progress.done_seq, 60);
    assert_eq!(recovered[0].progress.pass.as_ref().unwrap().seq, 60);
    // And stay so, should the process end before it saves them.
    assert_eq!(stream_records::recover(&disk, dir, 1000).unwrap(), recovered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_of_streams_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (node(dir.path(), "from", 0).await, node(dir.path(), "to", 0).await);
    let here = client(from.address());
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    from.shutdown().await;
    to.shutdown().await;
    let data = dir.path().join("from/data");
    let file = data.join(stream_records::NAME);
    let run = async |arguments: &[&str]| {
        let mut command = binary(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let (well, said) = run(&["verify", "--data-dir", data.to_str().unwrap()]).await;
    assert!(well && said.contains("streams to: to"), "{said}");
    let (well, said) = run(&["inspect", data.to_str().unwrap()]).await;
    assert!(well && said.contains("STREAMS: 1 stream to \"to\""), "{said}");
    let (well, said) = run(&["inspect", file.to_str().unwrap()]).await;
    assert!(well && said.contains("stream to \"to\" at 127.0.0.1"), "{said}");
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    for damaged in [flipped, whole[..10].to_vec(), Vec::new()] {
        std::fs::write(&file, damaged).unwrap();
        match Node::start(&node_config(dir.path(), "from", 0), Arc::new(RealFs))
            .await
            .err()
        {
            Some(NodeError::Storage(error)) => assert!(error.to_string().contains("STREAMS"), "{error}"),
            other => panic!("{other:?}"),
        }
        let (well, said) = run(&["verify", "--data-dir", data.to_str().unwrap()]).await;
        assert!(!well && said.contains("STREAMS"), "{said}");
    }
}
