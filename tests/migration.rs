//! Nodes join and leave under load, as a coordinator has them do it: no acknowledged write is lost.

mod common;
#[path = "common/streaming.rs"]
mod streaming;

use common::*;
use pairdb_node::node::Node;
use pairdb_node::storage::key::Key;
use pairdb_node::storage::ring;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use streaming::*;
use tokio::sync::RwLock;

const POINTS: u64 = 8;
const WRITERS: u64 = 6;
const KEYS_PER_WRITER: i64 = 200;

/// Which node has which point: a point has the places behind the point before it, up to itself.
#[derive(Clone, Default)]
struct Ring(BTreeMap<u64, String>);

impl Ring {
    fn with(mut self, node: &str) -> Self {
        for point in 0..POINTS {
            let key = Key::new("point", &format!("{node}-{point}")).unwrap();
            self.0.insert(ring::place(&key), node.to_owned());
        }
        self
    }

    fn without(mut self, node: &str) -> Self {
        self.0.retain(|_, owner| owner != node);
        self
    }

    fn owner(&self, place: u64) -> &str {
        let at_or_behind = self.0.range(place..).next();
        at_or_behind.or(self.0.iter().next()).unwrap().1
    }

    /// The ranges that change hands on the way from this ring to `next`: by the old owner and the new one.
    fn moves(&self, next: &Self) -> BTreeMap<(String, String), Vec<(u64, u64)>> {
        let mut points: Vec<u64> = self.0.keys().chain(next.0.keys()).copied().collect();
        points.sort_unstable();
        let mut moves: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (at, point) in points.iter().enumerate() {
            let previous = points[(at + points.len() - 1) % points.len()];
            let (old, new) = (self.owner(*point).to_owned(), next.owner(*point).to_owned());
            if old != new {
                moves.entry((old, new)).or_default().push((previous, *point));
            }
        }
        moves
    }
}

struct Cluster {
    nodes: BTreeMap<String, Node>,
    addresses: Arc<RwLock<(Ring, BTreeMap<String, SocketAddr>)>>,
}

impl Cluster {
    async fn join(&mut self, dir: &Path, id: &str) {
        let node = node(dir, id, 0).await;
        self.addresses.write().await.1.insert(id.to_owned(), node.address());
        self.nodes.insert(id.to_owned(), node);
    }

    /// Has nodes hand over what changes hands, then lets the new ring be used, then ends the streams.
    async fn change(&self, next: Ring, mut harm: impl FnMut(&BTreeMap<String, Node>)) {
        let ring = self.addresses.read().await.0.clone();
        let moves = ring.moves(&next);
        assert!(moves.len() >= 2, "{moves:?}");
        for ((old, new), ranges) in &moves {
            let source = client(self.nodes[old].address());
            start_stream(&source, new, self.nodes[new].address(), ranges).await;
        }
        let states = async || {
            let mut states = Vec::new();
            for (old, new) in moves.keys() {
                states.push(stream_status(&client(self.nodes[old].address()), new).await.state);
            }
            states
        };
        for _ in 0..12 {
            harm(&self.nodes);
            states().await;
        }
        eventually("all is handed over", async || {
            states().await.iter().all(|state| state == "completed")
        })
        .await;
        harm(&self.nodes);
        self.addresses.write().await.0 = next;
        for (old, new) in moves.keys() {
            let said = stop_stream(&client(self.nodes[old].address()), new).await;
            assert!(!said.contains("not acknowledged"), "{said}");
        }
    }
}

/// Writes ascending numbers to keys of its own, each to the node that has it now; the last that was acknowledged of each.
async fn write_on(
    writer: u64,
    addresses: Arc<RwLock<(Ring, BTreeMap<String, SocketAddr>)>>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
) -> BTreeMap<String, i64> {
    let mut clients: BTreeMap<String, Client> = BTreeMap::new();
    let mut acknowledged = BTreeMap::new();
    for number in 1_i64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("w{writer}-{}", number % KEYS_PER_WRITER);
        // A write goes by one ring: the next is used when all of those by the old one are answered.
        let now = addresses.read().await;
        let owner = now.0.owner(ring::place(&Key::new("tenant", &key).unwrap()));
        let client = clients.entry(owner.to_owned()).or_insert_with(|| client(now.1[owner]));
        let request = write(&key, number.to_string().as_bytes(), &[("c", number)]);
        match client.write(request).await {
            Ok(_) => {
                acknowledged.insert(key, number);
                written.fetch_add(1, Ordering::Relaxed);
            }
            Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status}"),
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_and_another_leaves_and_no_acknowledged_write_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster {
        nodes: BTreeMap::new(),
        addresses: Arc::default(),
    };
    let ring = Ring::default().with("a").with("b").with("c");
    cluster.addresses.write().await.0 = ring.clone();
    for id in ["a", "b", "c"] {
        cluster.join(dir.path(), id).await;
    }
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            tokio::spawn(write_on(writer, Arc::clone(&cluster.addresses), stop, written))
        })
        .collect();
    let so_far = || written.load(Ordering::Relaxed);
    eventually("there is load", async || so_far() > 2000).await;

    let mut turn = 0;
    let mut harm = |nodes: &BTreeMap<String, Node>| {
        turn += 1;
        let victims = ["memtable", "stream-d", "streams", "wal", "stream-b", "stream-c"];
        for node in nodes.values() {
            node.tree().kill(victims[turn % victims.len()]);
        }
    };
    cluster.join(dir.path(), "d").await;
    let grown = ring.with("d");
    cluster.change(grown.clone(), &mut harm).await;
    let more = so_far() + 1000;
    eventually("the new ring is written to", async || so_far() > more).await;
    cluster.change(grown.without("a"), &mut harm).await;
    let left = cluster.nodes.remove("a").unwrap();
    left.shutdown().await;
    let more = so_far() + 1000;
    eventually("the others are written to", async || so_far() > more).await;

    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert_eq!(acknowledged.len() as i64, WRITERS as i64 * KEYS_PER_WRITER);
    let (ring, addresses) = cluster.addresses.read().await.clone();
    let mut owners = BTreeMap::new();
    for (key, number) in &acknowledged {
        let owner = ring.owner(ring::place(&Key::new("tenant", key).unwrap()));
        *owners.entry(owner.to_owned()).or_insert(0) += 1;
        let value = client(addresses[owner])
            .read(read(key))
            .await
            .expect(key)
            .into_inner()
            .value;
        let value: i64 = String::from_utf8(value).unwrap().parse().unwrap();
        assert!(value >= *number, "{key}: {value}, but {number} was acknowledged");
    }
    assert_eq!(owners.len(), 3, "{owners:?}");
    for (_, node) in cluster.nodes {
        node.shutdown().await;
    }
}
