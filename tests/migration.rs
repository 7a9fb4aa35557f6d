//! Nodes join and leave under load, as a coordinator has them do it: no acknowledged write is lost.

mod common;
#[path = "common/coordinator.rs"]
mod coordinator;
#[path = "common/streaming.rs"]
mod streaming;

use common::*;
use coordinator::*;
use pairdb_node::node::Node;
use pairdb_node::storage::key::Key;
use pairdb_node::storage::ring;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use streaming::*;
use tokio::sync::RwLock;

struct Cluster {
    nodes: BTreeMap<String, Node>,
    addresses: Addresses,
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
            let addresses = Arc::clone(&cluster.addresses);
            tokio::spawn(write_on((writer, 1), addresses, stop, written, ACTORS_DIE))
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
    let owners = check(&cluster.addresses, &acknowledged).await;
    assert_eq!(owners.len(), 3, "{owners:?}");
    for (_, node) in cluster.nodes {
        node.shutdown().await;
    }
}

/// Keys that a node hands over: more than is under way at a time. And keys that it keeps.
const MOVED: usize = 8000;
const KEPT: usize = 500;

/// A node as a process, which can be killed and started again where it was.
struct Killable {
    id: &'static str,
    dir: PathBuf,
    port: u16,
    admin: String,
    process: Option<Process>,
}

impl Killable {
    fn start(dir: &Path, id: &'static str) -> Self {
        let dir = dir.join(id);
        std::fs::create_dir_all(&dir).unwrap();
        let mut node = Self {
            id,
            dir,
            port: free_port(),
            admin: free_port().to_string(),
            process: None,
        };
        node.begin();
        node
    }

    fn begin(&mut self) {
        let environment = [
            ("NODE_ID", self.id),
            ("PAIRDB__MEM_TABLE__FLUSH_THRESHOLD", "256KiB"),
            ("PAIRDB__SUPERVISOR__MAX_RESTARTS", "10000"),
            ("PAIRDB__ADMIN__FAULT_INJECTION", "true"),
            ("PAIRDB__ADMIN__PORT", &self.admin),
        ];
        self.process = Some(Process::start(&self.dir, self.port, &environment));
    }

    /// SIGKILL, and a start.
    fn kill_and_begin(&mut self) {
        self.process.take().unwrap().kill();
        self.begin();
    }

    fn kill_actor(&self, actor: &str) {
        let admin = format!("http://127.0.0.1:{}", self.admin);
        let killed = binary(&["fault", "--admin-addr", &admin, "inject", actor, "kill"]).output();
        let said = killed.unwrap();
        assert!(said.status.success(), "{said:?}");
    }

    fn address(&self) -> SocketAddr {
        self.process.as_ref().unwrap().addr.parse().unwrap()
    }

    fn client(&self) -> Client {
        client(self.address())
    }
}

/// Gives each node as many keys that it is to hand over, and a few that it keeps; their numbers, as if a writer had written
/// them.
async fn fill(nodes: &[&Killable], ring: &Ring, next: &Ring) -> BTreeMap<String, i64> {
    let mut numbers = BTreeMap::new();
    for node in nodes {
        let (mut kept, mut moved) = (Vec::new(), Vec::new());
        for number in 1_i64.. {
            let key = format!("bulk-{}-{number}", node.id);
            let place = ring::place(&Key::new("tenant", &key).unwrap());
            match (ring.owner(place) == node.id, next.owner(place) == node.id) {
                (true, true) if kept.len() < KEPT => kept.push((key, number)),
                (true, false) => moved.push((key, number)),
                _ => {}
            }
            if moved.len() == MOVED {
                break;
            }
        }
        moved.extend(kept);
        for batch in moved.chunks(500) {
            let operation =
                |(key, number): &(String, i64)| write(key, format!("{number:01000}").as_bytes(), &[("c", *number)]);
            let operations = batch.iter().map(operation).collect();
            let request = pairdb_node::rpc::pb::BatchWriteRequest { operations };
            let answer = node.client().batch_write(request).await.unwrap().into_inner();
            assert!(!format!("{answer:?}").contains("Failure"), "{answer:?}");
        }
        numbers.extend(moved);
    }
    numbers
}

/// How many keys a source has copied. Fails the test when it has come past the copy: what happens then shows nothing.
async fn copied(source: &Killable) -> i64 {
    let status = stream_status(&source.client(), "c").await;
    let is_over = ["streaming", "syncing", "completed"].contains(&status.state.as_str());
    assert!(!is_over, "it was over too soon: {status:?}");
    status.keys_copied
}

async fn copies_more(source: &Killable, than: i64, what: &str) {
    eventually(what, async || copied(source).await > than).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_and_target_are_killed_while_they_stream_and_no_acknowledged_write_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (mut a, mut b) = (Killable::start(dir.path(), "a"), Killable::start(dir.path(), "b"));
    let mut c = Killable::start(dir.path(), "c");
    let ring = Ring::default().with("a").with("b");
    let next = ring.clone().with("c");
    let mut acknowledged = fill(&[&a, &b], &ring, &next).await;
    let nodes = [&a, &b, &c].map(|node| (node.id.to_owned(), node.address()));
    let addresses: Addresses = Arc::new(RwLock::new((ring.clone(), nodes.into())));
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (addresses, stop) = (Arc::clone(&addresses), Arc::clone(&stop));
            tokio::spawn(write_on((writer, 1), addresses, stop, Arc::clone(&written), NODES_DIE))
        })
        .collect();
    let so_far = || written.load(Ordering::Relaxed);
    eventually("there is load", async || so_far() > 1000).await;

    // So slow that the streams are under way while everything happens to them.
    let proxies = [Proxy::to(c.address()).await, Proxy::to(c.address()).await];
    let moves = ring.moves(&next);
    for (source, proxy) in [&a, &b].into_iter().zip(&proxies) {
        proxy.set(Way::Slow(128 << 10));
        let ranges = &moves[&(source.id.to_owned(), "c".to_owned())];
        start_stream(&source.client(), "c", proxy.address, ranges).await;
    }
    copies_more(&a, 0, "a part is copied").await;
    let before_kill = copied(&a).await;
    a.kill_and_begin();
    let after_kill = so_far();
    copies_more(&a, before_kill, "the one that was killed goes on").await;
    eventually("and is written to", async || so_far() > after_kill + 200).await;
    for actor in ["stream-c", "streams"] {
        let before_kill = copied(&b).await;
        b.kill_actor(actor);
        copies_more(&b, before_kill, "the other goes on").await;
    }
    c.kill_and_begin();
    b.kill_and_begin();
    c.kill_actor("memtable");
    copied(&a).await;
    copied(&b).await;
    for proxy in &proxies {
        proxy.set(Way::Open);
    }
    for source in [&a, &b] {
        completed(&source.client(), "c").await;
    }
    // Once more, when there is nothing but live writes.
    a.kill_and_begin();
    for source in [&a, &b] {
        completed(&source.client(), "c").await;
    }
    addresses.write().await.0 = next;
    for source in [&a, &b] {
        let said = stop_stream(&source.client(), "c").await;
        assert!(!said.contains("not acknowledged"), "{said}");
    }
    let more = so_far() + 1000;
    eventually("the new ring is written to", async || so_far() > more).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    let owners = check(&addresses, &acknowledged).await;
    assert!(owners.len() == 3 && owners["c"] > 1000, "{owners:?}");
    // And what the target has outlives it.
    c.kill_and_begin();
    check(&addresses, &acknowledged).await;
}
