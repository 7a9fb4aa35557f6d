//! Versions of a value, and the one function that merges them.
//!
//! Owns: what a key *has* (the set of versions that no other dominates), the merge of two such sets, the order in which
//! a winner is chosen, and the bound on siblings. Memtable, read view, tables and cache all call [`Versions::merge`] and
//! nothing else. Does not own: clocks, or how sets are stored.
//!
//! The merge is the join of a semilattice (associative, commutative, idempotent), so replicas that saw the same writes
//! in any order and number hold the same set. The bound on siblings is deliberately not part of it: cutting a set inside
//! the merge would make the result depend on the order of merging. [`Versions::bounded`] instead *writes* a version
//! whose clock joins those that it replaces, so that it dominates them wherever else they are met.

use crate::storage::clock::{Causality, VectorClock};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use std::cmp::Ordering;

/// Most versions a key may have side by side. Beyond it the oldest are merged into one.
pub const MAX_SIBLINGS: usize = 16;

/// What a version says of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The key has this value.
    Live(Bytes),
    /// The key was deleted.
    Tombstone,
}

impl Value {
    /// The bytes, unless it is a tombstone.
    #[must_use]
    pub fn live(&self) -> Option<&Bytes> {
        match self {
            Self::Live(bytes) => Some(bytes),
            Self::Tombstone => None,
        }
    }

    /// Bytes of the value; 0 for a tombstone.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live().map_or(0, Bytes::len)
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The writes that this one knew of.
    pub clock: VectorClock,
    /// What it says.
    pub value: Value,
    /// When this node took it, in milliseconds since the Unix epoch. Local: never decides a winner.
    pub timestamp_ms: u64,
    /// Its place in this node's log. Local: never decides a winner.
    pub seq: u64,
}

impl Version {
    /// Orders versions by content alone, so that every replica chooses alike: a live value before a tombstone, then the
    /// clock with more events, then clock and value bytewise. Greatest first is the winner; least is the oldest.
    fn content_order(&self, other: &Self) -> Ordering {
        let live = |v: &Self| v.value.live().is_some();
        live(self)
            .cmp(&live(other))
            .then_with(|| self.clock.weight().cmp(&other.clock.weight()))
            .then_with(|| self.clock.entries().cmp(other.clock.entries()))
            .then_with(|| self.value.live().cmp(&other.value.live()))
    }

    /// The version with a copy of its value, so that it does not keep alive what the value was a part of.
    #[must_use]
    pub fn detached(mut self) -> Self {
        if let Value::Live(value) = &mut self.value {
            *value = Bytes::copy_from_slice(value);
        }
        self
    }
}

/// The versions that a key has: none dominates another, the winner stands first. Empty: nothing is known of the key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Versions(SmallVec<[Version; 1]>);

impl From<Version> for Versions {
    fn from(version: Version) -> Self {
        Self(smallvec![version])
    }
}

impl FromIterator<Version> for Versions {
    fn from_iter<I: IntoIterator<Item = Version>>(iter: I) -> Self {
        let mut all = Self::default();
        for version in iter {
            all.insert(version);
        }
        all
    }
}

impl Versions {
    /// All versions, the winner first.
    #[must_use]
    pub fn all(&self) -> &[Version] {
        &self.0
    }

    /// Whether nothing is known of the key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The version that a read returns; a tombstone only when there is nothing else.
    #[must_use]
    pub fn winner(&self) -> Option<&Version> {
        self.0.first()
    }

    /// The join of all clocks: what the next write must know of to supersede everything here.
    #[must_use]
    pub fn clock(&self) -> VectorClock {
        let mut versions = self.0.iter();
        let first = versions.next().map(|v| v.clock.clone()).unwrap_or_default();
        versions.fold(first, |joined, v| joined.join(&v.clock))
    }

    /// The merge: all versions of both sets that no other dominates. Versions with the same clock and value are one;
    /// with the same clock and another value they are siblings.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        for version in other.0 {
            self.insert(version);
        }
        self
    }

    fn insert(&mut self, incoming: Version) {
        for known in &mut self.0 {
            match incoming.clock.compare(&known.clock) {
                Causality::Before => return,
                Causality::Equal if incoming.value == known.value => {
                    // The same write met twice. The later sighting is kept, so that a tombstone's age counts from it.
                    known.timestamp_ms = known.timestamp_ms.max(incoming.timestamp_ms);
                    known.seq = known.seq.max(incoming.seq);
                    return;
                }
                Causality::After | Causality::Equal | Causality::Concurrent => {}
            }
        }
        self.0
            .retain(|known| incoming.clock.compare(&known.clock) != Causality::After);
        let place = self
            .0
            .partition_point(|known| known.content_order(&incoming) == Ordering::Greater);
        self.0.insert(place, incoming);
    }

    /// The set cut to at most `most` versions (at least 1), and how many were merged away. The oldest by content are
    /// replaced by one with the join of their clocks, and with the best value of all that this join dominates. Were that
    /// to become the winner, the winner is merged into it: what a read returns does not change.
    #[must_use]
    pub fn bounded(mut self, most: usize) -> (Self, usize) {
        let before = self.0.len();
        let kept = most.max(1) - 1;
        if before <= kept + 1 {
            return (self, 0);
        }
        let oldest = Self(self.0.drain(kept..).collect());
        let clock = oldest.clock();
        let dominated = |v: &Version| v.clock.compare(&clock) == Causality::Before;
        let best = self.0.iter().find(|v| dominated(v)).or(oldest.0.first()).cloned();
        if let Some(best) = best {
            let seq = oldest.0.iter().map(|v| v.seq).fold(best.seq, u64::max);
            let merged = Version { clock, seq, ..best };
            match self.0.first() {
                Some(winner) if merged.content_order(winner) == Ordering::Greater => {
                    let clock = merged.clock.join(&winner.clock);
                    let winner = winner.clone();
                    let seq = seq.max(winner.seq);
                    self.insert_in_place_of(Version { clock, seq, ..winner });
                }
                _ => self.insert_in_place_of(merged),
            }
        }
        let merged_away = before - self.0.len();
        (self, merged_away)
    }

    /// Inserts a version that is as new as the newest that it replaces: whoever asks for what came since must meet it.
    fn insert_in_place_of(&mut self, mut version: Version) {
        let replaced = |known: &&Version| version.clock.compare(&known.clock) == Causality::After;
        version.seq = self
            .0
            .iter()
            .filter(replaced)
            .map(|known| known.seq)
            .fold(version.seq, u64::max);
        self.insert(version);
    }

    /// Whether merging `incoming` would change nothing that is known: [`Some`] says whether it is among the versions
    /// already (`true`) or dominated by one (`false`).
    #[must_use]
    pub fn settles(&self, incoming: &Version) -> Option<bool> {
        self.0
            .iter()
            .find_map(|known| match incoming.clock.compare(&known.clock) {
                Causality::Before => Some(false),
                Causality::Equal if incoming.value == known.value => Some(true),
                Causality::Equal | Causality::After | Causality::Concurrent => None,
            })
    }

    /// Bytes of memory that the set holds beside its struct and the values, which sets share.
    #[must_use]
    pub fn own_heap_bytes(&self) -> usize {
        let spilled = if self.0.spilled() {
            self.0.capacity() * size_of::<Version>()
        } else {
            0
        };
        spilled + self.0.iter().map(|v| v.clock.heap_bytes()).sum::<usize>()
    }

    /// Bytes of memory that the set holds beside its struct.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.own_heap_bytes() + self.0.iter().map(|v| v.value.len()).sum::<usize>()
    }
}
