//! A table, block by block or in one line.
//!
//! Owns: how its parts and its entries are shown. Does not own: reading them (see [`crate::storage::table`]).

use super::output::{date, key, level_name};
use super::{Inspection, Stop};
use crate::storage::error::Error;
use crate::storage::fs::{FileSystem, RealFs};
use crate::storage::manifest::State;
use crate::storage::table::{self, Layout, Table};
use crate::storage::version::Versions;
use bytes::Bytes;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

impl<W: Write> Inspection<'_, W> {
    pub(super) fn table(&mut self, path: &Path) -> Result<(), Stop> {
        // The level and the number that a table has in the manifest are not in its file.
        let content = read_table(path)?;
        writeln!(self.out, "table {}", path.display())?;
        writeln!(self.out, "  size         {} bytes", content.len())?;
        writeln!(self.out, "  level        not in the file; the manifest says it")?;
        let layout = Layout::read(path, &content)?;
        writeln!(self.out, "  version      {}", layout.version)?;
        for (name, place) in [
            ("index", layout.index),
            ("filter", layout.filter),
            ("properties", layout.properties),
        ] {
            let (length, offset) = (place.length, place.offset);
            writeln!(self.out, "  {name:<12} {length} bytes at {offset}")?;
        }
        let (table, damage) = Table::read(path.to_path_buf(), 0, content, &Arc::default())?;
        for error in &damage {
            self.damaged(error)?;
        }
        self.properties(&table)?;
        writeln!(self.out, "  data blocks  {}", table.blocks())?;
        let findings = table.check(|_bytes| Ok(()))?;
        for error in &findings.damage {
            self.damaged(error)?;
        }
        if self.args.entries {
            self.entries(&table)?;
        }
        match self.damage {
            0 => writeln!(self.out, "end: every block is well, {} keys", findings.keys)?,
            _ => writeln!(self.out, "end: {} keys are well", findings.keys)?,
        }
        Ok(())
    }

    fn properties(&mut self, table: &Table) -> Result<(), Stop> {
        let properties = table.properties();
        if properties.last_key.is_empty() {
            return Ok(());
        }
        let (first, last) = table.range();
        writeln!(
            self.out,
            "  keys         {}, {} to {}",
            properties.keys,
            key(first),
            key(last)
        )?;
        writeln!(
            self.out,
            "  versions     {}, tombstones among them: {}",
            properties.versions, properties.tombstones
        )?;
        writeln!(
            self.out,
            "  seqs         {} to {}",
            properties.min_seq, properties.max_seq
        )?;
        if properties.oldest_tombstone_ms > 0 {
            writeln!(self.out, "  oldest tombstone {}", date(properties.oldest_tombstone_ms))?;
        }
        let (probes, bits) = table.filter_shape();
        let a_key = bits as f64 / properties.keys.max(1) as f64;
        writeln!(self.out, "  filter bits  {a_key:.1} a key, {probes} probes")?;
        Ok(())
    }

    fn entries(&mut self, table: &Table) -> Result<(), Stop> {
        let mut shown = 0;
        for number in 0..table.blocks() {
            let place = table.block_place(number).unwrap_or_default();
            // The check has named it.
            let Ok(entries) = table.entries(number) else {
                writeln!(
                    self.out,
                    "block at {} of {} bytes passed over",
                    place.offset, place.length
                )?;
                continue;
            };
            for (stored, versions) in entries {
                if !self.within_limit(shown) {
                    return Ok(writeln!(self.out, "(more entries)")?);
                }
                shown += 1;
                self.entry(&String::from_utf8_lossy(&stored), &versions)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, stored: &str, versions: &Versions) -> Result<(), Stop> {
        for version in versions.all() {
            write!(self.out, "{}  seq {}  ", key(stored), version.seq)?;
            self.version(version)?;
        }
        Ok(())
    }
}

/// A table is never changed under its name, so it can be mapped.
fn read_table(path: &Path) -> Result<Bytes, Stop> {
    RealFs.read(path).map_err(|e| Stop::Damage(Error::io("read", path, e)))
}

fn file_table_id(path: &Path) -> Option<u64> {
    table::id_of(path.file_name()?.to_str()?)
}

pub(super) fn table_line(path: &Path, state: Option<&State>) -> Result<String, Stop> {
    let id = file_table_id(path);
    let (table, damage) = Table::read(
        path.to_path_buf(),
        id.unwrap_or_default(),
        read_table(path)?,
        &Arc::default(),
    )?;
    if let Some(error) = damage.into_iter().next() {
        return Err(error.into());
    }
    if let Some(error) = table.check(|_bytes| Ok(()))?.damage.into_iter().next() {
        return Err(error.into());
    }
    let level = match (state, id) {
        (None, _) | (_, None) => "level unknown".to_owned(),
        (Some(state), Some(id)) => state.tables.get(&id).map_or_else(
            || "not named by the manifest".to_owned(),
            |record| level_name(record.level),
        ),
    };
    let properties = table.properties();
    let (first, last) = table.range();
    Ok(format!(
        "table, {level}, {} bytes, {} keys {} to {}, {} versions, {} tombstones, seqs {} to {}",
        table.size(),
        properties.keys,
        key(first),
        key(last),
        properties.versions,
        properties.tombstones,
        properties.min_seq,
        properties.max_seq
    ))
}
