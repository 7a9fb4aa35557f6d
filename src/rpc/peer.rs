//! Other nodes, by the RPCs that every node answers.
//!
//! Owns: the client's side of Write, Delete, their batches, and CompareKeys. Does not own: what is sent, or when (see
//! [`crate::actors::replication`] and [`crate::actors::streaming`]). A node that has no batches gets single writes.

use crate::actors::address_book::NodeAddress;
use crate::actors::peers::{Comparing, Dial, Peer, PeerError, Sending, SendingBatch};
use crate::actors::trail::call::Calling;
use crate::actors::trail::traces::Traces;
use crate::rpc::MAX_MESSAGE_BYTES;
use crate::rpc::convert::clock_to_wire;
use crate::rpc::outgoing::{ended, request};
use crate::rpc::pb;
use crate::rpc::pb::operation_result::Result as Outcome;
use crate::rpc::pb::storage_node_service_client::StorageNodeServiceClient;
use crate::rpc::security::{Security, Shown, Way, by_tls};
use crate::storage::key::Key;
use crate::storage::version::{Value, Version};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;
use tonic::{Code, Response, Status};

/// Longest time that a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Single writes of a batch that are under way at once.
const SINGLES: usize = 32;

/// Reaches nodes by gRPC, on a connection each, made when it is first used. Each connection is made, and each call shows a
/// token, as the files say at that moment.
#[derive(Debug, Clone)]
pub struct GrpcDial {
    /// How other nodes are trusted, and what they are shown.
    pub security: Arc<Security>,
    /// Where the calls are told of.
    pub traces: Arc<Traces>,
}

impl Dial for GrpcDial {
    fn dial(&self, address: &NodeAddress) -> Result<Arc<dyn Peer>, PeerError> {
        let scheme = self.security.to_peers().map_or("http", |_| "https");
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|error| PeerError::Refused(format!("{address} is no address: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let channel = if scheme == "https" {
            let security = Arc::clone(&self.security);
            endpoint.connect_with_connector_lazy(by_tls(move || security.to_peers()))
        } else {
            endpoint.connect_lazy()
        };
        let channel = Way::new(channel, Shown::ToPeers(Arc::clone(&self.security)));
        Ok(Arc::new(GrpcPeer {
            address: address.clone(),
            traces: Arc::clone(&self.traces),
            client: StorageNodeServiceClient::new(channel)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            has_batches: Arc::new(AtomicBool::new(true)),
        }))
    }
}

#[derive(Clone)]
struct GrpcPeer {
    address: NodeAddress,
    traces: Arc<Traces>,
    client: StorageNodeServiceClient<Way>,
    /// It has not said yet that it knows no batches.
    has_batches: Arc<AtomicBool>,
}

fn write_request(key: &Key, version: &Version, value: &[u8]) -> pb::WriteRequest {
    pb::WriteRequest {
        tenant_id: key.tenant().to_owned(),
        key: key.key().to_owned(),
        value: value.to_vec(),
        vector_clock: Some(clock_to_wire(&version.clock)),
        is_copy: true,
        ..pb::WriteRequest::default()
    }
}

fn delete_request(key: &Key, version: &Version) -> pb::DeleteRequest {
    pb::DeleteRequest {
        tenant_id: key.tenant().to_owned(),
        key: key.key().to_owned(),
        vector_clock: Some(clock_to_wire(&version.clock)),
        is_copy: true,
        ..pb::DeleteRequest::default()
    }
}

impl Peer for GrpcPeer {
    fn put(&self, key: &Key, version: &Version) -> Sending {
        let (mut client, address) = (self.client.clone(), self.address.clone());
        match &version.value {
            Value::Live(value) => {
                let calling = self.calling("Write");
                let request = request(&calling, write_request(key, version, value));
                Box::pin(async move {
                    let put = ended(calling, client.write(request).await);
                    put.map(drop).map_err(|status| failed(&address, &status))
                })
            }
            Value::Tombstone => {
                let calling = self.calling("Delete");
                let request = request(&calling, delete_request(key, version));
                Box::pin(async move {
                    let put = ended(calling, client.delete(request).await);
                    put.map(drop).map_err(|status| failed(&address, &status))
                })
            }
        }
    }

    fn put_batch(&self, versions: &[(Key, Version)]) -> SendingBatch {
        let (peer, versions) = (self.clone(), versions.to_vec());
        Box::pin(async move {
            if peer.has_batches.load(Ordering::Relaxed)
                && let Some(results) = peer.put_together(&versions).await
            {
                return results;
            }
            peer.put_singly(versions).await
        })
    }

