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

/// What the trailer of a verified block says: whether what lies before it is compressed, and how long it is without.
fn trailer(stored: &[u8]) -> Result<(usize, bool, usize), &'static str> {
    let split = stored
        .len()
        .checked_sub(TRAILER_BYTES)
        .ok_or("block shorter than its trailer")?;
    let mut trailer = Reader(stored.get(split..).unwrap_or_default());
    let (kind, raw_length) = (trailer.u8(), trailer.u32().unwrap_or(0) as usize);
    match kind {
        Some(UNCOMPRESSED) if raw_length == split => Ok((split, false, raw_length)),
        Some(LZ4) if raw_length <= MAX_BLOCK_BYTES => Ok((split, true, raw_length)),
        _ => Err("block trailer names an unknown compression or a wrong length"),
    }
}

/// Unpacks into `out`, which has the length that the trailer says.
fn unpack(packed: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
    match lz4_flex::block::decompress_into(packed, out) {
        Ok(length) if length == out.len() => Ok(()),
        Ok(_) => Err("block unpacks to another length than its trailer says"),
        Err(_) => Err("block does not unpack"),
    }
}

/// Where the entries of an unpacked block end, and where its restart points do.
fn ends(raw: &[u8]) -> Result<(usize, usize), &'static str> {
    let count_at = raw.len().checked_sub(4).ok_or("block without restart points")?;
    let count = Reader(raw.get(count_at..).unwrap_or_default()).u32().unwrap_or(0) as usize;
    let restarts_at = count
        .checked_mul(4)
        .and_then(|bytes| count_at.checked_sub(bytes))
        .ok_or("more restart points than bytes")?;
    Ok((restarts_at, count_at))
}

/// An unpacked block that is looked at where it lies.
#[derive(Debug, Clone, Copy)]
pub struct BlockView<'a> {
    entries: &'a [u8],
    restarts: &'a [u8],
}

impl<'a> BlockView<'a> {
    /// Takes a verified block apart, unpacking it into `scratch` where it is compressed.
    ///
    /// # Errors
    /// What does not fit.
    pub fn open(stored: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Self, &'static str> {
        let (split, compressed, raw_length) = trailer(stored)?;
        let body = stored.get(..split).unwrap_or_default();
        let raw = if compressed {
            if scratch.len() < raw_length {
                scratch.resize(raw_length, 0);
            }
            let out = scratch.get_mut(..raw_length).unwrap_or_default();
            unpack(body, out)?;
            out
        } else {
            body
        };
        let (restarts_at, count_at) = ends(raw)?;
        Ok(Self {
            entries: raw.get(..restarts_at).unwrap_or_default(),
            restarts: raw.get(restarts_at..count_at).unwrap_or_default(),
        })
    }

    fn restart(&self, index: usize) -> Option<usize> {
        let mut reader = Reader(self.restarts.get(index * 4..)?);
        Some(reader.u32()? as usize)
    }

    /// Where the entries begin that lie behind the last restart point whose key is at most `key`.
    fn restart_before(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.restarts.len() / 4);
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            match self.restart(middle).and_then(|at| self.restart_key(at)) {
                Some(first) if first <= key => low = middle,
                _ => high = middle,
            }
        }
        self.restart(low).unwrap_or(self.entries.len())
    }

    /// The key of the entry at a restart point, which shares nothing with the one before.
    fn restart_key(&self, at: usize) -> Option<&'a [u8]> {
        let mut reader = Reader(self.entries.get(at..)?);
        let (_shared, unshared, _value) = (reader.length()?, reader.length()?, reader.length()?);
        reader.bytes(unshared)
    }

    /// The value of a key, if it is there. No key is put together on the way: how much of it an entry shares with the one
    /// before, and how much that one has in common with `key`, tell most of what there is to know.
    ///
    /// # Errors
    /// When an entry does not fit its block.
    pub fn find(&self, key: &[u8]) -> Result<Option<&'a [u8]>, &'static str> {
        let mut reader = Reader(self.entries.get(self.restart_before(key)..).unwrap_or_default());
        // Bytes that the entry before, which is less, has in common with `key`.
        let mut common = 0;
        while !reader.0.is_empty() {
            let (shared, rest, value) = read_entry(&mut reader).ok_or(MISFIT)?;
            if shared > common {
                // It differs from `key` where the one before did, and so is less as well.
                continue;
            }
            let wanted = key.get(shared..).unwrap_or_default();
            let alike = rest.iter().zip(wanted).take_while(|(a, b)| a == b).count();
            match (rest.get(alike), wanted.get(alike)) {
                _ if shared < common => return Ok(None),
                (None, None) => return Ok(Some(value)),
                (Some(_), None) => return Ok(None),
                (Some(a), Some(b)) if a > b => return Ok(None),
                _ => common = shared + alike,
            }
        }
        Ok(None)
    }
}

const MISFIT: &str = "an entry does not fit its block";

/// Reads an entry: how much its key shares with the one before, the rest of the key, the value.
fn read_entry<'a>(reader: &mut Reader<'a>) -> Option<(usize, &'a [u8], &'a [u8])> {
    let (shared, unshared, value_length) = (reader.length()?, reader.length()?, reader.length()?);
    Some((shared, reader.bytes(unshared)?, reader.bytes(value_length)?))
}

/// A block in memory, ready to be walked over.
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
        let (split, compressed, raw_length) = trailer(stored)?;
        let raw = if compressed {
            let mut raw = vec![0; raw_length];
            unpack(stored.get(..split).unwrap_or_default(), &mut raw)?;
            Bytes::from(raw)
        } else {
            stored.slice(..split)
        };
        let (restarts_at, count_at) = ends(&raw)?;
        Ok(Self {
            entries: raw.slice(..restarts_at),
            restarts: raw.slice(restarts_at..count_at),
        })
    }

    /// Walks from the first entry whose key is at least `key`.
    pub fn seek(&self, key: &[u8]) -> BlockIter {
        let view = BlockView {
            entries: &self.entries,
            restarts: &self.restarts,
        };
        let mut iter = self.walk(view.restart_before(key));
        iter.skip_to(key);
        iter
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
        self.read_entry().ok_or(MISFIT)?;
        Ok(true)
    }

    fn read_entry(&mut self) -> Option<()> {
        let rest = self.entries.get(self.at..)?;
        let mut reader = Reader(rest);
        let (shared, suffix, value) = read_entry(&mut reader)?;
        if shared > self.key.len() {
            return None;
        }
        self.at += rest.len() - reader.0.len();
        self.key.truncate(shared);
        self.key.extend_from_slice(suffix);
        self.value = self.at - value.len()..self.at;
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
