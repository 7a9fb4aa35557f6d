//! Tables: immutable sorted files of keys and their versions.
//!
//! Layout, front to back: header frame; data blocks; index block (last key of each data block → its offset and length);
//! filter with its checksum; properties (MessagePack) with their checksum; footer frame that says where these lie. See
//! [`block`] for blocks, [`filter`] for the filter. Version 2 knows the age of the oldest tombstone.
//!
//! Owns: that format. Does not own: which tables exist (see [`crate::storage::manifest`]) or at which level.

pub mod block;
mod builder;
mod check;
mod cursor;
pub mod filter;
mod index;
mod reader;

pub use builder::{TableBuilder, TableOptions};
pub use check::Findings;
pub use cursor::Cursor;
pub use reader::{Layout, Place, ReadCounts, Table};

use crate::storage::codec::{FRAME_BYTES, FileKind};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The frame at the start of a table.
pub(crate) const HEADER: FileKind = FileKind {
    magic: *b"PDBTABLE",
    version: 2,
    oldest: 1,
    name: "table",
};
/// The frame at the end of a table.
pub(crate) const FOOTER: FileKind = FileKind {
    magic: *b"PDBTBEND",
    version: 2,
    oldest: 1,
    name: "table footer",
};
/// Offset and length (u64 each) of index, filter and properties.
pub(crate) const FOOTER_FIELDS: usize = 6 * 8;
/// Bytes of the whole footer.
pub(crate) const FOOTER_BYTES: usize = FOOTER_FIELDS + FRAME_BYTES;

/// What a table says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Properties {
    /// Lowest key.
    pub first_key: String,
    /// Highest key.
    pub last_key: String,
    /// Number of keys.
    pub keys: u64,
    /// Number of versions, tombstones included.
    pub versions: u64,
    /// Number of tombstones.
    pub tombstones: u64,
    /// Lowest sequence number.
    pub min_seq: u64,
    /// Highest sequence number.
    pub max_seq: u64,
    /// When the oldest tombstone was taken, in milliseconds since the Unix epoch; 0 when there is none. Since version 2:
    /// 0 in a table of version 1, whatever it holds.
    #[serde(default)]
    pub oldest_tombstone_ms: u64,
}

/// Name of the table with this number.
#[must_use]
pub fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:012}.sst"))
}

/// The number in a table's name; [`None`] for other files.
#[must_use]
pub fn id_of(name: &str) -> Option<u64> {
    name.strip_suffix(".sst")?.parse().ok()
}
