//! The memtable: a skip list of keys and what was written to them since it was begun.
//!
//! Owns: the list, its order and its size. One writer at a time applies; any number reads without a lock. Does not own:
//! which memtables exist (see [`crate::storage::view`]) or who may write.
//!
//! The list is only ever inserted into. Its order is key, then sequence number descending, and each entry holds *all*
//! that the memtable knew of its key at that number, so one lookup answers a read, at the newest state or at an older one.

use crate::storage::clock::VectorClock;
use crate::storage::key::Key;
use crate::storage::time::Time;
use crate::storage::version::{Value, Version, Versions};
use compact_str::CompactString;
use crossbeam_skiplist::SkipMap;
use crossbeam_skiplist::map::Entry;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

type Slot = (Key, Reverse<u64>);

/// Bytes that an entry costs beside key and value: the node with an average tower, and the allocator's rounding.
const ENTRY_OVERHEAD_BYTES: usize = 64 + size_of::<Slot>() + size_of::<Versions>();

/// Bytes that a tenant's count costs beside its name: a hash table is half empty at worst, and both halves exist while it
/// grows.
const TENANT_OVERHEAD_BYTES: usize = 3 * size_of::<(CompactString, u64)>();

/// Bits of the filter over a memtable's keys. With the keys of 64 MiB in it one lookup in twenty is in vain.
const FILTER_BITS: u64 = 1 << 21;

/// A sorted table in memory.
#[derive(Debug)]
pub struct Memtable {
    id: u64,
    /// The versions stand beside the nodes: a search then touches one line of memory a node, not two.
    list: SkipMap<Slot, Box<Versions>>,
    /// Two bits for each key (Bloom 1970): most keys that are asked for, and most that are written, are not there yet, and
    /// a search of the list is a chain of cache misses.
    filter: Box<[AtomicU64]>,
    bytes: AtomicUsize,
    /// Of these, what each tenant has. Only the writer changes it, and who asks for a quota looks.
    tenants: Mutex<HashMap<CompactString, u64>>,
    max_seq: AtomicU64,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The join of the clocks of all that the memtable now knows of the key.
    pub clock: VectorClock,
    /// Whether the write is among them; otherwise what is there dominates it.
    pub kept: bool,
    /// Siblings that were merged away to keep the bound.
    pub siblings_merged: usize,
}

/// Longest wait for readers to let go of a flushed memtable.
const FREE_WITHIN: Duration = Duration::from_secs(1);
/// Time between two looks whether they have.
const FREE_EVERY: Duration = Duration::from_micros(200);

/// Frees a flushed memtable on this thread. Whoever lets go last frees hundreds of thousands of nodes, and that must not
/// be somebody who is just looking at the view: it would hold up every write for a tenth of a second.
pub fn free(memtable: Arc<Memtable>, time: &dyn Time) {
    let begun = time.elapsed();
    while Arc::strong_count(&memtable) > 1 && time.elapsed().saturating_sub(begun) < FREE_WITHIN {
        time.sleep(FREE_EVERY);
    }
}

/// Bytes that a write adds to a memtable that has nothing else of its key: what admission reserves.
#[must_use]
pub fn charge(key: &Key, value: &Value, clock: &VectorClock) -> usize {
    ENTRY_OVERHEAD_BYTES + key.heap_bytes() + value.len() + clock.heap_bytes()
}

