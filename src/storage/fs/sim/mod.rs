//! A file system in memory that separates what programs see from what is durable, so that a crash is one call.
//!
//! The model is the least that POSIX and a disk promise; file systems keep more order than this, and none keeps less:
//!
//! - *Bytes* are durable after a sync of the file. Of what was written or cut since, a crash leaves each sector of 512
//!   bytes as it was at some moment since the last sync, each independently of the others, and never mixed. The length is
//!   a state of its own: a file may have grown without its bytes, which are zeros then, and the other way around.
//! - *Names* are durable after a sync of their directory, whatever was synced of the file. Of what was created, renamed,
//!   linked and removed since, a crash keeps any subset in which each change has those before it that concern the same
//!   names. A rename is one change: the file is found under the old name or under the new one. Between two directories
//!   it is durable with the new name's. A directory is a name in its parent; when that is lost, so is all below it.
//! - *Syncs* that fail make nothing durable, and lose nothing that is seen; but the next of the same file or directory finds
//!   nothing to do, succeeds, and makes nothing durable either, until something is changed there again.
//! - An operation that the power loss cuts off may have done any part of what it was asked.
//!
//! Owns: that model ([`content`], [`names`]), and what else a disk may do to a program: fill up, refuse, flip bits
//! ([`operations`]). Does not own: any schedule; the test says when. All that is left to chance follows from a seed.

mod chance;
mod content;
mod names;
mod operations;

pub use operations::{Failure, Fault, Operation, OperationKind};

use super::{DirLock, FileSystem, Space, WriteFile};
use bytes::Bytes;
use chance::{Chance, Pick};
use content::Content;
use names::{Names, Node};
use operations::{Fate, Operations, power_is_off};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a disk without end says is free.
const ENDLESS_BYTES: u64 = 1 << 50;

/// What a crash leaves of that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// All of it.
    Everything,
    /// Of each file the first bytes that were appended, not only whole sectors; no names.
    Torn(usize),
    /// Any part that the model allows, by this seed.
    Random(u64),
}

/// A simulated disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimFs(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    names: Names,
    files: Vec<Content>,
    /// Who holds a directory: the number of the lock, so that one from before a crash frees nothing.
    locks: BTreeMap<PathBuf, u64>,
    locks_taken: u64,
    /// Bytes that may still be appended before the disk is full; [`None`]: no end.
    space: Option<u64>,
    operations: Operations,
    /// Processes that ended so far, with the power or without: a file opened before cannot be written after it.
    crashes: u64,
}

#[derive(Debug)]
struct SimFile {
    disk: Arc<Mutex<Disk>>,
    file: usize,
    crashes: u64,
}

struct SimLock {
    disk: Arc<Mutex<Disk>>,
    dir: PathBuf,
    number: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let disk = &mut *self.disk.lock();
        if disk.locks.get(&self.dir) == Some(&self.number) {
            disk.locks.remove(&self.dir);
        }
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {}", path.display()))
}

impl Disk {
    fn index(&self, path: &Path) -> io::Result<usize> {
        self.names.file(path).ok_or_else(|| not_found(path))
    }

