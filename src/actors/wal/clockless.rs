//! Clocks for writes that come without one.
//!
//! Such a write gets the join of what its sender saw of the key, plus this node's own entry at its sequence number. Two
//! of them for one key may overlap: the later in the log must still dominate the earlier, or a client without a clock
//! would make siblings with itself. So the clocks given lately are kept, and each new one is joined with the last for
//! its key. What was forgotten is harmless to those who saw it; a write whose view is older than that is sent back to
//! look again.
//!
//! Owns: that memory and its bound. Does not own: sequence numbers, or looking at the key.

use crate::storage::clock::VectorClock;
use crate::storage::key::Key;
use crate::storage::limits::MAX_JOINED_CLOCK_ENTRIES;
use std::collections::HashMap;

/// Clocks, and bytes of them, after which the older half of the memory is forgotten.
const GENERATION: usize = 4096;
const GENERATION_BYTES: usize = 4 << 20;

/// Why a write gets no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoClock {
    /// The view that it is based on is too old: its sender must look again.
    Stale,
    /// The clock would have more entries than a clock may have.
    TooManyEntries(usize),
}

/// Gives clocks to writes without one.
#[derive(Debug)]
pub struct ClocklessWrites {
    node_id: String,
    /// Every such write up to this sequence number is forgotten.
    floor: u64,
    young: HashMap<Key, VectorClock>,
    young_bytes: usize,
    young_last_seq: u64,
    old: HashMap<Key, VectorClock>,
    old_last_seq: u64,
}

impl ClocklessWrites {
    /// Knows nothing of what was written up to `floor`.
    #[must_use]
    pub fn new(node_id: String, floor: u64) -> Self {
        Self {
            node_id,
            floor,
            young: HashMap::new(),
            young_bytes: 0,
            young_last_seq: floor,
            old: HashMap::new(),
            old_last_seq: floor,
        }
    }

    /// The clock of a write with number `seq`, whose sender saw `observed` in a view that had everything up to
    /// `observed_seq`.
    ///
    /// # Errors
    /// As [`NoClock`] says.
    pub fn assign(
        &mut self,
        key: &Key,
        observed: &VectorClock,
        observed_seq: u64,
        seq: u64,
    ) -> Result<VectorClock, NoClock> {
        if observed_seq < self.floor {
            return Err(NoClock::Stale);
        }
        let last = self.young.get(key).or_else(|| self.old.get(key));
        let seen = last.map_or_else(|| observed.clone(), |last| observed.join(last));
        let clock = seen.with(&self.node_id, seq);
        if clock.entries().len() > MAX_JOINED_CLOCK_ENTRIES {
            return Err(NoClock::TooManyEntries(clock.entries().len()));
        }
        if self.young.len() >= GENERATION || self.young_bytes >= GENERATION_BYTES {
            self.young_bytes = 0;
            self.floor = self.old_last_seq;
            self.old = std::mem::take(&mut self.young);
            self.old_last_seq = self.young_last_seq;
        }
        self.young_bytes += clock.heap_bytes() + key.heap_bytes();
        self.young.insert(key.clone(), clock.clone());
        self.young_last_seq = seq;
        Ok(clock)
    }
}

#[cfg(test)]
mod tests;
