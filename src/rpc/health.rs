//! `grpc.health.v1`: whether the node takes requests, for whoever sends them to it.
//!
//! Owns: the mapping from the node's state to a serving status, and telling those who watch. Does not own: the state. The
//! node answers for the whole of it (service "") and for the storage service alike.

use crate::actors::drain::DrainPhase;
use crate::actors::health::Health;
use crate::actors::requests::Requests;
use crate::rpc::pb::storage_node_service_server::SERVICE_NAME;
use crate::rpc::status;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health as HealthService;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// How often the state is looked at for those who watch it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The state that the answers come from.
#[derive(Clone)]
pub(super) struct State {
    pub(super) requests: Requests,
    pub(super) health: Arc<Health>,
}

impl State {
    /// The one place that decides what the node's state means to a balancer of load: SERVING while it takes reads and
    /// writes. A node that starts does not listen yet, so it says nothing; one that restarts an actor serves on.
    pub(super) fn serving(&self) -> ServingStatus {
        let takes_requests = self.requests.is_accepting();
        let is_draining = self.requests.drain.phase() != DrainPhase::Serving;
        let takes_writes = self.health.log.latched().is_none() && !is_draining;
        if takes_requests && takes_writes {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }

    /// Keeps `current` up to date until `stopped`; says at last that the node serves no more. Those who watch learn it,
    /// and their streams end, so that they do not keep a connection open.
    pub(super) async fn observe(self, current: watch::Sender<ServingStatus>, mut stopped: oneshot::Receiver<()>) {
        // A sender that is gone means stop as well.
        while tokio::time::timeout(LOOK_EVERY, &mut stopped).await.is_err() {
            publish(&current, self.serving());
        }
        publish(&current, ServingStatus::NotServing);
    }
}

fn publish(current: &watch::Sender<ServingStatus>, status: ServingStatus) {
    current.send_if_modified(|known| std::mem::replace(known, status) != status);
}

/// The service.
pub(super) struct Serving {
    pub(super) state: State,
    pub(super) current: watch::Receiver<ServingStatus>,
}

fn is_known(service: &str) -> bool {
    service.is_empty() || service == SERVICE_NAME
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl HealthService for Serving {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !is_known(&service) {
            return Err(status::unknown_service(&service));
        }
        Ok(Response::new(response(self.state.serving())))
    }

    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let current = self.current.clone();
        if is_known(&request.into_inner().service) {
            let changes = WatchStream::new(current).map(|status| Ok(response(status)));
            return Ok(Response::new(Box::pin(changes)));
        }
        // As the protocol wants it: told once, and not ended, although no service will come.
        let told = tokio_stream::once(Ok(response(ServingStatus::ServiceUnknown)));
        let nothing = WatchStream::from_changes(current).filter_map(|_| None);
        Ok(Response::new(Box::pin(told.chain(nothing))))
    }
}
