//! What a person who runs the node asks of it, beside its requests: a backup, and a check of everything.
//!
//! Owns: the order of steps that several actors take part in. Does not own: the work, or the wire.

use crate::actors::Handles;
use crate::actors::drain::Drain;
use crate::actors::flush::FlushMessage;
use crate::actors::memtable::MemtableMessage;
use crate::actors::refusal::Refusal;
use crate::actors::reply::ask;
use crate::actors::wal::SharedLog;
use crate::storage::backup::{self, Copied};
use crate::storage::error::Error;
use crate::storage::fs::FileSystem;
use crate::storage::log::reader::Segment;
use crate::storage::log::writer::DurableEnd;
use crate::storage::scrub::{ScrubProgress, scrub};
use crate::storage::tables::Tables;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest time that sealing or flushing what is in memory may take.
const STEP_WITHIN: Duration = Duration::from_secs(120);

/// Carries out maintenance.
#[derive(Clone)]
pub struct Maintenance {
    /// The actors.
    pub handles: Handles,
    /// The tables.
    pub tables: Arc<Tables>,
    /// The log.
    pub log: Arc<SharedLog>,
    /// Where the log is.
    pub log_dir: PathBuf,
    /// Whether writes are taken.
    pub drain: Arc<Drain>,
    /// Where files are.
    pub fs: Arc<dyn FileSystem>,
}

/// What a check of everything found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Files read.
    pub files: u64,
    /// Tables among them.
    pub tables: u64,
    /// Log segments among them.
    pub segments: u64,
    /// Changes in the log.
    pub changes: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Keys of tables that are well.
    pub keys: u64,
    /// What is damaged.
    pub damage: Vec<Error>,
}

/// How long [`flush_memory`] may take, for each of its two rounds.
#[derive(Debug, Clone, Copy)]
pub struct FlushWithin {
    /// For sealing.
    pub seal: Duration,
    /// For writing tables.
    pub flush: Duration,
}

/// Has everything that is in memory written as tables. What fails keeps nothing else from being tried.
///
/// # Errors
/// The first failure: not all of it is in tables then.
pub async fn flush_memory(handles: &Handles, within: FlushWithin) -> Result<(), Refusal> {
    let mut outcome = Ok(());
    // Twice: a full set of memtables leaves no room to seal the active one before the first is flushed.
    for _ in 0..2 {
        let sealed = ask("the memtable", within.seal, |reply| {
            handles.memtable.send_admitted(MemtableMessage::Seal).is_ok()
                && handles.memtable.send_admitted(MemtableMessage::Settle(reply)).is_ok()
        });
        outcome = outcome.and(sealed.await);
        let flushed = ask("the flush", within.flush, |reply| {
            handles.flush.send_admitted(FlushMessage::Settle(reply)).is_ok()
        });
        outcome = outcome.and(flushed.await);
    }
    outcome
}

impl Maintenance {
    /// Makes the backup `base`/`name` of everything that was acknowledged before this was called.
    ///
    /// # Errors
    /// When what is in memory cannot be flushed, or a file not written.
    pub async fn backup(&self, base: PathBuf, name: String) -> Result<Copied, Refusal> {
        let within = FlushWithin {
            seal: STEP_WITHIN,
            flush: STEP_WITHIN,
        };
        flush_memory(&self.handles, within).await?;
        self.blocking(move |this| {
            let snapshot = this.tables.snapshot(&this.handles.published);
            backup::backup(this.fs.as_ref(), &snapshot, this.tables.dir(), &base, &name)
        })
        .await
    }

    /// Reads every table, the manifest, and the log as far as it is durable. Damaged tables are set aside.
    ///
    /// # Errors
    /// When something cannot be read at all. Damage is no error here.
    pub async fn verify(&self) -> Result<Verified, Refusal> {
        self.blocking(Self::verify_now).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Refusal> {
        let this = self.clone();
        let done = self.handles.threads.run_long("pairdb-maintenance", move || work(&this));
        done.await
            .map_err(|panicked| Refusal::Internal(format!("it failed: {panicked}")))?
            .map_err(|error| Refusal::from(&error))
    }

    fn verify_now(&self) -> Result<Verified, Error> {
        let progress = ScrubProgress::default();
        let mut verified = Verified {
            damage: scrub(&self.handles.published, &progress, |_bytes| Ok(()))?,
            tables: progress.tables_done.load(Ordering::Relaxed),
            bytes: progress.bytes.load(Ordering::Relaxed),
            keys: progress.keys.load(Ordering::Relaxed),
            ..Verified::default()
        };
        verified.files = verified.tables + 1;
        match self.tables.check_manifest() {
            Ok(bytes) => verified.bytes += bytes,
            Err(error) => verified.damage.push(error),
        }
        for end in self.log.durable_ends() {
            self.verify_segment(end, &mut verified);
        }
        self.tables.quarantine_damaged(&self.handles.published)?;
        Ok(verified)
    }

    /// Reads what is durable of a segment: the end of the open one may be in the middle of being written.
    fn verify_segment(&self, end: DurableEnd, verified: &mut Verified) {
        let changes = &mut verified.changes;
        let read = Segment::open(self.fs.as_ref(), &self.log_dir, end.id).and_then(|segment| {
            segment.replay(0, 0, Some(end.len), |_change| {
                *changes += 1;
                Ok(())
            })
        });
        match read {
            Ok(_) => {}
            // Flushed and deleted since it was listed.
            Err(_) if !self.keeps(end) => return,
            Err(error) => verified.damage.push(error),
        }
        verified.files += 1;
        verified.segments += 1;
        verified.bytes += end.len;
    }

    /// Whether the log still has a segment.
    fn keeps(&self, end: DurableEnd) -> bool {
        self.log.durable_ends().iter().any(|kept| kept.id == end.id)
    }
}
