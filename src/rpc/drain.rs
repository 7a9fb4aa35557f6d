//! DrainNode.
//!
//! Owns: its wire. Does not own: draining (see [`crate::actors::drain`]).

use crate::actors::drain::{Drain, DrainPhase};
use crate::actors::refusal::Refusal;
use crate::rpc::service::Answer;
use crate::rpc::{pb, status};
use std::sync::Arc;
use std::time::Duration;
use tonic::Response;
use tonic_types::StatusExt;

/// How long a graceful drain is waited for, unless the client says otherwise.
const WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

pub(super) async fn drain_node(drain: &Arc<Drain>, request: pb::DrainRequest) -> Answer<pb::DrainResponse> {
    if let Err(refusal) = drain.begin().await {
        return Ok(Response::new(failed(&refusal)));
    }
    let phase = if request.graceful {
        let asked = u64::try_from(request.timeout_seconds)
            .ok()
            .filter(|seconds| *seconds > 0);
        let limit = asked.map_or(WAIT, Duration::from_secs).min(LONGEST_WAIT);
        drain.settled(limit).await
    } else {
        drain.phase()
    };
    let answered = |status: &str| pb::DrainResponse {
        success: true,
        status: status.to_owned(),
        ..pb::DrainResponse::default()
    };
    Ok(Response::new(match phase {
        DrainPhase::Draining => answered("draining"),
        DrainPhase::Drained => answered("drained"),
        DrainPhase::Serving => failed(&Refusal::Internal("draining was ended meanwhile".to_owned())),
    }))
}

fn failed(refusal: &Refusal) -> pb::DrainResponse {
    let status = status::of_refusal(refusal);
    let reason = status.get_details_error_info().map(|info| info.reason);
    let code = reason.and_then(|reason| pb::ErrorCode::from_str_name(&reason));
    pb::DrainResponse {
        success: false,
        status: "failed".to_owned(),
        error_message: status.message().to_owned(),
        error_code: code.unwrap_or(pb::ErrorCode::InternalError).into(),
    }
}
