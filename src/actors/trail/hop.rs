//! One stop of a request on its way.

use crate::actors::trail::work::LogWrite;
use crate::storage::looked::Looked;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A stop. Times are since the request arrived.
#[derive(Debug, Clone)]
pub struct Hop {
    /// Where.
    pub name: &'static str,
    /// When it was queued there.
    pub queued: Duration,
    /// When the work on it began.
    pub begun: Duration,
    /// When that ended.
    pub ended: Duration,
    /// What came of it.
    pub detail: Detail,
}

/// What a hop says beside its times.
#[derive(Debug, Clone)]
pub enum Detail {
    /// Nothing.
    None,
    /// Keys that a shard of the cache was asked for.
    Cache {
        /// Those that it had.
        hits: u32,
        /// Those that had to be read.
        misses: u32,
    },
    /// Where a key was looked for, and found.
    Read(Looked),
    /// The write of the log that it was part of.
    Log(Arc<LogWrite>),
}

impl Hop {
    /// How long it was queued.
    #[must_use]
    pub fn queue(&self) -> Duration {
        self.begun.saturating_sub(self.queued)
    }

    /// How long it was worked on.
    #[must_use]
    pub fn work(&self) -> Duration {
        self.ended.saturating_sub(self.begun)
    }

    /// Takes in another hop that is the same work: keys of a batch are read together. Says whether it was.
    pub(super) fn takes_in(&mut self, other: &Self) -> bool {
        match (&mut self.detail, &other.detail) {
            (Detail::Read(looked), Detail::Read(more)) if (self.begun, self.ended) == (other.begun, other.ended) => {
                looked.add(more);
                true
            }
            _ => false,
        }
    }
}

/// In words, for people.
impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Cache { hits: 1, misses: 0 } => f.write_str("hit"),
            Self::Cache { hits: 0, misses: 1 } => f.write_str("miss"),
            Self::Cache { hits, misses } => write!(f, "{hits} hits, {misses} misses"),
            Self::Read(looked) => looked.fmt(f),
            Self::Log(write) => write.fmt(f),
        }
    }
}
