//! StartStreaming, StopStreaming, GetStreamStatus, NotifyStreamingComplete and CompareKeys.
//!
//! Owns: their wire, and the checks of what they carry. Does not own: streams (see [`crate::actors::streaming`]).

use crate::actors::address_book::NodeAddress;
use crate::actors::peers::PeerError;
use crate::actors::requests::Requests;
use crate::actors::streaming::stream::{StreamOrder, StreamState, StreamStatus};
use crate::rpc::pb;
use crate::rpc::service::Answer;
use crate::rpc::status;
use crate::storage::key::Key;
use crate::storage::limits::{self, LimitError, MAX_CLOCK_ID_BYTES};
use crate::storage::ring::HashRanges;
use tonic::{Response, Status};

/// Most ranges of a request: they are saved every second.
const MAX_RANGES: usize = 4096;

pub(super) async fn start(
    requests: &Requests,
    node_id: &str,
    request: pb::StartStreamingRequest,
) -> Answer<pb::StartStreamingResponse> {
    check_source(node_id, &request.source_node_id)?;
    check_target(node_id, &request.target_node_id)?;
    let address = address(request.target_host, request.target_port)?;
    requests.peers.dial.dial(&address).map_err(|error| match error {
        PeerError::Passing(why) | PeerError::Refused(why) => invalid("target_host", why),
    })?;
    let ranges = request.key_ranges.len();
    if !(1..=MAX_RANGES).contains(&ranges) {
        return Err(invalid(
            "key_ranges",
            format!("has {ranges}; it must have 1 to {MAX_RANGES}"),
        ));
    }
    let places = request
        .key_ranges
        .iter()
        .map(|range| (range.start_hash, range.end_hash));
    let order = StreamOrder {
        target: request.target_node_id,
        address,
        ranges: places.collect::<HashRanges>(),
    };
    let started = requests.streaming.start(order).await;
    let message = started.map_err(|refusal| status::of_refusal(&refusal))?;
    Ok(Response::new(pb::StartStreamingResponse { success: true, message }))
}

pub(super) async fn stop(
    requests: &Requests,
    node_id: &str,
    request: pb::StopStreamingRequest,
) -> Answer<pb::StopStreamingResponse> {
    check_source(node_id, &request.source_node_id)?;
    check_target(node_id, &request.target_node_id)?;
    let stopped = requests.streaming.stop(request.target_node_id).await;
    let (message, success) = stopped.map_err(|refusal| status::of_refusal(&refusal))?;
    Ok(Response::new(pb::StopStreamingResponse { success, message }))
}

pub(super) fn status_of(
    requests: &Requests,
    node_id: &str,
    request: &pb::StreamStatusRequest,
) -> Answer<pb::StreamStatusResponse> {
    if request.target_node_id.is_empty() {
        return Err(invalid("target_node_id", "is empty; name the node that is streamed to"));
    }
    check_source(node_id, &request.source_node_id)?;
    let status = requests.streaming.status(&request.target_node_id);
    let now_ms = requests.time.now_ms();
    Ok(Response::new(match status {
        Some(status) => status_response(&status, now_ms),
        None => pb::StreamStatusResponse {
            state: "not_found".to_owned(),
            ..pb::StreamStatusResponse::default()
        },
    }))
}

/// What a stream's target is told. There is nothing to be done: it has everything, and is a node like any other.
pub(super) fn completed(
    node_id: &str,
    request: &pb::StreamingCompleteRequest,
) -> Answer<pb::StreamingCompleteResponse> {
    let (source, target) = (&request.source_node_id, &request.target_node_id);
    if source != node_id && !target.is_empty() && target != node_id {
        return Err(invalid(
            "target_node_id",
            format!("is {target:?}; this node is {node_id:?}, and not the source either"),
        ));
    }
    tracing::info!(source, target_node = target, "told that a stream is complete");
    Ok(Response::new(pb::StreamingCompleteResponse {
        success: true,
        message: format!("{node_id} has taken note"),
    }))
}

pub(super) async fn compare(requests: &Requests, request: pb::CompareKeysRequest) -> Answer<pb::CompareKeysResponse> {
    let of_limit = |error: LimitError| status::of_limit(&error);
    limits::check_batch(request.keys.len()).map_err(|error| of_limit(LimitError { field: "keys", ..error }))?;
    let keys = request.keys.iter();
    let keys = keys.map(|of| Ok((Key::new(&of.tenant_id, &of.key).map_err(of_limit)?, of.digest)));
    let differing = requests.differing(keys.collect::<Result<_, Status>>()?).await;
    let differing = differing.map_err(|refusal| status::of_refusal(&refusal))?;
    Ok(Response::new(pb::CompareKeysResponse { differing }))
}

fn status_response(status: &StreamStatus, now_ms: u64) -> pb::StreamStatusResponse {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    pb::StreamStatusResponse {
        active: !matches!(status.state, StreamState::Failed(_) | StreamState::Incomplete(_)),
        state: status.state.as_str().to_owned(),
        keys_copied: number(status.sent.keys_copied),
        keys_streamed: number(status.sent.keys_streamed),
        bytes_copied: number(status.sent.bytes_copied),
        bytes_streamed: number(status.sent.bytes_streamed),
        keys_resent: number(status.sent.keys_resent),
        keys_waiting: number(status.backlog.changes),
        bytes_waiting: number(status.backlog.bytes),
        lag_ms: number(status.backlog.lag_ms(now_ms)),
        problem: status.problem.clone().unwrap_or_default(),
        places_skipped: number(status.skipped.count() as u64),
        first_skipped: status.skipped.first(),
    }
}

fn invalid(field: &'static str, problem: impl Into<String>) -> Status {
    let problem = problem.into();
    status::of_limit(&LimitError { field, problem })
}

fn check_source(node_id: &str, source: &str) -> Result<(), Status> {
    if source.is_empty() || source == node_id {
        return Ok(());
    }
    let problem = format!("is {source:?}; this node is {node_id:?}");
    Err(invalid("source_node_id", problem))
}

fn check_target(node_id: &str, target: &str) -> Result<(), Status> {
    if target == node_id {
        return Err(invalid("target_node_id", format!("is {target:?}, which is this node")));
    }
    if !(1..=MAX_CLOCK_ID_BYTES).contains(&target.len()) {
        let problem = format!("has {} bytes; it must have 1 to {MAX_CLOCK_ID_BYTES}", target.len());
        return Err(invalid("target_node_id", problem));
    }
    if target.chars().any(char::is_control) {
        return Err(invalid(
            "target_node_id",
            "contains a control character; use printable ones",
        ));
    }
    Ok(())
}

fn address(host: String, port: i32) -> Result<NodeAddress, Status> {
    let port = u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| {
        let problem = format!("is {port}; it must be 1 to 65535");
        invalid("target_port", problem)
    })?;
    let address = NodeAddress { host, port };
    if NodeAddress::parse(&address.to_string()).as_ref() != Some(&address) {
        let problem = format!("is {:?}; it must be a name or an address, without a port", address.host);
        return Err(invalid("target_host", problem));
    }
    Ok(address)
}
