//! `inspect`: what a file of the node holds, in words.
//!
//! Owns: the kinds of files, told by how they begin, and how each is shown. Does not own: reading them (see
//! [`crate::storage`]), or what belongs together (see `verify`). Takes no lock and changes nothing, so that it can be used
//! beside a running node. Values are the users': none is shown without being asked for.

use super::Failure;
use crate::storage::clock::VectorClock;
use crate::storage::error::Error;
use crate::storage::fs::{FileSystem, RealFs};
use crate::storage::levels::LEVELS;
use crate::storage::log::reader::Segment;
use crate::storage::log::record::Operation;
use crate::storage::manifest::{self, Edit, QUARANTINE, State, TableRecord};
use crate::storage::table::{self, Layout, Table};
use crate::storage::version::{Value, Version};
use crate::storage::{log, version::Versions};
use bytes::Bytes;
use clap::Args;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Most bytes of a value that are shown.
const SHOWN_VALUE_BYTES: usize = 60;
/// The last millisecond that can be written as a date, at the end of the year 9999.
const LAST_DATE_MS: u64 = 253_402_300_799_999;
/// How deep below a given directory the files of the node lie.
const DEPTH: usize = 2;

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// A commit log segment, a table, a manifest, or a directory with such files
    path: PathBuf,
    /// Print values too, escaped and cut at 60 bytes
    #[arg(long)]
    values: bool,
    /// Print the keys of a table, with their versions
    #[arg(long)]
    entries: bool,
    /// Print at most this many records or entries
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Why an inspection ends early.
enum Stop {
    /// The file is damaged: there is nothing more to be shown of it.
    Damage(Error),
    /// Standard output takes no more.
    Output(io::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Damage(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// What a file of the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Manifest,
    Segment,
    Table,
}

impl Kind {
    /// Tells by the first bytes; by the name only where these are of no kind at all, as damage may leave them.
    fn of(path: &Path, head: &[u8]) -> Option<Self> {
        let begins = [
            (&manifest::HEADER, Self::Manifest),
            (&log::HEADER, Self::Segment),
            (&table::HEADER, Self::Table),
        ];
        if let Some((_, kind)) = begins.into_iter().find(|(header, _)| header.begins(head)) {
            return Some(kind);
        }
        let name = path.file_name()?.to_str()?;
        if name == manifest::NAME {
            return Some(Self::Manifest);
        }
        let by_name = [
            log::id_of(name).map(|_| Self::Segment),
            table::id_of(name).map(|_| Self::Table),
        ];
        by_name.into_iter().flatten().next()
    }
}

pub(super) fn run(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let mut inspection = Inspection {
        out: BufWriter::new(io::stdout().lock()),
        args,
        damage: 0,
    };
    let shown = inspection.path(&args.path);
    match shown.and_then(|()| Ok(inspection.out.flush()?)) {
        Ok(()) => {}
        // Whoever reads has seen enough.
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        Err(Stop::Output(error)) => return Err(format!("cannot write to standard output: {error}").into()),
        Err(Stop::Damage(error)) => return Err(error.into()),
    }
    match inspection.damage {
        0 => Ok(ExitCode::SUCCESS),
        n => Err(format!(
            "{}: {}, each named above by file and byte; `verify` says whether the rest belongs together",
            args.path.display(),
            counted(n, "damaged place")
        )
        .into()),
    }
}

struct Inspection<'a, W: Write> {
    out: W,
    args: &'a InspectArgs,
    damage: u64,
}

/// Reads a file that a running node may be writing. It is copied, and not mapped: the node cuts its newest segment, and
/// what reads a map behind a file's end is killed.
fn read_copy(path: &Path) -> Result<Bytes, Stop> {
    fs::read(path)
        .map(Bytes::from)
        .map_err(|e| Stop::Damage(Error::io("read", path, e)))
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(8).read_to_end(&mut head)?;
    Ok(head)
}

impl<W: Write> Inspection<'_, W> {
    fn path(&mut self, path: &Path) -> Result<(), Stop> {
        if path.is_dir() {
            return self.directory(path);
        }
        let head = head(path).map_err(|e| Error::io("read", path, e))?;
        let shown = match Kind::of(path, &head) {
            Some(Kind::Segment) => self.segment(path),
            Some(Kind::Table) => self.table(path),
            Some(Kind::Manifest) => self.manifest(path),
            None => {
                return Err(Stop::Damage(Error::Format {
                    file: path.to_path_buf(),
                    detail: "it begins neither as a commit log segment, nor as a table, nor as a manifest".to_owned(),
                }));
            }
        };
        self.settle(shown)
    }

    /// Says what damage ended the view of a file.
    fn settle(&mut self, shown: Result<(), Stop>) -> Result<(), Stop> {
        match shown {
            Err(Stop::Damage(error)) => self.damaged(&error),
            other => other,
        }
    }

