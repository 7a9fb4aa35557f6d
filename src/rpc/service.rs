//! The service: one short function for each RPC.

use crate::actors::health::Health;
use crate::actors::health::Status as NodeStatus;
use crate::actors::refusal::Refusal;
use crate::actors::requests::Requests;
use crate::actors::write::{NewWrite, WriteOutcome};
use crate::rpc::convert::{
    clock_to_wire, delete_from_wire, delete_response, read_response, repair_from_wire, repair_response, siblings,
    write_from_wire, write_response,
};
use crate::rpc::pb::operation::Operation;
use crate::rpc::pb::operation_result::Result as OperationOutcome;
use crate::rpc::pb::storage_node_service_server::StorageNodeService;
use crate::rpc::status::Failed;
use crate::rpc::{batch, pb, status, stream};
use crate::storage::key::Key;
use crate::storage::limits::{self, LimitError};
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

/// Entries of a scan that are ready before the client takes them.
const SCAN_AHEAD: usize = 4;

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(outcome: Result<T, Failed>) -> Answer<T> {
    outcome.map(Response::new).map_err(Failed::status)
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

    /// Carries out one operation of a stream.
    pub(super) async fn operation(&self, operation: Option<Operation>) -> Result<OperationOutcome, Failed> {
        match operation {
            Some(Operation::Write(request)) => {
                let outcome = self.put(write_from_wire(request)).await?;
                Ok(OperationOutcome::Write(write_response(&outcome)))
            }
            Some(Operation::Read(request)) => self.get(&request).await.map(OperationOutcome::Read),
            Some(Operation::Delete(request)) => {
                let outcome = self.put(delete_from_wire(request)).await?;
                Ok(OperationOutcome::Delete(delete_response(&outcome)))
            }
            Some(Operation::Repair(request)) => {
                let outcome = self.put(repair_from_wire(request)).await?;
                Ok(OperationOutcome::Repair(repair_response(&outcome)))
            }
            None => Err(Failed::from(&limits::missing("operation"))),
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
        let request = request.into_inner();
        limits::check_tenant(&request.tenant_id).map_err(|error| status::of_limit(&error))?;
        let start = Key::start_of(&request.tenant_id, &request.key_range_start);
        let (scan, permit) = self
            .requests
            .scan(&start)
            .map_err(|refusal| status::of_refusal(&refusal))?;
        let (entries, receiver) = tokio::sync::mpsc::channel(SCAN_AHEAD);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let end = request.key_range_end;
            for item in scan {
                let entry = match item {
                    Ok((key, _)) if key.tenant() != request.tenant_id => break,
                    Ok((key, _)) if !end.is_empty() && key.key() >= end.as_str() => break,
                    Ok((key, versions)) => match versions.winner().and_then(|winner| winner.value.live()) {
                        Some(value) => Ok(pb::ScanEntry {
                            key: key.key().to_owned(),
                            value: value.to_vec(),
                            vector_clock: Some(clock_to_wire(&versions.clock())),
                            siblings: siblings(&versions),
                        }),
                        None => continue,
                    },
                    Err(error) => Err(status::of_refusal(&Refusal::from(&error))),
                };
                // A client that has gone away ends the scan.
                if entries.blocking_send(entry).is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn health_check(&self, _request: Request<pb::HealthCheckRequest>) -> Answer<pb::HealthResponse> {
        let (node, reasons) = self.health.status();
        let mut metrics: std::collections::HashMap<String, String> = self.health.metrics().into_iter().collect();
        if !reasons.is_empty() {
            metrics.insert("reasons".to_owned(), reasons.join("; "));
        }
        Ok(Response::new(pb::HealthResponse {
            healthy: node != NodeStatus::Unhealthy,
            status: node.as_str().to_owned(),
            metrics,
        }))
    }
}
