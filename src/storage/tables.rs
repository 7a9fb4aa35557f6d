//! The tables of a node on disk: numbering, writing, installing, setting aside and sweeping them.
//!
//! Owns: the directory of tables and its manifest. Does not own: when to flush or compact, or who reads.
//!
//! A table that is being written is *reserved*: no sweep takes its file for a leftover. A table that was replaced is
//! *garbage* until nobody reads it any more, and then its file goes.

use crate::storage::backup::Snapshot;
use crate::storage::compaction::debt::LevelOptions;
use crate::storage::error::{Error, ErrorKind, Result};
use crate::storage::fs::FileSystem;
use crate::storage::key::Key;
use crate::storage::levels::{Quarantined, TableChange, TableSet};
use crate::storage::manifest::{Edit, Manifest};
use crate::storage::memtable::Memtable;
use crate::storage::reopen::{quarantine_record, record_of, reopen};
use crate::storage::table::{self, ReadCounts, Table, TableBuilder, TableOptions};
use crate::storage::verify;
use crate::storage::version::{MAX_SIBLINGS, Versions};
use crate::storage::view::{Published, ReadView};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Who installs a change of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installer {
    /// A flush.
    Flush,
    /// A compaction.
    Compaction,
}

/// How far the installation of a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The tables are there, and nothing is recorded.
    Before,
    /// The change is recorded and published.
    After,
}

/// What is called at each installation of a flush or a compaction, on the thread that installs.
pub type Watch = Box<dyn Fn(Installer, Moment) + Send + Sync>;

#[derive(Default)]
struct Watcher(OnceLock<Watch>);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "watched" } else { "unwatched" })
    }
}

/// The directory of tables.
#[derive(Debug)]
pub struct Tables {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    options: TableOptions,
    levels: LevelOptions,
    manifest: Mutex<Manifest>,
    /// Held by a flush: a generation of its starter that has ended may still be at it.
    flushing: Mutex<()>,
    /// The table of a memtable that was written, but could not be recorded: the next attempt need not write it again.
    unrecorded: Mutex<Option<(u64, NewTable)>>,
    reserved: Arc<Mutex<BTreeSet<u64>>>,
    garbage: Mutex<Vec<Arc<Table>>>,
    next_id: AtomicU64,
    counts: Arc<ReadCounts>,
    watcher: Watcher,
}

/// The number of a table that is not installed yet.
#[derive(Debug)]
struct Reservation {
    reserved: Arc<Mutex<BTreeSet<u64>>>,
    id: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.reserved.lock().remove(&self.id);
    }
}

/// A table that is being written.
pub struct OpenTable<'a> {
    builder: TableBuilder<'a>,
    tables: &'a Tables,
    reservation: Reservation,
}

impl<'a> OpenTable<'a> {
    /// Where its entries go.
    pub fn builder(&mut self) -> &mut TableBuilder<'a> {
        &mut self.builder
    }

    /// Makes it durable and readable.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> Result<NewTable> {
        self.builder.finish()?;
        let tables = self.tables;
        let table = Table::open(tables.fs.as_ref(), &tables.dir, self.reservation.id, &tables.counts)?;
        Ok(NewTable {
            table: Arc::new(table),
            _reservation: self.reservation,
        })
    }
}

/// A table that is written, but not installed. Dropped before it is, its file is left to the next sweep.
#[derive(Debug)]
pub struct NewTable {
    table: Arc<Table>,
    _reservation: Reservation,
}

impl NewTable {
    /// The table.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }
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

/// A memtable whose table is being installed.
#[derive(Debug, Clone, Copy)]
pub struct FlushedUpTo {
    /// Everything up to this sequence number is then in tables.
    pub seq: u64,
    /// Number of the memtable that leaves the view.
    pub memtable: Option<u64>,
}

impl Tables {
    /// Opens the directory: reads the manifest, opens every table that it names, sweeps what it does not name. A table
    /// that is damaged, missing or unreadable goes into quarantine; one that was there and is well again comes out.
    ///
    /// # Errors
    /// When the manifest is damaged, or a table is of another format; and when one of which the manifest does not know the
    /// keys is missing or unreadable.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        options: TableOptions,
        levels: LevelOptions,
    ) -> Result<(Self, TableSet)> {
        let mut manifest = Manifest::open(Arc::clone(&fs), dir)?;
        let counts = Arc::new(ReadCounts::default());
        let mut change = TableChange::default();
        let records: Vec<_> = manifest.state().tables.values().cloned().collect();
        for record in records {
            manifest.describe(reopen(fs.as_ref(), dir, &counts, &record, &mut change)?);
        }
        let set = TableSet::default()
            .changed(&change, &levels)
            .map_err(|detail| Error::corruption(&dir.join(crate::storage::manifest::NAME), 0, detail))?;
        let tables = Self {
            fs,
            dir: dir.to_path_buf(),
            options,
            levels,
            next_id: AtomicU64::new(manifest.state().next_id.max(1)),
            manifest: Mutex::new(manifest),
            flushing: Mutex::new(()),
            unrecorded: Mutex::new(None),
            reserved: Arc::default(),
            garbage: Mutex::default(),
            counts,
            watcher: Watcher::default(),
        };
        {
            let mut manifest = tables.manifest.lock();
            // The file was just read, so what it does not name is a leftover.
            tables.remove_leftovers(&manifest, true)?;
            match manifest.settle() {
                // A full disk must not keep the data from being read. What is recorded next writes the manifest anew.
                Err(error) if error.kind() == ErrorKind::DiskFull => {}
                settled => settled?,
            }
        }
        Ok((tables, set))
    }

