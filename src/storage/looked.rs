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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_at_for_several_keys_is_told_together() {
        let mut looked = Looked::default();
        assert_eq!(looked.source(), "none");
        looked.found_at(3);
        looked.found_at(1);
        looked.found_at(2);
        assert_eq!((looked.source(), looked.level), ("table", Some(1)));
        let of_another = |level, in_memtable, in_quarantine| Looked {
            in_memtable,
            in_quarantine,
            level,
            filters: 5,
            excluded: 3,
            blocks: 2,
        };
        looked.add(&of_another(Some(4), false, false));
        assert_eq!((looked.source(), looked.level), ("table", Some(1)));
        assert_eq!((looked.filters, looked.excluded, looked.blocks), (5, 3, 2));
        let with_another = |other: Looked| {
            let mut both = looked;
            both.add(&other);
            (both.source(), both.level, both.filters, both.excluded, both.blocks)
        };
        assert_eq!(
            with_another(of_another(None, true, false)),
            ("several", Some(1), 10, 6, 4)
        );
        assert_eq!(
            with_another(of_another(Some(0), false, true)),
            ("several", Some(0), 10, 6, 4)
        );
        assert_eq!(of_another(None, false, true).source(), "quarantine");
        assert_eq!(of_another(None, true, false).source(), "memtable");
    }
}