    fn damaged(&mut self, error: &Error) -> Result<(), Stop> {
        self.damage += 1;
        Ok(writeln!(self.out, "{}", damage_line(error))?)
    }

    fn within_limit(&self, shown: u64) -> bool {
        self.args.limit.is_none_or(|limit| shown < limit)
    }

    fn segment(&mut self, path: &Path) -> Result<(), Stop> {
        let segment = Segment::read(path.to_path_buf(), read_copy(path)?)?;
        writeln!(self.out, "commit log segment {}", path.display())?;
        writeln!(self.out, "  segment      {}", segment.id)?;
        match segment.previous_len {
            0 => writeln!(self.out, "  previous     none")?,
            len => writeln!(self.out, "  previous     {len} bytes are valid")?,
        }
        writeln!(self.out, "  base seq     {}", segment.base_seq)?;
        writeln!(self.out, "  opened       {}", date(segment.opened_ms))?;
        writeln!(self.out, "  salt         {:08x}", segment.salt)?;
        writeln!(self.out, "  size         {} bytes", segment.size())?;
        let expected_len = stated_len(path, &segment);
        let mut records = 0;
        let walked = segment.walk(0, expected_len, |at, record| {
            records += 1;
            if !self.within_limit(records - 1) {
                // Even what is not shown must decode.
                if !record.is_mark() {
                    segment.change(at, record)?;
                }
                return Ok(());
            }
            if let Some(durable) = record.durable() {
                let seq = record.seq;
                return Ok(writeln!(
                    self.out,
                    "at {at:<10} mark    seq {seq}  {durable} bytes are durable"
                )?);
            }
            let change = segment.change(at, record)?;
            let operation = match change.operation {
                Operation::Write => "write",
                Operation::Repair => "repair",
                Operation::Delete => "delete",
            };
            write!(self.out, "at {at:<10} {operation:<7} ")?;
            write!(self.out, "seq {}  {}  ", change.version.seq, key(change.key.as_str()))?;
            self.version(&change.version)
        });
        if let Some(hidden) = self
            .args
            .limit
            .and_then(|limit| records.checked_sub(limit))
            .filter(|n| *n > 0)
        {
            writeln!(self.out, "({hidden} more records)")?;
        }
        let end = walked?;
        let (valid, written) = (end.valid_len, segment.written_bytes());
        let torn = written.saturating_sub(valid);
        match expected_len {
            Some(_) => writeln!(
                self.out,
                "end at {valid}: clean, where the next segment says that it is; last seq {}",
                end.last_seq
            )?,
            None if torn > 0 => writeln!(
                self.out,
                "end at {valid}: a torn tail of {torn} bytes, a write that was interrupted or is under way; last seq {}",
                end.last_seq
            )?,
            None => writeln!(self.out, "end at {valid}: clean; last seq {}", end.last_seq)?,
        }
        let ahead = segment.size().saturating_sub(valid.max(written));
        if ahead > 0 {
            writeln!(self.out, "{ahead} bytes of zeros behind it, written ahead")?;
        }
        Ok(())
    }

    /// The rest of a line about a version, which has begun.
    fn version(&mut self, version: &Version) -> Result<(), Stop> {
        write!(self.out, "{}  ", clock(&version.clock))?;
        match &version.value {
            Value::Tombstone => write!(self.out, "deleted  ")?,
            Value::Live(value) => write!(self.out, "{} bytes  ", value.len())?,
        }
        write!(self.out, "{}", date(version.timestamp_ms))?;
        if let Some(value) = version.value.live().filter(|_| self.args.values) {
            let shown = value.get(..SHOWN_VALUE_BYTES).unwrap_or(value);
            let cut = if shown.len() < value.len() { "..." } else { "" };
            write!(self.out, "  \"{}\"{cut}", shown.escape_ascii())?;
        }
        Ok(writeln!(self.out)?)
    }

