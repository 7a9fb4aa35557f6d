//! Reads one table, memory-mapped.

use super::block::{self, Block, BlockView};
use super::index::Index;
use super::{FOOTER, FOOTER_BYTES, FOOTER_FIELDS, HEADER, Properties, filter, path};
use crate::storage::codec::{Reader, decode_versions};
use crate::storage::error::{Error, Result};
use crate::storage::fs::{Faults, FileSystem};
use crate::storage::looked::Looked;
use crate::storage::lost::Lost;
use crate::storage::version::Versions;
use bytes::Bytes;
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Most bytes of an unpacked block that a thread keeps room for from one read to the next.
const SCRATCH_BYTES: usize = 64 << 10;

thread_local! {
    /// Where a thread unpacks the block that it looks for one key in.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A part of a file, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// Where the parts of a table lie, as its footer says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    /// Format version.
    pub version: u32,
    /// The index block.
    pub index: Place,
    /// The filter and its checksum.
    pub filter: Place,
    /// The properties and their checksum.
    pub properties: Place,
}

impl Layout {
    /// Reads the header and the footer of a table's file.
    ///
    /// # Errors
    /// When one of them is damaged or cut off, or the file is of another format.
    pub fn read(path: &Path, content: &[u8]) -> Result<Self> {
        let (version, _) = HEADER.open(path, content, 0, 0)?;
        let footer_at = content.len().saturating_sub(FOOTER_BYTES);
        let mut fields = Reader(FOOTER.open(path, content, footer_at, FOOTER_FIELDS)?.1);
        let mut place = || {
            let (offset, length) = fields.u64().zip(fields.u64()).unwrap_or_default();
            Place { offset, length }
        };
        Ok(Self {
            version,
            index: place(),
            filter: place(),
            properties: place(),
        })
    }
}

/// What reads of tables cost, over all tables that share it.
#[derive(Debug, Default)]
pub struct ReadCounts {
    /// Data blocks read to answer for one key.
    pub blocks: AtomicU64,
    /// Keys that a filter excluded.
    pub filtered: AtomicU64,
}

/// An open table. Index and filter are in memory; a data block's checksum is verified when it is first read.
pub struct Table {
    id: u64,
    layout: Layout,
    pub(super) path: PathBuf,
    content: Bytes,
    /// What turned out to be unreadable of it.
    faults: Faults,
    pub(super) index: Index,
    pub(super) filter: Bytes,
    properties: Properties,
    /// Whether the properties could be read.
    pub(super) has_properties: bool,
    /// One bit a data block: its checksum has been verified.
    verified: Vec<AtomicU64>,
    /// The first damage that was found in it.
    damaged: OnceLock<String>,
    counts: Arc<ReadCounts>,
}

/// Without the content, which is the users'.
impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("path", &self.path)
            .field("properties", &self.properties)
            .finish_non_exhaustive()
    }
}

impl Table {
    /// Opens table `id` in `dir`: checks its header, footer, index, filter and properties.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is of another format.
    pub fn open(fs: &dyn FileSystem, dir: &Path, id: u64, counts: &Arc<ReadCounts>) -> Result<Self> {
        let path = path(dir, id);
        let content = fs.read(&path).map_err(|e| Error::io("read", &path, e))?;
        let (table, damage) = Self::read(path, id, content, counts)?;
        damage.into_iter().next().map_or(Ok(table), Err)
    }

    /// Takes the content of a file for table `id`, whatever the file is called, and opens it as far as its index can be
    /// read. Returns what is wrong with filter and properties beside it; what is damaged of these is then empty.
    ///
    /// # Errors
    /// When header, footer or index is damaged, or the file is of another format.
    pub fn read(path: PathBuf, id: u64, content: Bytes, counts: &Arc<ReadCounts>) -> Result<(Self, Vec<Error>)> {
        let layout = Layout::read(&path, &content)?;
        // Copies: what was checked stays as it was, whatever becomes of the pages of the map.
        let part = |name: &str, place: Place| {
            range(&content, place)
                .and_then(|range| content.get(range))
                .map(Bytes::copy_from_slice)
                .ok_or_else(|| Error::corruption(&path, place.offset, format!("the {name} lies outside the file")))
        };
        let index = Index::read(&part("index", layout.index)?)
            .map_err(|detail| Error::corruption(&path, layout.index.offset, detail))?;
        let filter = part("filter", layout.filter).and_then(|stored| {
            unchecksum(&stored)
                .ok_or_else(|| Error::corruption(&path, layout.filter.offset, "filter checksum mismatch"))
        });
        let properties = part("properties", layout.properties).and_then(|stored| {
            unchecksum(&stored)
                .and_then(|bytes| rmp_serde::from_slice::<Properties>(&bytes).ok())
                .ok_or_else(|| Error::corruption(&path, layout.properties.offset, "properties do not decode"))
        });
        let mut damage = Vec::new();
        let filter = filter.unwrap_or_else(|error| {
            damage.push(error);
            Bytes::new()
        });
        let properties = properties.map_err(|error| damage.push(error)).ok();
        let verified = (0..index.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let table = Self {
            id,
            layout,
            index,
            filter,
            has_properties: properties.is_some(),
            properties: properties.unwrap_or_default(),
            verified,
            damaged: OnceLock::new(),
            counts: Arc::clone(counts),
            faults: Faults::of(&content),
            content,
            path,
        };
        Ok((table, damage))
    }

    /// The table, which may hold the keys from `first` to `last`, in case it cannot say that itself.
    #[must_use]
    pub fn with_range(mut self, first: &str, last: &str) -> Self {
        if !self.has_properties {
            first.clone_into(&mut self.properties.first_key);
            last.clone_into(&mut self.properties.last_key);
        }
        self
    }

    /// Where its parts lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of data blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.index.len()
    }

