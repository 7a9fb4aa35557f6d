//! The policy of the read cache: what stays in a bounded number of bytes.
//!
//! A segmented LRU (Karedla, Love and Wherry 1994): what was asked for once is held by recency, what was asked for again
//! is promoted and held by frequency of use. The two weights divide the bytes between them. Every operation is O(1).
//!
//! Owns: the map, the order of eviction and the count of bytes. Does not own: loading, threads or time.

use crate::storage::key::Key;
use crate::storage::version::Versions;
use std::collections::HashMap;

/// Bytes that an entry costs beside key and versions: its node, and its place in the map (at a load of 7/8, with the
/// spare room of a table that has just doubled).
const ENTRY_OVERHEAD_BYTES: usize = size_of::<Node>() + 2 * (size_of::<Key>() + size_of::<usize>() + 1);

const NONE: usize = usize::MAX;

/// How the cache is bounded.
#[derive(Debug, Clone, Copy)]
pub struct CacheOptions {
    /// Most bytes that it holds, by its own account.
    pub max_bytes: usize,
    /// Weight of what is used often. Only the ratio of the two weights counts.
    pub frequency_weight: f64,
    /// Weight of what was used lately.
    pub recency_weight: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    /// Asked for once.
    Recent,
    /// Asked for again.
    Frequent,
}

#[derive(Debug)]
struct Node {
    key: Key,
    versions: Versions,
    bytes: usize,
    segment: Segment,
    newer: usize,
    older: usize,
}

/// A list through the nodes, from the newest to the oldest.
#[derive(Debug, Clone, Copy)]
struct List {
    newest: usize,
    oldest: usize,
    bytes: usize,
}

impl List {
    const EMPTY: Self = Self {
        newest: NONE,
        oldest: NONE,
        bytes: 0,
    };
}

/// A cache of what keys have.
#[derive(Debug)]
pub struct Cache {
    options: CacheOptions,
    /// Bytes that what is used often may take before the least recently used of it is demoted.
    frequent_bytes: usize,
    map: HashMap<Key, usize>,
    nodes: Vec<Node>,
    recent: List,
    frequent: List,
    evictions: u64,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(options: CacheOptions) -> Self {
        let total = options.frequency_weight + options.recency_weight;
        let share = if total > 0.0 {
            options.frequency_weight / total
        } else {
            0.5
        };
        Self {
            frequent_bytes: (options.max_bytes as f64 * share) as usize,
            options,
            map: HashMap::new(),
            nodes: Vec::new(),
            recent: List::EMPTY,
            frequent: List::EMPTY,
            evictions: 0,
        }
    }

    /// Bytes held, by the cache's own account.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.recent.bytes + self.frequent.bytes
    }

    /// Entries held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Entries that had to leave so far.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// What the key has, if the cache knows it. Counts as a use.
    pub fn get(&mut self, key: &Key) -> Option<&Versions> {
        let at = *self.map.get(key)?;
        self.touch(at);
        self.nodes.get(at).map(|node| &node.versions)
    }

    /// Puts in all that a key has. An entry larger than the cache is not kept.
    pub fn insert(&mut self, key: Key, versions: Versions) {
        self.remove(&key);
        let bytes = entry_bytes(&key, &versions);
        if bytes > self.options.max_bytes {
            return;
        }
        let at = self.nodes.len();
        self.nodes.push(Node {
            key: key.clone(),
            versions,
            bytes,
            segment: Segment::Recent,
            newer: NONE,
            older: NONE,
        });
        self.map.insert(key, at);
        self.link(at, Segment::Recent);
        self.shrink();
    }

    /// Merges what was just written into an entry that is there; says whether one was. Does not count as a use.
    pub fn merge(&mut self, key: &Key, written: Versions, most_siblings: usize) -> bool {
        let Some(&at) = self.map.get(key) else {
            return false;
        };
        let Some(node) = self.nodes.get_mut(at) else {
            return false;
        };
        let known = std::mem::take(&mut node.versions);
        node.versions = known.merge(written).bounded(most_siblings).0;
        let (before, after) = (node.bytes, entry_bytes(key, &node.versions));
        node.bytes = after;
        let segment = node.segment;
        let list = self.list(segment);
        list.bytes = list.bytes - before + after;
        if after > self.options.max_bytes {
            self.remove(key);
        }
        self.shrink();
        true
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &Key) {
        let Some(at) = self.map.remove(key) else {
            return;
        };
        self.unlink(at);
        self.nodes.swap_remove(at);
        // The node that stood last now stands at `at`: what pointed to it must follow.
        let Some(moved) = self.nodes.get(at) else {
            return;
        };
        let (newer, older, segment) = (moved.newer, moved.older, moved.segment);
        if let Some(place) = self.map.get_mut(&moved.key) {
            *place = at;
        }
        match self.nodes.get_mut(newer) {
            Some(node) => node.older = at,
            None => self.list(segment).newest = at,
        }
        match self.nodes.get_mut(older) {
            Some(node) => node.newer = at,
            None => self.list(segment).oldest = at,
        }
    }

    fn touch(&mut self, at: usize) {
        self.unlink(at);
        self.link(at, Segment::Frequent);
        while self.frequent.bytes > self.frequent_bytes {
            let oldest = self.frequent.oldest;
            self.unlink(oldest);
            self.link(oldest, Segment::Recent);
        }
    }

    fn shrink(&mut self) {
        while self.bytes() > self.options.max_bytes {
            let victim = if self.recent.oldest == NONE {
                self.frequent.oldest
            } else {
                self.recent.oldest
            };
            let Some(key) = self.nodes.get(victim).map(|node| node.key.clone()) else {
                return;
            };
            self.remove(&key);
            self.evictions += 1;
        }
    }

    fn list(&mut self, segment: Segment) -> &mut List {
        match segment {
            Segment::Recent => &mut self.recent,
            Segment::Frequent => &mut self.frequent,
        }
    }

    fn link(&mut self, at: usize, segment: Segment) {
        let newest = self.list(segment).newest;
        let Some(node) = self.nodes.get_mut(at) else {
            return;
        };
        node.segment = segment;
        node.newer = NONE;
        node.older = newest;
        let bytes = node.bytes;
        if let Some(before) = self.nodes.get_mut(newest) {
            before.newer = at;
        }
        let list = self.list(segment);
        list.newest = at;
        if list.oldest == NONE {
            list.oldest = at;
        }
        list.bytes += bytes;
    }

    fn unlink(&mut self, at: usize) {
        let Some(node) = self.nodes.get(at) else {
            return;
        };
        let (newer, older, segment, bytes) = (node.newer, node.older, node.segment, node.bytes);
        match self.nodes.get_mut(newer) {
            Some(node) => node.older = older,
            None => self.list(segment).newest = older,
        }
        match self.nodes.get_mut(older) {
            Some(node) => node.newer = newer,
            None => self.list(segment).oldest = newer,
        }
        self.list(segment).bytes -= bytes;
    }
}

fn entry_bytes(key: &Key, versions: &Versions) -> usize {
    ENTRY_OVERHEAD_BYTES + 2 * key.heap_bytes() + versions.heap_bytes()
}
