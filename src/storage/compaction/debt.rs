//! How far compaction is behind, and what follows from it for those who must wait.
//!
//! Owns: the sizes of the levels, the measure of debt, and the answers to it: compaction may go faster, and writes go
//! slower. Both follow the debt smoothly, so that no write meets a wall while compaction works at all; when it does not,
//! writes are refused at a bound, since each table of L0 makes every read slower. Deletes have a bound of their own, twice
//! as high: where compaction finds no space, they are what gives some back. Does not own: what is compacted.

use crate::storage::error::{Error, Result};
use crate::storage::levels::{LEVELS, TableSet};
use std::time::Duration;

/// How the levels are shaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelOptions {
    /// L0 is compacted when it has this many tables …
    pub l0_trigger: usize,
    /// … or this many bytes.
    pub l0_size: u64,
    /// L1 is compacted when it has more bytes than this.
    pub l1_size: u64,
    /// L2 is compacted when it has more bytes than this.
    pub l2_size: u64,
    /// Below L2 each level is to have so many times the bytes of the one above. The last has no bound.
    pub level_multiplier: u64,
    /// A tombstone younger than this, in milliseconds, is kept.
    pub gc_grace_ms: u64,
}

impl Default for LevelOptions {
    fn default() -> Self {
        Self {
            l0_trigger: 4,
            l0_size: 64 << 20,
            l1_size: 128 << 20,
            l2_size: 256 << 20,
            level_multiplier: 2,
            gc_grace_ms: 10 * 24 * 3600 * 1000,
        }
    }
}

/// Smallest and largest size at which a table that compaction writes is closed, in bytes.
const TABLE_BYTES: std::ops::RangeInclusive<u64> = (4 << 10)..=(64 << 20);
/// Tables that a full L1 consists of.
const TABLES_IN_L1: u64 = 8;
/// A level of more tables than this has larger ones. Each is mapped, and the system gives a process some 65,000 maps
/// (vm.max_map_count): with these two numbers they suffice for more than 10 TB, however that came to be.
const TABLES_BEFORE_LARGER: u64 = 4096;
/// Largest size at which such a table is closed, in bytes: one that is being written has 8 bytes of memory for each key.
const LARGEST_TABLE_BYTES: u64 = 256 << 20;

/// L0 may have so many times the tables that start its compaction …
const L0_MOST_TRIGGERS: usize = 16;
/// … and always so many, before writes are refused.
const L0_MOST_AT_LEAST: usize = 64;
/// Deletes are taken with so many times the tables with which writes are. Theirs, too, take memory and a map each.
const L0_MOST_FOR_DELETES: usize = 2;

impl LevelOptions {
    /// Tables of L0 with which writes are still taken.
    #[must_use]
    pub fn l0_most(&self) -> usize {
        self.l0_trigger.saturating_mul(L0_MOST_TRIGGERS).max(L0_MOST_AT_LEAST)
    }

    /// Tables of L0 with which deletes are still taken.
    #[must_use]
    pub fn l0_most_for_deletes(&self) -> usize {
        self.l0_most().saturating_mul(L0_MOST_FOR_DELETES)
    }

    /// Bytes that a level is to have at most.
    #[must_use]
    pub fn size_of(&self, level: usize) -> u64 {
        match level {
            0 => self.l0_size,
            1 => self.l1_size,
            _ if level + 1 >= LEVELS => u64::MAX,
            _ => {
                let steps = u32::try_from(level - 2).unwrap_or(u32::MAX);
                self.l2_size.saturating_mul(self.level_multiplier.saturating_pow(steps))
            }
        }
    }

    /// Bytes at which a table is closed that compaction writes for a level of `level_bytes`.
    #[must_use]
    pub fn table_bytes(&self, level_bytes: u64) -> u64 {
        let usual = (self.l1_size / TABLES_IN_L1).clamp(*TABLE_BYTES.start(), *TABLE_BYTES.end());
        usual.max((level_bytes / TABLES_BEFORE_LARGER).min(LARGEST_TABLE_BYTES))
    }

    /// Share of the wanted rate of false positives that a filter at `level` may have. Each level above has half of the
    /// one below, and L0's tables share what the topmost has, so that all filters together that a read asks keep the
    /// wanted rate, and most memory goes where most keys are not (after Dayan, Athanassoulis and Idreos: Monkey, 2017).
    #[must_use]
    pub fn filter_share(&self, level: usize) -> f64 {
        let halvings = LEVELS - level.clamp(1, LEVELS - 1);
        let share = 0.5_f64.powi(i32::try_from(halvings).unwrap_or(i32::MAX));
        if level == 0 {
            share / self.l0_trigger.max(1) as f64
        } else {
            share
        }
    }
}

