//! What a storage engine must do to be compared.
//!
//! Owns: the trait and the settings that all engines get alike. Does not own: how an engine obeys them (each driver's
//! file).

use std::path::Path;

/// Any failure ends the run: a figure of an engine that failed says nothing.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Threads that flush and compact, in every engine.
pub const BACKGROUND_THREADS: usize = 2;

/// How an engine is opened.
pub struct Settings<'a> {
    /// Its directory; exists, and is empty or was left by the same engine.
    pub dir: &'a Path,
    /// Whether a put returns only when a power loss could not take it.
    pub sync: bool,
    /// Bytes of one memtable.
    pub write_buffer: usize,
    /// Bytes of its cache of blocks or rows.
    pub cache: usize,
}

/// An open engine, called by many threads. Dropping it closes it.
pub trait Engine: Send + Sync {
    /// Writes a value, blindly.
    fn put(&self, key: &str, value: &[u8]) -> Result<()>;

    /// The length of the key's value. The value must have been read, not its length alone.
    fn get(&self, key: &str) -> Result<Option<usize>>;

    /// Reads up to `limit` entries, with their values, in key order from `from` on. Returns how many there were.
    fn scan(&self, from: &str, limit: usize) -> Result<usize>;

    /// Flushes, and waits until nothing is left to compact.
    fn settle(&self) -> Result<()>;
}

/// A kind of engine.
pub struct Driver {
    /// As in the table and in `--engine`.
    pub name: &'static str,
    /// Opens one.
    pub open: fn(&Settings) -> Result<Box<dyn Engine>>,
}
