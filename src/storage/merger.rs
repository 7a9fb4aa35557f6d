//! Merges several runs of tables into one walk in key order.
//!
//! Owns: which run stands on the least key. Does not own: what becomes of the versions that several runs have for a key.
//!
//! The runs are kept sorted by the key that they stand on. In a level that holds most of the data most steps leave it
//! first, so that a step costs one or two comparisons, whatever the number of runs.

use crate::storage::error::{Error, Result};
use crate::storage::lost::Lost;
use crate::storage::table::Cursor;
use crate::storage::version::Versions;

/// A walk over several runs.
#[derive(Debug)]
pub struct Merger {
    cursors: Vec<Cursor>,
    /// Numbers of the cursors that stand on an entry, the least key last.
    order: Vec<usize>,
    /// How many of them, from the last on, stand on the least key.
    together: usize,
    /// A run ended in damage: what it has next is unknown, and so is what comes next.
    damage: Option<Error>,
}

impl Merger {
    /// Starts all runs. Damage that is met at once is reported by the first [`Merger::key`].
    #[must_use]
    pub fn new(cursors: Vec<Cursor>) -> Self {
        let mut merger = Self {
            order: Vec::with_capacity(cursors.len()),
            together: 0,
            cursors,
            damage: None,
        };
        for number in 0..merger.cursors.len() {
            merger.step(number);
        }
        merger.count_together();
        merger
    }

    /// Moves a cursor that is not in `order`, and puts it where it belongs.
    fn step(&mut self, number: usize) {
        let Some(cursor) = self.cursors.get_mut(number) else {
            return;
        };
        match cursor.advance() {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                self.damage.get_or_insert(error);
                return;
            }
        }
        let mut place = self.order.len();
        while let Some(before) = place.checked_sub(1) {
            let smaller = self
                .order
                .get(before)
                .is_some_and(|other| self.key_of(*other) < self.key_of(number));
            if !smaller {
                break;
            }
            place = before;
        }
        self.order.insert(place, number);
    }

    fn count_together(&mut self) {
        let mut descending = self.order.iter().rev().map(|number| self.key_of(*number));
        self.together = match descending.next() {
            Some(least) => 1 + descending.take_while(|key| *key == least).count(),
            None => 0,
        };
    }

    fn key_of(&self, number: usize) -> &[u8] {
        self.cursors.get(number).map_or(&[], Cursor::key)
    }

    /// The least key that any run stands on; [`None`] at the end.
    ///
    /// # Errors
    /// When a block is damaged that may hold it.
    pub fn key(&mut self) -> Result<Option<&[u8]>> {
        match self.damage.take() {
            Some(error) => Err(error),
            None => Ok(self.order.last().map(|number| self.key_of(*number))),
        }
    }

    /// The runs that stand on the least key.
    pub fn standing(&self) -> impl Iterator<Item = &Cursor> {
        let standing = self.order.iter().rev().take(self.together);
        standing.filter_map(|number| self.cursors.get(*number))
    }

    /// What the runs went past, where they go past damage.
    pub fn lost(&self) -> impl Iterator<Item = &Lost> {
        self.cursors.iter().flat_map(Cursor::lost)
    }

    /// Everything that the runs have for the least key.
    ///
    /// # Errors
    /// When it does not decode.
    pub fn versions(&self) -> Result<Versions> {
        self.standing()
            .try_fold(Versions::default(), |known, cursor| Ok(known.merge(cursor.versions()?)))
    }

    /// Moves every run that stands on the least key.
    pub fn advance(&mut self) {
        for _ in 0..self.together {
            // One that has moved stands on a greater key, and so before those that are still to move.
            if let Some(number) = self.order.pop() {
                self.step(number);
            }
        }
        self.count_together();
    }
}
