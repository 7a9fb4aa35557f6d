//! What stays and what leaves, over any kind of entry.
//!
//! New entries go through a window, which is a plain LRU. What leaves it goes to the main part, a segmented LRU (Karedla,
//! Love and Wherry 1994). While the main part is guarded, it takes an entry only if that was used more often than what
//! would have to leave for it: W-TinyLFU (Einziger, Friedman and Manes 2017). All bytes in the window are a plain LRU.
//!
//! Owns: the entries, their order and the count of their bytes. Does not own: the counts of use (see
//! [`crate::storage::cache::sketch`]) or the choice of the rule (see [`crate::storage::cache::balance`]).

use crate::storage::cache::sketch::Sketch;
use crate::storage::key::Key;
use hashbrown::HashTable;
use std::fmt::Debug;
use std::hash::{BuildHasher, Hash, RandomState};

const NONE: u32 = u32::MAX;
/// Share of the main part for what was used again since it left the window.
const PROTECTED: f64 = 0.8;
/// Entries that leave a window that is too large with each new one, beside the one that the new one pushes out: the
/// window follows a new rule soon, and no insertion pays for all of it.
const DRAINED_AT_ONCE: usize = 4;

/// How the bytes are divided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Share of the bytes for the window, 0 to 1.
    pub window: f64,
    /// Whether the main part is guarded.
    pub guarded: bool,
}

impl Rule {
    /// Share of the bytes whose entries stay by the recency of their use alone, 0 to 1.
    pub fn recency(&self) -> f64 {
        if self.guarded {
            self.window
        } else {
            self.window + (1.0 - self.window) * (1.0 - PROTECTED)
        }
    }
}

/// What an entry is known by.
pub trait Identity: Clone + Eq + Hash {
    /// How the table of places hashes it. No choice of keys must make places collide.
    type Hasher: BuildHasher + Default + Debug;

    /// Its hash, for the counts of use.
    fn hash64(&self) -> u64;
}

impl Identity for Key {
    type Hasher = RandomState;

    fn hash64(&self) -> u64 {
        Self::hash64(self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    Window,
    Probation,
    Protected,
}

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    /// Its hash in the table of places: to compute it again at each step would cost more than the steps.
    place_hash: u64,
    value: V,
    bytes: usize,
    segment: Segment,
    newer: u32,
    older: u32,
}

/// The hash that a place in the table stands under.
fn place_hash_in<K, V>(nodes: &[Node<K, V>]) -> impl Fn(&u32) -> u64 {
    |at| nodes.get(*at as usize).map_or(0, |node| node.place_hash)
}

/// A list through the nodes, from the newest to the oldest.
#[derive(Debug, Clone, Copy)]
struct List {
    newest: u32,
    oldest: u32,
    bytes: usize,
}

impl List {
    const EMPTY: Self = Self {
        newest: NONE,
        oldest: NONE,
        bytes: 0,
    };
}

/// The entries.
#[derive(Debug)]
pub struct Segments<K: Identity, V> {
    /// Where each key's node is.
    places: HashTable<u32>,
    hasher: K::Hasher,
    nodes: Vec<Node<K, V>>,
    window: List,
    probation: List,
    protected: List,
    max_bytes: usize,
    rule: Rule,
    /// Entries that nodes and map have room for. It shrinks when it is twice what is needed, so the cost of moving is
    /// spread over the entries that left.
    slots: usize,
    /// Bytes of a slot without an entry.
    idle_bytes: usize,
    evictions: u64,
}

impl<K: Identity, V> Segments<K, V> {
    /// Bytes of a slot: a node with the spare room of a vector that grows by an eighth, and room in a table of places that
    /// has just doubled from a load of 7/8.
    pub const SLOT_BYTES: usize = size_of::<Node<K, V>>() * 9 / 8 + (size_of::<u32>() + 1) * 16 / 7;

    /// No entries, to hold at most so many bytes by this rule. `idle_bytes` are charged for each slot without an entry.
    pub fn new(max_bytes: usize, rule: Rule, idle_bytes: usize) -> Self {
        Self {
            places: HashTable::new(),
            hasher: K::Hasher::default(),
            nodes: Vec::new(),
            window: List::EMPTY,
            probation: List::EMPTY,
            protected: List::EMPTY,
            max_bytes,
            rule,
            slots: 0,
            idle_bytes,
            evictions: 0,
        }
    }

    /// Bytes of all entries, and of slots without one.
    pub fn bytes(&self) -> usize {
        let entries = self.window.bytes + self.probation.bytes + self.protected.bytes;
        entries + (self.slots - self.nodes.len()) * self.idle_bytes
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Entries that there is room for.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Entries that had to leave so far.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Most bytes that it holds.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// The rule as it is.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Changes the rule. The entries follow as new ones come.
    pub fn set_rule(&mut self, rule: Rule) {
        self.rule = rule;
    }

    /// Changes the bound; what does not fit leaves.
    pub fn set_max_bytes(&mut self, max_bytes: usize, sketch: &Sketch) {
        self.max_bytes = max_bytes;
        self.shrink(sketch);
    }

    /// Bytes of an entry that is there. Does not count as a use.
    pub fn bytes_of(&self, key: &K) -> Option<usize> {
        self.find(key).and_then(|at| self.node(at)).map(|node| node.bytes)
    }

    /// An entry's value. Counts as a use.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        let at = self.find(key)?;
        self.touch(at);
        self.node(at).map(|node| &node.value)
    }

    /// An entry's value, to be changed. Does not count as a use; [`Self::resize`] must follow.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key)?;
        self.nodes.get_mut(at as usize).map(|node| &mut node.value)
    }

