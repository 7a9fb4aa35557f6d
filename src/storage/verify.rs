//! Reads everything that an engine has on disk, and says all that is wrong with it.
//!
//! Owns: what belongs together (the manifest and its tables, the levels' order, the segments of the log, the log and the
//! tables), and the list of what was found. Does not own: the judgement of one file (each file's module does), or locks.
//! Changes nothing. A running node, whose log and manifest are being written, knows up to where they are durable, and checks
//! its tables one by one and its manifest by [`check_manifest`].

use crate::storage::drain_mark;
use crate::storage::error::{Error, Result};
use crate::storage::fs::FileSystem;
use crate::storage::levels::LEVELS;
use crate::storage::log;
use crate::storage::log::reader::Segment;
use crate::storage::manifest::{self, QUARANTINE, State, TableRecord};
use crate::storage::recovery::{Options, flushed_leftovers};
use crate::storage::remembered;
use crate::storage::stream_records;
use crate::storage::table::{self, ReadCounts, Table};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One place where a file is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in the file, in bytes from its start; 0 also when the file as a whole is meant.
    pub offset: u64,
    /// What was found, in words for a person.
    pub detail: String,
}

impl Damage {
    /// What an error that reading `file` met says; it may name another file.
    #[must_use]
    pub fn of(file: &Path, error: Error) -> Self {
        let (file, offset, detail) = match error {
            Error::Corruption { file, offset, detail } => (file, offset, detail),
            Error::Format { file, detail } => (file, 0, detail),
            Error::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                (path, 0, "the file is missing".to_owned())
            }
            other => (file.to_path_buf(), 0, other.to_string()),
        };
        Self { file, offset, detail }
    }
}

/// Something that a crash leaves in the order of things, and the next start removes or passes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The file.
    pub file: PathBuf,
    /// What there is to know about it.
    pub detail: String,
}

/// What was read, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Tables among the files.
    pub tables: u64,
    /// Keys in tables that are well; one that several tables hold counts in each.
    pub keys: u64,
    /// Log segments among the files.
    pub segments: u64,
    /// Changes in the log.
    pub changes: u64,
    /// Everything that is not as it was written.
    pub damage: Vec<Damage>,
    /// What is no damage, but worth to be known.
    pub notes: Vec<Note>,
}

/// Why the walk over a segment ended early.
enum Stop {
    Damage(Error),
    Paced(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Damage(error)
    }
}

/// Reads every file of an engine that is not running. `paced` is called with the bytes read now and then; it may wait, and
/// ends the verification by an error.
///
/// # Errors
/// When a directory cannot be listed, or that of `paced`. Damage is no error here: it is what was looked for.
pub fn verify(
    fs: &dyn FileSystem,
    options: &Options,
    mut paced: impl FnMut(u64) -> Result<()>,
) -> Result<Verification> {
    let mut found = Verification::default();
    found.drain_mark(fs, &options.data_dir);
    found.streams(fs, &options.data_dir);
    let state = found.manifest(fs, &options.sstable_dir)?;
    found.tables(fs, &options.sstable_dir, state.as_ref(), &mut paced)?;
    let flushed = state.map(|state| state.flushed_seq);
    found.log(fs, &options.log.dir, flushed, &mut paced)?;
    Ok(found)
}

/// Reads the manifest of a running engine as a recovery would, and checks that it says what the engine knows: `state`, in
/// the file's first `durable` bytes. [`None`]: a failure left open what the file holds beyond what a recovery needs. Nobody
/// may write it meanwhile. Returns the bytes read.
///
/// # Errors
/// When it is damaged or cannot be read.
pub fn check_manifest(fs: &dyn FileSystem, dir: &Path, state: &State, durable: Option<u64>) -> Result<u64> {
    let Some(durable) = durable else {
        return manifest::load_to_end(fs, dir).map(|(_state, end)| end.len);
    };
    let path = dir.join(manifest::NAME);
    let file = fs.read(&path).map_err(|e| Error::io("read", &path, e))?;
    let Some(content) = usize::try_from(durable).ok().and_then(|len| file.get(..len)) else {
        let detail = format!("{durable} bytes of it were durable once; the file is shorter");
        return Err(Error::corruption(&path, file.len() as u64, detail));
    };
    let mut read = State::default();
    let end = manifest::edits(&path, content, |at, edit| {
        let applied = read.apply(edit);
        applied.map_err(|detail| Error::corruption(&path, at as u64, detail))
    })?;
    if end.torn_bytes() > 0 {
        return Err(Error::corruption(
            &path,
            end.valid_len,
            "an edit's checksum does not match",
        ));
    }
    if read != *state {
        let detail = "it is whole, but says something else than the node that runs on it: the file was replaced";
        return Err(Error::corruption(&path, 0, detail));
    }
    Ok(durable)
}

