//! The one table from a refusal to a gRPC status, with `google.rpc.ErrorInfo` attached.

use crate::actors::refusal::Refusal;
use crate::rpc::pb::{self, ErrorCode};
use crate::storage::limits::LimitError;
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of every `ErrorInfo`.
const DOMAIN: &str = "storage.pairdb";

/// A status with the error code's name as its reason.
fn status(code: Code, reason: ErrorCode, message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason.as_str_name(), DOMAIN, []);
    Status::with_error_details(code, message, details)
}

/// The status of a refused or failed request.
#[must_use]
pub fn of_refusal(refusal: &Refusal) -> Status {
    let (code, reason) = match refusal {
        Refusal::Overloaded(_) => (Code::ResourceExhausted, ErrorCode::MemoryPressure),
        Refusal::DiskFull(_) => (Code::ResourceExhausted, ErrorCode::DiskFull),
        Refusal::Restarting(_) | Refusal::TimedOut(_) | Refusal::Stale | Refusal::PeerUnavailable(_) => {
            (Code::Unavailable, ErrorCode::Unknown)
        }
        Refusal::ClockTooLarge(_) => (Code::InvalidArgument, ErrorCode::InvalidRequest),
        Refusal::ShuttingDown | Refusal::Draining => (Code::Unavailable, ErrorCode::NodeDraining),
        Refusal::Corrupted(_) => (Code::DataLoss, ErrorCode::CorruptedData),
        Refusal::Latched(_) | Refusal::Internal(_) => (Code::Internal, ErrorCode::InternalError),
    };
    status(code, reason, refusal.to_string())
}

/// The status of a request outside the limits.
#[must_use]
pub fn of_limit(error: &LimitError) -> Status {
    status(Code::InvalidArgument, ErrorCode::InvalidRequest, error.to_string())
}

/// Gives tonic's answer to a request that it could not decode the status of an invalid request. It answers INTERNAL, or
/// OUT_OF_RANGE for a message larger than is read at all, and names no reason, which every answer of this node's own does.
#[must_use]
pub fn of_undecodable(response: http::Response<Body>) -> http::Response<Body> {
    let undecodable =
        |status: &Status| matches!(status.code(), Code::Internal | Code::OutOfRange) && status.details().is_empty();
    match Status::from_header_map(response.headers()).filter(undecodable) {
        Some(refused) => {
            let message = format!("the request cannot be decoded: {}", refused.message());
            status(Code::InvalidArgument, ErrorCode::InvalidRequest, message).into_http()
        }
        None => response,
    }
}

/// The status of a read of a key that has no live value. A deleted key's clock goes with it, as a
/// `storage.VectorClock` among the details: the next write must know it to supersede the delete.
#[must_use]
pub fn not_found(clock: pb::VectorClock) -> Status {
    let plain = status(Code::NotFound, ErrorCode::KeyNotFound, "the key has no value");
    if clock.entries.is_empty() {
        return plain;
    }
    let Ok(mut details) = tonic_types::pb::Status::decode(plain.details()) else {
        return plain;
    };
    details.details.push(prost_types::Any {
        type_url: "type.googleapis.com/storage.VectorClock".to_owned(),
        value: clock.encode_to_vec(),
    });
    Status::with_details(plain.code(), plain.message(), details.encode_to_vec().into())
}
