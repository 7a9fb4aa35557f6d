//! Vector clocks.
//!
//! Owns: the canonical form, comparison and join. Compared as maps in which a missing entry is 0 (Fidge 1988, Mattern
//! 1989), because coordinators send the entries in any order. Does not own: what follows from a comparison (see
//! [`crate::storage::version`]).

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::cmp::Ordering;

/// One coordinator's counter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClockEntry {
    /// The coordinator's id.
    pub id: CompactString,
    /// How many writes of its own it knew of.
    pub counter: u64,
}

/// A vector clock in canonical form: sorted by id, one entry an id, no zero counters. Equal clocks are equal structs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "SmallVec<[ClockEntry; 1]>", into = "SmallVec<[ClockEntry; 1]>")]
pub struct VectorClock(SmallVec<[ClockEntry; 1]>);

/// How two clocks stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Causality {
    /// The same events.
    Equal,
    /// The left knows fewer events, all of them known to the right.
    Before,
    /// The left knows all that the right knows, and more.
    After,
    /// Each knows an event that the other does not.
    Concurrent,
}

impl From<SmallVec<[ClockEntry; 1]>> for VectorClock {
    fn from(mut entries: SmallVec<[ClockEntry; 1]>) -> Self {
        let ordered = entries.iter().zip(entries.iter().skip(1)).all(|(a, b)| a.id < b.id);
        if ordered && entries.iter().all(|entry| entry.counter > 0) {
            return Self(entries);
        }
        entries.retain(|e| e.counter > 0);
        entries.sort();
        // After the sort the larger counter of a repeated id stands last, and is the one to keep.
        let mut canonical: SmallVec<[ClockEntry; 1]> = SmallVec::with_capacity(entries.len());
        for entry in entries {
            match canonical.last_mut() {
                Some(last) if last.id == entry.id => *last = entry,
                _ => canonical.push(entry),
            }
        }
        Self(canonical)
    }
}

impl From<VectorClock> for SmallVec<[ClockEntry; 1]> {
    fn from(clock: VectorClock) -> Self {
        clock.0
    }
}

impl<S: Into<CompactString>> FromIterator<(S, u64)> for VectorClock {
    fn from_iter<I: IntoIterator<Item = (S, u64)>>(iter: I) -> Self {
        iter.into_iter()
            .map(|(id, counter)| ClockEntry { id: id.into(), counter })
            .collect::<SmallVec<[ClockEntry; 1]>>()
            .into()
    }
}

impl VectorClock {
    /// The entries, sorted by id.
    #[must_use]
    pub fn entries(&self) -> &[ClockEntry] {
        &self.0
    }

    /// Whether it names no event at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares two clocks in one pass over both.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Causality {
        let (mut more_left, mut more_right) = (false, false);
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => {
                    more_left = true;
                    break;
                }
                (None, Some(_)) => {
                    more_right = true;
                    break;
                }
                (Some(l), Some(r)) => match l.id.cmp(&r.id) {
                    Ordering::Less => {
                        more_left = true;
                        left.next();
                    }
                    Ordering::Greater => {
                        more_right = true;
                        right.next();
                    }
                    Ordering::Equal => {
                        more_left |= l.counter > r.counter;
                        more_right |= l.counter < r.counter;
                        left.next();
                        right.next();
                    }
                },
            }
        }
        match (more_left, more_right) {
            (false, false) => Causality::Equal,
            (false, true) => Causality::Before,
            (true, false) => Causality::After,
            (true, true) => Causality::Concurrent,
        }
    }

    /// The least clock that knows all that both know.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        if self.is_empty() {
            return other.clone();
        }
        if other.is_empty() || self == other {
            return self.clone();
        }
        self.0.iter().chain(&other.0).cloned().collect::<SmallVec<_>>().into()
    }

    /// The clock with `id` raised to at least `counter`.
    #[must_use]
    pub fn with(&self, id: &str, counter: u64) -> Self {
        self.join(&[(id, counter)].into_iter().collect())
    }

    /// The number of events known: a measure of logical age that every replica computes alike, and that is larger for a
    /// clock that dominates.
    #[must_use]
    pub fn weight(&self) -> u128 {
        self.0.iter().map(|e| u128::from(e.counter)).sum()
    }

    /// Bytes on the heap beside the struct itself.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let spilled = if self.0.spilled() {
            self.0.capacity() * size_of::<ClockEntry>()
        } else {
            0
        };
        let ids: usize = self
            .0
            .iter()
            .filter(|e| e.id.is_heap_allocated())
            .map(|e| e.id.capacity())
            .sum();
        spilled + ids
    }
}
