//! Reads a whole table and says everything that is wrong with it.
//!
//! Owns: the checks that an ordinary read does not make, because they need the whole: order, counts, and that the filter
//! lets every key pass. Does not own: what becomes of a damaged table (see [`crate::storage::tables`]).

use super::filter;
use super::reader::Table;
use crate::storage::error::{Error, Result};
use crate::storage::key::{Key, hash64};
use bytes::Bytes;

/// What a check of one table found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Keys that are well.
    pub keys: u64,
    /// Data blocks read.
    pub blocks: u64,
    /// Everything that is not as it was written.
    pub damage: Vec<Error>,
}

impl Table {
    /// Reads every block from the file, whether it was verified before or not, and checks everything in it. `paced` is
    /// called with the bytes read after each block; it may wait, and ends the check by an error.
    ///
    /// # Errors
    /// That of `paced`. Damage is no error here: it is what was looked for.
    pub fn check(&self, mut paced: impl FnMut(u64) -> Result<()>) -> Result<Findings> {
        let mut findings = Findings::default();
        let mut last_key: Vec<u8> = Vec::new();
        for number in 0..self.index.len() {
            match self.check_block(number, &mut last_key) {
                Ok(keys) => findings.keys += keys,
                Err(error) => findings.damage.push(error),
            }
            findings.blocks += 1;
            paced(self.index.place(number).map_or(0, |place| place.length))?;
        }
        let told = self.properties();
        let comparable = self.has_properties && findings.damage.is_empty();
        if comparable && (findings.keys != told.keys || last_key != told.last_key.as_bytes()) {
            let detail = format!(
                "the table holds {} keys; its properties say {} with the last {:?}",
                findings.keys, told.keys, told.last_key
            );
            findings.damage.push(self.damage(self.index.len(), &detail));
        }
        Ok(findings)
    }

    fn check_block(&self, number: usize, last_key: &mut Vec<u8>) -> Result<u64> {
        let Some(block) = self.block_copy(number, true)? else {
            return Ok(0);
        };
        let damage = |detail: &str| self.damage(number, detail);
        let mut iter = block.seek(&[]);
        let mut keys = 0;
        while iter.advance().map_err(damage)? {
            let key = iter.key();
            if std::str::from_utf8(key).ok().and_then(Key::from_stored).is_none() {
                return Err(damage("a key is not of the form tenant:key"));
            }
            if key <= last_key.as_slice() {
                return Err(damage("keys are out of order"));
            }
            if !filter::may_contain(&self.filter, hash64(key)) {
                return Err(damage("the filter excludes a key that is there"));
            }
            self.decode(number, iter.value(), |_value| Bytes::new())?;
            key.clone_into(last_key);
            keys += 1;
        }
        if self.index.last_key(number) != Some(last_key.as_slice()) {
            return Err(damage("the index names another last key"));
        }
        Ok(keys)
    }
}
