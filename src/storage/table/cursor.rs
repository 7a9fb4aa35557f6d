//! Walks tables forward, entry by entry, as they are encoded.
//!
//! Owns: the position in a run of tables that do not overlap: one table, or a whole level. Does not own: the merge of
//! several runs (see [`crate::storage::merger`]). A block is copied and unpacked when the walk comes to it, so that what it
//! hands over stays as it was checked; a table is touched not before.

use super::block::BlockIter;
use super::reader::Table;
use crate::storage::error::{Error, Result};
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

    /// Moves to the next entry; `false` at the end.
    ///
    /// # Errors
    /// When a block is damaged. Nothing after it can be trusted to be next, so the walk ends.
    pub fn advance(&mut self) -> Result<bool> {
        let moved = self.try_advance();
        if moved.is_err() {
            self.block = None;
            self.table = usize::MAX;
        }
        moved
    }

    fn try_advance(&mut self) -> Result<bool> {
        while let Some(table) = self.run.get(self.table) {
            if let Some(iter) = &mut self.block {
                let stood_in = self.next_block.saturating_sub(1);
                if iter.advance().map_err(|detail| table.damage(stood_in, detail))? {
                    return Ok(true);
                }
            }
            match table.block_copy(self.next_block, self.verifying)? {
                Some(block) => {
                    self.block = Some(block.seek(&self.from));
                    self.from.clear();
                    self.next_block += 1;
                }
                None => {
                    self.block = None;
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