    fn content(&mut self, file: usize) -> io::Result<&mut Content> {
        self.files.get_mut(file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Does an operation, unless it is to fail. One that is cut off is done, and not synced: that is to say in part.
    fn operate<T>(
        &mut self,
        kind: OperationKind,
        path: &Path,
        act: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.operations.begin(kind, path) {
            Fate::Done => act(self),
            Fate::Fails(error) => {
                self.fail(kind, path);
                Err(error)
            }
            Fate::Refused => Err(power_is_off()),
            Fate::CutOff => {
                if kind.is_change() {
                    act(self)?;
                }
                Err(power_is_off())
            }
        }
    }

    /// What an operation that fails does all the same.
    fn fail(&mut self, kind: OperationKind, path: &Path) {
        match kind {
            OperationKind::SyncDir => self.names.fail_to_sync(path),
            OperationKind::Sync => {
                let file = self.names.file(path).and_then(|file| self.files.get_mut(file));
                if let Some(content) = file {
                    content.fail_to_sync();
                }
            }
            _ => {}
        }
    }

    fn give_back(&mut self, bytes: usize) {
        if let Some(space) = &mut self.space {
            *space += bytes as u64;
        }
    }

    fn write(&mut self, file: usize, start: usize, data: &[u8]) -> io::Result<()> {
        let space = self
            .space
            .map_or(usize::MAX, |space| usize::try_from(space).unwrap_or(usize::MAX));
        let content = self.content(file)?;
        let before = content.live().len();
        let overwritten = before
            .checked_sub(start)
            .ok_or_else(|| io::Error::other("a write behind the end of the file"))?;
        let written = data.get(..overwritten.saturating_add(space)).unwrap_or(data);
        content.write(start, written);
        let grown = content.live().len() - before;
        if let Some(space) = &mut self.space {
            *space -= grown as u64;
        }
        if written.len() < data.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl SimFs {
    /// A descriptor of a file.
    fn file(&self, file: usize, disk: &Disk) -> Box<dyn WriteFile> {
        Box::new(SimFile {
            disk: Arc::clone(&self.0),
            file,
            crashes: disk.crashes,
        })
    }

    /// Power is lost: only synced bytes under synced names remain, and of each file's unsynced tail the first `torn`
    /// bytes. Locks are gone.
    pub fn crash(&self, torn: usize) {
        self.crash_with(Survival::Torn(torn));
    }

    /// The process that uses it ends: locks are gone, and files that are open can no longer be written to. What it wrote is there
    /// for the next, and no more durable than before.
    pub fn kill(&self) {
        let disk = &mut *self.0.lock();
        disk.locks.clear();
        disk.crashes += 1;
        disk.operations.until_power_off = None;
        disk.operations.power_is_off = false;
    }

    /// Power is lost, and comes back. What was not synced survives as `survival` says. Locks are gone, and files that are
    /// open can no longer be written to.
    pub fn crash_with(&self, survival: Survival) {
        self.kill();
        let disk = &mut *self.0.lock();
        let mut chance = Chance::seeded(match survival {
            Survival::Random(seed) => seed,
            Survival::Nothing | Survival::Everything | Survival::Torn(_) => 0,
        });
        let names = match survival {
            Survival::Nothing | Survival::Torn(_) => Pick::Oldest,
            Survival::Everything => Pick::Newest,
            Survival::Random(_) => chance.way(),
        };
        disk.names.crash(&mut chance, names);
        let (sectors, length) = (chance.way(), chance.way());
        let named: BTreeSet<usize> = disk.names.files().map(|(_, file)| file).collect();
        for (file, content) in disk.files.iter_mut().enumerate() {
            match survival {
                _ if !named.contains(&file) => *content = Content::default(),
                Survival::Nothing => content.crash_torn(0),
                Survival::Torn(torn) => content.crash_torn(torn),
                Survival::Everything => content.crash_whole(),
                Survival::Random(_) => content.crash_by_chance(&mut chance, sectors, length),
            }
        }
    }

    /// Cuts the power while the operation behind the next `count` is under way. It and all that follow fail, until
    /// [`SimFs::crash_with`] says what is left and brings the power back.
    pub fn crash_after(&self, count: usize) {
        self.0.lock().operations.until_power_off = Some(count);
    }

    /// Whether the power is on: not from the moment of [`SimFs::crash_after`] to the next crash.
    #[must_use]
    pub fn has_power(&self) -> bool {
        !self.0.lock().operations.power_is_off
    }

    /// Another disk in the same state, without locks and faults, and with its power on.
    #[must_use]
    pub fn copied(&self) -> Self {
        let disk = self.0.lock();
        Self(Arc::new(Mutex::new(Disk {
            names: disk.names.clone(),
            files: disk.files.clone(),
            space: disk.space,
            crashes: disk.crashes,
            ..Disk::default()
        })))
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.0.lock().operations.trace.len()
    }

    /// All operations, in their order.
    #[must_use]
    pub fn trace(&self) -> Vec<Operation> {
        self.0.lock().operations.trace.clone()
    }

    /// Makes operations fail, beside those that are to fail already.
    pub fn fail(&self, fault: Fault) {
        self.0.lock().operations.faults.push(fault);
    }

    /// Lets every operation succeed again.
    pub fn heal(&self) {
        self.0.lock().operations.faults.clear();
    }

    /// Lets `bytes` more be appended before the disk is full; [`None`] gives it space without end.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.0.lock().space = bytes;
    }

    /// Makes the next `count` syncs of files fail, in place of what was last said of syncs.
    pub fn fail_syncs(&self, count: usize) {
        let mut fault = Fault::next(OperationKind::Sync, "", Failure::Device);
        fault.times = count;
        self.replace_fault(fault);
    }

    /// Lets no new file be made whose name ends with `suffix`, as if the disk were full; empty lets all.
    pub fn refuse_new_files(&self, suffix: &str) {
        let mut fault = Fault::next(OperationKind::Create, suffix, Failure::Full);
        fault.times = if suffix.is_empty() { 0 } else { usize::MAX };
        self.replace_fault(fault);
    }

    fn replace_fault(&self, fault: Fault) {
        let faults = &mut self.0.lock().operations.faults;
        faults.retain(|known| known.kind != fault.kind);
        faults.push(fault);
    }

    /// What a crash now would leave of a file for certain.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn durable(&self, path: &Path) -> io::Result<Vec<u8>> {
        let disk = &mut *self.0.lock();
        let file = disk.index(path)?;
        Ok(disk.content(file)?.durable().to_vec())
    }

    /// Replaces a file's content, durably.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn overwrite(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        let disk = &mut *self.0.lock();
        let file = disk.index(path)?;
        disk.content(file)?.replace(content);
        Ok(())
    }

    /// Flips the bits of `mask` in the byte at `at` of a file, in what programs see and in what is durable of it.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn flip(&self, path: &Path, at: usize, mask: u8) -> io::Result<()> {
        let disk = &mut *self.0.lock();
        let file = disk.index(path)?;
        disk.content(file)?.flip(at, mask);
        Ok(())
    }
}

