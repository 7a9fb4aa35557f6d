//! What to compact next: a pure choice from the shape of the levels.
//!
//! Owns: the order of urgency and the choice of tables. Does not own: reading or writing any. A choice never includes a
//! table that another job has, and what overlaps such a table waits.
//!
//! L0 goes first when it is due, since every read asks all its tables; then the level that exceeds its size by most. Of a
//! level the table is chosen that overlaps least of the level below, which costs the fewest bytes written for each byte
//! moved down. A table that overlaps nothing is moved by name alone.

use super::debt::LevelOptions;
use crate::storage::levels::{LEVELS, TableSet};
use crate::storage::table::Table;
use std::sync::Arc;

/// Most tables of L0 that one job takes: more would take longer, and gain little.
const MOST_L0_TABLES: usize = 16;
/// So few are merged when there is little space, and not fewer: one alone would make L0 hardly shorter.
const LEAST_L0_TABLES: usize = 2;
/// A table is written again for its tombstones alone when at least this share of its versions are tombstones.
const TOMBSTONES_WORTH_IT: f64 = 0.05;

/// Tables to be merged, or moved.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Level of the first tables.
    pub from: usize,
    /// Level where the result goes.
    pub to: usize,
    /// The tables of `from`.
    pub upper: Vec<Arc<Table>>,
    /// Those of `to` that overlap them, in key order.
    pub lower: Vec<Arc<Table>>,
    /// Whether the one table goes as it is.
    pub is_move: bool,
}

impl Choice {
    /// All tables that it concerns.
    pub fn inputs(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.upper.iter().chain(&self.lower)
    }

    /// Whether it takes space for what was in L0.
    #[must_use]
    pub fn merges_l0(&self) -> bool {
        self.from == 0 && !self.is_move
    }

    /// Most tables of L0 that the next job is to take when the disk had no space for this one, which merges some: half as
    /// many.
    #[must_use]
    pub fn fewer_l0_tables(&self) -> usize {
        (self.upper.len() / 2).max(LEAST_L0_TABLES)
    }
}

/// What the choice must know beside the tables.
pub struct Situation<'a> {
    /// Shape of the levels.
    pub options: &'a LevelOptions,
    /// Whether another job has a table.
    pub busy: &'a dyn Fn(u64) -> bool,
    /// Whether a table was written a while ago for its tombstones alone, and had to keep some.
    pub resting: &'a dyn Fn(u64) -> bool,
    /// Most tables of L0 that a job may take, since the disk had no space for more; [`None`]: as many as is usual.
    pub most_l0_tables: Option<usize>,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// The most urgent work that no other job is in the way of; [`None`] when nothing is due.
#[must_use]
pub fn pick(set: &TableSet, situation: &Situation<'_>) -> Option<Choice> {
    let options = situation.options;
    let l0_due = set.level(0).len() >= options.l0_trigger || set.level_bytes(0) > options.l0_size;
    if l0_due && let Some(choice) = pick_l0(set, situation) {
        return Some(choice);
    }
    let excess = |level: &usize| set.level_bytes(*level) as f64 / options.size_of(*level).max(1) as f64;
    let mut due: Vec<usize> = (1..LEVELS - 1).filter(|level| excess(level) > 1.0).collect();
    due.sort_by(|a, b| excess(b).total_cmp(&excess(a)));
    due.into_iter()
        .find_map(|level| pick_level(set, level, situation))
        .or_else(|| pick_tombstones(set, situation))
}

/// Tables of `level` that overlap the keys from `first` to `last`.
fn overlapping<'a>(
    set: &'a TableSet,
    level: usize,
    first: &'a str,
    last: &'a str,
) -> impl Iterator<Item = &'a Arc<Table>> {
    set.level(level)
        .iter()
        .filter(move |table| table.range().0 <= last && table.range().1 >= first)
}

/// One job at a time works on L0: its tables overlap, and so would the results.
fn pick_l0(set: &TableSet, situation: &Situation<'_>) -> Option<Choice> {
    let tables = set.level(0);
    if tables.iter().any(|table| (situation.busy)(table.id())) {
        return None;
    }
    let alone = |table: &&Arc<Table>| {
        let (first, last) = table.range();
        (0..2).all(|level| overlapping(set, level, first, last).all(|other| other.id() == table.id()))
    };
    if let Some(table) = tables.iter().find(alone) {
        return Some(Choice {
            from: 0,
            to: 1,
            upper: vec![Arc::clone(table)],
            lower: Vec::new(),
            is_move: true,
        });
    }
    // Any of them may go: what a key has does not depend on the order of merging. The oldest have waited longest.
    let most = situation.most_l0_tables.unwrap_or(MOST_L0_TABLES);
    let upper: Vec<_> = tables.iter().take(most).cloned().collect();
    let first = upper.iter().map(|table| table.range().0).min()?;
    let last = upper.iter().map(|table| table.range().1).max()?;
    let lower: Vec<_> = overlapping(set, 1, first, last).cloned().collect();
    if lower.iter().any(|table| (situation.busy)(table.id())) {
        return None;
    }
    Some(Choice {
        from: 0,
        to: 1,
        upper,
        lower,
        is_move: false,
    })
}

fn pick_level(set: &TableSet, level: usize, situation: &Situation<'_>) -> Option<Choice> {
    let candidates = set.level(level).iter().filter(|table| !(situation.busy)(table.id()));
    let cost = |choice: &Choice| {
        let bytes = |tables: &[Arc<Table>]| tables.iter().map(|table| table.size()).sum::<u64>() as f64;
        bytes(&choice.lower) / bytes(&choice.upper).max(1.0)
    };
    candidates
        .filter_map(|table| merge_down(set, level, table, situation))
        .min_by(|a, b| cost(a).total_cmp(&cost(b)))
}

/// Merges one table into the level below; [`None`] when another job is in the way.
fn merge_down(set: &TableSet, level: usize, table: &Arc<Table>, situation: &Situation<'_>) -> Option<Choice> {
    let (first, last) = table.range();
    let lower: Vec<_> = overlapping(set, level + 1, first, last).cloned().collect();
    let free = !lower.iter().any(|table| (situation.busy)(table.id()));
    free.then(|| Choice {
        from: level,
        to: level + 1,
        upper: vec![Arc::clone(table)],
        is_move: lower.is_empty(),
        lower,
    })
}

/// With nothing else due, tables whose tombstones have outlived their grace are brought down to what they hide; one below
/// which nothing is that it could hide is written again, without them.
fn pick_tombstones(set: &TableSet, situation: &Situation<'_>) -> Option<Choice> {
    let expired = |table: &&Arc<Table>| {
        let told = table.properties();
        told.tombstones as f64 >= TOMBSTONES_WORTH_IT * told.versions as f64
            && told.tombstones > 0
            && told.oldest_tombstone_ms > 0
            && told.oldest_tombstone_ms.saturating_add(situation.options.gc_grace_ms) <= situation.now_ms
            && !(situation.busy)(table.id())
            && !(situation.resting)(table.id())
    };
    (1..LEVELS).find_map(|level| {
        set.level(level).iter().filter(expired).find_map(|table| {
            let (first, last) = table.range();
            let is_lowest = (level + 1..LEVELS).all(|below| overlapping(set, below, first, last).next().is_none());
            if !is_lowest {
                return merge_down(set, level, table, situation);
            }
            Some(Choice {
                from: level,
                to: level,
                upper: vec![Arc::clone(table)],
                lower: Vec::new(),
                is_move: false,
            })
        })
    })
}
