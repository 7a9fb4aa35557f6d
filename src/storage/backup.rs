//! Copies of a store: a consistent one of a running store, and a store made of one.
//!
//! A backup is a data directory without a log: its tables and a manifest, which is written last, so that one without a
//! manifest is not whole. Tables never change, so a backup on the same file system consists of hard links and costs
//! nothing; on another, a table that the backup before has already is linked from there, and only new ones are copied.
//! Each backup is whole by itself: any may be deleted without harm to the others.
//!
//! Owns: that layout. Does not own: flushing what is in memory first, or when to do it.

use crate::storage::error::{Error, Result};
use crate::storage::fs::{FileSystem, create_durably};
use crate::storage::levels::TableSet;
use crate::storage::log;
use crate::storage::manifest::{self, QUARANTINE, State};
use crate::storage::table::{self, ReadCounts, Table};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The tables of a store at one moment. Holding it keeps their files.
#[derive(Debug)]
pub struct Snapshot {
    /// What the manifest says of them.
    pub state: State,
    /// The tables.
    pub set: Arc<TableSet>,
}

/// What a backup or a restoration did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// Where the result is.
    pub dir: PathBuf,
    /// Tables in all.
    pub tables: usize,
    /// Tables that are hard links to the original.
    pub linked: usize,
    /// Tables that are hard links to those of the backup before.
    pub reused: usize,
    /// Tables that were copied.
    pub copied: usize,
    /// Bytes of all tables.
    pub bytes: u64,
    /// Numbers of tables that are damaged, and are so in the copy.
    pub damaged: Vec<u64>,
}

/// Directory of the tables in a backup.
const TABLES: &str = "sstables";
const COPY_CHUNK_BYTES: usize = 1 << 20;
/// Added to the last sequence number of a restored store. Its numbers stand in the clocks of writes that came without
/// one; what the lost store gave out after the backup must not be given out again for something else.
const SEQ_STEP: u64 = 1 << 40;

/// Whether a backup may have this name: a file name that does not begin with a dot.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && !name.starts_with('.')
}

enum How {
    Linked,
    Reused,
    Copied,
}

/// Makes the backup `base`/`name` of what `snapshot` holds.
///
/// # Errors
/// When there is a backup of that name, or a file cannot be written. What was begun has no manifest then, and counts for
/// nothing.
pub fn backup(fs: &dyn FileSystem, snapshot: &Snapshot, source: &Path, base: &Path, name: &str) -> Result<Copied> {
    let dir = base.join(name).join(TABLES);
    let exists = |dir: &Path| {
        fs.list(dir)
            .is_ok_and(|names| names.iter().any(|n| n == manifest::NAME))
    };
    if exists(&dir) {
        let taken = io::Error::new(io::ErrorKind::AlreadyExists, "there is a backup of this name");
        return Err(Error::io("make the backup", &dir, taken));
    }
    let before = fs.list(base).ok().and_then(|names| {
        let dirs = names.into_iter().map(|name| base.join(name).join(TABLES));
        dirs.filter(|dir| exists(dir)).max()
    });
    create_durably(fs, &dir)?;
    let copied = copy_tables(fs, &snapshot.state, source, &dir, before.as_deref(), true)?;
    let made = snapshot.state.write_to(fs, &dir);
    if made.is_err() {
        // It may have its name already.
        let _ = fs.remove(&dir.join(manifest::NAME));
    }
    made?;
    Ok(copied)
}

