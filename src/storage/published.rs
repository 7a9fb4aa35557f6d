//! The published view: what all reads see from one moment on, and up to which number.
//!
//! Owns: the atomic replacement of the view, the right to write, and the numbers. Does not own: what a view is made of (see
//! [`crate::storage::view`]). `tests/models` runs this file through interleavings.

use crate::storage::compaction::debt::Debt;
use crate::storage::histogram::Histogram;
use crate::storage::sync::{ArcSwap, AtomicU64, Guard, Mutex, MutexGuard, Ordering};
use crate::storage::view::ReadView;
use std::sync::Arc;

/// The published view, and how far it has come.
#[derive(Debug)]
pub struct Published {
    view: ArcSwap<ReadView>,
    writer: Mutex<()>,
    applied: AtomicU64,
    announced: AtomicU64,
    /// How long reads of a key took in the tables.
    pub reads: Histogram,
}

impl Published {
    /// Publishes a first view; `applied` is the last sequence number in it.
    #[must_use]
    pub fn new(view: ReadView, applied: u64) -> Self {
        Self {
            view: ArcSwap::from_pointee(view),
            writer: Mutex::new(()),
            applied: AtomicU64::new(applied),
            announced: AtomicU64::new(applied),
            reads: Histogram::of_durations(),
        }
    }

    /// The right to apply to the active memtable and to seal it. Held for a batch; never waited for, but in the moment
    /// in which a writer's successor starts before it has wholly ended.
    pub fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock()
    }

    /// The view of this moment.
    #[must_use]
    pub fn load(&self) -> Arc<ReadView> {
        self.view.load_full()
    }

    /// The view of this moment, for a short look: cheaper than [`Published::load`], and not to be kept.
    pub fn peek(&self) -> Guard<Arc<ReadView>> {
        self.view.load()
    }

    /// Bytes of all memtables of this moment's view, and how far compaction is behind.
    #[must_use]
    pub fn load_on_writes(&self) -> (usize, Debt) {
        let view = self.view.load();
        (view.memtable_bytes(), view.tables.debt())
    }

    /// Replaces the view by what `change` makes of it. Several owners may change their own part at once: `change` is
    /// called again when another was faster, so it must be a pure function of the view that it is given.
    pub fn update(&self, change: impl FnMut(&Arc<ReadView>) -> ReadView) {
        self.view.rcu(change);
    }

    /// Last sequence number that a memtable holds.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// States that everything up to `seq` is in a memtable.
    pub fn set_applied(&self, seq: u64) {
        self.applied.fetch_max(seq, Ordering::Release);
    }

    /// Last sequence number that every cache has been told of, or will be told of before it answers a later question.
    #[must_use]
    pub fn announced(&self) -> u64 {
        self.announced.load(Ordering::Acquire)
    }

    /// States that every cache has been told of everything up to `seq`.
    pub fn set_announced(&self, seq: u64) {
        self.announced.fetch_max(seq, Ordering::Release);
    }
}
