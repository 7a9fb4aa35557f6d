//! What a read sees: the memtables and tables that exist, published as one.
//!
//! Owns: [`ReadView`] (an immutable list of sources), its atomic replacement, and the merge of all sources into an
//! answer. Does not own: the sources. Writes are blind, so any source may hold a sibling, and a read asks all of them;
//! filters make the tables cheap.

use crate::storage::compaction::debt::Debt;
use crate::storage::error::Result;
use crate::storage::histogram::Histogram;
use crate::storage::key::Key;
use crate::storage::levels::TableSet;
use crate::storage::memtable::Memtable;
use crate::storage::scan::Scan;
use crate::storage::version::{MAX_SIBLINGS, Versions};
use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One consistent set of sources.
#[derive(Debug, Clone)]
pub struct ReadView {
    /// The memtable that is written to.
    pub active: Arc<Memtable>,
    /// Full memtables, the oldest first, until their tables are installed.
    pub sealed: Vec<Arc<Memtable>>,
    /// The tables.
    pub tables: Arc<TableSet>,
}

impl ReadView {
    /// All that memory knows of a key, without touching a table.
    #[must_use]
    pub fn get_in_memory(&self, key: &Key) -> Versions {
        self.memtables()
            .filter_map(|table| table.get(key))
            .fold(Versions::default(), Versions::merge)
    }

    /// Everything that the key has.
    ///
    /// # Errors
    /// When a table that may hold it is damaged.
    pub fn get(&self, key: &Key) -> Result<Versions> {
        Ok(self.get_on_top_of(self.tables.get(key)?, key))
    }

    /// Everything that the key has, of which the tables have `below`.
    #[must_use]
    pub fn get_on_top_of(&self, below: Versions, key: &Key) -> Versions {
        self.get_in_memory(key).merge(below).bounded(MAX_SIBLINGS).0
    }

    /// Walks everything from `from` on, in key order, as it was when `seq` was the last number applied.
    #[must_use]
    pub fn scan(self: &Arc<Self>, from: &Key, seq: u64) -> Scan {
        Scan::up_to(Arc::clone(self), from, seq)
    }

    /// Walks from `from` on, in key order, past what is older than `since`: every version with a higher number is met, or what
    /// replaced it. Tables without such a version are not read, so that other versions may be missing. It also goes past damage:
    /// [`Scan::lost`] says what it could not read.
    #[must_use]
    pub fn scan_since(self: &Arc<Self>, from: &Key, since: u64) -> Scan {
        Scan::since(Arc::clone(self), from, since)
    }

    /// The view with its active memtable sealed and an empty one, number `id`, in its place.
    #[must_use]
    pub fn rotated(&self, id: u64) -> Self {
        let mut sealed = self.sealed.clone();
        sealed.push(Arc::clone(&self.active));
        Self {
            active: Arc::new(Memtable::new(id)),
            sealed,
            tables: Arc::clone(&self.tables),
        }
    }

    /// All memtables.
    pub fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.sealed)
    }

    /// Bytes that a tenant's writes hold in all memtables.
    #[must_use]
    pub fn tenant_memory_bytes(&self, tenant: &str) -> u64 {
        self.memtables().map(|table| table.tenant_bytes(tenant)).sum()
    }

    /// Bytes of all memtables.
    #[must_use]
    pub fn memtable_bytes(&self) -> usize {
        self.memtables().map(|table| table.bytes()).sum()
    }
}

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
    pub fn peek(&self) -> arc_swap::Guard<Arc<ReadView>> {
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
