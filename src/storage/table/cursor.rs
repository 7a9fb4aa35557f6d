//! Walks tables forward, entry by entry, as they are encoded.
//!
//! Owns: the position in a run of tables that do not overlap: one table, or a whole level. Does not own: the merge of
//! several runs (see [`crate::storage::merger`]). A walk ends at damage, or goes past it where it is told to, and says so. A block is copied and unpacked when the walk comes to it, so that what it
//! hands over stays as it was checked; a table is touched not before.

use super::block::BlockIter;
use super::reader::Table;
use crate::storage::error::{Error, Result};
use crate::storage::lost::Lost;
use crate::storage::version::Versions;
use std::path::Path;
use std::sync::Arc;

/// A position in a run.
#[derive(Debug)]
pub struct Cursor {
    /// Tables in key order, without overlap.
    run: Arc<Vec<Arc<Table>>>,
    table: usize,
    /// Number of the block after the one stood in.
    next_block: usize,
    block: Option<BlockIter>,
    /// Where the walk begins; empty once it has.
    from: Vec<u8>,
    /// Every block is verified, not only when it is read for the first time.
    verifying: bool,
    /// What it went past; [`None`]: it ends at damage.
    lost: Option<Vec<Lost>>,
}

impl Cursor {
    /// Before the first entry of `run` whose key is at least `from`. The tables must be in key order and not overlap.
    #[must_use]
    pub fn new(run: Arc<Vec<Arc<Table>>>, from: &[u8]) -> Self {
        let table = run.partition_point(|table| table.range().1.as_bytes() < from);
        let next_block = run.get(table).map_or(0, |table| table.block_for(from));
        Self {
            run,
            table,
            next_block,
            block: None,
            from: from.to_vec(),
            verifying: false,
            lost: None,
        }
    }

    /// Before the first entry of one table whose key is at least `from`.
    #[must_use]
    pub fn over(table: &Arc<Table>, from: &[u8]) -> Self {
        Self::new(Arc::new(vec![Arc::clone(table)]), from)
    }

    /// Verifies every block, also those that were read before: what is written again must not make damage pass for data.
    #[must_use]
    pub fn verifying(mut self) -> Self {
        self.verifying = true;
        self
    }

    /// Goes past damaged blocks, and takes note of them.
    #[must_use]
    pub fn past_damage(mut self) -> Self {
        self.lost = Some(Vec::new());
        self
    }

    /// What it went past so far.
    #[must_use]
    pub fn lost(&self) -> &[Lost] {
        self.lost.as_deref().unwrap_or_default()
    }

    /// Moves to the next entry; `false` at the end.
    ///
    /// # Errors
    /// When a block is damaged, and not gone past. Nothing after it can be trusted to be next, so the walk ends.
    pub fn advance(&mut self) -> Result<bool> {
        loop {
            match self.try_advance() {
                Err(error) if self.go_past(&error) => {}
                Err(error) => {
                    self.block = None;
                    self.table = usize::MAX;
                    return Err(error);
                }
                moved => return moved,
            }
        }
    }

    /// Leaves the block that is damaged, if that is wanted.
    fn go_past(&mut self, error: &Error) -> bool {
        let (Some(lost), Some(table)) = (&mut self.lost, self.run.get(self.table)) else {
            return false;
        };
        // One that could not be opened is still the next.
        let number = match self.block.take() {
            Some(_) => self.next_block.saturating_sub(1),
            None => self.next_block,
        };
        self.next_block = number + 1;
        lost.push(table.lost_block(number, error));
        true
    }

    fn try_advance(&mut self) -> Result<bool> {
        while let Some(table) = self.run.get(self.table) {
            if let Some(iter) = &mut self.block {
                let stood_in = self.next_block.saturating_sub(1);
                if iter.advance().map_err(|detail| table.damage(stood_in, detail))? {
                    return Ok(true);
                }
            }
            self.block = None;
            match table.block_copy(self.next_block, self.verifying)? {
                Some(block) => {
                    self.block = Some(block.seek(&self.from));
                    self.from.clear();
                    self.next_block += 1;
                }
                None => {
                    self.next_block = 0;
                    self.table += 1;
                }
            }
        }
        Ok(false)
    }

    /// The key stood on; empty before the first and behind the last entry.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], BlockIter::key)
    }

    /// The versions stood on, encoded.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], BlockIter::value)
    }

    /// The versions stood on. Their values are slices of the block, and keep it in memory.
    ///
    /// # Errors
    /// When they do not decode.
    pub fn versions(&self) -> Result<Versions> {
        let (Some(table), Some(iter)) = (self.run.get(self.table), &self.block) else {
            return Ok(Versions::default());
        };
        let block = iter.bytes();
        table.decode(self.next_block.saturating_sub(1), iter.value(), |value| {
            block.slice_ref(value)
        })
    }

    /// An error that names the block stood in.
    #[must_use]
    pub fn damage(&self, detail: &str) -> Error {
        match self.run.get(self.table) {
            Some(table) => table.damage(self.next_block.saturating_sub(1), detail),
            None => Error::corruption(Path::new("a table"), 0, detail),
        }
    }
}
