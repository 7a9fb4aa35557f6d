//! From a data directory to a running engine: the disk is the truth.
//!
//! Owns: the order of opening (locks, manifest and tables, log), and the checks that nothing is missing between them.
//! Does not own: formats (each file's module does), or what becomes of a replayed change (see [`replay`]).

use crate::storage::compaction::debt::LevelOptions;
use crate::storage::error::{Error, Result};
use crate::storage::fs::{DirLock, FileSystem, create_durably};
use crate::storage::idempotency::{REMEMBERED_BYTES, Recent, Remembered, WriteName, WriteOutcome};
use crate::storage::log::reader::{End, Segment};
use crate::storage::log::record::Change;
use crate::storage::log::writer::{ClosedSegment, Log, LogOptions};
use crate::storage::log::{self, upkeep};
use crate::storage::memtable::Memtable;
use crate::storage::remembered;
use crate::storage::replay::{self, Loader};
use crate::storage::table::TableOptions;
use crate::storage::tables::Tables;
use crate::storage::view::{Published, ReadView};
use compact_str::CompactString;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// How the engine is laid out and bounded.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory that one process holds at a time.
    pub data_dir: PathBuf,
    /// Directory of the tables.
    pub sstable_dir: PathBuf,
    /// The log.
    pub log: LogOptions,
    /// The tables.
    pub table: TableOptions,
    /// The levels of tables.
    pub levels: LevelOptions,
    /// A memtable of this many bytes is sealed.
    pub flush_threshold: usize,
    /// Whether a recovery reads on while it writes a table, which takes less time; otherwise it does one after the other.
    pub parallel_replay: bool,
}

impl Options {
    /// Options for a data directory, with the defaults of the low-level design and all files below that directory.
    #[must_use]
    pub fn at(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            sstable_dir: data_dir.join("sstables"),
            log: LogOptions {
                dir: data_dir.join("commitlog"),
                segment_size: 1 << 30,
                max_age_ms: 7 * 24 * 3600 * 1000,
            },
            data_dir,
            table: TableOptions::default(),
            levels: LevelOptions::default(),
            flush_threshold: 60_000_000,
            parallel_replay: true,
        }
    }
}

/// What a recovery did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments read.
    pub segments: usize,
    /// Bytes of log read.
    pub log_bytes: u64,
    /// Changes that were not in tables yet.
    pub replayed: u64,
    /// Tables written on the way, because the memtables were full.
    pub flushes: usize,
    /// Bytes behind the last whole record: a write that a crash interrupted.
    pub torn_bytes: u64,
}

/// An engine, open and up to date.
pub struct Recovered {
    /// What reads see.
    pub published: Arc<Published>,
    /// The tables.
    pub tables: Arc<Tables>,
    /// The log, ready for a writer.
    pub log: Log,
    /// Writes with names, and what they were answered: as many as may be remembered, however long ago.
    pub remembered: Vec<Remembered>,
    /// What was done.
    pub report: Report,
    /// Held as long as the engine runs.
    pub locks: Vec<DirLock>,
}

/// Opens a data directory, making it where it does not exist.
///
/// # Errors
/// When another process has it, or something in it is damaged, missing or unreadable. Nothing is lost then: leftovers may
/// be swept, and tables written of the undamaged beginning of a long log.
pub fn open(fs: &Arc<dyn FileSystem>, options: &Options) -> Result<Recovered> {
    let locks = lock(fs, options)?;
    let (tables, set) = Tables::open(Arc::clone(fs), &options.sstable_dir, options.table, options.levels)?;
    let flushed = tables.flushed_seq();
    let published = Published::new(
        ReadView {
            active: Arc::new(Memtable::new(0)),
            sealed: Vec::new(),
            tables: Arc::new(set),
        },
        flushed,
    );
    let mut replay = Replay {
        options,
        report: Report::default(),
        named: Recent::new(u64::MAX, REMEMBERED_BYTES),
    };
    for write in remembered::kept(fs.as_ref(), &options.log.dir)? {
        replay.named.recover(write, true);
    }
    let (closed, last_seq, salt) = replay.run(fs, &tables, &published)?;
    let report = replay.report;
    published.set_applied(last_seq);
    published.set_announced(last_seq);
    Ok(Recovered {
        published: Arc::new(published),
        tables: Arc::new(tables),
        log: Log::new(Arc::clone(fs), options.log.clone(), salt, closed, last_seq),
        remembered: replay.named.remembered(),
        report,
        locks,
    })
}

fn lock(fs: &Arc<dyn FileSystem>, options: &Options) -> Result<Vec<DirLock>> {
    for dir in [&options.data_dir, &options.sstable_dir, &options.log.dir] {
        create_durably(fs.as_ref(), dir)?;
    }
    lock_existing(fs.as_ref(), options)
}

/// Takes the directories of an engine for this process alone, which must exist.
///
/// # Errors
/// [`Error::Locked`] when another process has one of them.
pub fn lock_existing(fs: &dyn FileSystem, options: &Options) -> Result<Vec<DirLock>> {
    let mut dirs = vec![&options.data_dir, &options.sstable_dir, &options.log.dir];
    dirs.sort();
    dirs.dedup();
    dirs.into_iter()
        .map(|dir| {
            fs.lock_dir(dir).map_err(|e| match e.kind() {
                io::ErrorKind::WouldBlock => Error::Locked { dir: dir.clone() },
                _ => Error::io("lock", dir, e),
            })
        })
        .collect()
}

