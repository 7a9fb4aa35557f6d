//! The service: one short function for each RPC.

use crate::actors::answer_room::{ConnectionRoom, HeldRoom};
use crate::actors::health::Health;
use crate::actors::health::Status as NodeStatus;
use crate::actors::overload::{Kind, UnderWay};
use crate::actors::refusal::Refusal;
use crate::actors::requests::Requests;
use crate::actors::write::{NewWrite, WriteOutcome};
use crate::rpc::convert::{
    delete_from_wire, delete_response, read_response, read_response_bytes, repair_from_wire, repair_response,
    write_from_wire, write_response,
};
use crate::rpc::pb::operation::Operation;
use crate::rpc::pb::operation_result::Result as OperationOutcome;
use crate::rpc::pb::storage_node_service_server::StorageNodeService;
use crate::rpc::security::{Rights, Security};
use crate::rpc::sending::{NOT_TAKEN, hold, holding, room_of};
use crate::rpc::status::Failed;
use crate::rpc::{batch, compression, drain, pb, ranges, replicate, stream, streaming};
use crate::storage::key::Key;
use crate::storage::limits::{self, LimitError};
use std::future::Future;
use std::sync::Arc;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

/// Bytes that a result takes beside what it holds.
const RESULT_BYTES: usize = size_of::<OperationOutcome>();

/// What a call answers.
pub(super) type Answer<T> = Result<Response<T>, Status>;

fn answer<T: prost::Message>(outcome: Result<T, Failed>) -> Answer<T> {
    outcome.map(compression::answer).map_err(Failed::status)
}

fn held_answer<T: prost::Message>(outcome: Result<(T, Option<HeldRoom>), Failed>) -> Answer<T> {
    let (message, held) = outcome.map_err(Failed::status)?;
    Ok(holding(compression::answer(message), held))
}

/// Translates calls into the actors' requests.
#[derive(Clone)]
pub(super) struct StorageNode {
    pub(super) requests: Requests,
    pub(super) health: Arc<Health>,
    pub(super) security: Arc<Security>,
}

