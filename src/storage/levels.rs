//! Which tables there are, by level.
//!
//! L0 holds tables as memtables became them, and they may overlap; from L1 down the tables of a level are sorted and do
//! not, so that a key is looked for in one of them. Damaged tables stand aside, in quarantine: what can be read of them is
//! still read, and what cannot be read answers with the damage.
//!
//! Owns: that invariant, the change from one set to the next, and looking for a key in a set. Does not own: files, or
//! what is to be compacted.

use crate::storage::compaction::debt::{Debt, LevelOptions};
use crate::storage::error::{Error, Result};
use crate::storage::key::Key;
use crate::storage::looked::Looked;
use crate::storage::lost::Lost;
use crate::storage::table::{Cursor, Table};
use crate::storage::version::Versions;
use std::path::PathBuf;
use std::sync::Arc;

/// Levels of tables, L0 to L4.
pub const LEVELS: usize = 5;

/// A damaged table.
#[derive(Debug, Clone)]
pub struct Quarantined {
    /// Its number.
    pub id: u64,
    /// Its file.
    pub path: PathBuf,
    /// Bytes of its file.
    pub size: u64,
    /// Its lowest key.
    pub first_key: String,
    /// Its highest key.
    pub last_key: String,
    /// What was found.
    pub cause: String,
    /// The table, if its index can be read: then only keys in damaged blocks are lost.
    pub table: Option<Arc<Table>>,
}

impl Quarantined {
    fn get(&self, key: &[u8], hash: u64, looked: &mut Looked) -> Result<Versions> {
        match &self.table {
            Some(table) => table.get(key, hash, looked),
            None if key < self.first_key.as_bytes() || key > self.last_key.as_bytes() => Ok(Versions::default()),
            None => Err(self.error()),
        }
    }

    /// What is lost with it, where nothing of it can be read.
    #[must_use]
    pub fn lost(&self) -> Lost {
        Lost {
            file: self.path.clone(),
            offset: 0,
            first_key: self.first_key.clone(),
            last_key: self.last_key.clone(),
            cause: self.cause.clone(),
        }
    }

    /// The damage, as an error.
    #[must_use]
    pub fn error(&self) -> Error {
        Error::Corruption {
            file: self.path.clone(),
            offset: 0,
            detail: self.cause.clone(),
        }
    }
}

/// A level, or one table: in key order, without overlap.
pub type Run = Arc<Vec<Arc<Table>>>;

/// The tables of each level.
#[derive(Debug, Clone, Default)]
pub struct TableSet {
    levels: [Run; LEVELS],
    quarantine: Vec<Arc<Quarantined>>,
    debt: Debt,
}

/// What becomes of a set.
#[derive(Debug, Clone, Default)]
pub struct TableChange {
    /// Tables that are new at a level.
    pub added: Vec<(usize, Arc<Table>)>,
    /// Numbers of tables that leave their level.
    pub removed: Vec<u64>,
    /// Tables that are found to be damaged.
    pub quarantined: Vec<Arc<Quarantined>>,
}

impl TableSet {
    /// The set after a change.
    ///
    /// # Errors
    /// When tables of one level below L0 would overlap, or there is no such level, in words for a person.
    pub fn changed(&self, change: &TableChange, options: &LevelOptions) -> Result<Self, String> {
        let mut next = self.clone();
        let at_a_level = |id: &u64| self.all().any(|table| table.id() == *id);
        if let Some(id) = change.removed.iter().find(|id| !at_a_level(id)) {
            // It was set aside meanwhile: what was made of it may hold its damage.
            return Err(format!("table {id} is at no level"));
        }
        for (number, level) in next.levels.iter_mut().enumerate() {
            let concerned = level.iter().any(|table| change.removed.contains(&table.id()))
                || change.added.iter().any(|(to, _)| *to == number);
            if !concerned {
                continue;
            }
            let mut tables: Vec<_> = level
                .iter()
                .filter(|table| !change.removed.contains(&table.id()))
                .cloned()
                .collect();
            tables.extend(
                change
                    .added
                    .iter()
                    .filter(|(to, _)| *to == number)
                    .map(|(_, table)| Arc::clone(table)),
            );
            if number > 0 {
                sort(number, &mut tables)?;
            }
            *level = Arc::new(tables);
        }
        if let Some((level, table)) = change.added.iter().find(|(level, _)| *level >= LEVELS) {
            return Err(format!(
                "table {} is to go to level {level}; there are {LEVELS}",
                table.id()
            ));
        }
        next.quarantine.extend(change.quarantined.iter().cloned());
        next.debt = Debt::of(&next, options);
        Ok(next)
    }

    /// The tables of a level: L0 in the order in which they came, the others in key order.
    #[must_use]
    pub fn level(&self, number: usize) -> &[Arc<Table>] {
        self.levels.get(number).map_or(&[], |level| level.as_slice())
    }

    /// Bytes of the tables of a level.
    #[must_use]
    pub fn level_bytes(&self, number: usize) -> u64 {
        self.level(number).iter().map(|table| table.size()).sum()
    }

