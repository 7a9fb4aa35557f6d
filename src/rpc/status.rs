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

/// Why an operation failed: for a status of its own, or for its place among the results of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    code: Code,
    reason: ErrorCode,
    message: String,
    /// Of a read of a deleted key.
    clock: pb::VectorClock,
}

impl From<&Refusal> for Failed {
    fn from(refusal: &Refusal) -> Self {
        let (code, reason) = code_of(refusal);
        Self::new(code, reason, refusal.to_string())
    }
}

impl From<&LimitError> for Failed {
    fn from(error: &LimitError) -> Self {
        Self::new(Code::InvalidArgument, ErrorCode::InvalidRequest, error.to_string())
    }
}

impl Failed {
    fn new(code: Code, reason: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            clock: pb::VectorClock::default(),
        }
    }

    /// Why a key without a live value cannot be read. A deleted one's clock goes with it: the next write must know it to
    /// supersede the delete.
    #[must_use]
    pub fn not_found(clock: pb::VectorClock) -> Self {
        Self {
            clock,
            ..Self::new(Code::NotFound, ErrorCode::KeyNotFound, "the key has no value")
        }
    }

    /// As the status of a call. The clock is a `storage.VectorClock` among its details.
    #[must_use]
    pub fn status(self) -> Status {
        let plain = status(self.code, self.reason, self.message);
        if self.clock.entries.is_empty() {
            return plain;
        }
        let Ok(mut details) = tonic_types::pb::Status::decode(plain.details()) else {
            return plain;
        };
        details.details.push(prost_types::Any {
            type_url: "type.googleapis.com/storage.VectorClock".to_owned(),
            value: self.clock.encode_to_vec(),
        });
        Status::with_details(plain.code(), plain.message(), details.encode_to_vec().into())
    }

    /// As a result among others.
    #[must_use]
    pub fn result(self) -> pb::Failure {
        pb::Failure {
            code: self.code as i32,
            reason: self.reason.into(),
            message: self.message,
            vector_clock: (!self.clock.entries.is_empty()).then_some(self.clock),
        }
    }
}

/// The status of a refused or failed request.
#[must_use]
pub fn of_refusal(refusal: &Refusal) -> Status {
    Failed::from(refusal).status()
}

fn code_of(refusal: &Refusal) -> (Code, ErrorCode) {
    match refusal {
        Refusal::Overloaded(_) => (Code::ResourceExhausted, ErrorCode::MemoryPressure),
        Refusal::DiskFull(_) => (Code::ResourceExhausted, ErrorCode::DiskFull),
        Refusal::Restarting(_) | Refusal::TimedOut(_) | Refusal::Stale => (Code::Unavailable, ErrorCode::Unknown),
        Refusal::ClockTooLarge(_) | Refusal::ClockUnknown(_) => (Code::InvalidArgument, ErrorCode::InvalidRequest),
        Refusal::ShuttingDown => (Code::Unavailable, ErrorCode::NodeDraining),
        Refusal::Corrupted(_) => (Code::DataLoss, ErrorCode::CorruptedData),
        Refusal::Latched(_) | Refusal::Internal(_) => (Code::Internal, ErrorCode::InternalError),
    }
}

/// The status of a request outside the limits.
#[must_use]
pub fn of_limit(error: &LimitError) -> Status {
    Failed::from(error).status()
}

/// Gives tonic's answer to a request that it could not decode the status of an invalid request. It answers INTERNAL, or
/// OUT_OF_RANGE for a message larger than is read at all, and names no reason, which every answer of this node's own does.
#[must_use]
pub fn of_undecodable(response: http::Response<Body>) -> http::Response<Body> {
    let undecodable =
        |status: &Status| matches!(status.code(), Code::Internal | Code::OutOfRange) && status.details().is_empty();
    match Status::from_header_map(response.headers()).filter(undecodable) {
        Some(refused) => of_decode_error(&refused).into_http(),
        None => response,
    }
}

/// The status of a request whose rest did not arrive in time.
#[must_use]
pub fn stalled() -> Status {
    let message = "the rest of the request did not arrive";
    status(Code::DeadlineExceeded, ErrorCode::InvalidRequest, message)
}

/// The status of a request that could not be decoded, from tonic's.
#[must_use]
pub fn of_decode_error(refused: &Status) -> Status {
    let message = format!("the request cannot be decoded: {}", refused.message());
    status(Code::InvalidArgument, ErrorCode::InvalidRequest, message)
}