impl StorageNode {
    fn rights<T>(&self, request: &Request<T>) -> Rights<'_> {
        Rights::of(&self.security, request)
    }

    /// For what concerns all tenants, or the node itself.
    fn to_all<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.rights(request).to_all().map_err(Failed::status)
    }

    async fn put(&self, rights: Rights<'_>, write: Result<NewWrite, LimitError>) -> Result<WriteOutcome, Failed> {
        let write = write.map_err(|error| Failed::from(&error))?;
        rights.to_write(&write)?;
        let outcome = self.requests.write(write).await;
        outcome.map_err(|refusal| Failed::from(&refusal))
    }

    async fn get(
        &self,
        rights: Rights<'_>,
        request: &pb::ReadRequest,
        room: Option<Arc<ConnectionRoom>>,
    ) -> Result<(pb::ReadResponse, Option<HeldRoom>), Failed> {
        let key = Key::new(&request.tenant_id, &request.key).map_err(|error| Failed::from(&error))?;
        rights.to_tenant(key.tenant())?;
        let versions = self.requests.read(key).await;
        let versions = versions.map_err(|refusal| Failed::from(&refusal))?;
        let held = hold(room, read_response_bytes(&versions))?;
        Ok((read_response(&versions)?, held))
    }

    /// Carries out one operation of a stream, if there is not too much to do. Its result holds the room that is returned, for
    /// which a change, once it is done, waits until its client is `gone`.
    pub(super) async fn operation(
        &self,
        rights: Rights<'_>,
        operation: Option<Operation>,
        room: &Arc<ConnectionRoom>,
        gone: impl Future<Output = ()>,
    ) -> (Result<OperationOutcome, Failed>, Option<HeldRoom>) {
        let changed = match operation {
            None => Err(Failed::from(&limits::missing("operation"))),
            Some(Operation::Read(request)) => {
                return match self.get_with_room(rights, &request, room).await {
                    Ok((found, held)) => (found.map(OperationOutcome::Read), Some(held)),
                    Err(failed) => (Err(failed), None),
                };
            }
            Some(Operation::Write(request)) => {
                self.change(rights, write_from_wire(request), |outcome| {
                    OperationOutcome::Write(write_response(outcome))
                })
                .await
            }
            Some(Operation::Delete(request)) => {
                self.change(rights, delete_from_wire(request), |outcome| {
                    OperationOutcome::Delete(delete_response(outcome))
                })
                .await
            }
            Some(Operation::Repair(request)) => {
                self.change(rights, repair_from_wire(request), |outcome| {
                    OperationOutcome::Repair(repair_response(outcome))
                })
                .await
            }
        };
        // It cannot be asked for again, and is small but for its clock.
        let bytes = RESULT_BYTES + changed.as_ref().map_or(0, OperationOutcome::encoded_len);
        tokio::select! {
            biased;
            held = room.hold(bytes) => (changed, Some(held)),
            () = gone => (changed, None),
        }
    }

    async fn change(
        &self,
        rights: Rights<'_>,
        write: Result<NewWrite, LimitError>,
        answer: fn(&WriteOutcome) -> OperationOutcome,
    ) -> Result<OperationOutcome, Failed> {
        let outcome = self
            .entered(self.requests.enter(Kind::Write), self.put(rights, write))
            .await?;
        Ok(answer(&outcome))
    }

    /// Does `work`, if there is not too much to do.
    async fn entered<T>(
        &self,
        entered: Result<UnderWay, Refusal>,
        work: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        let under_way = entered.map_err(|refusal| Failed::from(&refusal))?;
        let outcome = work.await;
        if outcome.is_ok() {
            under_way.answered();
        }
        outcome
    }

    /// Reads a key, and once more when its client has taken enough: what was read is not kept until then.
    async fn get_with_room(
        &self,
        rights: Rights<'_>,
        request: &pb::ReadRequest,
        room: &Arc<ConnectionRoom>,
    ) -> Result<(Result<pb::ReadResponse, Failed>, HeldRoom), Failed> {
        let key = Key::new(&request.tenant_id, &request.key).map_err(|error| Failed::from(&error))?;
        rights.to_tenant(key.tenant())?;
        let mut held: Option<HeldRoom> = None;
        loop {
            let is_again = held.is_some();
            let read = async {
                let versions = if is_again {
                    self.requests.read_again(key.clone()).await
                } else {
                    self.requests.read(key.clone()).await
                };
                versions.map_err(|refusal| Failed::from(&refusal))
            };
            let entered = if is_again {
                self.requests.enter_again(Kind::Read)
            } else {
                self.requests.enter(Kind::Read)
            };
            let versions = self.entered(entered, read).await?;
            let bytes = RESULT_BYTES + read_response_bytes(&versions);
            let suffices = held.take().filter(|held| held.suffices_for(bytes));
            if let Some(held) = suffices.or_else(|| room.try_hold_streamed(bytes)) {
                return Ok((read_response(&versions), held));
            }
            drop(versions);
            held = Some(self.wait_for_room(room, bytes).await?);
        }
    }

    /// Waits until this client takes answers; not for others that take none.
    async fn wait_for_room(&self, room: &Arc<ConnectionRoom>, bytes: usize) -> Result<HeldRoom, Failed> {
        loop {
            let was_empty = room.is_empty();
            match tokio::time::timeout(self.requests.timeouts.read, room.hold(bytes)).await {
                Ok(held) => return Ok(held),
                Err(_elapsed) if was_empty && room.is_empty() => {
                    return Err(Failed::from(&Refusal::Overloaded(NOT_TAKEN)));
                }
                Err(_elapsed) => {}
            }
        }
    }
}

#[tonic::async_trait]
impl StorageNodeService for StorageNode {
    async fn write(&self, request: Request<pb::WriteRequest>) -> Answer<pb::WriteResponse> {
        let rights = self.rights(&request);
        let outcome = self.put(rights, write_from_wire(request.into_inner())).await;
        answer(outcome.map(|outcome| write_response(&outcome)))
    }

    async fn repair(&self, request: Request<pb::RepairRequest>) -> Answer<pb::RepairResponse> {
        let rights = self.rights(&request);
        let outcome = self.put(rights, repair_from_wire(request.into_inner())).await;
        answer(outcome.map(|outcome| repair_response(&outcome)))
    }

