//! ReplicateData: everything of the selected keys reaches the target, and replaces nothing that is newer there.

mod common;

use common::*;
use pairdb_node::actors::address_book::NodeAddress;
use pairdb_node::node::Node;
use pairdb_node::rpc::pb;
use pairdb_node::rpc::pb::storage_node_service_server::{StorageNodeService, StorageNodeServiceServer};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tonic::{Code, Request, Response, Status};

/// A node that knows `target` by this id.
async fn source(dir: &std::path::Path, target: impl std::fmt::Display) -> Node {
    let mut config = config(&dir.join("source"));
    config.server.node_id = "source".into();
    config.cluster.nodes.insert("target".into(), target.to_string());
    start(&config).await
}

async fn target(dir: &std::path::Path) -> Node {
    let mut config = config(&dir.join("target"));
    config.server.node_id = "target".into();
    start(&config).await
}

fn order(keys: &[&str], start: &str, end: &str) -> pb::ReplicateRequest {
    pb::ReplicateRequest {
        tenant_id: "tenant".into(),
        key_range_start: start.into(),
        key_range_end: end.into(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        target_node_id: "target".into(),
        include_vector_clock: false,
    }
}

async fn replicated(client: &mut Client, order: pb::ReplicateRequest) -> i64 {
    let answer = client.replicate_data(order).await.unwrap().into_inner();
    assert!(answer.success);
    answer.keys_replicated
}

async fn has(client: &mut Client, key: &str) -> bool {
    match client.read(read(key)).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound, "{status}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_tombstones_and_siblings_arrive_and_the_clocks_decide() {
    let dir = tempfile::tempdir().unwrap();
    let to = target(dir.path()).await;
    let from = source(dir.path(), to.address()).await;
    let (mut here, mut there) = (client(from.address()), client(to.address()));
    for n in 0..300 {
        let key = format!("k{n:03}");
        here.write(write(&key, key.as_bytes(), &[("c", 5)])).await.unwrap();
    }
    here.delete(delete("k100", &[("c", 6)])).await.unwrap();
    here.write(write("k200", b"beside", &[("d", 1)])).await.unwrap();
    let of_another = pb::WriteRequest {
        tenant_id: "tenant2".into(),
        ..write("k150", b"v", &[("c", 1)])
    };
    here.write(of_another).await.unwrap();
    // What the target has already: older, newer, concurrent, deleted before.
    there.write(write("k001", b"older", &[("c", 4)])).await.unwrap();
    there.write(write("k002", b"newer", &[("c", 9)])).await.unwrap();
    there.write(write("k003", b"concurrent", &[("e", 1)])).await.unwrap();
    there.delete(delete("k004", &[("c", 9)])).await.unwrap();
    there.write(write("k100", b"deleted since", &[("c", 5)])).await.unwrap();

    assert_eq!(replicated(&mut here, order(&[], "", "")).await, 300);
    for n in 0..300 {
        let key = format!("k{n:03}");
        match n {
            4 | 100 => assert!(!has(&mut there, &key).await, "{key}"),
            2 => assert_eq!(there.read(read(&key)).await.unwrap().into_inner().value, b"newer"),
            3 | 200 => {
                let read = there.read(read(&key)).await.unwrap().into_inner();
                assert_eq!(read.siblings.len(), 2, "{key}");
            }
            _ => {
                let read = there.read(read(&key)).await.unwrap().into_inner();
                assert_eq!(
                    (read.value, read.vector_clock),
                    (key.into_bytes(), wire_clock(&[("c", 5)]))
                );
            }
        }
    }
    let request = pb::ReadRequest {
        tenant_id: "tenant2".into(),
        key: "k150".into(),
    };
    assert_eq!(there.read(request).await.unwrap_err().code(), Code::NotFound);
    // Once more changes nothing.
    assert_eq!(replicated(&mut here, order(&[], "", "")).await, 300);
    assert_eq!(there.read(read("k200")).await.unwrap().into_inner().siblings.len(), 2);
    from.shutdown().await;
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_range_select_and_a_draining_node_still_copies() {
    let dir = tempfile::tempdir().unwrap();
    let to = target(dir.path()).await;
    let from = source(dir.path(), to.address()).await;
    let (mut here, mut there) = (client(from.address()), client(to.address()));
    for n in 0..50 {
        here.write(write(&format!("k{n:02}"), b"v", &[("c", 1)])).await.unwrap();
    }
    from.requests().drain.begin().await.unwrap();
    // Keys alone mean these alone; one that does not exist, or is named twice, is not counted.
    assert_eq!(
        replicated(&mut here, order(&["k03", "k01", "k03", "none"], "", "")).await,
        2
    );
    assert!(has(&mut there, "k01").await && has(&mut there, "k03").await);
    assert!(!has(&mut there, "k02").await);
    // With a range, a key that is in both counts once.
    assert_eq!(replicated(&mut here, order(&["k11", "k40"], "k10", "k13")).await, 4);
    assert!(has(&mut there, "k12").await && has(&mut there, "k40").await);
    assert!(!has(&mut there, "k13").await && !has(&mut there, "k09").await);
    assert_eq!(replicated(&mut here, order(&[], "k45", "")).await, 5);
    // A target that is not named, not known, or this node.
    for (id, says) in [
        ("", "no address is known"),
        ("stranger", "no address is known"),
        ("source", "this node"),
    ] {
        let order = pb::ReplicateRequest {
            target_node_id: id.into(),
            ..order(&[], "", "")
        };
        let refused = here.replicate_data(order).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(
            refused.message().contains("target_node_id") && refused.message().contains(says),
            "{refused}"
        );
    }
    let no_tenant = pb::ReplicateRequest {
        tenant_id: String::new(),
        ..order(&[], "", "")
    };
    let refused = here.replicate_data(no_tenant).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let refused = here.replicate_data(order(&["a\0"], "", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    // Whoever learns where the stranger is tells the book.
    let address = NodeAddress::parse(&to.address().to_string()).unwrap();
    assert!(from.requests().peers.book.learn("stranger", address));
    let order = pb::ReplicateRequest {
        target_node_id: "stranger".into(),
        ..order(&["k20"], "", "")
    };
    assert_eq!(replicated(&mut here, order).await, 1);
    from.shutdown().await;
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_while_actors_die_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let to = target(dir.path()).await;
    let from = source(dir.path(), to.address()).await;
    let (mut here, mut there) = (client(from.address()), client(to.address()));
    for n in 0..2000 {
        here.write(write(&format!("k{n:04}"), b"v", &[("c", 1)])).await.unwrap();
    }
    let mut asking = here.clone();
    let copy = tokio::spawn(async move { replicated(&mut asking, order(&[], "", "")).await });
    eventually("the copy has begun", async || {
        to.requests().handles.published.applied() > 100
    })
    .await;
    let mut kills = 0;
    while !copy.is_finished() && kills < 40 {
        for victim in ["wal", "memtable"] {
            kills += usize::from(to.tree().kill(victim)) + usize::from(from.tree().kill(victim));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(kills > 4, "{kills} kills: it was over too soon");
    assert_eq!(copy.await.unwrap(), 2000);
    for n in 0..2000 {
        assert!(has(&mut there, &format!("k{n:04}")).await, "k{n:04} was acknowledged");
    }
    from.shutdown().await;
    to.shutdown().await;
}

/// Takes writes slowly, and counts how many are on their way at once.
#[derive(Default)]
struct SlowTarget {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[tonic::async_trait]
impl StorageNodeService for SlowTarget {
    async fn write(&self, _request: Request<pb::WriteRequest>) -> Result<Response<pb::WriteResponse>, Status> {
        self.most
            .fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(Response::new(pb::WriteResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn few_writes_are_on_their_way_at_once_and_a_deadline_ends_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Arc::new(SlowTarget::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = StorageNodeServiceServer::from_arc(Arc::clone(&slow));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    let from = source(dir.path(), address).await;
    let mut here = client(from.address());
    for n in 0..600 {
        here.write(write(&format!("k{n:03}"), b"v", &[("c", 1)])).await.unwrap();
    }
    assert_eq!(replicated(&mut here, order(&[], "", "")).await, 600);
    let most = slow.most.load(Ordering::SeqCst);
    assert!((4..=32).contains(&most), "{most} at once");

    // One who accepts connections, and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = NodeAddress::parse(&silent.local_addr().unwrap().to_string()).unwrap();
    from.requests().peers.book.learn("target", address);
    let scans = &from.requests().scans;
    let copies = &from.requests().peers.copies;
    let places = (scans.available_permits(), copies.available_permits());
    let mut request = Request::new(order(&[], "", ""));
    request.set_timeout(Duration::from_millis(500));
    let begun = Instant::now();
    let ended = here.replicate_data(request).await.unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}: {ended}",
        begun.elapsed()
    );
    eventually("the copy has ended here, too", async || {
        (scans.available_permits(), copies.available_permits()) == places
    })
    .await;
    // Four at a time.
    let held = copies
        .try_acquire_many(u32::try_from(copies.available_permits()).unwrap())
        .unwrap();
    let refused = here.replicate_data(order(&["k001"], "", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    drop(held);
    // Nobody at all.
    drop(silent);
    let refused = here.replicate_data(order(&[], "", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("after 0 keys"), "{refused}");
    from.shutdown().await;
}
