//! What a read sees: the memtables and tables that exist, published as one.
//!
//! Owns: [`ReadView`] (an immutable list of sources), its atomic replacement, and the merge of all sources into an
//! answer. Does not own: the sources. Writes are blind, so any source may hold a sibling, and a read asks all of them;
//! filters make the tables cheap.

use crate::storage::error::Result;
use crate::storage::key::Key;
use crate::storage::memtable::Memtable;
use crate::storage::table::{Table, TableIter};
use crate::storage::version::{MAX_SIBLINGS, Versions};
use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Levels of tables, L0 to L4.
pub const LEVELS: usize = 5;

/// The tables of each level.
#[derive(Debug, Clone, Default)]
pub struct TableSet {
    /// Tables by level, in the order in which they were installed.
    pub levels: [Vec<Arc<Table>>; LEVELS],
}

impl TableSet {
    /// All tables, L0 first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.levels.iter().flatten()
    }
}

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
        let mut versions = self.get_in_memory(key);
        for table in self.tables.all() {
            versions = versions.merge(table.get(key)?);
        }
        Ok(versions.bounded(MAX_SIBLINGS).0)
    }

    /// Walks everything from `from` on, in key order, as it was when `seq` was the last number applied.
    #[must_use]
    pub fn scan(self: &Arc<Self>, from: &Key, seq: u64) -> Scan {
        let tables = self
            .tables
            .all()
            .map(|table| {
                let mut iter = table.iter_from(from.as_bytes());
                let head = iter.next();
                (head, iter)
            })
            .collect();
        Scan {
            view: Arc::clone(self),
            seq,
            from: from.clone(),
            tables,
            memory: Vec::new(),
        }
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

    fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.sealed)
    }

    /// Bytes of all memtables.
    #[must_use]
    pub fn memtable_bytes(&self) -> usize {
        self.memtables().map(|table| table.bytes()).sum()
    }
}

/// Entries that a scan takes from a memtable at a time: it holds no pin on the skip list between calls.
const MEMORY_BATCH: usize = 256;

type TableHead = (Option<Result<(Key, Versions)>>, TableIter);

/// A merged walk over all sources of one view. Cheap to hold open: it keeps the view's sources alive, and no lock.
pub struct Scan {
    view: Arc<ReadView>,
    seq: u64,
    /// The next key that memory is to be asked for.
    from: Key,
    tables: Vec<TableHead>,
    /// What memory has from `from` on, in descending order, so that the next is at the end.
    memory: Vec<(Key, Versions)>,
}

impl Scan {
    fn refill_memory(&mut self) {
        let mut merged: std::collections::BTreeMap<Key, Versions> = std::collections::BTreeMap::new();
        // A source that gave a full batch may have more keys behind its last: nothing above that is complete.
        let mut complete_to: Option<Key> = None;
        for table in self.view.memtables() {
            let batch: Vec<_> = table.iter_at(&self.from, self.seq).take(MEMORY_BATCH).collect();
            if batch.len() == MEMORY_BATCH
                && let Some((last, _)) = batch.last()
            {
                complete_to = Some(complete_to.map_or_else(|| last.clone(), |known| known.min(last.clone())));
            }
            for (key, versions) in batch {
                let known = merged.remove(&key).unwrap_or_default();
                merged.insert(key, known.merge(versions));
            }
        }
        if let Some(end) = complete_to {
            merged.retain(|key, _| *key <= end);
        }
        self.memory = merged.into_iter().rev().collect();
    }

    fn try_next(&mut self) -> Result<Option<(Key, Versions)>> {
        if self.memory.is_empty() {
            self.refill_memory();
        }
        let mut least = self.memory.last().map(|(key, _)| key.clone());
        for (head, _) in &mut self.tables {
            match head {
                Some(Ok((key, _))) if least.as_ref().is_none_or(|known| &*key < known) => least = Some(key.clone()),
                Some(Err(_)) => {
                    if let Some(Err(error)) = head.take() {
                        return Err(error);
                    }
                }
                _ => {}
            }
        }
        let Some(least) = least else {
            return Ok(None);
        };
        let mut versions = Versions::default();
        if let Some((_, known)) = self.memory.pop_if(|(key, _)| *key == least) {
            versions = known;
        }
        for (head, iter) in &mut self.tables {
            if let Some(Ok((_, known))) = head.take_if(|item| matches!(item, Ok((key, _)) if *key == least)) {
                versions = versions.merge(known);
                *head = iter.next();
            }
        }
        self.from = least.successor();
        Ok(Some((least, versions.bounded(MAX_SIBLINGS).0)))
    }
}

impl Iterator for Scan {
    type Item = Result<(Key, Versions)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.try_next().transpose()
    }
}

/// The published view, and how far it has come.
#[derive(Debug)]
pub struct Published {
    view: ArcSwap<ReadView>,
    writer: Mutex<()>,
    applied: AtomicU64,
    announced: AtomicU64,
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

    /// Bytes of all memtables of this moment's view.
    #[must_use]
    pub fn memtable_bytes(&self) -> usize {
        self.view.load().memtable_bytes()
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
