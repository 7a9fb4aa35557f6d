//! How remembered writes outlive the process.
//!
//! The name of a write stands in its record in the log. What it was answered follows from that, as a rule; where not, a
//! note in the log says so. Before a segment of the log is deleted, everything that is remembered is written to a file
//! beside the log, in place of the one before.
//!
//! Owns: the encoding of one remembered write, and that file. Does not own: what is remembered, and for how long.

use crate::storage::clock::VectorClock;
use crate::storage::codec::{FRAME_BYTES, FileKind};
use crate::storage::error::{Error, Result};
use crate::storage::fs::FileSystem;
use crate::storage::idempotency::{Remembered, WriteName, WriteOutcome};
use crate::storage::key::Key;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;

/// Name of that file, in the directory of the log.
pub const FILE: &str = "REMEMBERED";
const KIND: FileKind = FileKind {
    magic: *b"PDBREMBR",
    version: 1,
    oldest: 1,
    name: "file of remembered writes",
};

/// A remembered write; the order of the fields is the format.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    key: &'a str,
    id: &'a str,
    seq: u64,
    timestamp_ms: u64,
    clock: VectorClock,
    applied: bool,
}

impl<'a> From<&'a Remembered> for Stored<'a> {
    fn from(write: &'a Remembered) -> Self {
        Self {
            key: write.name.key.as_str(),
            id: &write.name.id,
            seq: write.seq,
            timestamp_ms: write.timestamp_ms,
            clock: write.outcome.clock.clone(),
            applied: write.outcome.applied,
        }
    }
}

impl Stored<'_> {
    fn read(self) -> std::result::Result<Remembered, String> {
        let key = Key::from_stored(self.key).ok_or("the key has no tenant")?;
        Ok(Remembered {
            name: WriteName {
                key,
                id: self.id.into(),
            },
            seq: self.seq,
            timestamp_ms: self.timestamp_ms,
            outcome: WriteOutcome {
                clock: self.clock,
                applied: self.applied,
            },
        })
    }
}

/// Appends the encoding of one.
///
/// # Errors
/// When it cannot be encoded; `out` may then have a part of it.
pub(super) fn encode(out: &mut Vec<u8>, write: &Remembered) -> std::result::Result<(), rmp_serde::encode::Error> {
    rmp_serde::encode::write(out, &Stored::from(write))
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// What does not fit.
pub(super) fn decode(encoded: &[u8]) -> std::result::Result<Remembered, String> {
    let stored: Stored<'_> = rmp_serde::from_slice(encoded).map_err(|e| e.to_string())?;
    stored.read()
}

/// Keeps what is remembered in the directory of the log, in place of what was kept there before.
///
/// # Errors
/// When the file cannot be written. The one before is then as it was.
pub fn keep(fs: &dyn FileSystem, dir: &Path, remembered: &[Remembered]) -> Result<()> {
    let target = dir.join(FILE);
    let temporary = target.with_extension("tmp");
    let stored: Vec<Stored<'_>> = remembered.iter().map(Stored::from).collect();
    let fields = rmp_serde::to_vec(&stored).map_err(|e| Error::io("encode", &target, std::io::Error::other(e)))?;
    // An earlier attempt may have left it.
    let _ = fs.remove(&temporary);
    let made = fs.create(&temporary).and_then(|mut file| {
        file.write_at(0, &KIND.frame(&fields))?;
        file.sync()
    });
    if let Err(source) = made.and_then(|()| fs.rename(&temporary, &target)) {
        let _ = fs.remove(&temporary);
        return Err(Error::io("write", &target, source));
    }
    fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))
}

/// What was kept; nothing, when nothing was.
///
/// # Errors
/// When the file cannot be read, or is damaged. Without the file a node starts, but may apply again what was sent before.
pub fn kept(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<Remembered>> {
    let file = dir.join(FILE);
    let content = match fs.read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        content => content.map_err(|e| Error::io("read", &file, e))?,
    };
    let length = content.len().saturating_sub(FRAME_BYTES);
    let (_version, fields) = KIND.open(&file, &content, 0, length)?;
    let damaged = |detail: String| Error::corruption(&file, 0, detail);
    let stored: Vec<Stored<'_>> = rmp_serde::from_slice(fields).map_err(|e| damaged(e.to_string()))?;
    stored
        .into_iter()
        .map(|stored| stored.read().map_err(damaged))
        .collect()
}