    fn compare(&self, digests: &[(Key, u64)]) -> Comparing {
        let (mut client, address) = (self.client.clone(), self.address.clone());
        let keys = digests.iter().map(|(key, digest)| pb::KeyDigest {
            tenant_id: key.tenant().to_owned(),
            key: key.key().to_owned(),
            digest: *digest,
        });
        let calling = self.calling("CompareKeys");
        let request = request(&calling, pb::CompareKeysRequest { keys: keys.collect() });
        Box::pin(async move {
            match ended(calling, client.compare_keys(request).await) {
                Ok(answer) => {
                    let places = answer.into_inner().differing.into_iter();
                    Ok(Some(places.filter_map(|place| usize::try_from(place).ok()).collect()))
                }
                Err(status) if status.code() == Code::Unimplemented => Ok(None),
                Err(status) => Err(failed(&address, &status)),
            }
        })
    }
}

impl GrpcPeer {
    /// A call of this method, in the trace of whoever this task works for.
    fn calling(&self, method: &'static str) -> Calling {
        Calling::begin(&self.traces, method, &self.address)
    }

    /// Sends a batch of writes and one of deletes, at once. [`None`]: the node has no batches.
    async fn put_together(&self, versions: &[(Key, Version)]) -> Option<Vec<Result<(), PeerError>>> {
        let (mut writes, mut deletes) = (pb::BatchWriteRequest::default(), pb::BatchDeleteRequest::default());
        for (key, version) in versions {
            match &version.value {
                Value::Live(value) => writes.operations.push(write_request(key, version, value)),
                Value::Tombstone => deletes.operations.push(delete_request(key, version)),
            }
        }
        let (mut writer, mut deleter) = (self.client.clone(), self.client.clone());
        let writing = async {
            if writes.operations.is_empty() {
                return Ok(Response::new(pb::BatchResponse::default()));
            }
            let calling = self.calling("BatchWrite");
            let request = request(&calling, writes);
            ended(calling, writer.batch_write(request).await)
        };
        let deleting = async {
            if deletes.operations.is_empty() {
                return Ok(Response::new(pb::BatchResponse::default()));
            }
            let calling = self.calling("BatchDelete");
            let request = request(&calling, deletes);
            ended(calling, deleter.batch_delete(request).await)
        };
        let (written, deleted) = tokio::join!(writing, deleting);
        let mut written = self.results(written)?;
        let mut deleted = self.results(deleted)?;
        let of = |(_, version): &(Key, Version)| match version.value {
            Value::Live(_) => written(),
            Value::Tombstone => deleted(),
        };
        Some(versions.iter().map(of).collect())
    }

    /// The results of a batch, one after the other. [`None`]: the node has no batches.
    fn results(
        &self,
        answer: Result<Response<pb::BatchResponse>, Status>,
    ) -> Option<impl FnMut() -> Result<(), PeerError> + use<'_>> {
        let answer = match answer {
            Ok(answer) => Ok(answer.into_inner().results.into_iter()),
            Err(status) if status.code() == Code::Unimplemented => {
                self.has_batches.store(false, Ordering::Relaxed);
                return None;
            }
            Err(status) => Err(failed(&self.address, &status)),
        };
        let mut answer = answer;
        Some(move || match &mut answer {
            Ok(results) => match results.next().and_then(|result| result.result) {
                Some(Outcome::Failure(failure)) => {
                    let status = Status::new(Code::from(failure.code), failure.message);
                    Err(failed(&self.address, &status))
                }
                Some(_) => Ok(()),
                None => Err(PeerError::Passing(format!(
                    "the node at {} left out a result",
                    self.address
                ))),
            },
            Err(error) => Err(error.clone()),
        })
    }

    async fn put_singly(&self, versions: Vec<(Key, Version)>) -> Vec<Result<(), PeerError>> {
        let lost = Err(PeerError::Passing("it was not sent".to_owned()));
        let mut results = vec![lost; versions.len()];
        let mut sending = JoinSet::new();
        for (place, (key, version)) in versions.into_iter().enumerate() {
            if sending.len() >= SINGLES {
                note(&mut results, sending.join_next().await);
            }
            let put = self.put(&key, &version);
            sending.spawn(async move { (place, put.await) });
        }
        while let Some(sent) = sending.join_next().await {
            note(&mut results, Some(sent));
        }
        results
    }
}

type Sent = Result<(usize, Result<(), PeerError>), tokio::task::JoinError>;

fn note(results: &mut [Result<(), PeerError>], sent: Option<Sent>) {
    if let Some(Ok((place, result))) = sent
        && let Some(slot) = results.get_mut(place)
    {
        *slot = result;
    }
}

fn failed(address: &NodeAddress, status: &Status) -> PeerError {
    let why = format!(
        "the node at {address} answered {:?}: {}",
        status.code(),
        status.message()
    );
    match status.code() {
        // Said of what was sent: it will not be taken another time either.
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::Unimplemented => {
            PeerError::Refused(why)
        }
        // Of the node, or of the way to it: also of the token, which may be known there in a moment.
        _ => PeerError::Passing(why),
    }
}
