//! A manifest, edit by edit or in one line, and what it says of tables that are not there.
//!
//! Owns: how edits and the state after them are shown. Does not own: reading them (see [`crate::storage::manifest`]).

use super::output::{counted, key, level_name};
use super::{Inspection, Stop, read_copy};
use crate::storage::error::Error;
use crate::storage::levels::LEVELS;
use crate::storage::manifest::{self, Edit, QUARANTINE, State, TableRecord};
use crate::storage::table;
use std::io::Write;
use std::path::Path;

impl<W: Write> Inspection<'_, W> {
    pub(super) fn manifest(&mut self, path: &Path) -> Result<(), Stop> {
        let content = read_copy(path)?;
        writeln!(self.out, "manifest {}", path.display())?;
        writeln!(self.out, "  size         {} bytes", content.len())?;
        let (version, _) = manifest::HEADER.open(path, &content, 0, 0)?;
        writeln!(self.out, "  version      {version}")?;
        let mut state = State::default();
        let walked = manifest::edits(path, &content, |at, edit| {
            writeln!(self.out, "at {at:<10} {}", edit_line(edit))?;
            let applied = state.apply(edit);
            applied.map_err(|detail| Stop::Damage(Error::corruption(path, at as u64, detail)))
        });
        // What the edits before the damage say is worth to be seen.
        self.state(&state)?;
        let end = walked?;
        let (valid, torn) = (end.valid_len, end.torn_bytes());
        if end.was_whole {
            let detail = "the last edit's checksum does not match, although all of it is there";
            return Err(Error::corruption(path, valid, detail).into());
        }
        match torn {
            0 => writeln!(self.out, "end at {valid}: clean")?,
            _ => writeln!(
                self.out,
                "end at {valid}: a torn tail of {torn} bytes, an edit that was interrupted or is under way"
            )?,
        }
        Ok(())
    }

    fn state(&mut self, state: &State) -> Result<(), Stop> {
        writeln!(
            self.out,
            "state: {} tables, flushed up to seq {}, next table {}",
            state.tables.len(),
            state.flushed_seq,
            state.next_id
        )?;
        for level in (0..LEVELS as u8).chain([QUARANTINE]) {
            let mut tables: Vec<_> = state.tables.values().filter(|table| table.level == level).collect();
            // L0 in the order in which its tables came, the others by key.
            if level > 0 {
                tables.sort_by(|a, b| a.first_key.cmp(&b.first_key));
            }
            if tables.is_empty() {
                continue;
            }
            let bytes: u64 = tables.iter().fold(0, |sum, table| sum.saturating_add(table.size));
            writeln!(
                self.out,
                "  {}: {}, {bytes} bytes",
                level_name(level),
                counted(tables.len() as u64, "table")
            )?;
            for table in tables {
                writeln!(self.out, "    {}", table_words(table))?;
            }
        }
        Ok(())
    }

    /// Names the tables of a manifest that are not there. The manifest is read before and after each is looked for: a
    /// running node may have replaced the table meanwhile.
    pub(super) fn missing_tables(&mut self, manifest: &Path) -> Result<(), Stop> {
        let dir = manifest.parent().unwrap_or(Path::new("."));
        let named = || {
            manifest_line(manifest)
                .map(|(_, state)| state.tables)
                .unwrap_or_default()
        };
        for id in named().keys() {
            let path = table::path(dir, *id);
            if !path.exists() && named().contains_key(id) {
                let detail = "the manifest names this table, and there is no such file";
                self.damaged(&Error::corruption(&path, 0, detail))?;
            }
        }
        Ok(())
    }
}

pub(super) fn manifest_line(path: &Path) -> Result<(String, State), Stop> {
    let content = read_copy(path)?;
    let mut state = State::default();
    let mut edits = 0_u64;
    let end = manifest::edits(path, &content, |at, edit| {
        edits += 1;
        let applied = state.apply(edit);
        applied.map_err(|detail| Error::corruption(path, at as u64, detail))
    })?;
    if end.was_whole {
        let detail = "the last edit's checksum does not match, although all of it is there";
        return Err(Error::corruption(path, end.valid_len, detail).into());
    }
    let line = format!(
        "manifest, {} bytes, {edits} edits, {} tables, flushed up to seq {}, next table {}",
        end.len,
        state.tables.len(),
        state.flushed_seq,
        state.next_id
    );
    Ok((line, state))
}

fn edit_line(edit: &Edit) -> String {
    let mut parts = Vec::new();
    if !edit.removed.is_empty() {
        let removed: Vec<String> = edit.removed.iter().map(u64::to_string).collect();
        parts.push(format!("removes tables {}", removed.join(", ")));
    }
    for table in &edit.added {
        parts.push(format!("adds to {} {}", level_name(table.level), table_words(table)));
    }
    if edit.flushed_seq > 0 {
        parts.push(format!("flushed up to seq {}", edit.flushed_seq));
    }
    parts.push(format!("next table {}", edit.next_id));
    parts.join("; ")
}

fn table_words(table: &TableRecord) -> String {
    // Version 1 knew neither size nor keys.
    if table.last_key.is_empty() {
        return format!("table {}", table.id);
    }
    let (first, last) = (key(&table.first_key), key(&table.last_key));
    format!("table {}, {} bytes, keys {first} to {last}", table.id, table.size)
}
