//! Serves the protocol on a listening socket.
//!
//! Owns: connections, their number, and the settings of HTTP/2. Does not own: the socket (the gateway's), or requests.

use crate::actors::gateway::Serve;
use crate::actors::health::Health;
use crate::actors::requests::Requests;
use crate::rpc::MAX_MESSAGE_BYTES;
use crate::rpc::connection::Connection;
use crate::rpc::pb::storage_node_service_server::StorageNodeServiceServer;
use crate::rpc::service::StorageNode;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio_stream::Stream;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;

/// Streams that one connection may have open.
const MAX_STREAMS_PER_CONNECTION: u32 = 1024;
/// A connection that is silent for so long is asked whether it lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// And closed, when it does not answer for so long.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept: without file descriptors the next one would fail at once as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What serves the storage protocol, for the gateway to run. At most `max_connections` are open at a time.
#[must_use]
pub fn serve(requests: Requests, health: Arc<Health>, max_connections: usize) -> Arc<Serve> {
    let node = StorageNode { requests, health };
    let connections = Arc::new(Semaphore::new(max_connections));
    Arc::new(move |listener, stopped| {
        let service = StorageNodeServiceServer::new(node.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip);
        let incoming = Incoming {
            listener,
            connections: Arc::clone(&connections),
            pause: None,
        };
        Box::pin(run(service, incoming, stopped))
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
    incoming: Incoming,
    stopped: oneshot::Receiver<()>,
) -> Result<(), String> {
    settings()
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async {
            // A sender that is gone means stop as well.
            let _ = stopped.await;
        })
        .await
        .map_err(|error| error.to_string())
}

/// The connections that come in, as many as there may be.
struct Incoming {
    listener: TcpListener,
    connections: Arc<Semaphore>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match std::task::ready!(self.listener.poll_accept(context)) {
                Ok((stream, peer)) => {
                    let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
                        // Closed at once, so that the client learns it now and not at its deadline.
                        tracing::warn!(%peer, "refused a connection: server.max_connections are open");
                        continue;
                    };
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%peer, %error, "a connection was gone at once");
                        continue;
                    }
                    return Poll::Ready(Some(Ok(Connection::new(stream, permit))));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}
