//! What becomes of the changes that a recovery replays.
//!
//! A skip list is slow to fill, and most of a long log is bound for tables anyway. So changes are gathered in chunks of
//! the size of a memtable; a full chunk is sorted and written as a table by a thread of its own while the next gather;
//! the last, which is not full, becomes the active memtable, filled in key order.
//!
//! Owns: chunks, their order, and that thread. Does not own: reading the log, or the tables' format.

use crate::storage::error::{Error, Result};
use crate::storage::key::Key;
use crate::storage::log::record::Change;
use crate::storage::memtable;
use crate::storage::recovery::Options;
use crate::storage::tables::{FlushedUpTo, NewTable, Tables};
use crate::storage::version::{MAX_SIBLINGS, Version, Versions};
use crate::storage::view::Published;
use std::collections::VecDeque;
use std::iter::Peekable;
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

/// Tables that are written at a time. Writing one takes longer than gathering the next; and what gathers holds only keys
/// and clocks in memory (values stay in the mapped log), so three chunks take no more than two memtables.
const WRITERS: usize = 2;

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
    /// In the order of the log. Each is there until [`Chunk::sorted`] takes it.
    changes: Vec<Option<(Key, Version)>>,
    bytes: usize,
    last_seq: u64,
}

impl Chunk {
    /// The changes by key, and those of one key in the order of the log.
    ///
    /// Keys tend to begin alike, and comparing them in full costs more than all else here. So their places are sorted, by
    /// the eight bytes that follow what all keys share, and in full only where those are equal.
    fn sorted(mut self) -> impl Iterator<Item = (Key, Version)> {
        let key = |at: usize| {
            self.changes
                .get(at)
                .and_then(Option::as_ref)
                .map(|(key, _)| key.as_bytes())
        };
        let first = key(0).unwrap_or_default();
        let shared = (1..self.changes.len()).fold(first.len(), |shared, at| {
            let other = key(at).unwrap_or_default();
            let same = |(a, b): &(&u8, &u8)| a == b;
            first.iter().zip(other).take(shared).take_while(same).count()
        });
        let mut order: Vec<(u64, usize)> = (0..self.changes.len())
            .map(|at| {
                let rest = key(at).and_then(|key| key.get(shared..)).unwrap_or_default();
                let mut prefix = [0; 8];
                prefix.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                (u64::from_be_bytes(prefix), at)
            })
            .collect();
        order.sort_unstable_by(|(prefix, at), (other_prefix, other)| {
            prefix
                .cmp(other_prefix)
                .then_with(|| key(*at).cmp(&key(*other)))
                .then_with(|| at.cmp(other))
        });
        order
            .into_iter()
            .filter_map(move |(_, at)| self.changes.get_mut(at).and_then(Option::take))
    }
}

/// A chunk on its way into a table, and the last sequence number in it.
type Writing<'scope> = (u64, ScopedJoinHandle<'scope, Result<NewTable>>);

/// Takes the changes of a log in order.
pub struct Loader<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    tables: &'env Tables,
    published: &'env Published,
    is_readable: &'env dyn Fn() -> Result<()>,
    threshold: usize,
    parallel: bool,
    gathering: Chunk,
    writing: VecDeque<Writing<'scope>>,
    loaded: Loaded,
}

/// Has `replay` feed a loader, and puts everything that it was fed where it belongs. Chunks of the size of a memtable
/// become tables. Values are read when they are written, so `is_readable` is asked once more before each table counts, and in the
/// end.
///
/// # Errors
/// That of `replay` or of `is_readable`, or of writing a table.
pub fn with_loader(
    tables: &Tables,
    published: &Published,
    options: &Options,
    is_readable: &dyn Fn() -> Result<()>,
    replay: impl FnOnce(&mut Loader<'_, '_>) -> Result<()>,
) -> Result<Loaded> {
    std::thread::scope(|scope| {
        let mut loader = Loader {
            scope,
            tables,
            published,
            is_readable,
            threshold: options.flush_threshold,
            parallel: options.parallel_replay,
            gathering: Chunk::default(),
            writing: VecDeque::new(),
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
        self.gathering.changes.push(Some((change.key, version)));
        self.loaded.changes += 1;
        if self.gathering.bytes >= self.threshold {
            self.write_chunk()?;
        }
        Ok(())
    }

    fn write_chunk(&mut self) -> Result<()> {
        while self.writing.len() >= WRITERS {
            self.install_oldest()?;
        }
        let next = Chunk {
            changes: Vec::with_capacity(self.gathering.changes.len()),
            ..Chunk::default()
        };
        let chunk = std::mem::replace(&mut self.gathering, next);
        let (last_seq, tables) = (chunk.last_seq, self.tables);
        let thread = self
            .scope
            .spawn(move || tables.write_l0(Merged(chunk.sorted().peekable())));
        self.writing.push_back((last_seq, thread));
        if !self.parallel {
            self.install_oldest()?;
        }
        Ok(())
    }

    /// Waits for the oldest of the tables being written and installs it: they are installed in the order of the log.
    fn install_oldest(&mut self) -> Result<()> {
        let Some((last_seq, thread)) = self.writing.pop_front() else {
            return Ok(());
        };
        let table = thread.join().unwrap_or_else(|_panicked| {
            let source = std::io::Error::other("the thread that wrote it panicked");
            Err(Error::io(
                "write a table below",
                std::path::Path::new("the data directory"),
                source,
            ))
        })?;
        let up_to = FlushedUpTo {
            seq: last_seq,
            memtable: None,
        };
        (self.is_readable)()?;
        self.tables.install_l0(Some(&table), up_to, self.published)?;
        self.loaded.tables += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Loaded> {
        while !self.writing.is_empty() {
            self.install_oldest()?;
        }
        let active = Arc::clone(&self.published.load().active);
        for (key, version) in self.gathering.sorted() {
            active.apply(&key, version.detached(), MAX_SIBLINGS);
        }
        (self.is_readable)()?;
        Ok(self.loaded)
    }
}

/// Sorted changes, merged to one entry a key.
struct Merged<I: Iterator<Item = (Key, Version)>>(Peekable<I>);

impl<I: Iterator<Item = (Key, Version)>> Iterator for Merged<I> {
    type Item = (Key, Versions);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, version) = self.0.next()?;
        let mut versions = Versions::from(version);
        while let Some((_, version)) = self.0.next_if(|(next, _)| *next == key) {
            versions = versions.merge(version.into()).bounded(MAX_SIBLINGS).0;
        }
        Some((key, versions))
    }
}
