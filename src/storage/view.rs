//! What a read sees: the memtables and tables that exist, published as one.
//!
//! Owns: [`ReadView`] (an immutable list of sources), and the merge of all sources into an answer. Does not own: its
//! replacement (see [`Published`]), or the sources. Writes are blind, so any source may hold a sibling, and a read asks
//! all of them; filters make the tables cheap.

use crate::storage::error::Result;
use crate::storage::key::Key;
use crate::storage::levels::TableSet;
use crate::storage::looked::Looked;
use crate::storage::memtable::Memtable;
use crate::storage::scan::Scan;
use crate::storage::version::{MAX_SIBLINGS, Versions};
use std::sync::Arc;

pub use crate::storage::published::Published;

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
        self.get_noting(below, key, &mut Looked::default())
    }

    /// As [`ReadView::get_on_top_of`]; adds to `looked` whether memory had it.
    #[must_use]
    pub fn get_noting(&self, below: Versions, key: &Key, looked: &mut Looked) -> Versions {
        let above = self.get_in_memory(key);
        looked.in_memtable |= !above.is_empty();
        above.merge(below).bounded(MAX_SIBLINGS).0
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
