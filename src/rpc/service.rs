//! The service: one short function for each RPC.

use crate::actors::health::Health;
use crate::actors::health::Status as NodeStatus;
use crate::actors::requests::Requests;
use crate::rpc::compression::answer;
use crate::rpc::convert::{CheckedWrite, check_write, clock_from_wire, clock_to_wire, read_response};
use crate::rpc::pb::storage_node_service_server::StorageNodeService;
use crate::rpc::{drain, pb, ranges, replicate, status};
use crate::storage::key::Key;
use crate::storage::log::record::Operation;
use crate::storage::version::Value;
use std::sync::Arc;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

/// What a call answers.
pub(super) type Answer<T> = Result<Response<T>, Status>;

/// Translates calls into the actors' requests.
#[derive(Clone)]
pub(super) struct StorageNode {
    pub(super) requests: Requests,
    pub(super) health: Arc<Health>,
}

impl StorageNode {
    async fn put(&self, operation: Operation, write: CheckedWrite) -> Result<(pb::VectorClock, bool), Status> {
        let outcome = self
            .requests
            .write(operation, write.key, write.value, write.clock)
            .await
            .map_err(|refusal| status::of_refusal(&refusal))?;
        Ok((clock_to_wire(&outcome.clock), outcome.applied))
    }
}

#[tonic::async_trait]
impl StorageNodeService for StorageNode {
    async fn write(&self, request: Request<pb::WriteRequest>) -> Answer<pb::WriteResponse> {
        let request = request.into_inner();
        let write = check_write(&request.tenant_id, &request.key, request.value, request.vector_clock)
            .map_err(|error| status::of_limit(&error))?;
        let (clock, applied) = self.put(Operation::Write, write).await?;
        Ok(answer(pb::WriteResponse {
            success: true,
            updated_vector_clock: Some(clock),
            applied,
            ..pb::WriteResponse::default()
        }))
    }

    async fn repair(&self, request: Request<pb::RepairRequest>) -> Answer<pb::RepairResponse> {
        let request = request.into_inner();
        let write = check_write(&request.tenant_id, &request.key, request.value, request.vector_clock)
            .map_err(|error| status::of_limit(&error))?;
        self.put(Operation::Repair, write).await?;
        Ok(answer(pb::RepairResponse {
            success: true,
            ..pb::RepairResponse::default()
        }))
    }

    async fn delete(&self, request: Request<pb::DeleteRequest>) -> Answer<pb::DeleteResponse> {
        let request = request.into_inner();
        let refuse = |error| status::of_limit(&error);
        let write = CheckedWrite {
            key: Key::new(&request.tenant_id, &request.key).map_err(refuse)?,
            value: Value::Tombstone,
            clock: clock_from_wire(request.vector_clock).map_err(refuse)?,
        };
        let (clock, applied) = self.put(Operation::Delete, write).await?;
        Ok(answer(pb::DeleteResponse {
            success: true,
            updated_vector_clock: Some(clock),
            applied,
            ..pb::DeleteResponse::default()
        }))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Answer<pb::ReadResponse> {
        let request = request.into_inner();
        let key = Key::new(&request.tenant_id, &request.key).map_err(|error| status::of_limit(&error))?;
        let versions = self
            .requests
            .read(key)
            .await
            .map_err(|refusal| status::of_refusal(&refusal))?;
        read_response(&versions)
            .map(answer)
            .ok_or_else(|| status::not_found(clock_to_wire(&versions.clock())))
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

    async fn drain_node(&self, request: Request<pb::DrainRequest>) -> Answer<pb::DrainResponse> {
        drain::drain_node(&self.requests.drain, request.into_inner()).await
    }

    async fn health_check(&self, _request: Request<pb::HealthCheckRequest>) -> Answer<pb::HealthResponse> {
        let (node, reasons) = self.health.status();
        let mut metrics: std::collections::HashMap<String, String> = self.health.metrics().into_iter().collect();
        if !reasons.is_empty() {
            metrics.insert("reasons".to_owned(), reasons.join("; "));
        }
        Ok(answer(pb::HealthResponse {
            healthy: node != NodeStatus::Unhealthy,
            status: node.as_str().to_owned(),
            metrics,
        }))
    }
}
