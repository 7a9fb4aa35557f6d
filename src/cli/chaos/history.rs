//! Whether what clients saw of one key can have come from one register.
//!
//! Every write has a value of its own. A history of such a register is linearizable if and only if no value is read before
//! its write began, no two values must have been there at the same time, and no value came and went while another must
//! have been there all the while: Gibbons and Korach, "Testing Shared Memories", SIAM J. Comput. 26(4), 1997, section 4.
//! What a write without an answer did is unknown: it may take effect at any moment after it began, or never.
//!
//! Owns: that check. Does not own: how the history came about.

use std::collections::BTreeMap;
use std::fmt;

/// The value of a key that was never written.
pub const ABSENT: u64 = 0;
/// A moment, in nanoseconds since the start of the run, or in whatever else tells earlier from later.
pub type Moment = u64;

/// What a client did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It wrote this value, and was told so.
    Wrote(u64),
    /// It tried to write this value, and does not know what became of it.
    Tried(u64),
    /// It read this value.
    Read(u64),
}

/// An act, with the moments at which it was asked for and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What it was.
    pub act: Act,
    /// When it was asked for.
    pub begun: Moment,
    /// When it was answered.
    pub ended: Moment,
}

/// Why a history cannot have come from one register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A value was read that nobody wrote.
    Invented(u64),
    /// A value was read before its write began.
    FromTheFuture(u64),
    /// Each of both values must have been there at a moment between two moments of the other.
    Torn(u64, u64),
    /// The first value was read although the second had taken its place, or was lost to it.
    Stale(u64, u64),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invented(value) => write!(f, "value {value} was read, and never written"),
            Self::FromTheFuture(value) => write!(f, "value {value} was read before it was written"),
            Self::Torn(one, other) => write!(
                f,
                "value {one} was there before and after value {other}, and that one alike"
            ),
            Self::Stale(stale, newer) => write!(
                f,
                "value {stale} was read or written wholly within the time of value {newer}"
            ),
        }
    }
}

/// All acts with one value: its write and its reads.
#[derive(Debug, Clone, Copy)]
struct Cluster {
    value: u64,
    /// When its write began; none was seen yet: the end of time.
    written: Moment,
    /// Whether the write is known to have happened: by its answer, or by a read.
    happened: bool,
    first_end: Moment,
    last_begin: Moment,
    first_read_end: Moment,
}

/// Checks the history of one key, in any order.
///
/// # Errors
/// What is wrong with it.
pub fn check(events: &[Event]) -> Result<(), Violation> {
    let mut clusters: BTreeMap<u64, Cluster> = BTreeMap::new();
    // What was there at first was there since before everything.
    let initial = Event {
        act: Act::Wrote(ABSENT),
        begun: 0,
        ended: 0,
    };
    for event in [initial].iter().chain(events) {
        let (Act::Wrote(value) | Act::Tried(value) | Act::Read(value)) = event.act;
        let cluster = clusters.entry(value).or_insert(Cluster {
            value,
            written: Moment::MAX,
            happened: false,
            first_end: Moment::MAX,
            last_begin: 0,
            first_read_end: Moment::MAX,
        });
        cluster.last_begin = cluster.last_begin.max(event.begun);
        match event.act {
            Act::Wrote(_) => {
                cluster.written = event.begun;
                cluster.happened = true;
                cluster.first_end = cluster.first_end.min(event.ended);
            }
            Act::Tried(_) => cluster.written = event.begun,
            Act::Read(_) => {
                cluster.happened = true;
                cluster.first_end = cluster.first_end.min(event.ended);
                cluster.first_read_end = cluster.first_read_end.min(event.ended);
            }
        }
    }
    let mut forward = Vec::new();
    let mut backward = Vec::new();
    for cluster in clusters.into_values().filter(|cluster| cluster.happened) {
        if cluster.written == Moment::MAX {
            return Err(Violation::Invented(cluster.value));
        }
        if cluster.first_read_end < cluster.written {
            return Err(Violation::FromTheFuture(cluster.value));
        }
        if cluster.first_end < cluster.last_begin {
            forward.push(cluster);
        } else {
            backward.push(cluster);
        }
    }
    forward.sort_by_key(|zone| zone.first_end);
    for pair in forward.windows(2) {
        if let [one, other] = pair
            && other.first_end < one.last_begin
        {
            return Err(Violation::Torn(one.value, other.value));
        }
    }
    for zone in backward {
        // They do not overlap, so the last that begins before it is the only one that may hold it.
        let before = forward.partition_point(|other| other.first_end < zone.last_begin);
        let holder = before.checked_sub(1).and_then(|place| forward.get(place));
        if let Some(holder) = holder.filter(|holder| zone.first_end < holder.last_begin) {
            return Err(Violation::Stale(zone.value, holder.value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