    /// States that an entry now has so many bytes.
    pub fn resize(&mut self, key: &K, bytes: usize, sketch: &Sketch) {
        let Some(at) = self.find(key) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(at as usize) else {
            return;
        };
        let (segment, before) = (node.segment, node.bytes);
        node.bytes = bytes;
        let list = self.list(segment);
        list.bytes = list.bytes - before + bytes;
        self.shrink(sketch);
    }

    /// Puts an entry in that is not there.
    pub fn insert(&mut self, key: K, value: V, bytes: usize, sketch: &Sketch) {
        if self.nodes.len() == self.nodes.capacity() {
            self.nodes.reserve_exact(self.nodes.len() / 8 + 1);
        }
        let at = self.nodes.len() as u32;
        let place_hash = self.hasher.hash_one(&key);
        self.nodes.push(Node {
            key,
            place_hash,
            value,
            bytes,
            segment: Segment::Window,
            newer: NONE,
            older: NONE,
        });
        self.places.insert_unique(place_hash, at, place_hash_in(&self.nodes));
        self.slots = self.slots.max(self.nodes.len());
        self.link(at, Segment::Window);
        self.shrink(sketch);
        for _ in 0..DRAINED_AT_ONCE {
            if self.window.bytes <= self.window_bytes() {
                break;
            }
            let oldest = self.window.oldest;
            self.relink(oldest, Segment::Probation);
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) {
        if let Some(at) = self.find(key) {
            self.take(at);
        }
    }

    fn window_bytes(&self) -> usize {
        (self.max_bytes as f64 * self.rule.window) as usize
    }

    fn shrink(&mut self, sketch: &Sketch) {
        while self.bytes() > self.max_bytes {
            let candidate = self.window.oldest;
            let victim = if self.probation.oldest == NONE {
                self.protected.oldest
            } else {
                self.probation.oldest
            };
            // The candidate's own count holds the use that brought it in; without it both counts are of the past.
            let used = |at| self.node(at).map_or(0, |node| sketch.estimate(node.key.hash64()));
            let leaves = if victim == NONE {
                candidate
            } else if candidate == NONE || self.window.bytes <= self.window_bytes() {
                victim
            } else if !self.rule.guarded || used(candidate) > used(victim) + 1 {
                self.relink(candidate, Segment::Probation);
                victim
            } else {
                candidate
            };
            if leaves == NONE {
                return;
            }
            self.take(leaves);
            self.evictions += 1;
        }
    }

    fn touch(&mut self, at: u32) {
        let Some(node) = self.node(at) else {
            return;
        };
        if node.segment == Segment::Window {
            self.relink(at, Segment::Window);
            return;
        }
        self.relink(at, Segment::Protected);
        let most = (self.max_bytes.saturating_sub(self.window_bytes()) as f64 * PROTECTED) as usize;
        while self.protected.bytes > most {
            let oldest = self.protected.oldest;
            self.relink(oldest, Segment::Probation);
        }
    }

    fn take(&mut self, at: u32) {
        self.unlink(at);
        let taken = self.nodes.swap_remove(at as usize);
        if let Ok(place) = self.places.find_entry(taken.place_hash, |place| *place == at) {
            place.remove();
        }
        // The node that stood last now stands at `at`: what pointed to it must follow.
        let last = self.nodes.len() as u32;
        if let Some(moved) = self.nodes.get(at as usize) {
            let (newer, older, segment) = (moved.newer, moved.older, moved.segment);
            if let Some(place) = self.places.find_mut(moved.place_hash, |place| *place == last) {
                *place = at;
            }
            self.point(newer, older, segment, at, at);
        }
        self.release();
    }

    /// Gives memory back when half of the slots have no entry.
    fn release(&mut self) {
        if self.nodes.len() < self.slots.div_ceil(2) {
            self.slots = self.nodes.len();
            self.nodes.shrink_to_fit();
            self.places.shrink_to_fit(place_hash_in(&self.nodes));
        }
    }

    fn find(&self, key: &K) -> Option<u32> {
        let same = |at: &u32| self.node(*at).is_some_and(|node| node.key == *key);
        self.places.find(self.hasher.hash_one(key), same).copied()
    }

    fn node(&self, at: u32) -> Option<&Node<K, V>> {
        self.nodes.get(at as usize)
    }

    fn list(&mut self, segment: Segment) -> &mut List {
        match segment {
            Segment::Window => &mut self.window,
            Segment::Probation => &mut self.probation,
            Segment::Protected => &mut self.protected,
        }
    }

    fn relink(&mut self, at: u32, segment: Segment) {
        self.unlink(at);
        self.link(at, segment);
    }

    fn link(&mut self, at: u32, segment: Segment) {
        let newest = self.list(segment).newest;
        let Some(node) = self.nodes.get_mut(at as usize) else {
            return;
        };
        node.segment = segment;
        node.newer = NONE;
        node.older = newest;
        let bytes = node.bytes;
        if let Some(before) = self.nodes.get_mut(newest as usize) {
            before.newer = at;
        }
        let list = self.list(segment);
        list.newest = at;
        if list.oldest == NONE {
            list.oldest = at;
        }
        list.bytes += bytes;
    }

    fn unlink(&mut self, at: u32) {
        let Some(node) = self.node(at) else {
            return;
        };
        let (newer, older, segment, bytes) = (node.newer, node.older, node.segment, node.bytes);
        self.point(newer, older, segment, older, newer);
        self.list(segment).bytes -= bytes;
    }

    /// Makes the newer neighbour (or the list) point to `to_older`, the older one to `to_newer`.
    fn point(&mut self, newer: u32, older: u32, segment: Segment, to_older: u32, to_newer: u32) {
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = to_older,
            None => self.list(segment).newest = to_older,
        }
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = to_newer,
            None => self.list(segment).oldest = to_newer,
        }
    }
}
