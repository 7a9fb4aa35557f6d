//! The index of a table in memory: the last key of each data block, and where the block lies.
//!
//! A search compares eight bytes of each key, which lie close together, and whole keys only where these are the same: in
//! an array of pointers to keys each step would wait for memory twice. What all keys begin with is left out of the eight.
//!
//! Owns: that form and the search. Does not own: the encoding (it is a block, see [`super::block`]).

use super::block::{self, Block};
use super::reader::Place;
use crate::storage::codec::Reader;
use bytes::Bytes;

/// Where a block lies, and the end of its last key among the keys.
#[derive(Debug, Clone, Copy)]
struct Entry {
    key_end: usize,
    place: Place,
}

/// The blocks of a table.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// All last keys, one behind the other.
    keys: Vec<u8>,
    entries: Vec<Entry>,
    /// Bytes that all last keys have in common at their beginning.
    common: usize,
    /// The eight bytes of each last key that follow these, as a number; zeros behind its end.
    heads: Vec<u64>,
}

impl Index {
    /// Reads an index block as it lies on disk.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn read(stored: &Bytes) -> Result<Self, &'static str> {
        block::verify(stored)?;
        let mut iter = Block::open(stored)?.seek(&[]);
        let mut index = Self::default();
        while iter.advance()? {
            let mut place = Reader(iter.value());
            let (offset, length) = place
                .varint()
                .zip(place.varint())
                .ok_or("an index entry does not decode")?;
            index.keys.extend_from_slice(iter.key());
            index.entries.push(Entry {
                key_end: index.keys.len(),
                place: Place { offset, length },
            });
        }
        index.keys.shrink_to_fit();
        index.entries.shrink_to_fit();
        // Keys are in order, so what the first and the last have in common all have.
        let ends = index.last_key(0).zip(index.last_key(index.len().saturating_sub(1)));
        index.common = ends.map_or(0, |(first, last)| shared(first, last));
        index.heads = (0..index.len())
            .filter_map(|number| index.last_key(number))
            .map(|key| head(key, index.common))
            .collect();
        Ok(index)
    }

    /// Number of blocks.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where a block lies; [`None`] behind the last.
    pub(super) fn place(&self, number: usize) -> Option<Place> {
        self.entries.get(number).map(|entry| entry.place)
    }

    /// The last key of a block; [`None`] behind the last.
    pub(super) fn last_key(&self, number: usize) -> Option<&[u8]> {
        let end = self.entries.get(number)?.key_end;
        let before = number.checked_sub(1).and_then(|before| self.entries.get(before));
        self.keys.get(before.map_or(0, |entry| entry.key_end)..end)
    }

    /// Number of the first block whose last key is at least `key`.
    pub(super) fn block_for(&self, key: &[u8]) -> usize {
        let common = self.last_key(0).and_then(|first| first.get(..self.common));
        let begins = key.get(..self.common.min(key.len())).unwrap_or_default();
        match begins.cmp(common.unwrap_or_default()) {
            std::cmp::Ordering::Less => return 0,
            std::cmp::Ordering::Greater => return self.len(),
            std::cmp::Ordering::Equal => {}
        }
        let wanted = head(key, self.common);
        let mut low = self.heads.partition_point(|head| *head < wanted);
        let mut high = low
            + self
                .heads
                .get(low..)
                .map_or(0, |rest| rest.partition_point(|head| *head == wanted));
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.last_key(middle).is_some_and(|last| last < key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Bytes of memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.keys.capacity() + self.entries.capacity() * size_of::<Entry>() + self.heads.capacity() * size_of::<u64>()
    }
}

fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Eight bytes of a key from `at` on, as a number that orders as they do.
fn head(key: &[u8], at: usize) -> u64 {
    let rest = key.get(at..).unwrap_or_default();
    if let Some(eight) = rest.first_chunk() {
        return u64::from_be_bytes(*eight);
    }
    let mut eight = [0; 8];
    for (byte, from) in eight.iter_mut().zip(rest) {
        *byte = *from;
    }
    u64::from_be_bytes(eight)
}
