//! Admission: how much may be under way at once, so that every buffer behind it is bounded.
//!
//! Owns: the permits of reads and writes, and the rule by which memtables that are not flushed fast enough, and tables
//! that are not compacted, slow writes down and then refuse them. Does not own: the buffers themselves. A permit is held
//! until its request was answered.

use crate::actors::disk::DiskWatch;
use crate::actors::refusal::Refusal;
use crate::storage::view::Published;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Longest that one write is slowed down before it is sent on.
const MAX_DELAY: Duration = Duration::from_millis(50);
/// And longest that a batch is: well within the time that its sender waits.
const MAX_BATCH_DELAY: Duration = Duration::from_secs(1);
/// Why a write, or a delete, is refused that would make L0 grow past its bound.
pub const TOO_FAR_BEHIND: &str = "L0 has too many tables, and compaction has not caught up";

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionLimits {
    /// Most writes under way.
    pub writes: usize,
    /// Most bytes that memtables and writes under way hold together.
    pub write_bytes: usize,
    /// From this many such bytes on writes are slowed down.
    pub slow_bytes: usize,
    /// Most reads under way.
    pub reads: usize,
}

/// Hands out permits.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    published: Arc<Published>,
    disk: Arc<DiskWatch>,
    writes: AtomicUsize,
    write_bytes: AtomicUsize,
    reads: AtomicUsize,
    refused: AtomicU64,
    slowed: AtomicU64,
    draining: AtomicBool,
}

/// A write under way, or the writes of a batch.
#[derive(Debug)]
pub struct WritePermit {
    admission: Arc<Admission>,
    writes: usize,
    bytes: usize,
}

impl Drop for WritePermit {
    fn drop(&mut self) {
        self.admission.writes.fetch_sub(self.writes, Ordering::AcqRel);
        self.admission.write_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A read under way, or the reads of a batch.
#[derive(Debug)]
pub struct ReadPermit {
    admission: Arc<Admission>,
    reads: usize,
}

impl Drop for ReadPermit {
    fn drop(&mut self) {
        self.admission.reads.fetch_sub(self.reads, Ordering::AcqRel);
    }
}

/// Numbers for health and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionStats {
    /// Writes under way.
    pub writes: usize,
    /// Reads under way.
    pub reads: usize,
    /// Bytes that memtables and writes under way hold.
    pub write_bytes: usize,
    /// From how many such bytes on writes are slowed down, and at how many they are refused.
    pub write_bounds: (usize, usize),
    /// Whether writes are being slowed down because the memtables are full.
    pub slow: bool,
    /// Whether writes are being slowed down because compaction is behind.
    pub behind: bool,
    /// Why writes, and perhaps deletes, are being refused: compaction is too far behind.
    pub stopped: Option<String>,
    /// Requests refused so far.
    pub refused: u64,
    /// Writes slowed down so far.
    pub slowed: u64,
}

impl Admission {
    /// Permits within `limits`; `published` says how much the memtables hold, `disk` how full the disks are.
    #[must_use]
    pub fn new(limits: AdmissionLimits, published: Arc<Published>, disk: Arc<DiskWatch>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            published,
            disk,
            writes: AtomicUsize::new(0),
            write_bytes: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            slowed: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        })
    }

    /// Admits so many writes, sent together, that may add `bytes` to a memtable. Their sender is to wait for the time
    /// returned, which grows from zero as memory fills, as compaction falls behind, or as the disk fills; and with the
    /// number of writes, so that a batch is no way around it.
    ///
    /// # Errors
    /// [`Refusal::Draining`]; [`Refusal::Overloaded`] when there are too many writes under way, no memory is left for this
    /// one, or compaction is too far behind; [`Refusal::DiskFull`] when the disk is, unless they are deletes.
    pub fn admit_writes(
        self: &Arc<Self>,
        writes: usize,
        bytes: usize,
        deletes_only: bool,
    ) -> Result<(WritePermit, Duration), Refusal> {
        self.check_draining()?;
        let disk_delay = match self.disk.write_delay() {
            Some(delay) => delay,
            // What is left is for what gives space back.
            None if deletes_only => Duration::ZERO,
            None => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let stop = self.disk.thresholds().stop * 100.0;
                return Err(Refusal::DiskFull(format!(
                    "more than {stop:.0} % of it is taken (disk.stop_usage); only deletes are accepted until there is space"
                )));
            }
        };
        // In one order with the drain's steps: it sees these writes under way, or they see the drain.
        let under_way_with_these = self.writes.fetch_add(writes, Ordering::SeqCst) + writes;
        let under_way = self.write_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        // From here on the permit's drop takes both back.
        let permit = WritePermit {
            admission: Arc::clone(self),
            writes,
            bytes,
        };
        self.check_draining()?;
        let (memtable_bytes, debt) = self.published.load_on_writes();
        let held = under_way + memtable_bytes;
        let refusal = if under_way_with_these > self.limits.writes {
            Some("too many writes under way")
        } else if held > self.limits.write_bytes {
            Some("the memtables are full and their flush has not caught up")
        } else if debt.check_write(deletes_only).is_err() {
            Some(TOO_FAR_BEHIND)
        } else {
            None
        };
        if let Some(why) = refusal {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::Overloaded(why));
        }
        let over = held.saturating_sub(self.limits.slow_bytes);
        let room = self.limits.write_bytes.saturating_sub(self.limits.slow_bytes).max(1);
        let delay = MAX_DELAY
            .mul_f64(over as f64 / room as f64)
            .max(debt.write_delay())
            .max(disk_delay);
        if !delay.is_zero() {
            self.slowed.fetch_add(1, Ordering::Relaxed);
        }
        let together = delay.saturating_mul(u32::try_from(writes).unwrap_or(u32::MAX));
        Ok((permit, together.min(delay.max(MAX_BATCH_DELAY))))
    }

    /// Admits so many reads.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when there are too many under way.
    pub fn admit_reads(self: &Arc<Self>, reads: usize) -> Result<ReadPermit, Refusal> {
        let permit = ReadPermit {
            admission: Arc::clone(self),
            reads,
        };
        if self.reads.fetch_add(reads, Ordering::AcqRel) + reads > self.limits.reads {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::Overloaded("too many reads under way"));
        }
        Ok(permit)
    }

    fn check_draining(&self) -> Result<(), Refusal> {
        if self.draining.load(Ordering::SeqCst) {
            return Err(Refusal::Draining);
        }
        Ok(())
    }

    /// Refuses every write from now on, or takes them again. Those that were admitted go on.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::SeqCst);
    }

    /// Numbers for health and metrics.
    #[must_use]
    pub fn stats(&self) -> AdmissionStats {
        let (memtable_bytes, debt) = self.published.load_on_writes();
        let write_bytes = self.write_bytes.load(Ordering::Relaxed) + memtable_bytes;
        AdmissionStats {
            writes: self.writes.load(Ordering::SeqCst),
            reads: self.reads.load(Ordering::Relaxed),
            write_bytes,
            write_bounds: (self.limits.slow_bytes, self.limits.write_bytes),
            slow: write_bytes > self.limits.slow_bytes,
            behind: !debt.write_delay().is_zero(),
            stopped: debt.check_write(false).err().map(|why| why.to_string()),
            refused: self.refused.load(Ordering::Relaxed),
            slowed: self.slowed.load(Ordering::Relaxed),
        }
    }
}