    fn table(&mut self, path: &Path) -> Result<(), Stop> {
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

    fn manifest(&mut self, path: &Path) -> Result<(), Stop> {
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

    /// A line for each file of the node below a directory, and what does not read.
    fn directory(&mut self, dir: &Path) -> Result<(), Stop> {
        let mut files = Vec::new();
        for entry in walkdir::WalkDir::new(dir).max_depth(DEPTH).sort_by_file_name() {
            let entry = entry.map_err(|e| Error::io("read", dir, e.into()))?;
            if !entry.file_type().is_file() {
                continue;
            }
            let path = entry.into_path();
            let read = head(&path);
            let kind = read.map(|head| Kind::of(&path, &head));
            files.push((kind.map_err(|e| Error::io("read", &path, e))?, path));
        }
        files.sort();
        let mut state = None;
        for (kind, path) in &files {
            let shown = path.strip_prefix(dir).unwrap_or(path).display().to_string();
            let line = match kind {
                Some(Kind::Manifest) => manifest_line(path).map(|(line, told)| {
                    state = Some(told);
                    line
                }),
                Some(Kind::Segment) => segment_line(path),
                Some(Kind::Table) => table_line(path, state.as_ref()),
                None => {
                    let size = fs::metadata(path).map_or(0, |found| found.len());
                    Ok(format!("{size} bytes, not a file with data"))
                }
            };
            match line {
                Ok(line) => writeln!(self.out, "{shown}: {line}")?,
                // A running node removes what it has replaced.
                Err(Stop::Damage(_)) if !path.exists() => {}
                Err(Stop::Damage(error)) => self.damaged(&error)?,
                Err(output) => return Err(output),
            }
        }
        let manifests = files.iter().filter(|(kind, _)| *kind == Some(Kind::Manifest));
        for (_, manifest) in manifests {
            self.missing_tables(manifest)?;
        }
        Ok(())
    }

    /// Names the tables of a manifest that are not there. The manifest is read before and after each is looked for: a
    /// running node may have replaced the table meanwhile.
    fn missing_tables(&mut self, manifest: &Path) -> Result<(), Stop> {
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

fn damage_line(error: &Error) -> String {
    match error {
        Error::Format { file, detail } => format!("damage in {} at byte 0: {detail}", file.display()),
        other => other.to_string(),
    }
}

/// A table is never changed under its name, so it can be mapped.
fn read_table(path: &Path) -> Result<Bytes, Stop> {
    RealFs.read(path).map_err(|e| Stop::Damage(Error::io("read", path, e)))
}

/// The valid length of a segment that the one after it, in the same directory, states.
fn stated_len(path: &Path, segment: &Segment) -> Option<u64> {
    let dir = path.parent()?;
    if path != log::path(dir, segment.id) {
        return None;
    }
    let next = log::path(dir, segment.id.checked_add(1)?);
    let mut head = Vec::new();
    File::open(&next)
        .and_then(|file| file.take(log::HEADER_BYTES).read_to_end(&mut head))
        .ok()?;
    let next = Segment::read(next, Bytes::from(head)).ok()?;
    (next.id == segment.id + 1).then_some(next.previous_len)
}

fn file_table_id(path: &Path) -> Option<u64> {
    table::id_of(path.file_name()?.to_str()?)
}

fn segment_line(path: &Path) -> Result<String, Stop> {
    let segment = Segment::read(path.to_path_buf(), read_copy(path)?)?;
    let mut changes = 0_u64;
    let end = segment.walk(0, stated_len(path, &segment), |at, record| {
        if !record.is_mark() {
            segment.change(at, record)?;
            changes += 1;
        }
        Ok::<(), Stop>(())
    })?;
    let torn = segment.written_bytes().saturating_sub(end.valid_len);
    let seqs = if changes == 0 {
        format!("no changes behind seq {}", segment.base_seq)
    } else {
        format!(
            "{changes} changes behind seq {} up to {}",
            segment.base_seq, end.last_seq
        )
    };
    let torn = if torn > 0 {
        format!(", and {torn} of a torn tail")
    } else {
        String::new()
    };
    Ok(format!(
        "segment {}, {} bytes, {} of them valid{torn}, {seqs}, opened {}",
        segment.id,
        segment.size(),
        end.valid_len,
        date(segment.opened_ms)
    ))
}

fn table_line(path: &Path, state: Option<&State>) -> Result<String, Stop> {
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

fn manifest_line(path: &Path) -> Result<(String, State), Stop> {
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

fn level_name(level: u8) -> String {
    match level {
        QUARANTINE => "quarantine".to_owned(),
        level => format!("L{level}"),
    }
}

/// So many of a thing.
fn counted(n: u64, thing: &str) -> String {
    match n {
        1 => format!("1 {thing}"),
        n => format!("{n} {thing}s"),
    }
}

/// A key as it can be shown on one line of a terminal, whatever is in it.
fn key(stored: &str) -> String {
    format!("{stored:?}")
}

fn clock(clock: &VectorClock) -> String {
    let entries: Vec<String> = clock
        .entries()
        .iter()
        .map(|entry| format!("{}:{}", entry.id.escape_debug(), entry.counter))
        .collect();
    format!("{{{}}}", entries.join(","))
}

fn date(ms: u64) -> String {
    UNIX_EPOCH
        .checked_add(Duration::from_millis(ms))
        .filter(|_| ms <= LAST_DATE_MS)
        .map_or_else(
            || format!("{ms} ms after 1970"),
            |time| humantime::format_rfc3339_millis(time).to_string(),
        )
}