    /// Where data block `number` lies; [`None`] behind the last.
    #[must_use]
    pub fn block_place(&self, number: usize) -> Option<Place> {
        self.index.place(number)
    }

    /// Number of probes and bits of the filter; zeros when it could not be read.
    #[must_use]
    pub fn filter_shape(&self) -> (u8, u64) {
        let shape = |(probes, bits): (&u8, &[u8])| (*probes, bits.len() as u64 * 8);
        self.filter.split_first().map(shape).unwrap_or_default()
    }

    /// All entries of data block `number`, in key order; none behind the last. For looking at what a damaged table still
    /// has: what is wrong with one block does not concern the others.
    ///
    /// # Errors
    /// When the block is damaged.
    pub fn entries(&self, number: usize) -> Result<Vec<(Vec<u8>, Versions)>> {
        let mut entries = Vec::new();
        let Some(block) = self.block_copy(number, false)? else {
            return Ok(entries);
        };
        let mut iter = block.seek(&[]);
        while iter.advance().map_err(|detail| self.damage(number, detail))? {
            let versions = self.decode(number, iter.value(), Bytes::copy_from_slice)?;
            entries.push((iter.key().to_vec(), versions));
        }
        Ok(entries)
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

    /// Whether it may hold a version with a higher sequence number than `seq`.
    #[must_use]
    pub fn may_hold_above(&self, seq: u64) -> bool {
        !self.has_properties || self.properties.max_seq > seq
    }

    /// Size of the file in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.content.len() as u64
    }