/// The names in a directory, in order.
fn list(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<String>> {
    let mut names = fs.list(dir).map_err(|e| Error::io("list", dir, e))?;
    names.sort();
    Ok(names)
}

impl Verification {
    /// Reads every block of a table and checks everything in it. `paced` is as for [`verify`].
    ///
    /// # Errors
    /// That of `paced`.
    pub fn check_table(&mut self, table: &Table, paced: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let findings = table.check(paced)?;
        self.files += 1;
        self.tables += 1;
        self.bytes += table.size();
        self.keys += findings.keys;
        for error in findings.damage {
            self.damaged(table.path(), error);
        }
        Ok(())
    }

    /// Takes an error that reading `file` met for damage.
    fn damaged(&mut self, file: &Path, error: Error) {
        self.damage.push(Damage::of(file, error));
    }

    fn note(&mut self, file: PathBuf, detail: impl Into<String>) {
        let detail = detail.into();
        self.notes.push(Note { file, detail });
    }

    /// Reads the mark of a node that takes no writes, if there is one.
    fn drain_mark(&mut self, fs: &dyn FileSystem, dir: &Path) {
        match drain_mark::load(fs, dir) {
            Ok(None) => return,
            Ok(Some(_since_ms)) => self.note(
                dir.join(drain_mark::NAME),
                "the node takes no writes (pairdb-node undrain)",
            ),
            Err(error) => self.damage.push(Damage::of(&dir.join(drain_mark::NAME), error)),
        }
        self.files += 1;
    }

    /// Reads what is kept of the streams to other nodes, if there are any.
    fn streams(&mut self, fs: &dyn FileSystem, dir: &Path) {
        let path = dir.join(stream_records::NAME);
        match stream_records::load(fs, dir) {
            Ok(records) if records.is_empty() => return,
            Ok(records) => {
                let targets: Vec<_> = records.iter().map(|record| record.target.as_str()).collect();
                self.note(path, format!("the node streams to: {}", targets.join(", ")));
            }
            Err(error) => self.damaged(&path, error),
        }
        self.files += 1;
    }

    /// Reads the manifest; [`None`] when it is too damaged to say which tables there are.
    fn manifest(&mut self, fs: &dyn FileSystem, dir: &Path) -> Result<Option<State>> {
        let path = dir.join(manifest::NAME);
        if list(fs, dir)?.iter().any(|name| name == manifest::NAME) {
            self.files += 1;
        }
        let (state, end) = match manifest::load_to_end(fs, dir) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.damaged(&path, error);
                return Ok(None);
            }
        };
        self.bytes += end.len;
        if end.was_whole {
            let detail = "the last edit's checksum does not match, although all of it is there";
            self.damaged(&path, Error::corruption(&path, end.valid_len, detail));
        } else if end.torn_bytes() > 0 {
            let detail = format!("ends in {} bytes of an edit that a crash interrupted", end.torn_bytes());
            self.note(path, detail);
        }
        Ok(Some(state))
    }

    /// Checks every table that the manifest names, and their order. Without a manifest, every table that there is.
    fn tables(
        &mut self,
        fs: &dyn FileSystem,
        dir: &Path,
        state: Option<&State>,
        paced: &mut impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut ranges = Vec::new();
        for record in state.iter().flat_map(|state| state.tables.values()) {
            ranges.push(self.named_table(fs, dir, record, paced)?);
        }
        self.check_order(dir, ranges);
        for name in list(fs, dir)? {
            let path = dir.join(&name);
            match (table::id_of(&name), state) {
                (Some(id), Some(state)) if !state.tables.contains_key(&id) => {
                    self.note(path, "the manifest does not name this table; the next start removes it");
                }
                (Some(id), None) => {
                    if let Some(table) = self.open_table(fs, dir, id) {
                        self.check_table(&table, &mut *paced)?;
                    }
                }
                _ if name.ends_with(".tmp") => {
                    self.note(path, "left by an interrupted write; the next start removes it")
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn open_table(&mut self, fs: &dyn FileSystem, dir: &Path, id: u64) -> Option<Table> {
        match Table::open(fs, dir, id, &Arc::new(ReadCounts::default())) {
            Ok(table) => Some(table),
            Err(error) => {
                let path = table::path(dir, id);
                if let Ok(content) = fs.read(&path) {
                    self.files += 1;
                    self.tables += 1;
                    self.bytes += content.len() as u64;
                }
                self.damaged(&path, error);
                None
            }
        }
    }

    /// Checks a table, and that it is the one that the manifest means. Returns what is known of its place.
    fn named_table(
        &mut self,
        fs: &dyn FileSystem,
        dir: &Path,
        record: &TableRecord,
        paced: &mut impl FnMut(u64) -> Result<()>,
    ) -> Result<TableRecord> {
        let Some(table) = self.open_table(fs, dir, record.id) else {
            return Ok(record.clone());
        };
        let damage_before = self.damage.len();
        self.check_table(&table, paced)?;
        let (first_key, last_key) = table.range();
        let actual = TableRecord {
            id: record.id,
            level: record.level,
            size: table.size(),
            first_key: first_key.to_owned(),
            last_key: last_key.to_owned(),
        };
        // Version 1 of the manifest knew neither size nor range.
        if !record.last_key.is_empty() && actual != *record {
            let detail = format!(
                "it has {} bytes and keys {:?} to {:?}; the manifest says {} bytes and keys {:?} to {:?}",
                actual.size, actual.first_key, actual.last_key, record.size, record.first_key, record.last_key
            );
            self.damaged(table.path(), Error::corruption(table.path(), 0, detail));
        }
        if record.level == QUARANTINE && self.damage.len() == damage_before {
            let path = table.path().to_path_buf();
            self.note(
                path,
                "stands aside as damaged, but is well; the next start takes it back",
            );
        }
        Ok(actual)
    }

    /// Checks that the tables of a level below L0 do not overlap.
    fn check_order(&mut self, dir: &Path, mut tables: Vec<TableRecord>) {
        tables.retain(|table| (1..LEVELS).contains(&usize::from(table.level)) && !table.last_key.is_empty());
        tables.sort_by(|a, b| (a.level, &a.first_key).cmp(&(b.level, &b.first_key)));
        for (before, behind) in tables.iter().zip(tables.iter().skip(1)) {
            if before.level == behind.level && behind.first_key <= before.last_key {
                let detail = format!("overlaps table {} in L{}", before.id, before.level);
                let path = table::path(dir, behind.id);
                self.damaged(&path, Error::corruption(&path, 0, detail));
            }
        }
    }

    /// Reads the whole log. `flushed`: the tables have everything up to this sequence number; [`None`]: that is not known.
    fn log(
        &mut self,
        fs: &dyn FileSystem,
        dir: &Path,
        flushed: Option<u64>,
        paced: &mut impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let names = list(fs, dir)?;
        for name in names.iter().filter(|name| name.ends_with(".log.tmp")) {
            self.note(
                dir.join(name),
                "left by an interrupted write; the next start removes it",
            );
        }
        if names.iter().any(|name| name == remembered::FILE) {
            self.files += 1;
            if let Err(error) = remembered::kept(fs, dir) {
                self.damaged(&dir.join(remembered::FILE), error);
            }
        }
        let ids: BTreeSet<u64> = names.iter().filter_map(|name| log::id_of(name)).collect();
        let mut segments = Vec::new();
        for id in &ids {
            self.files += 1;
            self.segments += 1;
            match Segment::open(fs, dir, *id) {
                Ok(segment) => {
                    self.bytes += segment.size();
                    segments.push(segment);
                }
                Err(error) => self.damaged(&log::path(dir, *id), error),
            }
        }
        if let Some(flushed) = flushed.filter(|_| segments.len() == ids.len()) {
            for leftover in segments.drain(..flushed_leftovers(&segments, flushed)) {
                let path = leftover.path().to_path_buf();
                self.note(
                    path,
                    "all of it is in tables, and the segment after it is gone; the next start removes it",
                );
            }
        }
        self.check_beginning(&ids, &segments, flushed);
        for (index, segment) in segments.iter().enumerate() {
            let next = segments.get(index + 1);
            if let Some(next) = next
                && !ids.contains(&(segment.id + 1))
            {
                let detail = format!("segment {} is missing before it", segment.id + 1);
                self.damaged(next.path(), Error::corruption(next.path(), 0, detail));
            }
            let follows = next.filter(|next| next.id == segment.id + 1);
            let is_last = ids.last() == Some(&segment.id);
            self.segment(segment, follows.map(|next| next.previous_len), is_last, paced)?;
        }
        Ok(())
    }

    /// Checks that the log begins where the tables end, or before. What stands in a segment that cannot be read is not
    /// known, and reported already.
    fn check_beginning(&mut self, ids: &BTreeSet<u64>, segments: &[Segment], flushed: Option<u64>) {
        if let (Some(first), Some(flushed)) = (segments.first(), flushed)
            && ids.range(..first.id).next().is_none()
            && first.base_seq > flushed
        {
            let detail = format!(
                "the log begins behind sequence number {}, but the tables end at {flushed}: a segment is missing",
                first.base_seq
            );
            self.damaged(first.path(), Error::corruption(first.path(), 0, detail));
        }
    }

    /// Reads all records of a segment, and judges them as a recovery does.
    fn segment(
        &mut self,
        segment: &Segment,
        expected_len: Option<u64>,
        is_last: bool,
        paced: &mut impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut changes = 0;
        let end = segment.walk(0, expected_len, |at, record| {
            segment.note(at, record)?;
            if record.is_change() {
                segment.change(at, record)?;
                changes += 1;
            }
            paced(record.bytes() as u64).map_err(Stop::Paced)
        });
        self.changes += changes;
        match end {
            Ok(end) if is_last => {
                let torn = segment.written_bytes().saturating_sub(end.valid_len);
                if torn > 0 {
                    let at = end.valid_len;
                    let detail = format!("ends at byte {at} in {torn} bytes of a write that a crash interrupted");
                    self.note(segment.path().to_path_buf(), detail);
                }
            }
            Ok(_) => {}
            Err(Stop::Damage(error)) => self.damaged(segment.path(), error),
            Err(Stop::Paced(error)) => return Err(error),
        }
        Ok(())
    }
}
