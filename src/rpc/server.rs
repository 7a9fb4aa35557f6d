//! Serves the protocol on connections that the gateway accepted.
//!
//! Owns: the services on a connection, and how HTTP/2 is spoken. Does not own: accepting (the gateway's), or requests.

use crate::actors::gateway::{Accepted, Serve};
use crate::actors::health::Health;
use crate::actors::requests::Requests;
use crate::rpc::MAX_MESSAGE_BYTES;
use crate::rpc::connection::Connection;
use crate::rpc::deadline::Deadlines;
use crate::rpc::health::{Serving, State};
use crate::rpc::pb::storage_node_service_server::StorageNodeServiceServer;
use crate::rpc::receiving::ReceiveBudget;
use crate::rpc::security::{Guard, Security, Whom};
use crate::rpc::service::StorageNode;
use crate::rpc::shedding::Shedding;
use crate::rpc::trails::Trails;
use crate::rpc::{reflection, sending, status};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;
use tower::util::MapResponseLayer;

/// How HTTP/2 is spoken.
#[derive(Debug, Clone, Copy)]
pub struct Http2 {
    /// Streams that one connection may have open.
    pub max_streams: u32,
    /// A connection that is silent for so long is asked whether it lives.
    pub keepalive_interval: Duration,
    /// And closed, when it does not answer for so long.
    pub keepalive_timeout: Duration,
}

impl Http2 {
    /// A server that speaks so. The benchmark's empty handler does, too.
    #[must_use]
    pub fn server(self) -> Server {
        Server::builder()
            .max_concurrent_streams(self.max_streams)
            .http2_keepalive_interval(Some(self.keepalive_interval))
            .http2_keepalive_timeout(Some(self.keepalive_timeout))
    }
}

/// What serves the storage protocol, for the gateway to run.
#[must_use]
pub fn serve(requests: Requests, health: Arc<Health>, http2: Http2, security: Arc<Security>) -> Arc<Serve> {
    Arc::new(move |accepted, stopped| {
        let node = StorageNode {
            requests: requests.clone(),
            health: Arc::clone(&health),
            security: Arc::clone(&security),
        };
        Box::pin(run(node, http2, accepted, stopped))
    })
}

/// All services of a connection.
fn services(node: StorageNode, serving: Serving) -> Routes {
    let storage = StorageNodeServiceServer::new(node)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(usize::MAX)
        .accept_compressed(Gzip)
        .send_compressed(Gzip);
    let routes = Routes::new(storage).add_service(HealthServer::new(serving).accept_compressed(Gzip));
    reflection::add_to(routes.clone()).unwrap_or_else(|error| {
        tracing::error!(%error, "the node serves without reflection");
        routes
    })
}

async fn run(node: StorageNode, http2: Http2, accepted: mpsc::Receiver<Accepted>, stopped: oneshot::Receiver<()>) {
    let (room, look_every) = (Arc::clone(&node.requests.answers), node.requests.timeouts.read);
    let security = Arc::clone(&node.security);
    let guard = Guard::new(&security, Whom::Tenants);
    let incoming = ReceiverStream::new(accepted)
        .map(move |accepted| Connection::new(accepted, room.of_connection(), look_every, &security));
    let state = State {
        requests: node.requests.clone(),
        health: Arc::clone(&node.health),
    };
    let (current, watched) = watch::channel(state.serving());
    let serving = Serving {
        state: state.clone(),
        current: watched,
    };
    let served = http2
        .server()
        .layer(Trails(Arc::clone(&node.requests.handles.traces)))
        .layer(guard)
        .layer(Shedding(Arc::new(node.requests.clone())))
        .layer(Deadlines)
        .layer(ReceiveBudget::new(reflection::unary_requests()))
        .layer(MapResponseLayer::new(sending::carrying))
        .layer(MapResponseLayer::new(status::explained))
        .add_routes(services(node, serving))
        .serve_with_incoming_shutdown(incoming, state.observe(current, stopped))
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "serving ended");
    }
}