    /// Has `watch` called at each installation from now on. The first that asks for it stays.
    pub fn watch(&self, watch: Watch) {
        let _ = self.watcher.0.set(watch);
    }

    fn tell(&self, installer: Installer, moment: Moment) {
        if let Some(watch) = self.watcher.0.get() {
            watch(installer, moment);
        }
    }

    /// How the levels are shaped.
    #[must_use]
    pub fn level_options(&self) -> &LevelOptions {
        &self.levels
    }

    /// What reads of tables cost so far.
    #[must_use]
    pub fn read_counts(&self) -> &ReadCounts {
        &self.counts
    }

    /// Everything up to this sequence number is in tables.
    #[must_use]
    pub fn flushed_seq(&self) -> u64 {
        self.manifest.lock().state().flushed_seq
    }

    /// Removes what an interrupted flush or compaction left: temporary files, and tables that the manifest does not name
    /// and nobody writes or reads.
    ///
    /// # Errors
    /// When the directory cannot be read or a file not removed.
    pub fn sweep(&self) -> Result<()> {
        let mut manifest = self.manifest.lock();
        // First what no manifest ever names: on a full disk the manifest needs the space.
        self.remove_leftovers(&manifest, false)?;
        // Its file may name a table although recording it failed; it must not do so when the table is gone.
        manifest.settle()?;
        *self.unrecorded.lock() = None;
        self.remove_leftovers(&manifest, true)
    }

    fn remove_leftovers(&self, manifest: &Manifest, tables: bool) -> Result<()> {
        let names = self.fs.list(&self.dir).map_err(|e| Error::io("list", &self.dir, e))?;
        // After the list: a table that is begun from here on is not in it.
        let reserved = self.reserved.lock().clone();
        let read: BTreeSet<u64> = self.garbage.lock().iter().map(|table| table.id()).collect();
        for name in names {
            let temporary = name.strip_suffix(".tmp");
            let Some(id) = table::id_of(temporary.unwrap_or(&name)) else {
                continue;
            };
            let named = temporary.is_none() && (!tables || manifest.state().tables.contains_key(&id));
            if !named && !reserved.contains(&id) && !read.contains(&id) {
                let path = self.dir.join(&name);
                self.fs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
            }
        }
        Ok(())
    }

