//! Why a request was not carried out: one answer for each thing that the caller can do about it.

use crate::actors::admission::TOO_FAR_BEHIND;
use crate::storage::error::{Error, ErrorKind};

/// A refusal, or a failure, of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is more work than memory for it, or than gets done. Try again later.
    #[error("overloaded: {0}")]
    Overloaded(&'static str),
    /// The disk is full. Free space; the request can then be repeated.
    #[error("disk full: {0}")]
    DiskFull(String),
    /// The tenant uses more than it may. Try again after `retry`; where it is about space, when some was freed.
    #[error("{why}")]
    QuotaExceeded {
        /// Which tenant, which quota and what it is.
        why: String,
        /// When to try again.
        retry: std::time::Duration,
        /// Whether it has stored too much, and not asked for too much at a time.
        is_of_space: bool,
    },
    /// A component is being restarted; the outcome of a write is unknown. Try again now.
    #[error("{0} is restarting; try again")]
    Restarting(&'static str),
    /// The node is being stopped. Try another.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// Another node, which the request needs, does not do its part. Try again later.
    #[error("{0}")]
    PeerUnavailable(String),
    /// The node takes no more writes. Use another.
    #[error("the node is draining: it takes no writes; try another replica")]
    Draining,
    /// There was no answer in the configured time; the outcome of a write is unknown.
    #[error("no answer within {0:?}")]
    TimedOut(std::time::Duration),
    /// The deadline of the request passed before it was carried out. Nothing was written.
    #[error("the deadline passed before the request was carried out")]
    DeadlineExceeded,
    /// The data is damaged on this node. Read another replica.
    #[error("{0}")]
    Corrupted(String),
    /// The node takes no writes until its disk was looked at.
    #[error("{0}")]
    Latched(String),
    /// The clock that supersedes all that the key has would be larger than a clock may be.
    #[error(
        "vector_clock: what supersedes all versions of this key needs {0} entries; at most 8000 are kept. Write to another \
         key"
    )]
    ClockTooLarge(usize),
    /// A clock is larger than one may be that does not follow from what the key has.
    #[error(
        "vector_clock: has {0} entries; at most 1000 are allowed, unless this key has all but one of them already. Read it \
         again"
    )]
    ClockUnknown(usize),
    /// A write without a clock was based on too old a view. For the sender alone, which looks again.
    #[error("the view behind a write without a clock is out of date")]
    Stale,
    /// Something else failed; the outcome of a write is unknown.
    #[error("{0}")]
    Internal(String),
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        match (error.kind(), error) {
            (ErrorKind::DiskFull, _) => Self::DiskFull(error.to_string()),
            (ErrorKind::Corruption, _) => Self::Corrupted(error.to_string()),
            (ErrorKind::Overloaded, _) => Self::Overloaded(TOO_FAR_BEHIND),
            (ErrorKind::Retry, _) => Self::Restarting("the log"),
            (ErrorKind::Failed, Error::Latched { .. }) => Self::Latched(error.to_string()),
            (ErrorKind::Failed, _) => Self::Internal(error.to_string()),
        }
    }
}