/// How many of the first segments stand before a gap behind which the log goes on in what is in tables already: of several
/// segments that were deleted, a crash may bring back the older ones alone.
pub(crate) fn flushed_leftovers(segments: &[Segment], flushed: u64) -> usize {
    segments
        .windows(2)
        .rposition(|pair| matches!(pair, [before, behind] if before.id + 1 != behind.id && behind.base_seq <= flushed))
        .map_or(0, |last| last + 1)
}

/// Removes these segments.
fn sweep_flushed(fs: &dyn FileSystem, segments: &mut Vec<Segment>, flushed: u64) -> Result<()> {
    for leftover in segments.drain(..flushed_leftovers(segments, flushed)) {
        let path = leftover.path();
        fs.remove(path).map_err(|e| Error::io("remove", path, e))?;
    }
    Ok(())
}

/// A change with a name, as it was answered if no note says otherwise.
fn found(change: &Change, id: &CompactString) -> Remembered {
    Remembered {
        name: WriteName {
            key: change.key.clone(),
            id: id.clone(),
        },
        seq: change.version.seq,
        timestamp_ms: change.version.timestamp_ms,
        outcome: WriteOutcome::plain(change.version.clock.clone()),
    }
}

struct Replay<'a> {
    options: &'a Options,
    report: Report,
    named: Recent<Infallible>,
}

impl Replay<'_> {
    /// Replays the log above what the tables have. Returns the segments, the last sequence number and the salt to go on
    /// with.
    fn run(
        &mut self,
        fs: &Arc<dyn FileSystem>,
        tables: &Tables,
        published: &Published,
    ) -> Result<(VecDeque<ClosedSegment>, u64, u32)> {
        let flushed = tables.flushed_seq();
        let mut segments = self.list(fs)?;
        sweep_flushed(fs.as_ref(), &mut segments, flushed)?;
        if let Some(first) = segments.first()
            && first.base_seq > flushed
        {
            let detail = format!(
                "the log begins behind sequence number {}, but the tables end at {flushed}: a segment is missing",
                first.base_seq
            );
            return Err(Error::corruption(first.path(), 0, detail));
        }
        let mut closed = VecDeque::new();
        let mut last_seq = flushed;
        let is_readable = || segments.iter().try_for_each(Segment::check_readable);
        let chunks = replay::with_loader(tables, published, self.options, &is_readable, |loader| {
            for (index, segment) in segments.iter().enumerate() {
                let next = segments.get(index + 1);
                let end = self.segment(fs, segment, next, flushed, loader)?;
                last_seq = last_seq.max(end.last_seq);
                closed.push_back(ClosedSegment {
                    id: segment.id,
                    len: end.valid_len,
                    last_seq: end.last_seq,
                    opened_ms: segment.opened_ms,
                });
            }
            Ok(())
        })?;
        self.report.replayed = chunks.changes;
        self.report.flushes = chunks.tables;
        let salt = segments.last().map_or_else(
            || RandomState::new().build_hasher().finish() as u32,
            |segment| segment.salt,
        );
        Ok((closed, last_seq, salt))
    }

    fn segment(
        &mut self,
        fs: &Arc<dyn FileSystem>,
        segment: &Segment,
        next: Option<&Segment>,
        flushed: u64,
        loader: &mut Loader<'_, '_>,
    ) -> Result<End> {
        if let Some(next) = next.filter(|next| next.id != segment.id + 1) {
            let detail = format!("segment {} is missing before it", segment.id + 1);
            return Err(Error::corruption(next.path(), 0, detail));
        }
        let expected = next.map(|next| next.previous_len);
        let mut durable = 0;
        let end = segment.walk(0, expected, |at, record| {
            durable = durable.max(record.durable().unwrap_or(0));
            if let Some(answered) = segment.note(at, record)? {
                self.named.recover(answered, true);
            }
            // What is in tables already may still be sent again.
            if !record.is_change() || (record.seq <= flushed && !record.is_named()) {
                return Ok(());
            }
            let change = segment.change(at, record)?;
            if let Some(id) = &change.id {
                self.named.recover(found(&change, id), false);
            }
            if record.seq > flushed {
                loader.add(change)?;
            }
            Ok::<(), Error>(())
        })?;
        self.report.segments += 1;
        self.report.log_bytes += end.valid_len;
        if next.is_none() {
            self.report.torn_bytes = segment.written_bytes().saturating_sub(end.valid_len);
            upkeep::rewrite(fs.as_ref(), segment, durable, end.valid_len)?;
        }
        Ok(end)
    }

    /// Opens all segments in order, and sweeps one that a crash interrupted while it was made.
    fn list(&self, fs: &Arc<dyn FileSystem>) -> Result<Vec<Segment>> {
        let dir = &self.options.log.dir;
        let names = fs.list(dir).map_err(|e| Error::io("list", dir, e))?;
        for name in names.iter().filter(|name| name.ends_with(".log.tmp")) {
            let path = dir.join(name);
            fs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
        let mut ids: Vec<u64> = names.iter().filter_map(|name| log::id_of(name)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|id| Segment::open(fs.as_ref(), dir, id)).collect()
    }
}
