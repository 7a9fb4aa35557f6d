//! ReplicateData.
//!
//! Owns: its wire. Does not own: the copy (see [`crate::actors::replication`]).

use crate::actors::deadline;
use crate::actors::peers::PeerError;
use crate::actors::replication::{Selection, replicate};
use crate::actors::requests::Requests;
use crate::rpc::ranges::key_range;
use crate::rpc::service::Answer;
use crate::rpc::{pb, status};
use crate::storage::key::Key;
use crate::storage::limits::LimitError;
use std::collections::BTreeSet;
use tonic::{Request, Response, Status};

pub(super) async fn replicate_data(
    requests: &Requests,
    node_id: &str,
    request: Request<pb::ReplicateRequest>,
) -> Answer<pb::ReplicateResponse> {
    let until = deadline::current().map(Into::into);
    let request = request.into_inner();
    let range = key_range(request.tenant_id, request.key_range_start, request.key_range_end)?;
    let keys = request.keys.iter().map(|key| Key::new(&range.tenant, key));
    let keys: Result<BTreeSet<Key>, LimitError> = keys.collect();
    let keys = keys.map_err(|error| status::of_limit(&error))?;
    // Keys alone mean these alone; nothing at all means everything that the tenant has.
    let keys_alone = !keys.is_empty() && range.start.is_empty() && range.end.is_empty();
    let selection = Selection {
        keys,
        range: (!keys_alone).then_some(range),
        until,
    };
    let target = &request.target_node_id;
    if target == node_id {
        return Err(wrong_target(format!("is {target:?}, which is this node")));
    }
    let address = requests.peers.book.get(target).ok_or_else(|| {
        wrong_target(format!(
            "is {target:?}, of which no address is known; name it in cluster.nodes, or in a StartStreaming first"
        ))
    })?;
    let peer = requests.peers.dial.dial(&address).map_err(|error| match error {
        PeerError::Passing(why) | PeerError::Refused(why) => wrong_target(format!("is {target:?}: {why}")),
    })?;
    let copied = replicate(requests, peer, selection)
        .await
        .map_err(|refusal| status::of_refusal(&refusal))?;
    Ok(Response::new(pb::ReplicateResponse {
        success: true,
        keys_replicated: i64::try_from(copied).unwrap_or(i64::MAX),
        ..pb::ReplicateResponse::default()
    }))
}

fn wrong_target(problem: String) -> Status {
    status::of_limit(&LimitError {
        field: "target_node_id",
        problem,
    })
}
