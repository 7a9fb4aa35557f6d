//! Reads all tables of a snapshot, to find damage before a client does.
//!
//! Owns: the walk and its progress. Does not own: its pace, or what becomes of damage.

use crate::storage::backup::Snapshot;
use crate::storage::error::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};

/// How far a walk has come. All counts are of the walk that runs, or ran last.
#[derive(Debug, Default)]
pub struct ScrubProgress {
    /// Walks that came to their end.
    pub completed: AtomicU64,
    /// Tables to be read.
    pub tables: AtomicU64,
    /// Tables read.
    pub tables_done: AtomicU64,
    /// Bytes read.
    pub bytes: AtomicU64,
    /// Keys that are well.
    pub keys: AtomicU64,
}

/// Reads every table, those in quarantine too, and returns all damage. `pace` is called with the bytes read since it was
/// called last; it may wait, and ends the walk by an error.
///
/// # Errors
/// That of `pace`. Damage is no error: it is what was looked for.
pub fn scrub(
    snapshot: &Snapshot,
    progress: &ScrubProgress,
    mut pace: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<Error>> {
    let aside = snapshot.set.quarantine();
    let tables: Vec<_> = snapshot
        .set
        .all()
        .chain(aside.iter().filter_map(|table| table.table.as_ref()))
        .collect();
    for (counter, start) in [
        (&progress.tables, tables.len() as u64),
        (&progress.tables_done, 0),
        (&progress.bytes, 0),
        (&progress.keys, 0),
    ] {
        counter.store(start, Ordering::Relaxed);
    }
    let unreadable = aside.iter().filter(|table| table.table.is_none());
    let mut damage: Vec<Error> = unreadable.map(|table| table.error()).collect();
    for table in tables {
        let findings = table.check(|bytes| {
            progress.bytes.fetch_add(bytes, Ordering::Relaxed);
            pace(bytes)
        })?;
        progress.keys.fetch_add(findings.keys, Ordering::Relaxed);
        progress.tables_done.fetch_add(1, Ordering::Relaxed);
        damage.extend(findings.damage);
    }
    progress.completed.fetch_add(1, Ordering::Relaxed);
    Ok(damage)
}
