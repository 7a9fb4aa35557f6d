//! What outlives the process of the streams to other nodes: to whom, which ranges, and how far.
//!
//! One frame, made aside, synced and renamed, so that a reader finds a whole one. Without a stream there is no file.
//!
//! Owns: that file. Does not own: what a stream is, or when the file is written.

use crate::storage::codec::{FRAME_BYTES, FileKind};
use crate::storage::error::{Error, Result};
use crate::storage::fs::{Faults, FileSystem, remove_durably};
use crate::storage::ring::HashRanges;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The frame that the file is.
pub(crate) const HEADER: FileKind = FileKind {
    magic: *b"PDBSTRMS",
    version: 1,
    oldest: 1,
    name: "file of streams",
};
/// Name of the file, in the data directory.
pub const NAME: &str = "STREAMS";

/// A stream; the order of the fields is the format, here and in what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// The node that it goes to.
    pub target: String,
    /// Where that listens.
    pub host: String,
    /// TCP port of gRPC.
    pub port: u16,
    /// What it is to get.
    pub ranges: HashRanges,
    /// How far it is.
    pub progress: Progress,
    /// What it has got.
    pub sent: Sent,
}

/// How far a stream is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The target has acknowledged everything up to this sequence number, or what replaced it.
    pub done_seq: u64,
    /// The pass that copies what is newer, if one was begun.
    pub pass: Option<Pass>,
    /// The target was compared.
    pub compared: bool,
    /// The comparison has come to this key (`tenant:key`); empty: it was not begun.
    pub compare_from: String,
}

/// A walk over all keys, which sends what the target has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pass {
    /// At its end everything up to this sequence number is acknowledged.
    pub seq: u64,
    /// Everything before this key (`tenant:key`) is acknowledged; empty: nothing yet.
    pub from: String,
}

/// What a target has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sent {
    /// Keys that passes sent, with all that they had.
    pub keys_copied: u64,
    /// Bytes of these: keys and values.
    pub bytes_copied: u64,
    /// Live writes that were forwarded.
    pub keys_streamed: u64,
    /// Bytes of these: keys and values.
    pub bytes_streamed: u64,
    /// Keys that were sent again because the comparison found them to differ.
    pub keys_resent: u64,
}

/// The streams; none without a file.
///
/// # Errors
/// When the file cannot be read, or is damaged.
pub fn load(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<StreamRecord>> {
    let path = dir.join(NAME);
    let content = match fs.read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        content => content.map_err(|e| Error::io("read", &path, e))?,
    };
    let read = decode(&path, &content);
    Faults::of(&content).check(&path)?;
    read
}

/// The streams that the content of the file at `path` names.
///
/// # Errors
/// When it is damaged.
pub fn decode(path: &Path, content: &[u8]) -> Result<Vec<StreamRecord>> {
    let (_version, fields) = HEADER.open(path, content, 0, content.len().saturating_sub(FRAME_BYTES))?;
    rmp_serde::from_slice(fields).map_err(|e| {
        let detail = format!("{e}; remove the file, and have the streams started again, if it cannot be restored");
        Error::corruption(path, 0, detail)
    })
}

/// As [`load`], for an engine that was recovered up to the sequence number `recovered`. What a stream had beyond that is
/// lost, and its numbers are given out anew: no record speaks of them any more when this returns.
///
/// # Errors
/// As [`load`] and [`store`].
pub fn recover(fs: &dyn FileSystem, dir: &Path, recovered: u64) -> Result<Vec<StreamRecord>> {
    let stored = load(fs, dir)?;
    let mut records = stored.clone();
    for record in &mut records {
        record.progress.done_seq = record.progress.done_seq.min(recovered);
        if let Some(pass) = &mut record.progress.pass {
            pass.seq = pass.seq.min(recovered);
        }
    }
    if records != stored {
        store(fs, dir, &records)?;
    }
    Ok(records)
}

/// Puts these in the place of what the file holds, durably.
///
/// # Errors
/// When the file cannot be written. The one before is then as it was.
pub fn store(fs: &dyn FileSystem, dir: &Path, records: &[StreamRecord]) -> Result<()> {
    let path = dir.join(NAME);
    if records.is_empty() {
        return remove_durably(fs, dir, NAME);
    }
    let temporary = path.with_extension("tmp");
    let fields = rmp_serde::to_vec(records).map_err(|e| Error::io("encode", &path, io::Error::other(e)))?;
    // An earlier attempt may have left it.
    let _ = fs.remove(&temporary);
    let made = fs.create(&temporary).and_then(|mut file| {
        file.write_at(0, &HEADER.frame(&fields))?;
        file.sync()
    });
    if let Err(source) = made.and_then(|()| fs.rename(&temporary, &path)) {
        let _ = fs.remove(&temporary);
        return Err(Error::io("write", &path, source));
    }
    fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))
}