impl FileSystem for SimFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.lock().operate(OperationKind::CreateDir, dir, |disk| {
            let mut missing: Vec<&Path> = dir.ancestors().filter(|dir| dir.parent().is_some()).collect();
            missing.retain(|dir| !disk.names.has(dir));
            missing.reverse();
            for dir in &missing {
                disk.names.add(dir, Node::Directory);
            }
            Ok(missing.into_iter().map(Path::to_path_buf).collect())
        })
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.lock().operate(OperationKind::Remove, dir, |disk| {
            if !disk.names.is_empty(dir) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            disk.names.remove(dir);
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.0.lock().operate(OperationKind::Create, path, |disk| {
            if disk.names.has(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let file = disk.files.len();
            disk.files.push(Content::default());
            disk.names.add(path, Node::File(file));
            Ok(self.file(file, disk))
        })
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        self.0.lock().operate(OperationKind::Read, path, |disk| {
            let file = disk.index(path)?;
            Ok(Bytes::copy_from_slice(disk.content(file)?.live()))
        })
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.0.lock().operate(OperationKind::Open, path, |disk| {
            let file = disk.index(path)?;
            Ok(self.file(file, disk))
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.lock().operate(OperationKind::List, dir, |disk| {
            Ok(disk
                .names
                .files()
                .filter(|(path, _)| path.parent() == Some(dir))
                .filter_map(|(path, _)| path.file_name()?.to_str().map(str::to_owned))
                .collect())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.lock().operate(OperationKind::Rename, from, |disk| {
            let file = disk.index(from)?;
            disk.names.rename(from, to, file);
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.lock().operate(OperationKind::Link, to, |disk| {
            let file = disk.index(from)?;
            if disk.names.has(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            disk.names.add(to, Node::File(file));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().operate(OperationKind::Remove, path, |disk| {
            let file = disk.index(path)?;
            disk.names.remove(path);
            if disk.names.of(file).is_none() {
                let freed = disk.content(file)?.live().len();
                disk.give_back(freed);
            }
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.lock().operate(OperationKind::SyncDir, dir, |disk| {
            disk.names.sync(dir);
            Ok(())
        })
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.0.lock().operate(OperationKind::Space, dir, |disk| {
            let contents = disk.names.files().filter_map(|(_, file)| disk.files.get(file));
            let taken: u64 = contents.map(|content| content.live().len() as u64).sum();
            let available = disk.space.unwrap_or(ENDLESS_BYTES);
            Ok(Space {
                total: taken.saturating_add(available),
                available,
                filesystem: 1,
            })
        })
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<DirLock> {
        self.0.lock().operate(OperationKind::Lock, dir, |disk| {
            if disk.locks.contains_key(dir) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            disk.locks_taken += 1;
            let number = disk.locks_taken;
            disk.locks.insert(dir.to_path_buf(), number);
            let lock: DirLock = Box::new(SimLock {
                disk: Arc::clone(&self.0),
                dir: dir.to_path_buf(),
                number,
            });
            Ok(lock)
        })
    }
}

impl SimFile {
    /// Does an operation on the file, as [`Disk::operate`] does.
    fn operate(&self, kind: OperationKind, act: impl FnOnce(&mut Disk) -> io::Result<()>) -> io::Result<()> {
        let disk = &mut *self.disk.lock();
        let path = self.path(disk)?;
        disk.operate(kind, &path, act)
    }

    /// The name that the file has now; empty when it was removed.
    fn path(&self, disk: &Disk) -> io::Result<PathBuf> {
        if self.crashes != disk.crashes {
            return Err(io::Error::other("the file was opened before a crash"));
        }
        Ok(disk.names.of(self.file).cloned().unwrap_or_default())
    }
}

impl WriteFile for SimFile {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let disk = &mut *self.disk.lock();
        let path = self.path(disk)?;
        match disk.operations.begin(OperationKind::Write, &path) {
            Fate::Done => disk.write(self.file, start, data),
            Fate::Fails(error) => {
                let half = data.get(..data.len() / 2).unwrap_or_default();
                disk.write(self.file, start, half)?;
                Err(error)
            }
            Fate::CutOff => {
                disk.write(self.file, start, data)?;
                Err(power_is_off())
            }
            Fate::Refused => Err(power_is_off()),
        }
    }

    fn write_out(&mut self, _offset: u64, _length: u64) -> io::Result<()> {
        // What goes to the disk before a sync is what a crash leaves or not anyway.
        self.operate(OperationKind::WriteOut, |_disk| Ok(()))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.operate(OperationKind::Sync, |disk| {
            disk.content(self.file)?.sync();
            Ok(())
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.operate(OperationKind::Truncate, |disk| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let content = disk.content(self.file)?;
            let freed = content.live().len().saturating_sub(len);
            content.cut(len);
            disk.give_back(freed);
            Ok(())
        })
    }
}
