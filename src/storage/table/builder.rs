//! Writes one table, aside and then under its name.

use super::block::{BlockBuilder, Compression};
use super::{FOOTER, HEADER, Properties, filter, path};
use crate::storage::codec::{encode_versions, put_varint};
use crate::storage::error::{Error, Result};
use crate::storage::fs::{FileSystem, WriteFile};
use crate::storage::key::hash64;
use crate::storage::version::Versions;
use std::path::{Path, PathBuf};

/// How tables are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TableOptions {
    /// A data block is closed at this many bytes before compression.
    pub block_size: usize,
    /// A data block, and so an index entry, covers at most this many keys.
    pub index_interval: usize,
    /// Wanted rate of false positives of the filter, 0 to 1.
    pub bloom_filter_fp: f64,
    /// How blocks are stored.
    pub compression: Compression,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            block_size: 4096,
            index_interval: 100,
            bloom_filter_fp: 0.01,
            compression: Compression::Lz4,
        }
    }
}

/// Bytes gathered before they are handed to the file.
const WRITE_CHUNK_BYTES: usize = 256 << 10;

/// A table being written. Dropped before [`TableBuilder::finish`] succeeds, it removes what it wrote: the space is needed
/// for the next attempt.
pub struct TableBuilder<'a> {
    fs: &'a dyn FileSystem,
    options: TableOptions,
    dir: &'a Path,
    id: u64,
    temporary: PathBuf,
    file: Box<dyn WriteFile>,
    finished: bool,
    pending: Vec<u8>,
    written: u64,
    block: BlockBuilder,
    index: BlockBuilder,
    hashes: Vec<u64>,
    properties: Properties,
    encoded: Vec<u8>,
}

impl<'a> TableBuilder<'a> {
    /// Starts table `id` in `dir`, under a temporary name.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(fs: &'a dyn FileSystem, dir: &'a Path, id: u64, options: TableOptions) -> Result<Self> {
        let temporary = path(dir, id).with_extension("sst.tmp");
        let file = fs.create(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
        Ok(Self {
            fs,
            options,
            dir,
            id,
            temporary,
            file,
            finished: false,
            pending: HEADER.frame(&[]),
            written: 0,
            block: BlockBuilder::default(),
            index: BlockBuilder::default(),
            hashes: Vec::new(),
            properties: Properties {
                min_seq: u64::MAX,
                ..Properties::default()
            },
            encoded: Vec::new(),
        })
    }

    /// Adds a key with its versions. Keys must come in strictly ascending order.
    ///
    /// # Errors
    /// When a full chunk cannot be written.
    pub fn add(&mut self, key: &str, versions: &Versions) -> Result<()> {
        for version in versions.all() {
            let tombstone = version.value.live().is_none();
            self.count_version(version.seq, tombstone.then_some(version.timestamp_ms));
        }
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        encode_versions(&mut encoded, versions);
        let added = self.add_entry(key, &encoded);
        self.encoded = encoded;
        added
    }

    /// Adds a key with one live version, number `seq`, as another table holds it encoded. As [`TableBuilder::add`], but
    /// without decoding and encoding it again.
    ///
    /// # Errors
    /// When a full chunk cannot be written.
    pub fn add_single_live(&mut self, key: &str, encoded: &[u8], seq: u64) -> Result<()> {
        self.count_version(seq, None);
        self.add_entry(key, encoded)
    }

    fn count_version(&mut self, seq: u64, tombstone_ms: Option<u64>) {
        let properties = &mut self.properties;
        properties.versions += 1;
        properties.min_seq = properties.min_seq.min(seq);
        properties.max_seq = properties.max_seq.max(seq);
        if let Some(taken_ms) = tombstone_ms {
            let oldest = properties.oldest_tombstone_ms;
            properties.oldest_tombstone_ms = if properties.tombstones == 0 {
                taken_ms
            } else {
                oldest.min(taken_ms)
            };
            properties.tombstones += 1;
        }
    }

    fn add_entry(&mut self, key: &str, encoded: &[u8]) -> Result<()> {
        self.block.add(key.as_bytes(), encoded);
        self.hashes.push(hash64(key.as_bytes()));
        if self.properties.keys == 0 {
            key.clone_into(&mut self.properties.first_key);
        }
        self.properties.keys += 1;
        if self.block.bytes() >= self.options.block_size || self.block.entries() >= self.options.index_interval {
            self.close_block()?;
        }
        Ok(())
    }

    /// Keys so far.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.properties.keys
    }

    /// Bytes of data so far; what filter and index will take is not among them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.offset() + self.block.bytes() as u64
    }

    fn offset(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    fn close_block(&mut self) -> Result<()> {
        if self.block.entries() == 0 {
            return Ok(());
        }
        let last_key = self.block.last_key().to_vec();
        if let Ok(last) = std::str::from_utf8(&last_key) {
            last.clone_into(&mut self.properties.last_key);
        }
        let offset = self.offset();
        let stored = self.block.finish(self.options.compression);
        let mut place = Vec::with_capacity(16);
        put_varint(&mut place, offset);
        put_varint(&mut place, stored.len() as u64);
        self.index.add(&last_key, &place);
        self.put(&stored)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= WRITE_CHUNK_BYTES {
            self.write_pending()?;
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<()> {
        self.file
            .write_at(self.written, &self.pending)
            .map_err(|e| Error::io("write", &self.temporary, e))?;
        // Now, and not all at the end: the log's small syncs would wait behind it.
        self.file
            .write_out(self.written, self.pending.len() as u64)
            .map_err(|e| Error::io("write out", &self.temporary, e))?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn put_part(&mut self, fields: &mut Vec<u8>, part: &[u8]) -> Result<()> {
        fields.extend_from_slice(&self.offset().to_le_bytes());
        fields.extend_from_slice(&(part.len() as u64).to_le_bytes());
        self.put(part)
    }

    /// Writes what remains, makes the table durable and gives it its name. Returns the size of the file in bytes.
    ///
    /// # Errors
    /// When a write, the sync or the rename fails.
    pub fn finish(mut self) -> Result<u64> {
        self.close_block()?;
        let mut fields = Vec::new();
        let index = self.index.finish(self.options.compression);
        self.put_part(&mut fields, &index)?;
        let filter = checksummed(filter::build(&self.hashes, self.options.bloom_filter_fp));
        self.put_part(&mut fields, &filter)?;
        let properties = rmp_serde::to_vec(&self.properties)
            .map_err(|e| Error::io("encode", &self.temporary, std::io::Error::other(e)))?;
        self.put_part(&mut fields, &checksummed(properties))?;
        self.put(&FOOTER.frame(&fields))?;
        self.write_pending()?;
        self.file.sync().map_err(|e| Error::io("sync", &self.temporary, e))?;
        let target = path(self.dir, self.id);
        self.fs
            .rename(&self.temporary, &target)
            .map_err(|e| Error::io("rename", &self.temporary, e))?;
        self.finished = true;
        self.fs.sync_dir(self.dir).map_err(|e| Error::io("sync", self.dir, e))?;
        Ok(self.written)
    }
}

impl Drop for TableBuilder<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // Were it to fail, the next sweep would remove it.
            let _ = self.fs.remove(&self.temporary);
        }
    }
}

fn checksummed(mut part: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&part);
    part.extend_from_slice(&checksum.to_le_bytes());
    part
}
