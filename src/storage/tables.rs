//! The tables of a node on disk: numbering, installing and sweeping them.
//!
//! Owns: the directory of tables and its manifest. Does not own: when to flush, or who reads.

use crate::storage::error::{Error, Result};
use crate::storage::fs::FileSystem;
use crate::storage::key::Key;
use crate::storage::manifest::{Edit, Manifest};
use crate::storage::memtable::Memtable;
use crate::storage::table::{self, Table, TableBuilder, TableOptions};
use crate::storage::version::{MAX_SIBLINGS, Versions};
use crate::storage::view::{Published, ReadView, TableSet};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The directory of tables.
pub struct Tables {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    options: TableOptions,
    manifest: Mutex<Manifest>,
    /// Held by a flush and by a sweep, so that neither takes the other's unfinished files for leftovers.
    writing: Mutex<()>,
    /// The table of a memtable that was written, but could not be recorded: the next attempt need not write it again.
    unrecorded: Mutex<Option<(u64, Arc<Table>)>>,
    next_id: AtomicU64,
}

/// What a flush made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flushed {
    /// Number of the table; [`None`] when there was nothing to write.
    pub table: Option<u64>,
    /// Everything up to this sequence number is now in tables.
    pub seq: u64,
    /// Size of the table in bytes.
    pub bytes: u64,
}

impl Tables {
    /// Opens the directory: reads the manifest, sweeps files that it does not name, opens every table that it does.
    ///
    /// # Errors
    /// When the manifest or a table is damaged, missing or unreadable.
    pub fn open(fs: Arc<dyn FileSystem>, dir: &Path, options: TableOptions) -> Result<(Self, TableSet)> {
        let manifest = Manifest::open(Arc::clone(&fs), dir)?;
        let mut set = TableSet::default();
        let mut next_id = 1;
        for (id, level) in &manifest.state().tables {
            let table = Arc::new(Table::open(fs.as_ref(), dir, *id)?);
            if let Some(tables) = set.levels.get_mut(usize::from(*level)) {
                tables.push(table);
            }
            next_id = next_id.max(id + 1);
        }
        let tables = Self {
            fs,
            dir: dir.to_path_buf(),
            options,
            manifest: Mutex::new(manifest),
            writing: Mutex::new(()),
            unrecorded: Mutex::new(None),
            next_id: AtomicU64::new(next_id),
        };
        tables.sweep()?;
        Ok((tables, set))
    }

    /// Everything up to this sequence number is in tables.
    #[must_use]
    pub fn flushed_seq(&self) -> u64 {
        self.manifest.lock().state().flushed_seq
    }

    /// Removes what an interrupted flush left: temporary files, and tables that the manifest does not name. Waits for a
    /// flush that runs.
    ///
    /// # Errors
    /// When the directory cannot be read or a file not removed.
    pub fn sweep(&self) -> Result<()> {
        let _alone = self.writing.lock();
        let mut manifest = self.manifest.lock();
        // A file may name a table although recording it failed; it must not do so when the table is gone.
        manifest.settle()?;
        *self.unrecorded.lock() = None;
        let names = self.fs.list(&self.dir).map_err(|e| Error::io("list", &self.dir, e))?;
        for name in names {
            let known = table::id_of(&name).map(|id| manifest.state().tables.contains_key(&id));
            if known == Some(false) || name.ends_with(".sst.tmp") {
                let path = self.dir.join(&name);
                self.fs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
            }
        }
        Ok(())
    }

    /// Writes a sealed memtable as a table of L0, records it, and publishes a view that has the table in place of the
    /// memtable.
    ///
    /// # Errors
    /// When the table cannot be written or recorded. The memtable stays in the view, and the call can be repeated.
    pub fn flush(&self, memtable: &Arc<Memtable>, published: &Published) -> Result<Flushed> {
        let _alone = self.writing.lock();
        if !published.load().sealed.iter().any(|m| m.id() == memtable.id()) {
            // A flush whose starter was replaced meanwhile has done it.
            return Ok(Flushed {
                table: None,
                seq: self.flushed_seq(),
                bytes: 0,
            });
        }
        let before = self.unrecorded.lock().take().filter(|(id, _)| *id == memtable.id());
        let table = match before {
            Some((_, table)) => Some(table),
            None if memtable.is_empty() => None,
            None => Some(self.write(memtable.iter_at(&Key::least(), u64::MAX))?),
        };
        let installed = self.install(table.clone(), memtable.max_seq(), Some(memtable.id()), published);
        if installed.is_err() {
            *self.unrecorded.lock() = table.map(|table| (memtable.id(), table));
        }
        installed
    }

    /// Writes entries as a table that is not installed yet. Keys must come in strictly ascending order, and be some.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn write(&self, entries: impl Iterator<Item = (Key, Versions)>) -> Result<Arc<Table>> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut builder = TableBuilder::create(self.fs.as_ref(), &self.dir, id, self.options)?;
        for (key, versions) in entries {
            builder.add(&key, &versions.bounded(MAX_SIBLINGS).0)?;
        }
        builder.finish()?;
        Ok(Arc::new(Table::open(self.fs.as_ref(), &self.dir, id)?))
    }

    /// Records a table in L0, and that everything up to `flushed_seq` is in tables; publishes a view that has it, in
    /// place of the memtable with number `replaced`.
    ///
    /// # Errors
    /// When it cannot be recorded; the view is then as before.
    pub fn install(
        &self,
        table: Option<Arc<Table>>,
        flushed_seq: u64,
        replaced: Option<u64>,
        published: &Published,
    ) -> Result<Flushed> {
        self.manifest.lock().record(&Edit {
            added: table.iter().map(|table| (table.id(), 0)).collect(),
            removed: Vec::new(),
            flushed_seq,
        })?;
        published.update(|view| {
            let mut tables = TableSet::clone(&view.tables);
            if let (Some(table), Some(l0)) = (&table, tables.levels.first_mut()) {
                l0.push(Arc::clone(table));
            }
            ReadView {
                active: Arc::clone(&view.active),
                sealed: view
                    .sealed
                    .iter()
                    .filter(|memtable| Some(memtable.id()) != replaced)
                    .cloned()
                    .collect(),
                tables: Arc::new(tables),
            }
        });
        Ok(Flushed {
            table: table.as_ref().map(|table| table.id()),
            seq: flushed_seq,
            bytes: table.map_or(0, |table| table.size()),
        })
    }
}
