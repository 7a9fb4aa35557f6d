//! A write on its way from the gateway through the log to the memtable.

use crate::actors::admission::WritePermit;
use crate::actors::answers::Port;
use crate::storage::clock::VectorClock;
use crate::storage::key::Key;
use crate::storage::log::record::Operation;
use crate::storage::version::{Value, Version};

/// A write as its client sent it, checked.
#[derive(Debug, Clone)]
pub struct NewWrite {
    /// What asks for it.
    pub operation: Operation,
    /// The key.
    pub key: Key,
    /// The value, or a tombstone.
    pub value: Value,
    /// The clock, if it has one.
    pub clock: Option<VectorClock>,
}

/// The clock of a write, or what stands in for it.
#[derive(Debug)]
pub enum WriteClock {
    /// The client sent one.
    Given(VectorClock),
    /// The client sent none: the write is to supersede all that could be seen.
    Observed {
        /// The join of what the key had.
        clock: VectorClock,
        /// Everything up to this sequence number was taken into account.
        seq: u64,
    },
}

/// A write that asks for a place in the log.
#[derive(Debug)]
pub struct PendingWrite {
    /// What asked for it.
    pub operation: Operation,
    /// The key.
    pub key: Key,
    /// The value, or a tombstone.
    pub value: Value,
    /// The clock.
    pub clock: WriteClock,
    /// When it arrived, in milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// Who waits for it.
    pub caller: Caller,
}

/// A write with its place in the log.
#[derive(Debug)]
pub struct LoggedWrite {
    /// The key.
    pub key: Key,
    /// What the log says of it.
    pub version: Version,
    /// Who waits for it; nobody, when it was read back from the log.
    pub caller: Option<Caller>,
}

/// Who waits for a write.
pub type Caller = Port<WriteOutcome, WritePermit>;

/// Writes that became durable together, in the order of the log.
#[derive(Debug, Default)]
pub struct LoggedBatch {
    /// Sequence number of the last write in the log before these.
    pub previous_seq: u64,
    /// The writes.
    pub writes: Vec<LoggedWrite>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOutcome {
    /// The write's clock, joined with what memory knows of the key.
    pub clock: VectorClock,
    /// Whether it is now among the key's versions; otherwise a newer one dominates it.
    pub applied: bool,
}
