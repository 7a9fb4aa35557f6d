//! What was looked at to answer for a key: plain counts, for whoever asks why a read took its time.

use std::fmt;

/// Where a key was looked for, and found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// A memtable had it.
    pub in_memtable: bool,
    /// The uppermost level of which a table had it.
    pub level: Option<u8>,
    /// A damaged table had it, which stands aside.
    pub in_quarantine: bool,
    /// Filters that were asked, one a table.
    pub filters: u32,
    /// Those that said no.
    pub excluded: u32,
    /// Data blocks read.
    pub blocks: u32,
}

impl Looked {
    /// Adds what was looked at for another key.
    pub fn add(&mut self, other: &Self) {
        self.in_memtable |= other.in_memtable;
        self.in_quarantine |= other.in_quarantine;
        self.level = self.level.into_iter().chain(other.level).min();
        self.filters = self.filters.saturating_add(other.filters);
        self.excluded = self.excluded.saturating_add(other.excluded);
        self.blocks = self.blocks.saturating_add(other.blocks);
    }

    /// Takes note that a table of a level had it.
    pub fn found_at(&mut self, level: usize) {
        let level = u8::try_from(level).unwrap_or(u8::MAX);
        self.level = Some(self.level.map_or(level, |before| before.min(level)));
    }

    /// Where it was found, in words.
    #[must_use]
    pub fn source(&self) -> &'static str {
        match (self.in_memtable, self.level, self.in_quarantine) {
            (true, None, false) => "memtable",
            (false, Some(_), false) => "table",
            (false, None, true) => "quarantine",
            (false, None, false) => "none",
            _ => "several",
        }
    }
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.source())?;
        if let Some(level) = self.level {
            write!(f, ", level {level}")?;
        }
        let (filters, excluded, blocks) = (self.filters, self.excluded, self.blocks);
        write!(f, ", {filters} filters of which {excluded} said no, {blocks} blocks")
    }
}