    /// Bytes of memory that the indexes and filters of all tables hold, those in quarantine included.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        let aside = self.quarantine.iter().filter_map(|table| table.table.as_ref());
        self.all().chain(aside).map(|table| table.resident_bytes()).sum()
    }

    /// Bytes of files that the keys from `start` up to and without `end` take, by the indexes alone: right but for a block at
    /// each end in each table. Tables that cannot be opened do not count.
    #[must_use]
    pub fn bytes_between(&self, start: &[u8], end: &[u8]) -> u64 {
        let aside = self.quarantine.iter().filter_map(|table| table.table.as_ref());
        let below = self.levels.iter().skip(1).flat_map(|level| {
            let first = level.partition_point(|table| table.range().1.as_bytes() < start);
            let reaches = |table: &&Arc<Table>| table.range().0.as_bytes() < end;
            level.iter().skip(first).take_while(reaches)
        });
        let tables = self.level(0).iter().chain(aside).chain(below);
        tables.map(|table| table.bytes_between(start, end)).sum()
    }

    /// The levels, L0 first.
    pub fn levels(&self) -> impl Iterator<Item = &Run> {
        self.levels.iter()
    }

    /// Damaged tables.
    #[must_use]
    pub fn quarantine(&self) -> &[Arc<Quarantined>] {
        &self.quarantine
    }

    /// How far compaction is behind.
    #[must_use]
    pub fn debt(&self) -> Debt {
        self.debt
    }

    /// All tables that are well, L0 first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.levels.iter().flat_map(|level| level.iter())
    }

    /// All tables that may hold a key, with their levels: those of L0, and one of each level below.
    fn candidates(&self, key: &[u8]) -> impl Iterator<Item = (usize, &Arc<Table>)> {
        let below = self
            .levels
            .iter()
            .enumerate()
            .skip(1)
            .filter_map(move |(number, level)| {
                let place = level.partition_point(|table| table.range().1.as_bytes() < key);
                level.get(place).map(|table| (number, table))
            });
        self.level(0).iter().map(|table| (0, table)).chain(below)
    }

    /// Everything that the tables have for a key.
    ///
    /// # Errors
    /// When a block that may hold it is damaged.
    pub fn get(&self, key: &Key) -> Result<Versions> {
        self.get_noting(key, &mut Looked::default())
    }

    /// As [`TableSet::get`]; adds to `looked` what was looked at for it, as far as it came.
    ///
    /// # Errors
    /// As [`TableSet::get`].
    pub fn get_noting(&self, key: &Key, looked: &mut Looked) -> Result<Versions> {
        let (bytes, hash) = (key.as_bytes(), key.hash64());
        let mut versions = Versions::default();
        for (level, table) in self.candidates(bytes) {
            let found = table.get(bytes, hash, looked)?;
            if !found.is_empty() {
                looked.found_at(level);
            }
            versions = versions.merge(found);
        }
        for table in &self.quarantine {
            let found = table.get(bytes, hash, looked)?;
            looked.in_quarantine |= !found.is_empty();
            versions = versions.merge(found);
        }
        Ok(versions)
    }

    /// Whether any table may hold a key, those that `but` names left out. Wrong at the rate of the filters' false
    /// positives, and never when it says no.
    #[must_use]
    pub fn may_contain(&self, key: &[u8], hash: u64, but: impl Fn(u64) -> bool) -> bool {
        let in_quarantine = self.quarantine.iter().any(|table| match &table.table {
            Some(table) => table.may_contain(key, hash),
            None => key >= table.first_key.as_bytes() && key <= table.last_key.as_bytes(),
        });
        in_quarantine
            || self
                .candidates(key)
                .any(|(_level, table)| !but(table.id()) && table.may_contain(key, hash))
    }

    /// Walks over everything from `from` on, one for each run.
    #[must_use]
    pub fn cursors(&self, from: &[u8]) -> Vec<Cursor> {
        let l0 = self.level(0).iter();
        let aside = self.quarantine.iter().filter_map(|table| table.table.as_ref());
        let below = self.levels.iter().skip(1).filter(|level| !level.is_empty());
        l0.chain(aside)
            .map(|table| Cursor::over(table, from))
            .chain(below.map(|level| Cursor::new(Arc::clone(level), from)))
            .collect()
    }

    /// As [`TableSet::cursors`], without the tables that hold nothing above the sequence number `since`.
    #[must_use]
    pub fn cursors_since(&self, from: &[u8], since: u64) -> Vec<Cursor> {
        if since == 0 {
            return self.cursors(from);
        }
        let newer = |table: &&Arc<Table>| table.may_hold_above(since);
        let aside = self.quarantine.iter().filter_map(|table| table.table.as_ref());
        let single = self.level(0).iter().chain(aside).filter(newer);
        let below = self.levels.iter().skip(1).map(|level| {
            let run: Vec<_> = level.iter().filter(newer).cloned().collect();
            Cursor::new(Arc::new(run), from)
        });
        single.map(|table| Cursor::over(table, from)).chain(below).collect()
    }
}

fn sort(level: usize, tables: &mut [Arc<Table>]) -> Result<(), String> {
    tables.sort_by(|a, b| a.range().0.cmp(b.range().0));
    let overlap = tables
        .iter()
        .zip(tables.iter().skip(1))
        .find(|(a, b)| b.range().0 <= a.range().1);
    match overlap {
        Some((a, b)) => Err(format!("tables {} and {} of L{level} overlap", a.id(), b.id())),
        None => Ok(()),
    }
}
