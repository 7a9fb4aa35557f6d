//! Tables as a start finds them: what the manifest names is opened, or stands aside.
//!
//! Owns: that judgement. What is wrong with one table costs what cannot be read of it, and never the start; without filter
//! and properties a table is whole but for them. Does not own: which tables there are, or what standing aside means to
//! reads (see [`crate::storage::levels`]).

use crate::storage::error::{Error, Result};
use crate::storage::fs::FileSystem;
use crate::storage::levels::{LEVELS, Quarantined, TableChange};
use crate::storage::manifest::{QUARANTINE, TableRecord};
use crate::storage::table::{self, ReadCounts, Table};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Opens a table that the manifest names, puts it where it belongs, and returns what the manifest is to say of it.
///
/// # Errors
/// When it cannot be opened for a reason that does not lie in its file, when it is of another format, or when it is not
/// known which keys would be lost.
pub(super) fn reopen(
    fs: &dyn FileSystem,
    dir: &Path,
    counts: &Arc<ReadCounts>,
    record: &TableRecord,
    change: &mut TableChange,
) -> Result<TableRecord> {
    let path = table::path(dir, record.id);
    let (cause, table) = match open(fs, &path, record, counts) {
        Ok((table, None)) => {
            // What was in quarantine and is well may overlap anything by now: L0.
            let level = if usize::from(record.level) < LEVELS {
                record.level
            } else {
                0
            };
            let record = record_of(&table, level);
            change.added.push((usize::from(level), table));
            return Ok(record);
        }
        Ok((table, Some(damage))) => (damage.to_string(), Some(table)),
        Err(error) => (why_lost(error, &path, record)?, None),
    };
    // A manifest of version 1 does not know the range of a table that can tell it.
    let known = match &table {
        Some(table) if record.last_key.is_empty() => record_of(table, QUARANTINE),
        _ => record.clone(),
    };
    let quarantined = Quarantined {
        id: known.id,
        path,
        size: known.size,
        first_key: known.first_key,
        last_key: known.last_key,
        cause,
        table,
    };
    let record = quarantine_record(&quarantined);
    change.quarantined.push(Arc::new(quarantined));
    Ok(record)
}

/// Opens a table as far as its blocks can be found. Returns with it what is wrong with the rest; of one that stood aside,
/// what is wrong anywhere.
fn open(
    fs: &dyn FileSystem,
    path: &Path,
    record: &TableRecord,
    counts: &Arc<ReadCounts>,
) -> Result<(Arc<Table>, Option<Error>)> {
    let content = fs.read(path).map_err(|e| Error::io("read", path, e))?;
    let (mut table, damage) = Table::read(path.to_path_buf(), record.id, content, counts)?;
    let mut damage = damage.into_iter().next();
    if table.range().1.is_empty() {
        if record.last_key.is_empty() {
            return Err(damage.unwrap_or_else(|| Error::corruption(path, 0, "the table names no last key")));
        }
        table = table.with_range(&record.first_key, &record.last_key);
    }
    if record.level == QUARANTINE && damage.is_none() {
        damage = table.check(|_| Ok(()))?.damage.into_iter().next();
    }
    Ok((Arc::new(table), damage))
}

/// What systems answer when a device or a file system is damaged at that place.
const DAMAGE: [i32; 5] = [libc::EIO, libc::EUCLEAN, libc::EBADMSG, libc::ENODATA, libc::EREMOTEIO];

/// Why a table is lost that did not open.
///
/// # Errors
/// When that is no reason to do without it, or it is not known which keys it had.
fn why_lost(error: Error, path: &Path, record: &TableRecord) -> Result<String> {
    let cause = match &error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            format!("{} is missing", path.display())
        }
        Error::Io { source, .. } if source.raw_os_error().is_some_and(|code| DAMAGE.contains(&code)) => {
            error.to_string()
        }
        Error::Corruption { .. } => error.to_string(),
        // Too little memory, no permission, another version: the table itself may be well.
        _ => return Err(error),
    };
    if record.last_key.is_empty() {
        let detail = format!(
            "{cause}; the manifest, written by an earlier version, does not say which keys the table had, so that the node \
             cannot do without it: put the file back from a backup"
        );
        return Err(Error::corruption(path, 0, detail));
    }
    Ok(cause)
}

/// What the manifest is to say of a table at a level.
pub(super) fn record_of(table: &Table, level: u8) -> TableRecord {
    let (first_key, last_key) = table.range();
    TableRecord {
        id: table.id(),
        level,
        size: table.size(),
        first_key: first_key.to_owned(),
        last_key: last_key.to_owned(),
    }
}

/// What the manifest is to say of a table that stands aside.
pub(super) fn quarantine_record(table: &Quarantined) -> TableRecord {
    TableRecord {
        id: table.id,
        level: QUARANTINE,
        size: table.size,
        first_key: table.first_key.clone(),
        last_key: table.last_key.clone(),
    }
}
