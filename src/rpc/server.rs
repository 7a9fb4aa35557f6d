//! Serves the protocol on connections that the gateway accepted.
//!
//! Owns: the settings of HTTP/2. Does not own: accepting (the gateway's), or requests.

use crate::actors::gateway::{Accepted, Serve};
use crate::actors::health::Health;
use crate::actors::requests::Requests;
use crate::rpc::MAX_MESSAGE_BYTES;
use crate::rpc::connection::Connection;
use crate::rpc::pb::storage_node_service_server::StorageNodeServiceServer;
use crate::rpc::receiving::ReceiveBudget;
use crate::rpc::service::StorageNode;
use crate::rpc::status;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tower::util::MapResponseLayer;

/// Streams that one connection may have open.
const MAX_STREAMS_PER_CONNECTION: u32 = 1024;
/// A connection that is silent for so long is asked whether it lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// And closed, when it does not answer for so long.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What serves the storage protocol, for the gateway to run.
#[must_use]
pub fn serve(requests: Requests, health: Arc<Health>) -> Arc<Serve> {
    let node = StorageNode { requests, health };
    Arc::new(move |accepted, stopped| {
        let service = StorageNodeServiceServer::new(node.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip);
        Box::pin(run(service, accepted, stopped))
    })
}

/// The settings of HTTP/2, which the benchmark's empty handler shares.
#[must_use]
pub fn settings() -> Server {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

async fn run(
    service: StorageNodeServiceServer<StorageNode>,
    accepted: mpsc::Receiver<Accepted>,
    stopped: oneshot::Receiver<()>,
) {
    let incoming = ReceiverStream::new(accepted).map(Connection::new);
    let served = settings()
        .layer(ReceiveBudget::default())
        .layer(MapResponseLayer::new(status::of_undecodable))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async {
            // A sender that is gone means stop as well.
            let _ = stopped.await;
        })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "serving ended");
    }
}
