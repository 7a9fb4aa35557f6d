//! A write on its way from the gateway through the log to the memtable.

use crate::actors::admission::WritePermit;
use crate::actors::answers::Port;
use crate::actors::trail::work::LogWrite;
use crate::actors::trail::{self, Detail, TraceContext, Trail};
use crate::storage::clock::VectorClock;
use crate::storage::idempotency::{Recent, WriteName};
use crate::storage::key::Key;
use crate::storage::log::record::Operation;
use crate::storage::version::{Value, Version};
use compact_str::CompactString;
use parking_lot::Mutex;
use std::sync::Arc;

pub use crate::storage::idempotency::WriteOutcome;

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
    /// The idempotency key, if it has one.
    pub id: Option<CompactString>,
    /// Another node has this version, and sends it on: it was let pass there.
    pub is_copy: bool,
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
    /// The idempotency key, if it has one.
    pub id: Option<CompactString>,
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
    /// The idempotency key, if it has one.
    pub id: Option<CompactString>,
    /// Who waits for it; nobody, when it was read back from the log.
    pub caller: Option<Caller>,
}

/// Who waits for a write.
pub type Caller = Port<WriteOutcome, WritePermit>;

/// The writes that are remembered by their names. It outlives the actors: WalActor asks it and begins, MemtableActor
/// answers.
pub type RecentWrites = Mutex<Recent<Caller>>;

impl LoggedWrite {
    /// The trail of the request that waits for it.
    #[must_use]
    pub fn trail(&self) -> Option<&Arc<Trail>> {
        self.caller.as_ref().and_then(Port::trail)
    }

    /// What its client calls it, if it does.
    #[must_use]
    pub fn name(&self) -> Option<WriteName> {
        self.id.as_ref().map(|id| WriteName {
            key: self.key.clone(),
            id: id.clone(),
        })
    }
}

/// Lives as long as what was read back from the log is on its way to a memtable.
pub type OnTheWay = Arc<()>;

/// Writes that became durable together, in the order of the log.
#[derive(Debug, Default)]
pub struct LoggedBatch {
    /// Sequence number of the last write in the log before these.
    pub previous_seq: u64,
    /// The writes.
    pub writes: Vec<LoggedWrite>,
    /// That they were read back, where somebody asks whether they arrived.
    pub on_the_way: Option<OnTheWay>,
}

/// The place among all traces of the first of these writes' requests that has one.
#[must_use]
pub fn context_of(writes: &[LoggedWrite]) -> Option<TraceContext> {
    let trail = writes.iter().find_map(LoggedWrite::trail);
    trail.map(|trail| trail.context)
}

/// Notes on the trails of these writes that they were in a write of the log.
pub fn note_logged(writes: &[LoggedWrite], logged: Option<&Arc<LogWrite>>) {
    let Some(logged) = logged else {
        return;
    };
    trail::each(writes.iter().filter_map(LoggedWrite::trail), |trail| {
        trail.hop_on("log", (logged.begun, logged.ended), Detail::Log(Arc::clone(logged)));
    });
}
