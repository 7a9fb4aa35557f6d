//! Places on the ring by which keys are spread over nodes.
//!
//! Owns: a key's place, and sets of ranges of places. Does not own: which node has which range.

use crate::storage::key::Key;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A key's place: the first 8 bytes of the SHA-256 of `{tenant_id}:{key}`, the most significant first.
#[must_use]
pub fn place(key: &Key) -> u64 {
    let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    hash.iter().take(8).fold(0, |place, byte| place << 8 | u64::from(*byte))
}

/// A set of places: ranges with both their ends, in order, none touching the next. Equal sets are equal structs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct HashRanges(Vec<(u64, u64)>);

/// Of ranges that do not go around, as they are stored: one that starts at its end has one place.
impl From<Vec<(u64, u64)>> for HashRanges {
    fn from(ranges: Vec<(u64, u64)>) -> Self {
        Self(joined(ranges))
    }
}

impl From<HashRanges> for Vec<(u64, u64)> {
    fn from(ranges: HashRanges) -> Self {
        ranges.0
    }
}

/// Of pairs of a start and an end, which both belong to the range. One that starts above its end goes around; one that starts
/// at its end is the whole ring.
impl FromIterator<(u64, u64)> for HashRanges {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        let mut straight = Vec::new();
        for (start, end) in ranges {
            if start == end {
                straight.push((0, u64::MAX));
            } else if start < end {
                straight.push((start, end));
            } else {
                straight.extend([(start, u64::MAX), (0, end)]);
            }
        }
        Self(joined(straight))
    }
}

/// Puts ranges that do not go around in order, and joins those that touch.
fn joined(mut straight: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    straight.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(straight.len());
    for (start, end) in straight {
        match joined.last_mut() {
            Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}

impl HashRanges {
    /// Whether a place is in one of them.
    #[must_use]
    pub fn contains(&self, place: u64) -> bool {
        let behind = self.0.partition_point(|(start, _)| *start <= place);
        let last = behind.checked_sub(1).and_then(|at| self.0.get(at));
        last.is_some_and(|(_, end)| place <= *end)
    }

    /// The places of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(joined([&*self.0, &other.0].concat()))
    }

    /// How many ranges they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no place in them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