    /// Bytes of memory that index and filter hold.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        self.index.bytes() + self.filter.len()
    }

    /// Lowest and highest key.
    #[must_use]
    pub fn range(&self) -> (&str, &str) {
        (&self.properties.first_key, &self.properties.last_key)
    }

    /// Whether something in it has turned out to be damaged since it was opened.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damaged.get().is_some()
    }

    /// The first damage that was found in it, in words; empty when there was none.
    #[must_use]
    pub fn damage_found(&self) -> String {
        self.damaged.get().cloned().unwrap_or_default()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it may hold the key with this hash; wrong at the rate of the filter's false positives, and never when it
    /// says no.
    #[must_use]
    pub fn may_contain(&self, key: &[u8], hash: u64) -> bool {
        let (first, last) = self.range();
        key >= first.as_bytes() && key <= last.as_bytes() && filter::may_contain(&self.filter, hash)
    }

    /// What the table knows of a key, whose hash this is; empty when it has nothing. Adds to `looked` what it cost.
    ///
    /// # Errors
    /// [`Error::Corruption`] when the block that would hold it is damaged.
    pub fn get(&self, key: &[u8], hash: u64, looked: &mut Looked) -> Result<Versions> {
        looked.filters += 1;
        if !self.may_contain(key, hash) {
            self.counts.filtered.fetch_add(1, Ordering::Relaxed);
            looked.excluded += 1;
            return Ok(Versions::default());
        }
        self.counts.blocks.fetch_add(1, Ordering::Relaxed);
        looked.blocks += 1;
        let number = self.block_for(key);
        let was_whole = self.faults.first().is_none();
        let found = self.find(number, key);
        if was_whole && self.faults.first().is_some() {
            // What was just read may be the zeros of a lost page. From now on everything is checked as it is read.
            return self.find(number, key);
        }
        found
    }

    /// What block `number` has for a key. Whoever calls it must ask for faults afterwards.
    fn find(&self, number: usize, key: &[u8]) -> Result<Versions> {
        let Some(mut stored) = self.stored(number)? else {
            return Ok(Versions::default());
        };
        let faulty = self.faults.first().is_some();
        let copy = if faulty { stored.to_vec() } else { Vec::new() };
        if faulty {
            stored = &copy;
        }
        self.verify(number, stored, faulty)?;
        SCRATCH.with_borrow_mut(|scratch| {
            let found = BlockView::open(stored, scratch).and_then(|block| block.find(key));
            let versions = match found.map_err(|detail| self.damage(number, detail))? {
                // Copied: a value that is kept must not keep its whole block.
                Some(encoded) => self.decode(number, encoded, Bytes::copy_from_slice),
                None => Ok(Versions::default()),
            };
            if scratch.capacity() > SCRATCH_BYTES {
                *scratch = Vec::new();
            }
            versions
        })
    }

    /// Bytes of the file that the keys from `start` up to and without `end` take: all of it, when it has no others; else from
    /// the block that may hold the first of them up to the one that may hold `end`.
    #[must_use]
    pub fn bytes_between(&self, start: &[u8], end: &[u8]) -> u64 {
        let (first, last) = self.range();
        let (first, last) = (first.as_bytes(), last.as_bytes());
        if last < start || first >= end {
            return 0;
        }
        if first >= start && last < end {
            return self.size();
        }
        let begins = |key| {
            let place = self.index.place(self.block_for(key));
            place.map_or(self.layout.index.offset, |place| place.offset)
        };
        begins(end).saturating_sub(begins(start))
    }

    /// Number of the first block that may hold a key that is at least `key`.
    pub(super) fn block_for(&self, key: &[u8]) -> usize {
        self.index.block_for(key)
    }

    /// An error that names block `number`; the table is marked as damaged.
    pub(super) fn damage(&self, number: usize, detail: &str) -> Error {
        let offset = self.index.place(number).map_or(0, |place| place.offset);
        let error = Error::corruption(&self.path, offset, detail);
        self.damaged.get_or_init(|| error.to_string());
        error
    }

    /// What is lost with block `number`.
    pub(super) fn lost_block(&self, number: usize, error: &Error) -> Lost {
        let key = |number: usize| self.index.last_key(number).map(String::from_utf8_lossy);
        let (first, last) = self.range();
        Lost {
            file: self.path.clone(),
            offset: self.index.place(number).map_or(0, |place| place.offset),
            first_key: number.checked_sub(1).and_then(key).map_or(first.to_owned(), Into::into),
            last_key: key(number).map_or(last.to_owned(), Into::into),
            cause: match error {
                Error::Corruption { detail, .. } => detail.clone(),
                other => other.to_string(),
            },
        }
    }

    /// Decodes what block `number` has for a key, each value by `take`.
    pub(super) fn decode(&self, number: usize, encoded: &[u8], take: impl Fn(&[u8]) -> Bytes) -> Result<Versions> {
        decode_versions(encoded, take).ok_or_else(|| self.damage(number, "the versions of a key do not decode"))
    }

    /// Data block `number` in memory of its own, which no fault can change any more, verified when it is read for the first
    /// time, or `again`; [`None`] behind the last.
    pub(super) fn block_copy(&self, number: usize, again: bool) -> Result<Option<Block>> {
        let Some(stored) = self.stored(number)? else {
            return Ok(None);
        };
        let stored = Bytes::copy_from_slice(stored);
        self.verify(number, &stored, again || self.faults.first().is_some())?;
        Block::open(&stored)
            .map(Some)
            .map_err(|detail| self.damage(number, detail))
    }

    /// Verifies what lies on disk as block `number`, if that was not done yet, or `again`.
    fn verify(&self, number: usize, stored: &[u8], again: bool) -> Result<()> {
        let bit = 1_u64 << (number % 64);
        let verified = self.verified.get(number / 64);
        // Relaxed: the bit says only that these immutable bytes were once found good; nothing is published by it.
        if again || verified.is_none_or(|bits| bits.load(Ordering::Relaxed) & bit == 0) {
            block::verify(stored).map_err(|detail| self.damage(number, detail))?;
            if let Some(bits) = verified {
                bits.fetch_or(bit, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Data block `number` as it lies on disk; [`None`] behind the last.
    fn stored(&self, number: usize) -> Result<Option<&[u8]>> {
        let Some(place) = self.index.place(number) else {
            return Ok(None);
        };
        range(&self.content, place)
            .and_then(|range| self.content.get(range))
            .map(Some)
            .ok_or_else(|| self.damage(number, "the index points outside the file"))
    }
}

fn range(content: &[u8], place: Place) -> Option<Range<usize>> {
    let start = usize::try_from(place.offset).ok()?;
    let end = start.checked_add(usize::try_from(place.length).ok()?)?;
    (end <= content.len()).then_some(start..end)
}

fn unchecksum(part: &Bytes) -> Option<Bytes> {
    // Over nothing, zeros would be a checksum that holds.
    let (covered, checksum) = part
        .split_last_chunk::<4>()
        .filter(|(covered, _)| !covered.is_empty())?;
    (crc32c::crc32c(covered) == u32::from_le_bytes(*checksum)).then(|| part.slice(..covered.len()))
}
