//! What becomes of the changes that a recovery replays.
//!
//! A skip list is slow to fill, and most of a long log is bound for tables anyway. So changes are gathered in chunks of
//! the size of a memtable; a full chunk is sorted and written as a table by a thread of its own while the next gathers;
//! the last, which is not full, becomes the active memtable, filled in key order.
//!
//! Owns: chunks, their order, and that thread. Does not own: reading the log, or the tables' format.

use crate::storage::error::{Error, Result};
use crate::storage::key::Key;
use crate::storage::log::record::Change;
use crate::storage::memtable;
use crate::storage::table::Table;
use crate::storage::tables::Tables;
use crate::storage::version::{MAX_SIBLINGS, Version, Versions};
use crate::storage::view::Published;
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

/// What was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Changes.
    pub changes: u64,
    /// Tables that were written of them.
    pub tables: usize,
}

/// Changes that wait to be sorted.
#[derive(Default)]
struct Chunk {
    changes: Vec<(Key, Version)>,
    bytes: usize,
    last_seq: u64,
}

impl Chunk {
    /// The changes by key, and of one key by sequence number.
    fn sorted(mut self) -> Vec<(Key, Version)> {
        self.changes
            .sort_unstable_by(|(a, left), (b, right)| a.cmp(b).then_with(|| left.seq.cmp(&right.seq)));
        self.changes
    }
}

/// A chunk on its way into a table, and the last sequence number in it.
type Writing<'scope> = (u64, ScopedJoinHandle<'scope, Result<Arc<Table>>>);

/// Takes the changes of a log in order.
pub struct Loader<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    tables: &'env Tables,
    published: &'env Published,
    threshold: usize,
    gathering: Chunk,
    writing: Option<Writing<'scope>>,
    loaded: Loaded,
}

/// Has `replay` feed a loader, and puts everything that it was fed where it belongs. Chunks of `threshold` bytes become
/// tables.
///
/// # Errors
/// That of `replay`, or of writing a table.
pub fn with_loader(
    tables: &Tables,
    published: &Published,
    threshold: usize,
    replay: impl FnOnce(&mut Loader<'_, '_>) -> Result<()>,
) -> Result<Loaded> {
    std::thread::scope(|scope| {
        let mut loader = Loader {
            scope,
            tables,
            published,
            threshold,
            gathering: Chunk::default(),
            writing: None,
            loaded: Loaded::default(),
        };
        replay(&mut loader)?;
        loader.finish()
    })
}

impl Loader<'_, '_> {
    /// Takes the next change.
    ///
    /// # Errors
    /// When a table cannot be written.
    pub fn add(&mut self, change: Change) -> Result<()> {
        let version = change.version;
        self.gathering.bytes += memtable::charge(&change.key, &version.value, &version.clock);
        self.gathering.last_seq = version.seq;
        self.gathering.changes.push((change.key, version));
        self.loaded.changes += 1;
        if self.gathering.bytes >= self.threshold {
            self.write_chunk()?;
        }
        Ok(())
    }

    fn write_chunk(&mut self) -> Result<()> {
        self.install_written()?;
        let chunk = std::mem::take(&mut self.gathering);
        let (last_seq, tables) = (chunk.last_seq, self.tables);
        let thread = self.scope.spawn(move || tables.write(Merged::of(chunk.sorted())));
        self.writing = Some((last_seq, thread));
        Ok(())
    }

    /// Installs the table that was being written. One at a time, so that they are installed in the order of the log.
    fn install_written(&mut self) -> Result<()> {
        let Some((last_seq, thread)) = self.writing.take() else {
            return Ok(());
        };
        let table = thread.join().unwrap_or_else(|_panicked| {
            let source = std::io::Error::other("the thread that wrote it panicked");
            Err(Error::io("write a table below", std::path::Path::new("the data directory"), source))
        })?;
        self.tables.install(Some(table), last_seq, None, self.published)?;
        self.loaded.tables += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Loaded> {
        self.install_written()?;
        let active = Arc::clone(&self.published.load().active);
        for (key, version) in self.gathering.sorted() {
            active.apply(&key, version, MAX_SIBLINGS);
        }
        Ok(self.loaded)
    }
}

/// Sorted changes, merged to one entry a key.
struct Merged {
    changes: std::iter::Peekable<std::vec::IntoIter<(Key, Version)>>,
}

impl Merged {
    fn of(changes: Vec<(Key, Version)>) -> Self {
        Self {
            changes: changes.into_iter().peekable(),
        }
    }
}

impl Iterator for Merged {
    type Item = (Key, Versions);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, version) = self.changes.next()?;
        let mut versions = Versions::from(version);
        while let Some((_, version)) = self.changes.next_if(|(next, _)| *next == key) {
            versions = versions.merge(version.into()).bounded(MAX_SIBLINGS).0;
        }
        Some((key, versions))
    }
}
