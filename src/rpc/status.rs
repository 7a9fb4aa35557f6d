//! The one table from a refusal to a gRPC status, with its details: `google.rpc.ErrorInfo` in all of them, the fields at
//! fault (`BadRequest`), when to try again (`RetryInfo`).

use crate::actors::refusal::Refusal;
use crate::rpc::pb::{self, ErrorCode};
use crate::storage::limits::LimitError;
use prost::Message;
use std::time::Duration;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of every `ErrorInfo`.
const DOMAIN: &str = "storage.pairdb";

/// What restarts is back in milliseconds.
const RETRY_RESTART: Duration = Duration::from_millis(100);
/// What is full or behind takes longer to pass.
const RETRY_OVERLOAD: Duration = Duration::from_secs(1);

/// The details of every status: the error code's name as the reason and, for one that passes, when to try again.
fn details(code: Code, reason: ErrorCode) -> ErrorDetails {
    let mut details = ErrorDetails::with_error_info(reason.as_str_name(), DOMAIN, []);
    match code {
        Code::Unavailable => details.set_retry_info(Some(RETRY_RESTART)),
        Code::ResourceExhausted => details.set_retry_info(Some(RETRY_OVERLOAD)),
        _ => &mut details,
    };
    details
}

fn status(code: Code, reason: ErrorCode, message: impl Into<String>) -> Status {
    Status::with_error_details(code, message, details(code, reason))
}

/// Why an operation failed: for a status of its own, or for its place among the results of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    code: Code,
    reason: ErrorCode,
    message: String,
    /// The field at fault, if it is one's; empty, if it is the whole request's.
    field: Option<&'static str>,
    /// When to try again, if not when the code alone says.
    retry: Option<Duration>,
    /// Of a read of a deleted key.
    clock: pb::VectorClock,
}

impl From<&Refusal> for Failed {
    fn from(refusal: &Refusal) -> Self {
        let (code, reason) = code_of(refusal);
        let retry = match refusal {
            Refusal::QuotaExceeded { retry, .. } => Some(*retry),
            _ => None,
        };
        let is_of_clock = matches!(refusal, Refusal::ClockTooLarge(_) | Refusal::ClockUnknown(_));
        Self {
            field: is_of_clock.then_some("vector_clock"),
            retry,
            ..Self::new(code, reason, refusal.to_string())
        }
    }
}

impl From<&LimitError> for Failed {
    fn from(error: &LimitError) -> Self {
        Self::invalid(error.field, error.to_string())
    }
}

impl Failed {
    fn new(code: Code, reason: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            field: None,
            retry: None,
            clock: pb::VectorClock::default(),
        }
    }

    fn invalid(field: &'static str, message: String) -> Self {
        Self {
            field: Some(field),
            ..Self::new(Code::InvalidArgument, ErrorCode::InvalidRequest, message)
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

    /// That nobody knows whose call it is.
    #[must_use]
    pub fn unauthenticated(why: &str) -> Self {
        Self::new(Code::Unauthenticated, ErrorCode::Unknown, why)
    }

    /// That whose call it is may not do this.
    #[must_use]
    pub fn denied(why: String) -> Self {
        Self::new(Code::PermissionDenied, ErrorCode::Unknown, why)
    }

    /// The code of its status.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// As the status of a call. The clock is a `storage.VectorClock` among its details.
    #[must_use]
    pub fn status(self) -> Status {
        let mut details = details(self.code, self.reason);
        if self.retry.is_some() {
            details.set_retry_info(self.retry);
        }
        if let Some(field) = self.field {
            details.add_bad_request_violation(field, self.message.as_str());
        }
        let plain = Status::with_error_details(self.code, self.message, details);
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
        // The error code is fixed; what the caller can do decides: ask for less, or free space.
        Refusal::QuotaExceeded { is_of_space: false, .. } => (Code::ResourceExhausted, ErrorCode::MemoryPressure),
        Refusal::QuotaExceeded { is_of_space: true, .. } => (Code::ResourceExhausted, ErrorCode::DiskFull),
        Refusal::DiskFull(_) => (Code::ResourceExhausted, ErrorCode::DiskFull),
        Refusal::Restarting(_) | Refusal::TimedOut(_) | Refusal::Stale | Refusal::PeerUnavailable(_) => {
            (Code::Unavailable, ErrorCode::Unknown)
        }
        Refusal::ClockTooLarge(_) | Refusal::ClockUnknown(_) => (Code::InvalidArgument, ErrorCode::InvalidRequest),
        Refusal::DeadlineExceeded => (Code::DeadlineExceeded, ErrorCode::Unknown),
        Refusal::ShuttingDown | Refusal::Draining => (Code::Unavailable, ErrorCode::NodeDraining),
        Refusal::Corrupted(_) => (Code::DataLoss, ErrorCode::CorruptedData),
        Refusal::Latched(_) | Refusal::Internal(_) => (Code::Internal, ErrorCode::InternalError),
    }
}

/// The status of a request outside the limits.
#[must_use]
pub fn of_limit(error: &LimitError) -> Status {
    Failed::from(error).status()
}

/// The status of a request that was not answered by its deadline.
#[must_use]
pub fn deadline_passed() -> Status {
    let message = "the deadline has passed; the outcome of a write is unknown";
    status(Code::DeadlineExceeded, ErrorCode::Unknown, message)
}

/// The status of a question about a service that the node does not have.
#[must_use]
pub fn unknown_service(name: &str) -> Status {
    let message = format!("there is no service {name:?} here");
    status(Code::NotFound, ErrorCode::Unknown, message)
}

/// Gives the answers that tonic makes by itself the details that every answer of this node's own has. A request that it
/// could not decode (INTERNAL), or that is larger than is read at all (OUT_OF_RANGE, RESOURCE_EXHAUSTED), is an invalid one;
/// for the others, such as UNIMPLEMENTED, there is no error code.
#[must_use]
pub fn explained(response: http::Response<Body>) -> http::Response<Body> {
    let Some(plain) = Status::from_header_map(response.headers()) else {
        return response;
    };
    match plain.code() {
        _ if !plain.details().is_empty() => response,
        Code::Ok => response,
        Code::Internal | Code::OutOfRange | Code::ResourceExhausted => of_decode_error(&plain).into_http(),
        code => {
            let (details, metadata) = (details(code, ErrorCode::Unknown), plain.metadata().clone());
            Status::with_error_details_and_metadata(code, plain.message(), details, metadata).into_http()
        }
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
    Failed::invalid("", message).status()
}