/// What compaction has yet to do.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Debt {
    /// Bytes by which the levels exceed their sizes; all of L0, when it is due.
    pub pending_bytes: u64,
    /// 0: nothing is due. Up to 1 is ordinary work; at 2 there is twice as much as there should be, and so on.
    pub pressure: f64,
    /// Tables of L0.
    pub l0_tables: usize,
    /// Tables of L0 with which writes are still taken.
    pub l0_most: usize,
    /// Tables of L0 with which deletes are still taken.
    pub l0_most_for_deletes: usize,
}

/// Share of the configured rate at which compaction goes while it is only just due: what is done slowly takes nobody's turn
/// at the disk, and where it is too slow, the pressure grows until it is not.
const SLOWEST: f64 = 0.1;
/// Pressure up to which it does.
const CALM_TO: f64 = 1.0;
/// Pressure at which compaction goes as fast as configured, and from which it may go faster …
const FASTER_FROM: f64 = 1.5;
/// … and from which nothing holds it back.
const UNLIMITED_FROM: f64 = 4.0;
/// Most times that it goes as fast as configured, before nothing holds it back.
const FASTEST: f64 = 8.0;
/// Pressure from which writes are slowed down …
const SLOWER_FROM: f64 = 4.0;
/// … and at which they are slowed down most.
const SLOWEST_FROM: f64 = 16.0;
/// Longest time that one write is held up.
const LONGEST_DELAY: Duration = Duration::from_millis(20);

impl Debt {
    /// The debt of a set.
    #[must_use]
    pub fn of(set: &TableSet, options: &LevelOptions) -> Self {
        let bytes = |level| set.level_bytes(level);
        let l0_tables = set.level(0).len();
        let l0_pressure =
            (l0_tables as f64 / options.l0_trigger.max(1) as f64).max(bytes(0) as f64 / options.l0_size.max(1) as f64);
        let mut pending_bytes = if l0_pressure >= 1.0 { bytes(0) } else { 0 };
        let mut wanted = options.l0_size;
        for level in 1..LEVELS - 1 {
            let size = options.size_of(level);
            pending_bytes = pending_bytes.saturating_add(bytes(level).saturating_sub(size));
            wanted = wanted.saturating_add(size);
        }
        Self {
            pending_bytes,
            pressure: l0_pressure.max(pending_bytes as f64 / wanted.max(1) as f64),
            l0_tables,
            l0_most: options.l0_most(),
            l0_most_for_deletes: options.l0_most_for_deletes(),
        }
    }

    /// Whether compaction is so far behind that it takes its turn as everybody else.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.pressure >= FASTER_FROM
    }

    /// Whether a write, or a delete, may be taken.
    ///
    /// # Errors
    /// [`Error::Behind`] when L0 has more tables than it may have for that.
    pub fn check_write(&self, is_delete: bool) -> Result<()> {
        let most = if is_delete {
            self.l0_most_for_deletes
        } else {
            self.l0_most
        };
        if self.l0_tables > most {
            return Err(Error::Behind {
                l0_tables: self.l0_tables,
                l0_most: self.l0_most,
                l0_most_for_deletes: self.l0_most_for_deletes,
            });
        }
        Ok(())
    }

    /// The factor of its configured rate at which compaction goes, growing with the debt; [`None`]: without a limit.
    #[must_use]
    pub fn haste(&self) -> Option<f64> {
        if self.pressure >= UNLIMITED_FROM {
            return None;
        }
        if self.pressure < FASTER_FROM {
            let due = (self.pressure - CALM_TO).max(0.0) / (FASTER_FROM - CALM_TO);
            return Some(SLOWEST + due.powi(2) * (1.0 - SLOWEST));
        }
        let over = (self.pressure - FASTER_FROM) / (UNLIMITED_FROM - FASTER_FROM);
        Some(1.0 + over * (FASTEST - 1.0))
    }

    /// How long a write is to be held up. Grows with the square of what is too much, from nothing.
    #[must_use]
    pub fn write_delay(&self) -> Duration {
        let over = (self.pressure - SLOWER_FROM) / (SLOWEST_FROM - SLOWER_FROM);
        LONGEST_DELAY.mul_f64(over.clamp(0.0, 1.0).powi(2))
    }
}
