//! Registration with the coordinator: what it is told, what its answers mean, and that the node serves whatever they are.

mod common;
#[path = "common/site.rs"]
mod site;

use common::*;
use pairdb_node::actors::health::Status as NodeStatus;
use pairdb_node::actors::registration::Registered;
use pairdb_node::config::Config;
use pairdb_node::node::Node;
use pairdb_node::rpc::coordinator_pb as pb;
use pairdb_node::rpc::coordinator_pb::coordinator_service_server::{CoordinatorService, CoordinatorServiceServer};
use parking_lot::Mutex;
use prost::Message;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tonic::{Request, Response, Status};

/// How a coordinator answers.
#[derive(Clone)]
enum Answer {
    Accept,
    /// As one that knows the node already, at this host and the port that it gave.
    Known(&'static str),
    /// Knows nothing of the node, and still does not take it.
    Internal,
    /// Says that it failed, with a status of success.
    Unsuccessful,
    Unavailable,
    Never,
}

struct Coordinator {
    answer: Mutex<Answer>,
    added: Mutex<Vec<(Instant, pb::AddStorageNodeRequest)>>,
}

#[tonic::async_trait]
impl CoordinatorService for Coordinator {
    async fn add_storage_node(
        &self,
        request: Request<pb::AddStorageNodeRequest>,
    ) -> Result<Response<pb::AddStorageNodeResponse>, Status> {
        self.added.lock().push((Instant::now(), request.into_inner()));
        let answer = self.answer.lock().clone();
        match answer {
            Answer::Accept => Ok(Response::new(pb::AddStorageNodeResponse {
                success: true,
                migration_id: "m1".into(),
                ..pb::AddStorageNodeResponse::default()
            })),
            Answer::Known(_) | Answer::Internal => {
                Err(Status::internal("duplicate key value violates unique constraint"))
            }
            Answer::Unsuccessful => Ok(Response::new(pb::AddStorageNodeResponse {
                error_message: "no room".into(),
                ..pb::AddStorageNodeResponse::default()
            })),
            Answer::Unavailable => Err(Status::unavailable("starting")),
            Answer::Never => std::future::pending().await,
        }
    }

