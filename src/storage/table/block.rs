//! A block: sorted keys with shared prefixes, cut by restart points so that a search can jump.
//!
//! Layout: entries, then the offsets of the restart points (u32 each), then their number (u32). An entry is the length
//! shared with the key before, the length not shared, the value's length (varints), the rest of the key, the value. At a
//! restart point nothing is shared. On disk a block is followed by a trailer: compression (u8), length before
//! compression (u32), CRC32C of everything before it (u32). The layout follows LevelDB's table format.
//!
//! Owns: encoding, decoding, checking and searching one block. Does not own: where blocks lie in a file.

use crate::storage::codec::{Reader, put_varint};
use bytes::Bytes;

/// Entries between two restart points.
const RESTART_INTERVAL: usize = 16;
/// Bytes that follow a block on disk.
pub const TRAILER_BYTES: usize = 9;
/// Largest block that is believed: 16 siblings of 10 MiB and room for their clocks.
const MAX_BLOCK_BYTES: usize = 512 << 20;

const UNCOMPRESSED: u8 = 0;
const LZ4: u8 = 1;

/// How blocks are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// LZ4, where that saves at least an eighth; else as they are.
    Lz4,
}

/// Gathers the entries of one block.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    buffer: Vec<u8>,
    restarts: Vec<u32>,
    last_key: Vec<u8>,
    entries: usize,
}

impl BlockBuilder {
    /// Adds an entry. Keys must come in strictly ascending order.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let shared = if self.entries.is_multiple_of(RESTART_INTERVAL) {
            self.restarts.push(self.buffer.len() as u32);
            0
        } else {
            self.last_key.iter().zip(key).take_while(|(a, b)| a == b).count()
        };
        let rest = key.get(shared..).unwrap_or_default();
        put_varint(&mut self.buffer, shared as u64);
        put_varint(&mut self.buffer, rest.len() as u64);
        put_varint(&mut self.buffer, value.len() as u64);
        self.buffer.extend_from_slice(rest);
        self.buffer.extend_from_slice(value);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.entries += 1;
    }

    /// Bytes so far, before compression.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Entries so far.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The last key added.
    pub fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// The block as it goes to disk, trailer included; the builder is empty again.
    pub fn finish(&mut self, compression: Compression) -> Vec<u8> {
        for restart in &self.restarts {
            self.buffer.extend_from_slice(&restart.to_le_bytes());
        }
        self.buffer
            .extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
        let raw_length = self.buffer.len() as u32;
        let packed = match compression {
            Compression::None => None,
            Compression::Lz4 => Some(lz4_flex::block::compress(&self.buffer))
                .filter(|packed| packed.len() <= self.buffer.len() - self.buffer.len() / 8),
        };
        let (kind, mut out) = match packed {
            Some(packed) => (LZ4, packed),
            None => (UNCOMPRESSED, self.buffer.clone()),
        };
        out.push(kind);
        out.extend_from_slice(&raw_length.to_le_bytes());
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        self.buffer.clear();
        self.restarts.clear();
        self.last_key.clear();
        self.entries = 0;
        out
    }
}

/// Checks a block as it lies on disk, trailer included.
///
/// # Errors
/// What does not fit.
pub fn verify(stored: &[u8]) -> Result<(), &'static str> {
    // Over nothing, zeros would be a checksum that holds.
    let (covered, checksum) = stored
        .split_last_chunk::<4>()
        .filter(|_| stored.len() >= TRAILER_BYTES)
        .ok_or("block shorter than its trailer")?;
    if crc32c::crc32c(covered) != u32::from_le_bytes(*checksum) {
        return Err("block checksum mismatch");
    }
    Ok(())
}

/// A block in memory, ready to be searched.
#[derive(Debug, Clone)]
pub struct Block {
    entries: Bytes,
    restarts: Bytes,
}

