//! What a walk over tables goes past, since it cannot be read.
//!
//! Owns: the words for it, and where to look again. Does not own: the walk (see [`crate::storage::scan`]), or what becomes of a
//! damaged table.

use std::fmt;
use std::path::PathBuf;

/// A damaged block, or a table of which nothing can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes from its start.
    pub offset: u64,
    /// No key before this one is lost here.
    pub first_key: String,
    /// Nor one behind this.
    pub last_key: String,
    /// What was found.
    pub cause: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        let (first, last, at, cause) = (&self.first_key, &self.last_key, self.offset, &self.cause);
        write!(f, "{file} at byte {at}, keys from {first:?} to {last:?}: {cause}")
    }
}
