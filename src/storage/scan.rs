//! A walk over everything that one view holds, in key order.
//!
//! Owns: the merge of memtables and tables into one sequence, at a sequence number. Does not own: the view. It holds no
//! lock and no pin on a skip list between calls, so it is cheap to hold open; but it keeps alive what it walks over.

use crate::storage::error::{Error, Result};
use crate::storage::key::Key;
use crate::storage::levels::Quarantined;
use crate::storage::lost::Lost;
use crate::storage::merger::Merger;
use crate::storage::table::Cursor;
use crate::storage::version::{MAX_SIBLINGS, Versions};
use crate::storage::view::ReadView;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries that a scan takes from a memtable at a time.
const MEMORY_BATCH: usize = 256;

/// A merged walk over all sources of one view. Ends after an error: what a damaged block has next is unknown, and
/// skipping it would pass for completeness. A scan that begins behind the damage goes on. One that goes past damage is for
/// whoever asks afterwards what it has lost.
pub struct Scan {
    view: Arc<ReadView>,
    seq: u64,
    /// The next key that memory is to be asked for.
    memory_from: Key,
    /// Memory has nothing from there on.
    memory_ended: bool,
    /// What memory has, in descending order, so that the next is at the end.
    memory: Vec<(Key, Versions)>,
    tables: Merger,
    /// Tables of which only the range is known, by their first key, the least last.
    lost: Vec<Arc<Quarantined>>,
    /// Those of them that it goes past.
    passed: Vec<Lost>,
    ended: bool,
}

impl Scan {
    /// All that the view has up to `seq`.
    pub(super) fn up_to(view: Arc<ReadView>, from: &Key, seq: u64) -> Self {
        let tables = view.tables.cursors(from.as_bytes());
        let mut lost = unreadable(&view, from);
        lost.sort_by(|a, b| b.first_key.cmp(&a.first_key));
        Self {
            lost,
            ..Self::over(view, from, seq, tables)
        }
    }

    /// What the view has from behind `since`, and that can be read.
    pub(super) fn since(view: Arc<ReadView>, from: &Key, since: u64) -> Self {
        let tables = view.tables.cursors_since(from.as_bytes(), since).into_iter();
        let passed = unreadable(&view, from).iter().map(|table| table.lost()).collect();
        Self {
            passed,
            ..Self::over(view, from, u64::MAX, tables.map(Cursor::past_damage).collect())
        }
    }

    fn over(view: Arc<ReadView>, from: &Key, seq: u64, tables: Vec<Cursor>) -> Self {
        Self {
            tables: Merger::new(tables),
            view,
            seq,
            memory_from: from.clone(),
            memory_ended: false,
            memory: Vec::new(),
            lost: Vec::new(),
            passed: Vec::new(),
            ended: false,
        }
    }

    /// What it went past so far, where it goes past damage.
    pub fn lost(&self) -> impl Iterator<Item = &Lost> {
        self.passed.iter().chain(self.tables.lost())
    }

    fn refill_memory(&mut self) {
        let mut merged: BTreeMap<Key, Versions> = BTreeMap::new();
        // A source that gave a full batch may have more keys behind its last: nothing above that is complete.
        let mut complete_to: Option<Key> = None;
        for table in self.view.memtables() {
            let batch: Vec<_> = table.iter_at(&self.memory_from, self.seq).take(MEMORY_BATCH).collect();
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
        match complete_to {
            Some(end) => {
                merged.retain(|key, _| *key <= end);
                self.memory_from = end.successor();
            }
            None => self.memory_ended = true,
        }
        self.memory = merged.into_iter().rev().collect();
    }

    fn try_next(&mut self) -> Result<Option<(Key, Versions)>> {
        if self.memory.is_empty() && !self.memory_ended {
            self.refill_memory();
        }
        let stored = self.tables.key()?;
        let in_memory = self.memory.last().map(|(key, _)| key);
        let order = match (in_memory, stored) {
            (None, None) => return self.check_lost(None).map(|()| None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(memory), Some(stored)) => memory.as_bytes().cmp(stored),
        };
        let from_memory = if order == Ordering::Greater {
            None
        } else {
            self.memory.pop()
        };
        let (key, mut versions) = match from_memory {
            Some(entry) => entry,
            None => (self.stored_key()?, Versions::default()),
        };
        self.check_lost(Some(&key))?;
        if order != Ordering::Less {
            versions = versions.merge(self.tables.versions()?);
            self.tables.advance();
        }
        Ok(Some((key, versions.bounded(MAX_SIBLINGS).0)))
    }

    fn stored_key(&mut self) -> Result<Key> {
        let cursor = self.tables.standing().next();
        let key = cursor
            .and_then(|cursor| std::str::from_utf8(cursor.key()).ok())
            .and_then(Key::from_stored);
        key.ok_or_else(|| match cursor {
            Some(cursor) => cursor.damage("a key is not of the form tenant:key"),
            None => Error::corruption(std::path::Path::new("a table"), 0, "a scan stands nowhere"),
        })
    }

    /// Whether the way to `key` (to the end, without one) leads through a table that cannot be read.
    fn check_lost(&self, key: Option<&Key>) -> Result<()> {
        match self.lost.last() {
            Some(lost) if key.is_none_or(|key| key.as_str() >= lost.first_key.as_str()) => Err(lost.error()),
            _ => Ok(()),
        }
    }
}

/// Tables of which only the range is known, and that may hold `from` or what is behind it.
fn unreadable(view: &ReadView, from: &Key) -> Vec<Arc<Quarantined>> {
    let unreadable = |table: &&Arc<Quarantined>| table.table.is_none() && table.last_key.as_str() >= from.as_str();
    view.tables.quarantine().iter().filter(unreadable).cloned().collect()
}

impl Iterator for Scan {
    type Item = Result<(Key, Versions)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.try_next().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}
