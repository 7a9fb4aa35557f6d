//! Reads all tables, to find damage before a client does.
//!
//! Owns: the walk and its progress. Does not own: its pace, or what becomes of damage.

use crate::storage::error::{Error, Result};
use crate::storage::progress::step;
use crate::storage::table::Table;
use crate::storage::view::Published;
use std::sync::Arc;
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

/// Reads every table, those in quarantine too, and returns all damage. Each is held only while it is read: a walk takes
/// hours, and what compaction replaces meanwhile must go. `pace` is called with the bytes read since it was called last; it
/// may wait, and ends the walk by an error.
///
/// # Errors
/// That of `pace`. Damage is no error: it is what was looked for.
pub fn scrub(
    published: &Published,
    progress: &ScrubProgress,
    mut pace: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<Error>> {
    let (mut damage, mut ids) = (Vec::new(), Vec::new());
    {
        let set = &published.load().tables;
        ids.extend(set.all().map(|table| table.id()));
        for aside in set.quarantine() {
            match aside.table {
                Some(_) => ids.push(aside.id),
                None => damage.push(aside.error()),
            }
        }
    }
    for (counter, start) in [
        (&progress.tables, ids.len() as u64),
        (&progress.tables_done, 0),
        (&progress.bytes, 0),
        (&progress.keys, 0),
    ] {
        counter.store(start, Ordering::Relaxed);
    }
    for id in ids {
        // One that was replaced meanwhile was read by the compaction that did it.
        if let Some(table) = find(published, id) {
            let findings = table.check(|bytes| {
                step();
                progress.bytes.fetch_add(bytes, Ordering::Relaxed);
                pace(bytes)
            })?;
            progress.keys.fetch_add(findings.keys, Ordering::Relaxed);
            damage.extend(findings.damage);
        }
        progress.tables_done.fetch_add(1, Ordering::Relaxed);
    }
    progress.completed.fetch_add(1, Ordering::Relaxed);
    Ok(damage)
}

fn find(published: &Published, id: u64) -> Option<Arc<Table>> {
    let set = &published.load().tables;
    let aside = set.quarantine().iter().filter_map(|table| table.table.as_ref());
    set.all().chain(aside).find(|table| table.id() == id).cloned()
}
