//! The commit log: segments of records, written by one writer, replayed in order after a crash.
//!
//! A segment is a header frame and then records. The header carries the segment's number, the valid length of the
//! segment before it (so that a tail which a crash left behind needs no repair, and a missing end cannot hide), the last
//! sequence number before it, the time when it was begun, and the log's salt. A record is: CRC32C over what follows it, seeded by the salt (u32);
//! payload length (u32); type (u8); sequence number (u64); payload. The salt is random, so that no client can store a
//! value which a scan of a damaged log would take for a record.
//!
//! Each batch begins with a *mark*, a record that states how much of its segment was durable when the batch was written.
//! Marks tell damage from a torn tail: what a mark calls durable must be whole; what comes after the last one may be torn.
//!
//! Since version 2 of the format a change may have a name, given by its client, and a *note* says what a named change was
//! answered where that does not follow from the change itself. Like a mark it carries the number of the change before it.
//!
//! Owns: that format ([`record`]), writing and rotating ([`writer`]), deleting
//! and syncing aside ([`upkeep`]), reading and judging damage ([`reader`]). Does not
//! own: threads, batching, or what a record means to the memtable.

pub mod reader;
pub mod record;
pub mod upkeep;
pub mod writer;

use crate::storage::codec::{FRAME_BYTES, FileKind};
use std::path::{Path, PathBuf};

/// The frame at the start of a segment.
pub(crate) const HEADER: FileKind = FileKind {
    magic: *b"PDBCMLOG",
    version: 2,
    oldest: 1,
    name: "commit log segment",
};
/// Segment number, valid length of the segment before (0: none), last sequence number before, time of its beginning
/// (u64 each), salt (u32).
pub(crate) const HEADER_FIELDS: usize = 4 * 8 + 4;
/// Where the records of a segment begin, in bytes.
pub const HEADER_BYTES: u64 = (HEADER_FIELDS + FRAME_BYTES) as u64;

/// Name of the segment with this number.
#[must_use]
pub fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("commitlog-{id:012}.log"))
}

/// The number in a segment's name; [`None`] for other files.
#[must_use]
pub fn id_of(name: &str) -> Option<u64> {
    name.strip_prefix("commitlog-")?.strip_suffix(".log")?.parse().ok()
}
