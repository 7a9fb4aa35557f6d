//! The mark in the data directory of a node that takes no writes: it outlives the process.
//!
//! A frame with the time at which it was set. It is made aside, synced and renamed, so that it is there as a whole or not
//! at all.
//!
//! Owns: that file. Does not own: what draining is.

use crate::storage::codec::{FRAME_BYTES, FileKind, Reader};
use crate::storage::error::{Error, Result};
use crate::storage::fs::{Faults, FileSystem, remove_durably};
use std::path::Path;

/// The frame that the file is.
pub(crate) const HEADER: FileKind = FileKind {
    magic: *b"PDBDRAIN",
    version: 1,
    oldest: 1,
    name: "drain mark",
};
/// Name of the file.
pub const NAME: &str = "DRAINING";
const FIELD_BYTES: usize = 8;

/// When the mark was set, in milliseconds since the Unix epoch; [`None`] without one. One that is found is durable.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub fn load(fs: &dyn FileSystem, dir: &Path) -> Result<Option<u64>> {
    let names = fs.list(dir).map_err(|e| Error::io("list", dir, e))?;
    if !names.iter().any(|name| name == NAME) {
        return Ok(None);
    }
    let path = dir.join(NAME);
    let content = fs.read(&path).map_err(|e| Error::io("read", &path, e))?;
    let since_ms = decode(&path, &content);
    Faults::of(&content).check(&path)?;
    let since_ms = since_ms?;
    // A crash may have come between its name and the directory's sync.
    fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
    Ok(Some(since_ms))
}

/// When the mark was set that the content of the file at `path` is, in milliseconds since the Unix epoch.
///
/// # Errors
/// When it is damaged.
pub fn decode(path: &Path, content: &[u8]) -> Result<u64> {
    let (_version, fields) = HEADER.open(path, content, 0, FIELD_BYTES)?;
    if content.len() > FIELD_BYTES + FRAME_BYTES {
        let detail = "there is more than a drain mark; remove the file if the node is to take writes";
        return Err(Error::corruption(path, 0, detail));
    }
    Ok(Reader(fields).u64().unwrap_or_default())
}

/// Sets the mark, durably.
///
/// # Errors
/// When it cannot be written; it is then not there, unless a loss of power brings it back.
pub fn set(fs: &dyn FileSystem, dir: &Path, since_ms: u64) -> Result<()> {
    let path = dir.join(NAME);
    let temporary = path.with_extension("tmp");
    // An earlier attempt may have left it.
    let _ = fs.remove(&temporary);
    let mut file = fs.create(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
    file.write_at(0, &HEADER.frame(&since_ms.to_le_bytes()))
        .map_err(|e| Error::io("write", &temporary, e))?;
    file.sync().map_err(|e| Error::io("sync", &temporary, e))?;
    fs.rename(&temporary, &path)
        .map_err(|e| Error::io("rename", &temporary, e))?;
    fs.sync_dir(dir).map_err(|e| {
        // The next start must not find what this one is told that it has not.
        let _ = fs.remove(&path);
        Error::io("sync", dir, e)
    })
}

/// Takes the mark away, durably, whatever is in it.
///
/// # Errors
/// When it cannot be removed.
pub fn clear(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    remove_durably(fs, dir, NAME)
}
