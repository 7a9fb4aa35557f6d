//! What reads and writes there were, how long they took and how large they were.
//!
//! Owns: those counts, which outlive all actors. Does not own: what is said of them (see [`crate::actors::health`]).

use crate::actors::overload::Kind;
use crate::actors::refusal::Refusal;
use crate::storage::histogram::Histogram;
use crate::storage::log::record::Operation;
use crate::storage::version::Versions;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Requests so far, by kind. Each operation of a batch counts, and took as long as its batch.
#[derive(Debug)]
pub struct RequestCounts {
    /// Writes, repairs and deletes.
    pub writes: AtomicU64,
    /// Of these, the repairs.
    pub repairs: AtomicU64,
    /// Of these, the deletes.
    pub deletes: AtomicU64,
    /// Reads.
    pub reads: AtomicU64,
    /// How long writes, repairs and deletes took.
    pub write_time: Histogram,
    /// How long repairs took.
    pub repair_time: Histogram,
    /// How long reads took.
    pub read_time: Histogram,
    /// Bytes of the values written.
    pub write_bytes: Histogram,
    /// Bytes of the values that were found.
    pub read_bytes: Histogram,
    /// Of all these, those that were refused or failed; neither a read of a missing key nor what a tenant's quota refuses is
    /// one: such refusals are counted by [`crate::actors::quotas`].
    pub errors: AtomicU64,
    /// Of these, what was refused since the node drains.
    pub refused_draining: AtomicU64,
}

impl Default for RequestCounts {
    fn default() -> Self {
        Self {
            writes: AtomicU64::default(),
            repairs: AtomicU64::default(),
            deletes: AtomicU64::default(),
            reads: AtomicU64::default(),
            write_time: Histogram::of_durations(),
            repair_time: Histogram::of_durations(),
            read_time: Histogram::of_durations(),
            write_bytes: Histogram::of_sizes(),
            read_bytes: Histogram::of_sizes(),
            errors: AtomicU64::default(),
            refused_draining: AtomicU64::default(),
        }
    }
}

impl RequestCounts {
    /// A write was answered, or refused, after so long.
    pub fn wrote<T>(&self, (operation, bytes): (Operation, usize), result: &Result<T, Refusal>, took: Duration) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.write_time.observe(took);
        match operation {
            Operation::Write => {}
            Operation::Delete => {
                self.deletes.fetch_add(1, Ordering::Relaxed);
            }
            Operation::Repair => {
                self.repairs.fetch_add(1, Ordering::Relaxed);
                self.repair_time.observe(took);
            }
        }
        if result.is_ok() {
            self.write_bytes.add(bytes as u64);
        }
        self.count_error(result);
    }

    /// A read was answered, or refused, after so long.
    pub fn read(&self, result: &Result<Versions, Refusal>, took: Duration) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_time.observe(took);
        if let Ok(versions) = result {
            let bytes: usize = versions.all().iter().map(|version| version.value.len()).sum();
            self.read_bytes.add(bytes as u64);
        }
        self.count_error(result);
    }

    /// A request was refused before anything was known of it.
    pub fn refused<T>(&self, kind: Kind, result: &Result<T, Refusal>) {
        let counter = match kind {
            Kind::Read => &self.reads,
            Kind::Write => &self.writes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.count_error(result);
    }

    /// A request that was counted is made once more; only if that fails it says something new.
    pub fn again<T>(&self, result: &Result<T, Refusal>) {
        self.count_error(result);
    }

    fn count_error<T>(&self, result: &Result<T, Refusal>) {
        if !matches!(result, Ok(_) | Err(Refusal::QuotaExceeded { .. })) {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(result, Err(Refusal::Draining)) {
            self.refused_draining.fetch_add(1, Ordering::Relaxed);
        }
    }
}