impl Memtable {
    /// An empty memtable. `id` tells it apart from others of the same process.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            id,
            list: SkipMap::new(),
            filter: (0..FILTER_BITS / 64).map(|_| AtomicU64::new(0)).collect(),
            bytes: AtomicUsize::new(0),
            tenants: Mutex::default(),
            max_seq: AtomicU64::new(0),
        }
    }

    /// The number given to [`Memtable::new`].
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Bytes of memory that it holds, by its own account.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Entries, of which a key that was written often has several.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing was written to it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Highest sequence number in it; 0 when it is empty.
    #[must_use]
    pub fn max_seq(&self) -> u64 {
        self.max_seq.load(Ordering::Acquire)
    }

    /// Merges a version with what is known of its key. Only one thread may apply at a time; applying a version again
    /// changes nothing that is known. `most_siblings` bounds what a key may have side by side.
    pub fn apply(&self, key: &Key, version: Version, most_siblings: usize) -> Applied {
        let seq = version.seq;
        self.max_seq.fetch_max(seq, Ordering::Release);
        let known = self.get(key).unwrap_or_default();
        // Before the list: whoever is told of the write finds the bits.
        for (word, bit) in filter_bits(key) {
            if let Some(word) = self.filter.get(word) {
                // Nobody else writes: an atomic change of the word would only cost more.
                word.store(word.load(Ordering::Relaxed) | bit, Ordering::Release);
            }
        }
        if let Some(kept) = known.settles(&version) {
            // Nothing new: an entry for it would only cost memory.
            return Applied {
                clock: known.clock(),
                kept,
                siblings_merged: 0,
            };
        }
        let value_bytes = version.value.len();
        let written = version.clock.clone();
        let (versions, siblings_merged) = known.merge(version.into()).bounded(most_siblings);
        let kept = versions.all().iter().any(|v| v.seq == seq && v.clock == written);
        let clock = versions.clock();
        // Siblings share their values with the entry before; their structs and clocks are this entry's own.
        let bytes = ENTRY_OVERHEAD_BYTES + key.heap_bytes() + value_bytes + versions.own_heap_bytes();
        self.list.insert((key.clone(), Reverse(seq)), Box::new(versions));
        self.bytes
            .fetch_add(bytes + self.count(key.tenant(), bytes), Ordering::Relaxed);
        Applied {
            clock,
            kept,
            siblings_merged,
        }
    }

    /// Counts bytes of a tenant. Returns those that the count itself takes, when it is the first of this tenant.
    fn count(&self, tenant: &str, bytes: usize) -> usize {
        let mut tenants = self.tenants.lock();
        if let Some(counted) = tenants.get_mut(tenant) {
            *counted += bytes as u64;
            return 0;
        }
        let name = CompactString::from(tenant);
        let heap = if name.is_heap_allocated() { name.capacity() } else { 0 };
        tenants.insert(name, bytes as u64);
        TENANT_OVERHEAD_BYTES + heap
    }

    /// Bytes of memory that a tenant's writes hold in it.
    #[must_use]
    pub fn tenant_bytes(&self, tenant: &str) -> u64 {
        self.tenants.lock().get(tenant).copied().unwrap_or(0)
    }

    /// All that it knows of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Versions> {
        let set = |(word, bit): (usize, u64)| {
            self.filter
                .get(word)
                .is_some_and(|word| word.load(Ordering::Acquire) & bit != 0)
        };
        if filter_bits(key).into_iter().all(set) {
            self.get_at(key, u64::MAX)
        } else {
            None
        }
    }

    /// All that it knew of a key when `seq` was the last number applied.
    #[must_use]
    pub fn get_at(&self, key: &Key, seq: u64) -> Option<Versions> {
        let entry = self.list.lower_bound(Bound::Included(&(key.clone(), Reverse(seq))))?;
        (entry.key().0 == *key).then(|| Versions::clone(entry.value()))
    }

    /// Calls `visit` with each key and all that is known of it, in key order.
    ///
    /// # Errors
    /// That of `visit`, which ends the walk.
    pub fn visit<E>(&self, mut visit: impl FnMut(&Key, &Versions) -> Result<(), E>) -> Result<(), E> {
        let mut before: Option<Key> = None;
        let mut entry = self.list.front();
        while let Some(at) = &mut entry {
            let key = &at.key().0;
            // Of a key's entries the newest comes first.
            if before.as_ref() != Some(key) {
                visit(key, at.value())?;
                before = Some(key.clone());
            }
            if !at.move_next() {
                break;
            }
        }
        Ok(())
    }

    /// Walks its keys from `from` on, each with what was known of it when `seq` was the last number applied.
    pub fn iter_at(&self, from: &Key, seq: u64) -> MemtableIter<'_> {
        MemtableIter {
            entry: self.list.lower_bound(Bound::Included(&(from.clone(), Reverse(seq)))),
            seq,
        }
    }
}

/// Places of a key in the filter: numbers of words, and the bits in them.
fn filter_bits(key: &Key) -> [(usize, u64); 2] {
    let hash = key.hash64();
    [hash, hash >> 32].map(|part| {
        let at = part % FILTER_BITS;
        ((at / 64) as usize, 1 << (at % 64))
    })
}

/// Walks a memtable in key order.
pub struct MemtableIter<'a> {
    entry: Option<Entry<'a, Slot, Box<Versions>>>,
    seq: u64,
}

impl Iterator for MemtableIter<'_> {
    type Item = (Key, Versions);

    fn next(&mut self) -> Option<Self::Item> {
        // Entries above the snapshot come first among a key's; the first one at or below it is its state.
        while self.entry.as_ref()?.key().1.0 > self.seq {
            self.step();
        }
        let entry = self.entry.as_ref()?;
        let item = (entry.key().0.clone(), Versions::clone(entry.value()));
        while self.entry.as_ref().is_some_and(|entry| entry.key().0 == item.0) {
            self.step();
        }
        Some(item)
    }
}

impl MemtableIter<'_> {
    fn step(&mut self) {
        if let Some(entry) = &mut self.entry
            && !entry.move_next()
        {
            self.entry = None;
        }
    }
}
