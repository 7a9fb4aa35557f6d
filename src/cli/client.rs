//! A connection to a node, and its errors in words that say what to do.

use super::Failure;
use crate::rpc::MAX_MESSAGE_BYTES;
use crate::rpc::admin::SOCKET;
use crate::rpc::admin_pb::admin_service_client::AdminServiceClient;
use crate::rpc::admin_pb::fault_service_client::FaultServiceClient;
use crate::rpc::pb::storage_node_service_client::StorageNodeServiceClient;
use hyper_util::rt::TokioIo;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub(super) type Client = StorageNodeServiceClient<Channel>;

/// Longest time that a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

fn endpoint(addr: &str) -> Result<Endpoint, Failure> {
    let url = if addr.contains("://") {
        addr.to_owned()
    } else {
        format!("http://{addr}")
    };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|error| format!("--addr {addr}: {error}; it must be like http://127.0.0.1:50052"))?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true))
}

fn client(channel: Channel) -> Client {
    Client::new(channel)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// Connects, and fails when nobody listens.
pub(super) async fn connect(addr: &str) -> Result<Client, Failure> {
    let channel = endpoint(addr)?.connect().await.map_err(|error| {
        let cause = deepest(&error);
        format!("cannot reach a node at {addr}: {cause}; is it running (pairdb-node serve), and is --addr right?")
    })?;
    Ok(client(channel))
}

fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), deepest)
}

/// A client that connects when it is first used, and again whenever the node comes back.
pub(super) fn connect_lazily(addr: &str) -> Result<Client, Failure> {
    Ok(client(endpoint(addr)?.connect_lazy()))
}

/// Reaches the node that runs on a data directory; fails when none does, and names the socket.
pub(super) async fn admin(data_dir: &Path) -> Result<AdminServiceClient<Channel>, Failure> {
    let socket = data_dir.join(SOCKET);
    let shown = socket.display().to_string();
    // The address is not used: there is but one way.
    let endpoint = Endpoint::from_static("http://admin.socket");
    let connect = move |_uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    };
    let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await;
    let channel = channel.map_err(|error| {
        let cause = deepest(&error);
        format!(
            "no node answers at {shown}: {cause}; is it running there (--data-dir or --config name its data directory)?"
        )
    })?;
    Ok(AdminServiceClient::new(channel).max_decoding_message_size(usize::MAX))
}

/// Connects to where a node lets faults be injected.
pub(super) async fn fault_service(addr: &str) -> Result<FaultServiceClient<Channel>, Failure> {
    let channel = endpoint(addr)?.connect().await.map_err(|error| {
        let cause = deepest(&error);
        format!("no fault service answers at {addr}: {cause}; is admin.fault_injection set where the node runs?")
    })?;
    Ok(FaultServiceClient::new(channel))
}

/// A status in words.
pub(super) fn explain(status: &Status) -> Failure {
    let advice = match status.code() {
        Code::Unavailable => "; the node is not there, or asks to try again",
        Code::ResourceExhausted => "; try again later",
        Code::DataLoss => "; read another replica, and restore this one",
        Code::Internal => "; look at the node's log",
        _ => "",
    };
    Failure(format!("{} ({:?}){advice}", status.message(), status.code()))
}

/// Whether the same call may succeed a little later.
pub(super) fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::Unknown | Code::Cancelled
    )
}
