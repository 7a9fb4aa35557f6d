//! A walk over everything that one view holds, in key order.
//!
//! Owns: the merge of memtables and tables into one sequence, at a sequence number. Does not own: the view. It holds no
//! lock and no pin on a skip list between calls, so it is cheap to hold open; but it keeps alive what it walks over.

use crate::storage::error::{Error, Result};
use crate::storage::key::Key;
use crate::storage::levels::Quarantined;
use crate::storage::merger::Merger;
use crate::storage::version::{MAX_SIBLINGS, Versions};
use crate::storage::view::ReadView;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries that a scan takes from a memtable at a time.
const MEMORY_BATCH: usize = 256;

/// A merged walk over all sources of one view. Ends after an error: what a damaged block has next is unknown, and
/// skipping it would pass for completeness. A scan that begins behind the damage goes on.
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
    ended: bool,
}

impl Scan {
    pub(super) fn new(view: Arc<ReadView>, from: &Key, seq: u64, since: u64) -> Self {
        let unreadable = |table: &&Arc<Quarantined>| table.table.is_none() && table.last_key.as_str() >= from.as_str();
        let mut lost: Vec<_> = view.tables.quarantine().iter().filter(unreadable).cloned().collect();
        lost.sort_by(|a, b| b.first_key.cmp(&a.first_key));
        Self {
            tables: Merger::new(view.tables.cursors_since(from.as_bytes(), since)),
            view,
            seq,
            memory_from: from.clone(),
            memory_ended: false,
            memory: Vec::new(),
            lost,
            ended: false,
        }
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