    async fn list_storage_nodes(
        &self,
        _request: Request<pb::ListStorageNodesRequest>,
    ) -> Result<Response<pb::ListStorageNodesResponse>, Status> {
        let info = |node_id: &str, host: String, port| pb::StorageNodeInfo {
            node_id: node_id.into(),
            host,
            port,
            status: "active".into(),
            ..pb::StorageNodeInfo::default()
        };
        let mut nodes = vec![info("another", "10.9.9.9".into(), 1)];
        if let Answer::Known(host) = self.answer.lock().clone() {
            let port = self.added.lock().last().map_or(0, |(_, added)| added.port);
            nodes.push(info("storage-node-1", host.into(), port));
        }
        Ok(Response::new(pb::ListStorageNodesResponse {
            success: true,
            nodes,
            error_message: String::new(),
        }))
    }
}

async fn coordinator(answer: Answer) -> (Arc<Coordinator>, SocketAddr) {
    let coordinator = Arc::new(Coordinator {
        answer: Mutex::new(answer),
        added: Mutex::default(),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = CoordinatorServiceServer::from_arc(Arc::clone(&coordinator));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    (coordinator, address)
}

fn registering(dir: &Path, at: SocketAddr) -> Config {
    let mut config = site::shown(dir);
    config.coordinator.enabled = true;
    config.coordinator.host = at.ip().to_string();
    config.coordinator.port = at.port();
    config.coordinator.tries = 3;
    config.coordinator.interval = Duration::from_millis(50);
    config.coordinator.timeout = Duration::from_millis(300);
    config
}

fn state(node: &Node) -> Registered {
    node.health().registration.state().as_ref().clone()
}

async fn is_known(node: &Node) {
    eventually("the coordinator knows the node", async || {
        state(node) == Registered::Known
    })
    .await;
    let (status, reasons) = node.health().status();
    assert_eq!(status, NodeStatus::Healthy, "{reasons:?}");
    assert_eq!(is_failing(node).await, 0.0);
}

/// What an alert looks at.
async fn is_failing(node: &Node) -> f64 {
    site::metrics(node).await["coordinator_registration_failing"]
}

async fn assert_serves(node: &Node) {
    let mut client = client(node.address());
    client.write(write("k", b"v", &[("c", 1)])).await.unwrap();
    assert_eq!(client.read(read("k")).await.unwrap().into_inner().value, b"v");
}

/// Waits until the node has used up its tries, and serves nevertheless.
async fn gives_up(node: &Node, says: &str) {
    assert_serves(node).await;
    eventually("the tries are used up", async || {
        matches!(state(node), Registered::GivenUp(_))
    })
    .await;
    assert_eq!(node.health().registration.tries(), 3);
    assert_eq!(is_failing(node).await, 1.0);
    let (status, reasons) = node.health().status();
    assert_eq!(status, NodeStatus::Degraded);
    assert!(
        reasons
            .iter()
            .any(|reason| reason.contains("not registered") && reason.contains(says)),
        "{reasons:?}"
    );
    assert_serves(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_registers_itself_as_the_contract_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let (coordinator, at) = coordinator(Answer::Accept).await;
    let mut config = registering(dir.path(), at);
    config.server.advertise_host = Some("node.example".into());
    let node = start(&config).await;
    is_known(&node).await;
    let added = coordinator.added.lock().clone();
    let request = &added[0].1;
    let expected = pb::AddStorageNodeRequest {
        node_id: "storage-node-1".into(),
        host: "node.example".into(),
        port: i32::from(node.address().port()),
        virtual_nodes: 150,
    };
    assert_eq!((added.len(), request), (1, &expected));
    let short = pb::AddStorageNodeRequest {
        node_id: "n".into(),
        host: "h".into(),
        port: 1,
        virtual_nodes: 2,
    };
    assert_eq!(short.encode_to_vec(), [0x0a, 1, b'n', 0x12, 1, b'h', 0x18, 1, 0x20, 2]);
    assert_eq!(node.health().metrics()["coordinator_registered"], "1");
    // It has nothing more to say, also in its next generation.
    assert!(node.tree().kill("registration"));
    eventually("it is back", async || {
        node.tree()
            .children()
            .iter()
            .any(|c| c.name == "registration" && c.running && c.generation > 1)
    })
    .await;
    is_known(&node).await;
    assert_eq!(coordinator.added.lock().len(), 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_known_already_looks_itself_up_and_carries_on() {
    let dir = tempfile::tempdir().unwrap();
    let (script, at) = coordinator(Answer::Known("127.0.0.1")).await;
    let config = registering(dir.path(), at);
    let node = start(&config).await;
    is_known(&node).await;
    assert_eq!(script.added.lock().len(), 1);
    node.shutdown().await;
    // Under another address it is known as well, and somebody should know that.
    *script.answer.lock() = Answer::Known("10.1.2.3");
    let node = start(&config).await;
    eventually("it was found", async || matches!(state(&node), Registered::KnownAt(_))).await;
    let (status, reasons) = node.health().status();
    assert_eq!(status, NodeStatus::Degraded);
    assert!(reasons.iter().any(|reason| reason.contains("10.1.2.3:")), "{reasons:?}");
    assert_serves(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_comes_later_is_found_and_tries_keep_their_distance() {
    let dir = tempfile::tempdir().unwrap();
    let (script, at) = coordinator(Answer::Unavailable).await;
    let node = start(&registering(dir.path(), at)).await;
    eventually("two tries failed", async || script.added.lock().len() == 2).await;
    *script.answer.lock() = Answer::Accept;
    is_known(&node).await;
    let times: Vec<_> = script.added.lock().iter().map(|(at, _)| *at).collect();
    assert_eq!(times.len(), 3);
    assert!(
        times
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= Duration::from_millis(50)),
        "{times:?}"
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_coordinator_does_the_node_serves() {
    for (answer, says) in [
        (Answer::Unavailable, "starting"),
        (Answer::Internal, "duplicate key"),
        (Answer::Unsuccessful, "no room"),
        (Answer::Never, "no answer within 300ms"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (script, at) = coordinator(answer).await;
        let node = start(&registering(dir.path(), at)).await;
        gives_up(&node, says).await;
        assert_eq!(script.added.lock().len(), 3, "{says}");
        node.shutdown().await;
    }
    // Nobody there, and one who speaks something else.
    let dir = tempfile::tempdir().unwrap();
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let node = start(&registering(dir.path(), nobody)).await;
    gives_up(&node, "cannot be reached").await;
    node.shutdown().await;
    for garbage in [&b"HTTP/1.1 200 OK\r\n\r\nhello"[..], &[0xff; 2000], b""] {
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(garbage).await;
            }
        });
        let node = start(&registering(dir.path(), at)).await;
        gives_up(&node, "coordinator").await;
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_actor_costs_tries_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (script, at) = coordinator(Answer::Never).await;
    let mut config = registering(dir.path(), at);
    config.coordinator.tries = 5;
    config.coordinator.timeout = Duration::from_secs(60);
    let node = start(&config).await;
    for tries in 1..=3 {
        // In the middle of a try, whose answer nobody will hear.
        eventually("a try is under way", async || script.added.lock().len() == tries).await;
        assert!(node.tree().kill("registration"));
    }
    *script.answer.lock() = Answer::Accept;
    is_known(&node).await;
    assert_eq!((script.added.lock().len(), node.health().registration.tries()), (4, 4));
    assert_serves(&node).await;
    node.shutdown().await;
}

fn advertised(environment: &[(&str, &str)]) -> Result<String, String> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let flags = [
        ("coordinator.enabled", "true".to_owned()),
        ("server.node_id", "node-7".to_owned()),
    ];
    let config = Config::load(None, environment, &flags).map_err(|error| error.to_string())?;
    Ok(config.advertised_host().to_owned())
}

#[test]
fn the_address_follows_the_pod_then_the_configuration_and_is_never_unspecified() {
    let host = ("PAIRDB__SERVER__ADVERTISE_HOST", "10.0.0.1");
    let (ip, namespace) = (("POD_IP", "10.0.0.2"), ("POD_NAMESPACE", "db"));
    let name = "node-7.pairdb-storage-node-headless.db.svc.cluster.local";
    assert_eq!(advertised(&[host, ip, namespace]).as_deref(), Ok(name));
    assert_eq!(advertised(&[host, ip]).as_deref(), Ok("10.0.0.2"));
    assert_eq!(
        advertised(&[host, ("POD_IP", ""), ("POD_NAMESPACE", "")]).as_deref(),
        Ok("10.0.0.1")
    );
    assert_eq!(advertised(&[]).as_deref(), Ok("127.0.0.1"), "where it listens");
    for wrong in [
        &[("PAIRDB__SERVER__HOST", "0.0.0.0")][..],
        &[("PAIRDB__SERVER__ADVERTISE_HOST", "0.0.0.0")],
        &[("PAIRDB__SERVER__ADVERTISE_HOST", "::")],
        &[("PAIRDB__SERVER__ADVERTISE_HOST", "a host")],
        &[("POD_IP", "0.0.0.0")],
    ] {
        let refused = advertised(wrong).expect_err(wrong[0].1);
        assert!(
            refused.contains("server.advertise_host") && refused.contains(wrong[0].1),
            "{refused}"
        );
    }
    // One that listens everywhere says where it is.
    assert_eq!(
        advertised(&[("PAIRDB__SERVER__HOST", "0.0.0.0"), host]).as_deref(),
        Ok("10.0.0.1")
    );
}

#[test]
fn the_other_nodes_are_named_with_their_addresses() {
    let load = |nodes: &str| {
        let environment = [("PAIRDB__CLUSTER__NODES".to_owned(), nodes.to_owned())];
        Config::load(None, environment, &[]).map(|config| config.cluster.nodes)
    };
    let nodes = load("b=10.0.0.2:50052, Node-C=[::1]:7,").unwrap();
    assert_eq!(nodes["b"], "10.0.0.2:50052");
    assert_eq!(nodes["Node-C"], "[::1]:7");
    for wrong in [
        "b",
        "b=",
        "b=host",
        "b=host:0",
        "b=host:70000",
        "=host:1",
        "b=::1:7",
        "b=http://host:1",
    ] {
        let refused = load(wrong).expect_err(wrong).to_string();
        assert!(refused.contains("cluster.nodes"), "{refused}");
    }
}
