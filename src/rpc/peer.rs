//! Other nodes, by the RPCs that every node answers.
//!
//! Owns: the client's side of Write and Delete. Does not own: what is sent, or when (see [`crate::actors::replication`]).

use crate::actors::address_book::NodeAddress;
use crate::actors::peers::{Dial, Peer, PeerError, Sending};
use crate::rpc::MAX_MESSAGE_BYTES;
use crate::rpc::convert::clock_to_wire;
use crate::rpc::pb;
use crate::rpc::pb::storage_node_service_client::StorageNodeServiceClient;
use crate::storage::key::Key;
use crate::storage::version::{Value, Version};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Longest time that a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reaches nodes by gRPC, on a connection each, made when it is first used.
#[derive(Debug, Clone, Copy, Default)]
pub struct GrpcDial;

impl Dial for GrpcDial {
    fn dial(&self, address: &NodeAddress) -> Result<Arc<dyn Peer>, PeerError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| PeerError::Refused(format!("{address} is no address: {error}")))?;
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .connect_lazy();
        Ok(Arc::new(GrpcPeer {
            address: address.to_string(),
            client: StorageNodeServiceClient::new(channel).max_encoding_message_size(MAX_MESSAGE_BYTES),
        }))
    }
}

struct GrpcPeer {
    address: String,
    client: StorageNodeServiceClient<Channel>,
}

impl Peer for GrpcPeer {
    fn put(&self, key: &Key, version: &Version) -> Sending {
        let (mut client, address) = (self.client.clone(), self.address.clone());
        let (tenant_id, key) = (key.tenant().to_owned(), key.key().to_owned());
        let vector_clock = Some(clock_to_wire(&version.clock));
        let value = version.value.clone();
        Box::pin(async move {
            let put = match value {
                Value::Live(value) => {
                    let request = pb::WriteRequest {
                        tenant_id,
                        key,
                        value: value.to_vec(),
                        vector_clock,
                        ..pb::WriteRequest::default()
                    };
                    client.write(request).await.map(drop)
                }
                Value::Tombstone => {
                    let request = pb::DeleteRequest {
                        tenant_id,
                        key,
                        vector_clock,
                        ..pb::DeleteRequest::default()
                    };
                    client.delete(request).await.map(drop)
                }
            };
            put.map_err(|status| failed(&address, &status))
        })
    }
}

fn failed(address: &str, status: &Status) -> PeerError {
    let why = format!(
        "the node at {address} answered {:?}: {}",
        status.code(),
        status.message()
    );
    match status.code() {
        // What the transport reports of itself is Unknown.
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            PeerError::Passing(why)
        }
        _ => PeerError::Refused(why),
    }
}
