//! The service: one short function for each RPC.

use crate::actors::health::Health;
use crate::actors::health::Status as NodeStatus;
use crate::actors::overload::Kind;
use crate::actors::requests::Requests;
use crate::actors::write::{NewWrite, WriteOutcome};
use crate::rpc::convert::{
    delete_from_wire, delete_response, read_response, repair_from_wire, repair_response, write_from_wire,
    write_response,
};
use crate::rpc::pb::operation::Operation;
use crate::rpc::pb::operation_result::Result as OperationOutcome;
use crate::rpc::pb::storage_node_service_server::StorageNodeService;
use crate::rpc::status::Failed;
use crate::rpc::{batch, compression, drain, pb, ranges, replicate, stream, streaming};
use crate::storage::key::Key;
use crate::storage::limits::{self, LimitError};
use std::sync::Arc;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

/// What a call answers.
pub(super) type Answer<T> = Result<Response<T>, Status>;

fn answer<T: prost::Message>(outcome: Result<T, Failed>) -> Answer<T> {
    outcome.map(compression::answer).map_err(Failed::status)
}

/// Translates calls into the actors' requests.
#[derive(Clone)]
pub(super) struct StorageNode {
    pub(super) requests: Requests,
    pub(super) health: Arc<Health>,
}

impl StorageNode {
    async fn put(&self, write: Result<NewWrite, LimitError>) -> Result<WriteOutcome, Failed> {
        let write = write.map_err(|error| Failed::from(&error))?;
        let outcome = self.requests.write(write).await;
        outcome.map_err(|refusal| Failed::from(&refusal))
    }

    async fn get(&self, request: &pb::ReadRequest) -> Result<pb::ReadResponse, Failed> {
        let key = Key::new(&request.tenant_id, &request.key).map_err(|error| Failed::from(&error))?;
        let versions = self.requests.read(key).await;
        read_response(&versions.map_err(|refusal| Failed::from(&refusal))?)
    }

    /// Carries out one operation of a stream, if there is not too much to do.
    pub(super) async fn operation(&self, operation: Option<Operation>) -> Result<OperationOutcome, Failed> {
        let Some(operation) = operation else {
            return Err(Failed::from(&limits::missing("operation")));
        };
        let kind = match operation {
            Operation::Read(_) => Kind::Read,
            Operation::Write(_) | Operation::Delete(_) | Operation::Repair(_) => Kind::Write,
        };
        let under_way = self.requests.enter(kind).map_err(|refusal| Failed::from(&refusal))?;
        let outcome = self.let_in(operation).await;
        if outcome.is_ok() {
            under_way.answered();
        }
        outcome
    }

    async fn let_in(&self, operation: Operation) -> Result<OperationOutcome, Failed> {
        match operation {
            Operation::Write(request) => {
                let outcome = self.put(write_from_wire(request)).await?;
                Ok(OperationOutcome::Write(write_response(&outcome)))
            }
            Operation::Read(request) => self.get(&request).await.map(OperationOutcome::Read),
            Operation::Delete(request) => {
                let outcome = self.put(delete_from_wire(request)).await?;
                Ok(OperationOutcome::Delete(delete_response(&outcome)))
            }
            Operation::Repair(request) => {
                let outcome = self.put(repair_from_wire(request)).await?;
                Ok(OperationOutcome::Repair(repair_response(&outcome)))
            }
        }
    }
}

#[tonic::async_trait]
impl StorageNodeService for StorageNode {
    async fn write(&self, request: Request<pb::WriteRequest>) -> Answer<pb::WriteResponse> {
        let outcome = self.put(write_from_wire(request.into_inner())).await;
        answer(outcome.map(|outcome| write_response(&outcome)))
    }

    async fn repair(&self, request: Request<pb::RepairRequest>) -> Answer<pb::RepairResponse> {
        let outcome = self.put(repair_from_wire(request.into_inner())).await;
        answer(outcome.map(|outcome| repair_response(&outcome)))
    }

    async fn delete(&self, request: Request<pb::DeleteRequest>) -> Answer<pb::DeleteResponse> {
        let outcome = self.put(delete_from_wire(request.into_inner())).await;
        answer(outcome.map(|outcome| delete_response(&outcome)))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Answer<pb::ReadResponse> {
        answer(self.get(request.get_ref()).await)
    }

    async fn batch_write(&self, request: Request<pb::BatchWriteRequest>) -> Answer<pb::BatchResponse> {
        answer(batch::write(&self.requests, request.into_inner()).await)
    }

    async fn batch_read(&self, request: Request<pb::BatchReadRequest>) -> Answer<pb::BatchResponse> {
        answer(batch::read(&self.requests, request.into_inner()).await)
    }

    async fn batch_delete(&self, request: Request<pb::BatchDeleteRequest>) -> Answer<pb::BatchResponse> {
        answer(batch::delete(&self.requests, request.into_inner()).await)
    }

    async fn operations(&self, request: Request<Streaming<pb::Operation>>) -> Answer<BoxStream<pb::OperationResult>> {
        Ok(Response::new(stream::run(self.clone(), request.into_inner())))
    }

    async fn scan(&self, request: Request<pb::ScanRequest>) -> Answer<BoxStream<pb::ScanEntry>> {
        ranges::scan(&self.requests, request)
    }

    async fn stream_keys(&self, request: Request<pb::StreamKeysRequest>) -> Answer<BoxStream<pb::KeyValueEntry>> {
        ranges::stream_keys(&self.requests, request)
    }

    async fn get_key_range(&self, request: Request<pb::KeyRangeRequest>) -> Answer<pb::KeyRangeResponse> {
        ranges::get_key_range(&self.requests, request.into_inner()).await
    }

    async fn replicate_data(&self, request: Request<pb::ReplicateRequest>) -> Answer<pb::ReplicateResponse> {
        replicate::replicate_data(&self.requests, &self.health.node_id, request).await
    }

    async fn start_streaming(&self, request: Request<pb::StartStreamingRequest>) -> Answer<pb::StartStreamingResponse> {
        streaming::start(&self.requests, &self.health.node_id, request.into_inner()).await
    }

    async fn stop_streaming(&self, request: Request<pb::StopStreamingRequest>) -> Answer<pb::StopStreamingResponse> {
        streaming::stop(&self.requests, &self.health.node_id, request.into_inner()).await
    }

    async fn get_stream_status(&self, request: Request<pb::StreamStatusRequest>) -> Answer<pb::StreamStatusResponse> {
        streaming::status_of(&self.requests, &self.health.node_id, request.get_ref())
    }

    async fn notify_streaming_complete(
        &self,
        request: Request<pb::StreamingCompleteRequest>,
    ) -> Answer<pb::StreamingCompleteResponse> {
        streaming::completed(&self.health.node_id, request.get_ref())
    }

    async fn compare_keys(&self, request: Request<pb::CompareKeysRequest>) -> Answer<pb::CompareKeysResponse> {
        streaming::compare(&self.requests, request.into_inner()).await
    }

    async fn drain_node(&self, request: Request<pb::DrainRequest>) -> Answer<pb::DrainResponse> {
        drain::drain_node(&self.requests.drain, request.into_inner()).await
    }

    async fn health_check(&self, _request: Request<pb::HealthCheckRequest>) -> Answer<pb::HealthResponse> {
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
