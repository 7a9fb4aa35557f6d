//! Reads one table, memory-mapped.

use super::block::{self, Block, BlockIter};
use super::{FOOTER, FOOTER_BYTES, FOOTER_FIELDS, HEADER, Properties, filter, path};
use crate::storage::codec::{Reader, decode_versions};
use crate::storage::error::{Error, Result};
use crate::storage::fs::FileSystem;
use crate::storage::key::Key;
use crate::storage::version::Versions;
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a data block lies, and the last key in it.
#[derive(Debug)]
struct IndexEntry {
    last_key: Box<[u8]>,
    offset: u64,
    length: u64,
}

/// An open table. Index and filter are in memory; a data block's checksum is verified when it is first read.
#[derive(Debug)]
pub struct Table {
    id: u64,
    path: PathBuf,
    content: Bytes,
    index: Vec<IndexEntry>,
    filter: Bytes,
    properties: Properties,
    /// One bit a data block: its checksum has been verified.
    verified: Vec<AtomicU64>,
}

impl Table {
    /// Opens table `id` in `dir`: checks its header, footer, index, filter and properties.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is of another format.
    pub fn open(fs: &dyn FileSystem, dir: &Path, id: u64) -> Result<Self> {
        let path = path(dir, id);
        let content = fs.read(&path).map_err(|e| Error::io("read", &path, e))?;
        HEADER.open(&path, &content, 0, 0)?;
        let footer_at = content.len().saturating_sub(FOOTER_BYTES);
        let mut fields = Reader(FOOTER.open(&path, &content, footer_at, FOOTER_FIELDS)?);
        let mut part = |name: &str| {
            let (offset, length) = fields.u64().zip(fields.u64()).unwrap_or_default();
            slice(&content, offset, length)
                .map(|bytes| (offset, bytes))
                .ok_or_else(|| Error::corruption(&path, offset, format!("the {name} lies outside the file")))
        };
        let (index_at, index) = part("index")?;
        let (filter_at, filter) = part("filter")?;
        let (properties_at, properties) = part("properties")?;
        let index = read_index(&index).map_err(|detail| Error::corruption(&path, index_at, detail))?;
        let filter =
            unchecksum(&filter).ok_or_else(|| Error::corruption(&path, filter_at, "filter checksum mismatch"))?;
        let properties = unchecksum(&properties)
            .and_then(|bytes| rmp_serde::from_slice(&bytes).ok())
            .ok_or_else(|| Error::corruption(&path, properties_at, "properties do not decode"))?;
        let verified = (0..index.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self {
            id,
            index,
            // A copy, so that the filter stays in memory whatever becomes of the pages of the map.
            filter: Bytes::copy_from_slice(&filter),
            properties,
            verified,
            content,
            path,
        })
    }