impl Block {
    /// Takes a verified block apart, unpacking it where it is compressed.
    ///
    /// # Errors
    /// What does not fit.
    pub fn open(stored: &Bytes) -> Result<Self, &'static str> {
        let split = stored
            .len()
            .checked_sub(TRAILER_BYTES)
            .ok_or("block shorter than its trailer")?;
        let mut trailer = Reader(stored.get(split..).unwrap_or_default());
        let (kind, raw_length) = (trailer.u8(), trailer.u32().unwrap_or(0) as usize);
        let body = stored.slice(..split);
        let raw = match kind {
            Some(UNCOMPRESSED) if raw_length == body.len() => body,
            Some(LZ4) if raw_length <= MAX_BLOCK_BYTES => {
                Bytes::from(lz4_flex::block::decompress(&body, raw_length).map_err(|_| "block does not unpack")?)
            }
            _ => return Err("block trailer names an unknown compression or a wrong length"),
        };
        if raw.len() != raw_length {
            return Err("block unpacks to another length than its trailer says");
        }
        let count_at = raw.len().checked_sub(4).ok_or("block without restart points")?;
        let count = Reader(raw.get(count_at..).unwrap_or_default()).u32().unwrap_or(0) as usize;
        let restarts_at = count
            .checked_mul(4)
            .and_then(|bytes| count_at.checked_sub(bytes))
            .ok_or("more restart points than bytes")?;
        Ok(Self {
            entries: raw.slice(..restarts_at),
            restarts: raw.slice(restarts_at..count_at),
        })
    }

    fn restart(&self, index: usize) -> Option<usize> {
        let mut reader = Reader(self.restarts.get(index * 4..)?);
        Some(reader.u32()? as usize)
    }

    /// Walks from the first entry whose key is at least `key`.
    pub fn seek(&self, key: &[u8]) -> BlockIter {
        let (mut low, mut high) = (0, self.restarts.len() / 4);
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            match self.restart(middle).and_then(|at| self.restart_key(at)) {
                Some(first) if first <= key => low = middle,
                _ => high = middle,
            }
        }
        let mut iter = self.walk(self.restart(low).unwrap_or(self.entries.len()));
        iter.skip_to(key);
        iter
    }

    /// The key of the entry at a restart point, which shares nothing with the one before.
    fn restart_key(&self, at: usize) -> Option<&[u8]> {
        let mut reader = Reader(self.entries.get(at..)?);
        let (_shared, unshared, _value) = (reader.length()?, reader.length()?, reader.length()?);
        reader.bytes(unshared)
    }

    fn walk(&self, at: usize) -> BlockIter {
        BlockIter {
            entries: self.entries.clone(),
            at,
            key: Vec::new(),
            value: 0..0,
            held: false,
        }
    }
}

/// Walks a block forward.
#[derive(Debug)]
pub struct BlockIter {
    entries: Bytes,
    at: usize,
    key: Vec<u8>,
    value: std::ops::Range<usize>,
    /// A seek has stopped on an entry that the next [`BlockIter::advance`] is to yield.
    held: bool,
}

impl BlockIter {
    /// The key of the entry stood on.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The value of the entry stood on.
    pub fn value(&self) -> &[u8] {
        self.entries.get(self.value.clone()).unwrap_or_default()
    }

    /// The entries of the whole block.
    pub fn bytes(&self) -> &Bytes {
        &self.entries
    }

    /// Moves to the next entry; `false` at the end.
    ///
    /// # Errors
    /// When the entry does not fit its block.
    pub fn advance(&mut self) -> Result<bool, &'static str> {
        if std::mem::take(&mut self.held) {
            return Ok(true);
        }
        self.step()
    }

    fn step(&mut self) -> Result<bool, &'static str> {
        if self.at >= self.entries.len() {
            return Ok(false);
        }
        self.read_entry().ok_or("an entry does not fit its block")?;
        Ok(true)
    }

    fn read_entry(&mut self) -> Option<()> {
        let rest = self.entries.get(self.at..)?;
        let mut reader = Reader(rest);
        let shared = reader.length()?;
        let unshared = reader.length()?;
        let value_length = reader.length()?;
        if shared > self.key.len() {
            return None;
        }
        let suffix = reader.bytes(unshared)?;
        let value_at = self.at + (rest.len() - reader.0.len());
        reader.bytes(value_length)?;
        self.key.truncate(shared);
        self.key.extend_from_slice(suffix);
        self.value = value_at..value_at + value_length;
        self.at = value_at + value_length;
        Some(())
    }

    /// Stops before the first entry whose key is at least `key`. An entry that does not decode is left to be met, and
    /// reported, by the next [`BlockIter::advance`].
    fn skip_to(&mut self, key: &[u8]) {
        while let Ok(true) = self.step() {
            if self.key() >= key {
                self.held = true;
                return;
            }
        }
    }
}