    /// Begins a table for a level.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub fn create(&self, level: usize) -> Result<OpenTable<'_>> {
        // Reserved before the file exists, so that no sweep comes between.
        let reservation = {
            let mut reserved = self.reserved.lock();
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            reserved.insert(id);
            Reservation {
                reserved: Arc::clone(&self.reserved),
                id,
            }
        };
        let options = TableOptions {
            bloom_filter_fp: self.options.bloom_filter_fp * self.levels.filter_share(level),
            ..self.options
        };
        Ok(OpenTable {
            builder: TableBuilder::create(self.fs.as_ref(), &self.dir, reservation.id, options)?,
            tables: self,
            reservation,
        })
    }

    /// Removes a table that will not be installed, and never was tried to be.
    pub fn discard(&self, table: NewTable) {
        // Were it to fail, the next sweep would remove it.
        let _ = self.fs.remove(&table::path(&self.dir, table.table.id()));
    }

    /// Writes a sealed memtable as a table of L0, records it, and publishes a view that has the table in place of the
    /// memtable.
    ///
    /// # Errors
    /// When the table cannot be written or recorded. The memtable stays in the view, and the call can be repeated.
    pub fn flush(&self, memtable: &Arc<Memtable>, published: &Published) -> Result<Flushed> {
        let _alone = self.flushing.lock();
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
            None => {
                let mut table = self.create(0)?;
                memtable.visit(|key, versions| table.builder().add(key.as_str(), versions))?;
                Some(table.finish()?)
            }
        };
        let up_to = FlushedUpTo {
            seq: memtable.max_seq(),
            memtable: Some(memtable.id()),
        };
        self.tell(Installer::Flush, Moment::Before);
        let installed = self.install_l0(table.as_ref(), up_to, published);
        if installed.is_err() {
            *self.unrecorded.lock() = table.map(|table| (memtable.id(), table));
        } else {
            self.tell(Installer::Flush, Moment::After);
        }
        installed
    }

    /// Records the result of a compaction, as [`Tables::install`] does.
    ///
    /// # Errors
    /// As [`Tables::install`].
    pub fn install_compacted(&self, change: &TableChange, published: &Published) -> Result<()> {
        self.tell(Installer::Compaction, Moment::Before);
        self.install(change, None, published)?;
        self.tell(Installer::Compaction, Moment::After);
        Ok(())
    }

    /// Writes entries as a table for L0 that is not installed yet. Keys must come in strictly ascending order, and be
    /// some.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn write_l0(&self, entries: impl Iterator<Item = (Key, Versions)>) -> Result<NewTable> {
        let mut table = self.create(0)?;
        for (key, versions) in entries {
            table.builder().add(key.as_str(), &versions.bounded(MAX_SIBLINGS).0)?;
        }
        table.finish()
    }

    /// Records a table in L0, and that everything up to a sequence number is in tables; publishes a view that has it.
    ///
    /// # Errors
    /// When it cannot be recorded; the view is then as before.
    pub fn install_l0(&self, table: Option<&NewTable>, flushed: FlushedUpTo, published: &Published) -> Result<Flushed> {
        let table = table.map(NewTable::table);
        let change = TableChange {
            added: table.iter().map(|table| (0, Arc::clone(table))).collect(),
            ..TableChange::default()
        };
        self.install(&change, Some(flushed), published)?;
        Ok(Flushed {
            table: table.map(|table| table.id()),
            seq: flushed.seq,
            bytes: table.map_or(0, |table| table.size()),
        })
    }

    /// Records a change of the set of tables, durably, and publishes a view that has it. Tables that it removes become
    /// garbage.
    ///
    /// # Errors
    /// When it would break the order of the levels, or cannot be recorded; the view is then as before. The manifest's
    /// file may name what was added until the next [`Tables::sweep`].
    pub fn install(&self, change: &TableChange, flushed: Option<FlushedUpTo>, published: &Published) -> Result<()> {
        // Held to the end: whoever changes the tables of the view holds it.
        let mut manifest = self.manifest.lock();
        let before = published.load();
        let next = before
            .tables
            .changed(change, &self.levels)
            .map_err(|detail| Error::corruption(&self.dir, 0, format!("refused a change of the tables: {detail}")))?;
        let added = change.added.iter().map(|(level, table)| record_of(table, *level as u8));
        manifest.record(&Edit {
            added: added
                .chain(change.quarantined.iter().map(|table| quarantine_record(table)))
                .collect(),
            removed: change.removed.clone(),
            flushed_seq: flushed.map_or(0, |flushed| flushed.seq),
            next_id: self.next_id.load(Ordering::Relaxed),
        })?;
        let (next, replaced) = (Arc::new(next), flushed.and_then(|flushed| flushed.memtable));
        published.update(|view| ReadView {
            active: Arc::clone(&view.active),
            sealed: view
                .sealed
                .iter()
                .filter(|memtable| Some(memtable.id()) != replaced)
                .cloned()
                .collect(),
            tables: Arc::clone(&next),
        });
        let kept = |id: u64| {
            change.added.iter().any(|(_, table)| table.id() == id) || change.quarantined.iter().any(|q| q.id == id)
        };
        let gone = before
            .tables
            .all()
            .filter(|table| change.removed.contains(&table.id()) && !kept(table.id()));
        self.garbage.lock().extend(gone.cloned());
        Ok(())
    }

    /// Sets aside every table that reads have found to be damaged. Returns how many.
    ///
    /// # Errors
    /// When it cannot be recorded; the tables then stay where they are.
    pub fn quarantine_damaged(&self, published: &Published) -> Result<usize> {
        let view = published.load();
        let damaged: Vec<_> = view.tables.all().filter(|table| table.is_damaged()).collect();
        if damaged.is_empty() {
            return Ok(0);
        }
        let aside = |table: &&Arc<Table>| {
            let (first_key, last_key) = table.range();
            Arc::new(Quarantined {
                id: table.id(),
                path: table.path().to_path_buf(),
                size: table.size(),
                first_key: first_key.to_owned(),
                last_key: last_key.to_owned(),
                cause: table.damage_found(),
                table: Some(Arc::clone(table)),
            })
        };
        let change = TableChange {
            removed: damaged.iter().map(|table| table.id()).collect(),
            quarantined: damaged.iter().map(aside).collect(),
            ..TableChange::default()
        };
        self.install(&change, None, published)?;
        Ok(change.removed.len())
    }

    /// The tables at this moment, and what the manifest says of them.
    pub fn snapshot(&self, published: &Published) -> Snapshot {
        let manifest = self.manifest.lock();
        Snapshot {
            state: manifest.state().clone(),
            set: Arc::clone(&published.load().tables),
        }
    }

    /// Reads the manifest again, and checks that it says what is known of the tables. Nothing is recorded meanwhile.
    /// Returns the bytes read.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    pub fn check_manifest(&self) -> Result<u64> {
        let manifest = self.manifest.lock();
        verify::check_manifest(self.fs.as_ref(), &self.dir, manifest.state(), manifest.durable_len())
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes the files of replaced tables that nobody reads any more. Returns how many are still read.
    pub fn collect_garbage(&self) -> usize {
        let mut garbage = self.garbage.lock();
        garbage.retain(|table| {
            let read = Arc::strong_count(table) > 1;
            // A file that cannot be removed now is a leftover for the next sweep.
            read || self.fs.remove(table.path()).is_err()
        });
        garbage.len()
    }
}
