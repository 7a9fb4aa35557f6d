//! What the tests of streams share: orders and their progress, what a node holds, and a way between nodes that can be bad.
#![allow(dead_code, reason = "each test binary uses a part")]

use crate::common::*;
use pairdb_node::node::Node;
use pairdb_node::rpc::pb;
use pairdb_node::storage::clock::VectorClock;
use pairdb_node::storage::key::Key;
use pairdb_node::storage::ring::{self, HashRanges};
use pairdb_node::storage::version::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub const WHOLE_RING: [(u64, u64); 1] = [(0, 0)];

/// A node of this name, whose memtables and levels are small, so that flushes and compactions happen.
pub async fn node(dir: &Path, id: &str, port: u16) -> Node {
    start(&node_config(dir, id, port)).await
}

pub fn node_config(dir: &Path, id: &str, port: u16) -> pairdb_node::config::Config {
    let mut config = config(&dir.join(id));
    config.server.node_id = id.into();
    config.server.port = port;
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(256);
    config.supervisor.max_restarts = 10_000;
    config
}

pub fn order(target: &str, address: SocketAddr, ranges: &[(u64, u64)]) -> pb::StartStreamingRequest {
    pb::StartStreamingRequest {
        source_node_id: String::new(),
        target_node_id: target.into(),
        target_host: address.ip().to_string(),
        target_port: address.port().into(),
        key_ranges: ranges
            .iter()
            .map(|&(start_hash, end_hash)| pb::StreamKeyRange { start_hash, end_hash })
            .collect(),
    }
}

/// Repeats a call to a node whose actors may be dying.
pub async fn insist<T>(mut call: impl AsyncFnMut() -> Result<tonic::Response<T>, tonic::Status>) -> T {
    let begun = std::time::Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer.into_inner(),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
                assert!(begun.elapsed() < PATIENCE, "{status}");
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn start_stream(source: &Client, target: &str, address: SocketAddr, ranges: &[(u64, u64)]) {
    let mut source = source.clone();
    let started = insist(async || source.start_streaming(order(target, address, ranges)).await).await;
    assert!(started.success, "{started:?}");
}

pub async fn stop_stream(source: &Client, target: &str) -> String {
    let mut source = source.clone();
    let request = || pb::StopStreamingRequest {
        source_node_id: String::new(),
        target_node_id: target.into(),
    };
    let stopped = insist(async || source.stop_streaming(request()).await).await;
    let is_whole = !stopped.message.contains("not acknowledged");
    assert_eq!(stopped.success, is_whole, "{stopped:?}");
    stopped.message
}

pub async fn stream_status(source: &Client, target: &str) -> pb::StreamStatusResponse {
    let mut source = source.clone();
    let request = || pb::StreamStatusRequest {
        source_node_id: String::new(),
        target_node_id: target.into(),
    };
    insist(async || source.get_stream_status(request()).await).await
}

pub async fn completed(source: &Client, target: &str) {
    let mut last = None;
    let begun = std::time::Instant::now();
    loop {
        let status = stream_status(source, target).await;
        if status.state == "completed" {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "not completed: {last:?}");
        last = Some(status);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a node holds: for each key its versions' clocks and values, in an order of their own.
pub type Held = BTreeMap<Key, Vec<(String, Option<Vec<u8>>)>>;

pub fn held(node: &Node) -> Held {
    let published = &node.requests().handles.published;
    let scan = published.load().scan(&Key::least(), u64::MAX);
    scan.map(|entry| {
        let (key, versions) = entry.unwrap();
        let version = |clock: &VectorClock, value: &Value| (format!("{clock:?}"), value.live().map(|v| v.to_vec()));
        let mut all: Vec<_> = versions.all().iter().map(|v| version(&v.clock, &v.value)).collect();
        all.sort();
        (key, all)
    })
    .collect()
}

pub fn within(held: Held, ranges: &[(u64, u64)]) -> Held {
    let ranges: HashRanges = ranges.iter().copied().collect();
    held.into_iter()
        .filter(|(key, _)| ranges.contains(ring::place(key)))
        .collect()
}

/// Fails with the first keys that differ, and not with all that two nodes hold.
pub fn assert_same(actual: &Held, expected: &Held) {
    let differing: Vec<_> = actual
        .keys()
        .chain(expected.keys())
        .filter(|key| actual.get(*key) != expected.get(*key))
        .take(3)
        .map(|key| (key, actual.get(key), expected.get(key)))
        .collect();
    assert!(
        differing.is_empty(),
        "{} keys, expected {}; (key, actual, expected): {differing:?}",
        actual.len(),
        expected.len()
    );
}

/// How a way between two nodes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Open,
    /// So many bytes a second from the client on.
    Slow(u64),
    /// Connections stay, and nothing passes.
    Stalled,
    /// Connections end, and new ones do, too.
    Cut,
}

/// A way to an address, by TCP.
pub struct Proxy {
    pub address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
    passed: Arc<AtomicU64>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let passed = Arc::new(AtomicU64::new(0));
        let (ways, count) = (Arc::clone(&way), Arc::clone(&passed));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, ways.subscribe(), Arc::clone(&count)));
            }
        });
        Self { address, way, passed }
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Bytes that came from clients.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mut way: watch::Receiver<Way>, passed: Arc<AtomicU64>) {
    if *way.borrow() == Way::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let ways = way.clone();
    let there = pump(&mut from_client, &mut to_server, ways.clone(), Some(passed));
    let back = pump(&mut from_server, &mut to_client, ways, None);
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = way.wait_for(|way| *way == Way::Cut) => {}
    }
}

async fn pump(
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    passed: Option<Arc<AtomicU64>>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 16 << 10];
    loop {
        let _ = way.wait_for(|way| *way != Way::Stalled).await;
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let _ = way.wait_for(|way| *way != Way::Stalled).await;
        let slow = match *way.borrow() {
            Way::Slow(rate) if passed.is_some() => Some(Duration::from_secs_f64(read as f64 / rate as f64)),
            _ => None,
        };
        if let Some(pause) = slow {
            tokio::time::sleep(pause).await;
        }
        if let Some(passed) = &passed {
            passed.fetch_add(read as u64, Ordering::Relaxed);
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