/// Makes a store of the backup in `from`, where there is none.
///
/// # Errors
/// When `from` is no whole backup or damaged, or there is data already where the store is to be.
pub fn restore(fs: &dyn FileSystem, from: &Path, sstable_dir: &Path, log_dir: &Path) -> Result<Copied> {
    let source = from.join(TABLES);
    let names = fs.list(&source).map_err(|e| Error::io("list", &source, e))?;
    if !names.iter().any(|name| name == manifest::NAME) {
        return Err(Error::corruption(
            &source,
            0,
            "it is no whole backup: the manifest is missing",
        ));
    }
    let mut state = manifest::load(fs, &source)?;
    for dir in [sstable_dir, log_dir] {
        create_durably(fs, dir)?;
        let names = fs.list(dir).map_err(|e| Error::io("list", dir, e))?;
        let is_data =
            |name: &&String| *name == manifest::NAME || table::id_of(name).is_some() || log::id_of(name).is_some();
        if let Some(name) = names.iter().find(is_data) {
            let taken = format!("there is data already ({name}); restore into an empty directory");
            return Err(Error::io(
                "restore into",
                dir,
                io::Error::new(io::ErrorKind::AlreadyExists, taken),
            ));
        }
    }
    let copied = copy_tables(fs, &state, &source, sstable_dir, None, false)?;
    state.flushed_seq = state.flushed_seq.saturating_add(SEQ_STEP);
    state.write_to(fs, sstable_dir)?;
    Ok(copied)
}

fn copy_tables(
    fs: &dyn FileSystem,
    state: &State,
    source: &Path,
    target: &Path,
    before: Option<&Path>,
    may_be_damaged: bool,
) -> Result<Copied> {
    let mut copied = Copied {
        dir: target.to_path_buf(),
        ..Copied::default()
    };
    for record in state.tables.values() {
        let (from, to) = (table::path(source, record.id), table::path(target, record.id));
        let damaged = record.level == QUARANTINE;
        if !damaged && !may_be_damaged {
            whole(fs, source, record.id)?;
        }
        match link_or_copy(fs, &from, &to, before.map(|dir| table::path(dir, record.id))) {
            // The manifest of the copy names it as damaged, too.
            Err(Error::Io { source, .. }) if damaged && source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(How::Linked) => copied.linked += 1,
            Ok(How::Reused) => copied.reused += 1,
            Ok(How::Copied) => {
                copied.copied += 1;
                if !damaged {
                    whole(fs, target, record.id)?;
                }
            }
        }
        copied.tables += 1;
        copied.bytes += record.size;
        copied.damaged.extend(damaged.then_some(record.id));
    }
    fs.sync_dir(target).map_err(|e| Error::io("sync", target, e))?;
    Ok(copied)
}

/// Reads all of a table.
fn whole(fs: &dyn FileSystem, dir: &Path, id: u64) -> Result<()> {
    let table = Table::open(fs, dir, id, &Arc::new(ReadCounts::default()))?;
    table.check(|_| Ok(()))?.damage.into_iter().next().map_or(Ok(()), Err)
}

fn link_or_copy(fs: &dyn FileSystem, from: &Path, to: &Path, before: Option<PathBuf>) -> Result<How> {
    // What an interrupted attempt left.
    let _ = fs.remove(to);
    if fs.link(from, to).is_ok() {
        return Ok(How::Linked);
    }
    let content = fs.read(from).map_err(|e| Error::io("read", from, e))?;
    if let Some(before) = before
        && fs.read(&before).is_ok_and(|known| known == content)
        && fs.link(&before, to).is_ok()
    {
        return Ok(How::Reused);
    }
    let temporary = to.with_extension("sst.tmp");
    let _ = fs.remove(&temporary);
    let mut file = fs.create(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
    let mut at = 0;
    // What cannot be read becomes zeros in it; from the map itself, the system would refuse to write it.
    let mut copy = Vec::new();
    for chunk in content.chunks(COPY_CHUNK_BYTES) {
        copy.clear();
        copy.extend_from_slice(chunk);
        file.write_at(at, &copy)
            .map_err(|e| Error::io("write", &temporary, e))?;
        at += chunk.len() as u64;
    }
    file.sync().map_err(|e| Error::io("sync", &temporary, e))?;
    fs.rename(&temporary, to)
        .map_err(|e| Error::io("rename", &temporary, e))?;
    Ok(How::Copied)
}
