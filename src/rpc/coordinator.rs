//! The coordinator of the cluster, by its gRPC service.
//!
//! Owns: the client's side of registering. Does not own: when, or what follows (see [`crate::actors::registration`]).

use crate::actors::address_book::NodeAddress;
use crate::actors::registration::{AddError, Asked, Coordinator, Member};
use crate::rpc::coordinator_pb as pb;
use crate::rpc::coordinator_pb::coordinator_service_client::CoordinatorServiceClient;
use crate::rpc::security::{Security, Shown, Way, by_tls};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

/// A coordinator at an address. Connects anew for each question: there are few of them, and long pauses in between.
#[derive(Debug, Clone)]
pub struct GrpcCoordinator {
    /// Where it is.
    pub address: NodeAddress,
    /// Longest time that a connection may take.
    pub connect_timeout: Duration,
    /// How it is trusted, and what it is shown.
    pub security: Arc<Security>,
}

type Client = CoordinatorServiceClient<Way>;

impl GrpcCoordinator {
    async fn connect(self) -> Result<Client, String> {
        let shown = self.address.to_string();
        let tls = self.security.to_coordinator();
        let scheme = tls.as_ref().map_or("http", |_| "https");
        let endpoint = Endpoint::from_shared(format!("{scheme}://{shown}"))
            .map_err(|error| format!("the coordinator's address {shown} is none: {error}"))?
            .connect_timeout(self.connect_timeout);
        let channel = match tls {
            Some(_) => endpoint.connect_with_connector(by_tls(move || tls.clone())).await,
            None => endpoint.connect().await,
        };
        let channel =
            channel.map_err(|error| format!("the coordinator at {shown} cannot be reached: {}", deepest(&error)))?;
        let token = Shown::from(self.security.coordinator_token());
        Ok(Client::new(Way::new(channel, token)))
    }
}

fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), deepest)
}

fn in_words(status: &Status) -> String {
    format!("the coordinator answered {:?}: {}", status.code(), status.message())
}

impl Coordinator for GrpcCoordinator {
    fn add(&self, member: &Member) -> Asked<Result<String, AddError>> {
        let request = pb::AddStorageNodeRequest {
            node_id: member.node_id.clone(),
            host: member.address.host.clone(),
            port: i32::from(member.address.port),
            virtual_nodes: i32::try_from(member.virtual_nodes).unwrap_or(i32::MAX),
        };
        let this = self.clone();
        Box::pin(async move {
            let mut client = this.connect().await.map_err(AddError::Failed)?;
            let answer = client
                .add_storage_node(request)
                .await
                .map_err(|status| match status.code() {
                    // Of a node that it knows already the coordinator says INTERNAL.
                    Code::Internal | Code::AlreadyExists => AddError::Refused(in_words(&status)),
                    _ => AddError::Failed(in_words(&status)),
                })?;
            let answer = answer.into_inner();
            if answer.success {
                Ok(format!("{} (migration {:?})", answer.message, answer.migration_id))
            } else {
                Err(AddError::Refused(format!(
                    "the coordinator refused: {}",
                    answer.error_message
                )))
            }
        })
    }

    fn address_of(&self, node_id: &str) -> Asked<Result<Option<NodeAddress>, String>> {
        let (this, node_id) = (self.clone(), node_id.to_owned());
        Box::pin(async move {
            let mut client = this.connect().await?;
            let answer = client.list_storage_nodes(pb::ListStorageNodesRequest {}).await;
            let answer = answer.map_err(|status| in_words(&status))?.into_inner();
            if !answer.success {
                return Err(format!(
                    "the coordinator refused to list its nodes: {}",
                    answer.error_message
                ));
            }
            let known = answer.nodes.into_iter().find(|node| node.node_id == node_id);
            Ok(known.map(|node| NodeAddress {
                host: node.host,
                // None that a node could have, where there is none.
                port: u16::try_from(node.port).unwrap_or(0),
            }))
        })
    }
}