    async fn delete(&self, request: Request<pb::DeleteRequest>) -> Answer<pb::DeleteResponse> {
        let rights = self.rights(&request);
        let outcome = self.put(rights, delete_from_wire(request.into_inner())).await;
        answer(outcome.map(|outcome| delete_response(&outcome)))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Answer<pb::ReadResponse> {
        let found = self
            .get(self.rights(&request), request.get_ref(), room_of(&request))
            .await;
        held_answer(found)
    }

    async fn batch_write(&self, request: Request<pb::BatchWriteRequest>) -> Answer<pb::BatchResponse> {
        let rights = self.rights(&request);
        answer(batch::write(&self.requests, rights, request.into_inner()).await)
    }

    async fn batch_read(&self, request: Request<pb::BatchReadRequest>) -> Answer<pb::BatchResponse> {
        let (rights, room) = (self.rights(&request), room_of(&request));
        held_answer(batch::read(&self.requests, rights, room, request.into_inner()).await)
    }

    async fn batch_delete(&self, request: Request<pb::BatchDeleteRequest>) -> Answer<pb::BatchResponse> {
        let rights = self.rights(&request);
        answer(batch::delete(&self.requests, rights, request.into_inner()).await)
    }

    async fn operations(&self, request: Request<Streaming<pb::Operation>>) -> Answer<BoxStream<pb::OperationResult>> {
        let room = room_of(&request).unwrap_or_else(|| self.requests.answers.of_connection());
        let digest = Rights::digest(&request);
        Ok(stream::run(self.clone(), digest, room, request))
    }

    async fn scan(&self, request: Request<pb::ScanRequest>) -> Answer<BoxStream<pb::ScanEntry>> {
        ranges::scan(&self.requests, self.rights(&request), request)
    }

    async fn stream_keys(&self, request: Request<pb::StreamKeysRequest>) -> Answer<BoxStream<pb::KeyValueEntry>> {
        ranges::stream_keys(&self.requests, self.rights(&request), request)
    }

    async fn get_key_range(&self, request: Request<pb::KeyRangeRequest>) -> Answer<pb::KeyRangeResponse> {
        let rights = self.rights(&request);
        ranges::get_key_range(&self.requests, rights, request.into_inner()).await
    }

    async fn replicate_data(&self, request: Request<pb::ReplicateRequest>) -> Answer<pb::ReplicateResponse> {
        self.to_all(&request)?;
        replicate::replicate_data(&self.requests, &self.health.node_id, request).await
    }

    async fn start_streaming(&self, request: Request<pb::StartStreamingRequest>) -> Answer<pb::StartStreamingResponse> {
        self.to_all(&request)?;
        streaming::start(&self.requests, &self.health.node_id, request.into_inner()).await
    }

    async fn stop_streaming(&self, request: Request<pb::StopStreamingRequest>) -> Answer<pb::StopStreamingResponse> {
        self.to_all(&request)?;
        streaming::stop(&self.requests, &self.health.node_id, request.into_inner()).await
    }

    async fn get_stream_status(&self, request: Request<pb::StreamStatusRequest>) -> Answer<pb::StreamStatusResponse> {
        self.to_all(&request)?;
        streaming::status_of(&self.requests, &self.health.node_id, request.get_ref())
    }

    async fn notify_streaming_complete(
        &self,
        request: Request<pb::StreamingCompleteRequest>,
    ) -> Answer<pb::StreamingCompleteResponse> {
        self.to_all(&request)?;
        streaming::completed(&self.health.node_id, request.get_ref())
    }

    async fn compare_keys(&self, request: Request<pb::CompareKeysRequest>) -> Answer<pb::CompareKeysResponse> {
        self.to_all(&request)?;
        streaming::compare(&self.requests, request.into_inner()).await
    }

    async fn drain_node(&self, request: Request<pb::DrainRequest>) -> Answer<pb::DrainResponse> {
        self.to_all(&request)?;
        drain::drain_node(&self.requests.drain, request.into_inner()).await
    }

    async fn health_check(&self, request: Request<pb::HealthCheckRequest>) -> Answer<pb::HealthResponse> {
        self.to_all(&request)?;
        let (node, reasons) = self.health.status();
        let mut metrics: std::collections::HashMap<String, String> = self.health.metrics().into_iter().collect();
        if !reasons.is_empty() {
            metrics.insert("reasons".to_owned(), reasons.join("; "));
        }
        answer(Ok(pb::HealthResponse {
            healthy: node != NodeStatus::Unhealthy,
            status: node.as_str().to_owned(),
            metrics,
        }))
    }
}
