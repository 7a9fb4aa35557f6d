//! Bytes in and out, without a panic on any input.
//!
//! Owns: a bounds-checked reader, variable-length integers (LEB128), the encoding of a set of versions inside a table,
//! the frame (magic, format version, checksum) that starts every file, and the mark that a torn write leaves. Does not own:
//! the layout of any file.

use crate::storage::clock::{ClockEntry, VectorClock};
use crate::storage::error::{Error, Result};
use crate::storage::version::{Value, Version, Versions};
use bytes::Bytes;
use smallvec::SmallVec;
use std::path::Path;

/// Reads from a slice; every read past the end is [`None`].
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `n` bytes.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A variable-length integer of at most ten bytes.
    #[inline]
    pub fn varint(&mut self) -> Option<u64> {
        match self.0.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.0 = rest;
                Some(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for (place, byte) in self.0.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                return None;
            }
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                self.0 = self.0.get(place + 1..)?;
                return Some(value);
            }
        }
        None
    }

    /// A variable-length integer that counts or measures something in memory.
    #[inline]
    pub fn length(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }
}

/// Appends a variable-length integer.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_slice(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

const LIVE: u8 = 0;
const TOMBSTONE: u8 = 1;

/// Appends a set of versions: their number, and for each kind, timestamp, sequence number, clock and value.
pub fn encode_versions(out: &mut Vec<u8>, versions: &Versions) {
    put_varint(out, versions.all().len() as u64);
    for version in versions.all() {
        out.push(if version.value.live().is_some() {
            LIVE
        } else {
            TOMBSTONE
        });
        put_varint(out, version.timestamp_ms);
        put_varint(out, version.seq);
        put_varint(out, version.clock.entries().len() as u64);
        for entry in version.clock.entries() {
            put_slice(out, entry.id.as_bytes());
            put_varint(out, entry.counter);
        }
        if let Some(value) = version.value.live() {
            put_slice(out, value);
        }
    }
}

/// Reads what [`encode_versions`] wrote, each value by `take`; [`None`] for anything else.
#[must_use]
pub fn decode_versions(encoded: &[u8], take: impl Fn(&[u8]) -> Bytes) -> Option<Versions> {
    let mut reader = Reader(encoded);
    let count = reader.length()?;
    if count == 0 {
        return None;
    }
    let mut versions = Versions::from(decode_version(&mut reader, &take)?);
    for _ in 1..count {
        versions = versions.merge(decode_version(&mut reader, &take)?.into());
    }
    reader.0.is_empty().then_some(versions)
}

/// The sequence number of a set of one live version, without decoding it; [`None`] for every other set.
#[must_use]
pub fn peek_single_live(encoded: &[u8]) -> Option<u64> {
    let mut reader = Reader(encoded);
    if reader.u8()? != 1 || reader.u8()? != LIVE {
        return None;
    }
    let _timestamp_ms = reader.varint()?;
    reader.varint()
}

fn decode_version(reader: &mut Reader<'_>, take: &impl Fn(&[u8]) -> Bytes) -> Option<Version> {
    let kind = reader.u8()?;
    let timestamp_ms = reader.varint()?;
    let seq = reader.varint()?;
    let mut entries: SmallVec<[ClockEntry; 1]> = SmallVec::new();
    for _ in 0..reader.length()? {
        let length = reader.length()?;
        let id = std::str::from_utf8(reader.bytes(length)?).ok()?.into();
        let counter = reader.varint()?;
        entries.push(ClockEntry { id, counter });
    }
    let value = match kind {
        LIVE => {
            let length = reader.length()?;
            Value::Live(take(reader.bytes(length)?))
        }
        TOMBSTONE => Value::Tombstone,
        _ => return None,
    };
    Some(Version {
        clock: VectorClock::from(entries),
        value,
        timestamp_ms,
        seq,
    })
}

/// What kind of file it is, and the format versions that this program knows.
#[derive(Debug, Clone, Copy)]
pub struct FileKind {
    /// First eight bytes.
    pub magic: [u8; 8],
    /// The format version that it writes.
    pub version: u32,
    /// The oldest format version that it reads.
    pub oldest: u32,
    /// What to call it in an error.
    pub name: &'static str,
}

/// Bytes that a frame adds to the fields inside it: magic, format version, checksum.
pub const FRAME_BYTES: usize = 8 + 4 + 4;

impl FileKind {
    /// Whether `content` starts as a file of this kind does.
    #[must_use]
    pub fn begins(&self, content: &[u8]) -> bool {
        content.starts_with(&self.magic)
    }

    /// Encodes the start of a file: magic, format version, `fields`, CRC32C of all that.
    #[must_use]
    pub fn frame(&self, fields: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(fields.len() + FRAME_BYTES);
        out.extend_from_slice(&self.magic);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(fields);
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Checks the frame at `offset` of `content` and returns its format version and `length` bytes of fields.
    ///
    /// # Errors
    /// [`Error::Format`] for another kind of file or another version, [`Error::Corruption`] for a broken frame.
    pub fn open<'a>(&self, file: &Path, content: &'a [u8], offset: usize, length: usize) -> Result<(u32, &'a [u8])> {
        let damaged = |detail: &str| Error::corruption(file, offset as u64, format!("{} frame: {detail}", self.name));
        let frame = content
            .get(offset..)
            .and_then(|rest| rest.get(..length + FRAME_BYTES))
            .ok_or_else(|| damaged("the file ends inside it"))?;
        let mut reader = Reader(frame);
        let (magic, version) = (reader.bytes(8), reader.u32());
        let fields = reader.bytes(length).ok_or_else(|| damaged("too short"))?;
        let checksum = reader.u32();
        let covered = frame.get(..length + 12).unwrap_or_default();
        if checksum != Some(crc32c::crc32c(covered)) {
            return Err(damaged("checksum mismatch"));
        }
        if magic != Some(&self.magic) {
            return Err(Error::Format {
                file: file.to_path_buf(),
                detail: format!("it does not start as a {} does", self.name),
            });
        }
        let version = version.unwrap_or_default();
        if !(self.oldest..=self.version).contains(&version) {
            return Err(Error::Format {
                file: file.to_path_buf(),
                detail: format!(
                    "{} format version {version}; this program reads versions {} to {}",
                    self.name, self.oldest, self.version
                ),
            });
        }
        Ok((version, fields))
    }
}

/// Smallest unit that a disk writes whole. A tear leaves the rest of such a unit as it was: zeros, behind a file's end.
pub(crate) const SECTOR_BYTES: usize = 512;

/// Whether between `from` and `to` the rest of some sector was never written.
pub(crate) fn has_hole(bytes: &[u8], from: usize, to: usize) -> bool {
    let mut start = from;
    while start < to {
        let end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(bytes.len());
        let part = bytes.get(start..end).unwrap_or_default();
        if !part.is_empty() && part.iter().all(|byte| *byte == 0) {
            return true;
        }
        start = end.max(start + 1);
    }
    false
}