    /// Number of the table.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the table says of itself.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Size of the file in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.content.len() as u64
    }

    /// Bytes of memory that index and filter hold.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        let index: usize = self
            .index
            .iter()
            .map(|entry| entry.last_key.len() + size_of::<IndexEntry>())
            .sum();
        index + self.filter.len()
    }

    /// What the table knows of a key; empty when it has nothing.
    ///
    /// # Errors
    /// [`Error::Corruption`] when the block that would hold it is damaged.
    pub fn get(&self, key: &Key) -> Result<Versions> {
        let outside =
            key.as_str() < self.properties.first_key.as_str() || key.as_str() > self.properties.last_key.as_str();
        if outside || !filter::may_contain(&self.filter, key.hash64()) {
            return Ok(Versions::default());
        }
        let number = self.block_for(key.as_bytes());
        let Some(block) = self.block(number)? else {
            return Ok(Versions::default());
        };
        let mut iter = block.seek(key.as_bytes());
        let found = iter.advance().map_err(|detail| self.damage(number, detail))?;
        if !found || iter.key() != key.as_bytes() {
            return Ok(Versions::default());
        }
        self.decode(number, iter.value())
    }

    /// Walks the table from the first key that is at least `from`.
    #[must_use]
    pub fn iter_from(self: &Arc<Self>, from: &[u8]) -> TableIter {
        TableIter {
            table: Arc::clone(self),
            next_block: self.block_for(from),
            from: from.to_vec(),
            block: None,
        }
    }

    fn block_for(&self, key: &[u8]) -> usize {
        self.index.partition_point(|entry| entry.last_key.as_ref() < key)
    }

    fn damage(&self, number: usize, detail: &str) -> Error {
        let offset = self.index.get(number).map_or(0, |entry| entry.offset);
        Error::corruption(&self.path, offset, detail)
    }

    fn decode(&self, number: usize, encoded: &[u8]) -> Result<Versions> {
        decode_versions(encoded).ok_or_else(|| self.damage(number, "the versions of a key do not decode"))
    }

    fn block(&self, number: usize) -> Result<Option<Block>> {
        let Some(entry) = self.index.get(number) else {
            return Ok(None);
        };
        let stored = slice(&self.content, entry.offset, entry.length)
            .ok_or_else(|| self.damage(number, "the index points outside the file"))?;
        let bit = 1_u64 << (number % 64);
        let verified = self.verified.get(number / 64);
        // Relaxed: the bit says only that these immutable bytes were once found good; nothing is published by it.
        if verified.is_none_or(|bits| bits.load(Ordering::Relaxed) & bit == 0) {
            block::verify(&stored).map_err(|detail| self.damage(number, detail))?;
            if let Some(bits) = verified {
                bits.fetch_or(bit, Ordering::Relaxed);
            }
        }
        Block::open(&stored)
            .map(Some)
            .map_err(|detail| self.damage(number, detail))
    }
}

fn slice(content: &Bytes, offset: u64, length: u64) -> Option<Bytes> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    (end <= content.len()).then(|| content.slice(start..end))
}

fn unchecksum(part: &Bytes) -> Option<Bytes> {
    let (covered, checksum) = part.split_last_chunk::<4>()?;
    (crc32c::crc32c(covered) == u32::from_le_bytes(*checksum)).then(|| part.slice(..covered.len()))
}

fn read_index(stored: &Bytes) -> Result<Vec<IndexEntry>, &'static str> {
    block::verify(stored)?;
    let mut iter = Block::open(stored)?.seek(&[]);
    let mut index = Vec::new();
    while iter.advance()? {
        let mut place = Reader(iter.value());
        let (offset, length) = place
            .varint()
            .zip(place.varint())
            .ok_or("an index entry does not decode")?;
        index.push(IndexEntry {
            last_key: iter.key().into(),
            offset,
            length,
        });
    }
    Ok(index)
}

/// Walks a table in key order.
#[derive(Debug)]
pub struct TableIter {
    table: Arc<Table>,
    next_block: usize,
    from: Vec<u8>,
    block: Option<BlockIter>,
}

impl TableIter {
    fn try_next(&mut self) -> Result<Option<(Key, Versions)>> {
        loop {
            if let Some(iter) = &mut self.block {
                let number = self.next_block.saturating_sub(1);
                let moved = iter.advance().map_err(|detail| self.table.damage(number, detail))?;
                if moved {
                    let key = std::str::from_utf8(iter.key())
                        .ok()
                        .and_then(Key::from_stored)
                        .ok_or_else(|| self.table.damage(number, "a key is not of the form tenant:key"))?;
                    return Ok(Some((key, self.table.decode(number, iter.value())?)));
                }
            }
            let Some(block) = self.table.block(self.next_block)? else {
                return Ok(None);
            };
            self.block = Some(block.seek(&self.from));
            self.from.clear();
            self.next_block += 1;
        }
    }
}

impl Iterator for TableIter {
    type Item = Result<(Key, Versions)>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.try_next().transpose();
        if matches!(item, Some(Err(_))) {
            // Nothing after damage can be trusted to be next.
            self.block = None;
            self.next_block = usize::MAX;
        }
        item
    }
}
