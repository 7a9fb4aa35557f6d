//! `inspect`: what a file of the node holds, in words.
//!
//! Owns: the kinds of files, told by how they begin, and how each is shown. Does not own: reading them (see
//! [`crate::storage`]), or what belongs together (see `verify`). Takes no lock and changes nothing, so that it can be used
//! beside a running node. Values are the users': none is shown without being asked for.

mod log;
mod manifest;
mod marks;
mod output;
mod table;

use super::Failure;
use crate::storage;
use crate::storage::error::Error;
use bytes::Bytes;
use clap::Args;
use log::segment_line;
use manifest::manifest_line;
use marks::{drain_mark_line, streams_line};
use output::counted;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use table::table_line;

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
    DrainMark,
    Streams,
}

impl Kind {
    /// Tells by the first bytes; by the name only where these are of no kind at all, as damage may leave them.
    fn of(path: &Path, head: &[u8]) -> Option<Self> {
        let begins = [
            (&storage::manifest::HEADER, Self::Manifest),
            (&storage::log::HEADER, Self::Segment),
            (&storage::table::HEADER, Self::Table),
            (&storage::drain_mark::HEADER, Self::DrainMark),
            (&storage::stream_records::HEADER, Self::Streams),
        ];
        if let Some((_, kind)) = begins.into_iter().find(|(header, _)| header.begins(head)) {
            return Some(kind);
        }
        let name = path.file_name()?.to_str()?;
        let by_name = [
            (name == storage::manifest::NAME).then_some(Self::Manifest),
            (name == storage::drain_mark::NAME).then_some(Self::DrainMark),
            (name == storage::stream_records::NAME).then_some(Self::Streams),
            storage::log::id_of(name).map(|_| Self::Segment),
            storage::table::id_of(name).map(|_| Self::Table),
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
            Some(Kind::DrainMark) => self.drain_mark(path),
            Some(Kind::Streams) => self.streams(path),
            None => {
                return Err(Stop::Damage(Error::Format {
                    file: path.to_path_buf(),
                    detail: "it does not begin as a file of the node that can be shown".to_owned(),
                }));
            }
        };
        self.settle(shown)
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
                Some(Kind::DrainMark) => drain_mark_line(path),
                Some(Kind::Streams) => streams_line(path),
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
}
