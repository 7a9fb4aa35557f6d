//! A file system in memory that separates live bytes from durable ones, so that a crash is one call.
//!
//! Owns: what a disk may do to a program (lose what was not synced, tear it, fill up, fail a sync, flip a bit). Does not
//! own: any schedule; the test says when.

use super::{DirLock, FileSystem, Space, WriteFile};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a disk without end says is free.
const ENDLESS_BYTES: u64 = 1 << 50;

/// A simulated disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimFs(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    /// What programs see: a name and the file that has it.
    live: BTreeMap<PathBuf, usize>,
    /// The names that survive a crash.
    durable: BTreeMap<PathBuf, usize>,
    files: Vec<Contents>,
    /// Who holds a directory: the number of the lock, so that one from before a crash frees nothing.
    locks: BTreeMap<PathBuf, u64>,
    locks_taken: u64,
    /// Bytes that may still be appended before the disk is full; [`None`]: no end.
    space: Option<u64>,
    failing_syncs: usize,
    /// New files whose name ends like this get no space; empty: all do.
    refused_suffix: String,
}

#[derive(Debug, Default)]
struct Contents {
    live: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug)]
struct SimFile {
    disk: Arc<Mutex<Disk>>,
    file: usize,
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
        self.live.get(path).copied().ok_or_else(|| not_found(path))
    }

    fn contents(&mut self, file: usize) -> io::Result<&mut Contents> {
        self.files.get_mut(file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&mut self, file: usize) -> io::Result<()> {
        if self.failing_syncs > 0 {
            self.failing_syncs -= 1;
            return Err(io::Error::other("simulated sync failure"));
        }
        let contents = self.contents(file)?;
        contents.durable.clone_from(&contents.live);
        Ok(())
    }
}

impl SimFs {
    /// Power is lost: only synced bytes under synced names remain, and of each file's unsynced tail the first `torn`
    /// bytes. Locks are gone.
    pub fn crash(&self, torn: usize) {
        let disk = &mut *self.0.lock();
        disk.live.clone_from(&disk.durable);
        disk.locks.clear();
        for file in &mut disk.files {
            let keep = file.durable.len().saturating_add(torn).min(file.live.len());
            if file.live.starts_with(&file.durable) {
                file.live.truncate(keep);
            } else {
                file.live.clone_from(&file.durable);
            }
            file.durable.clone_from(&file.live);
        }
    }

    /// Lets `bytes` more be appended before the disk is full; [`None`] gives it space without end.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.0.lock().space = bytes;
    }

    /// Makes the next `count` syncs of files fail.
    pub fn fail_syncs(&self, count: usize) {
        self.0.lock().failing_syncs = count;
    }

    /// Lets no new file be made whose name ends with `suffix`, as if the disk were full; empty lets all.
    pub fn refuse_new_files(&self, suffix: &str) {
        suffix.clone_into(&mut self.0.lock().refused_suffix);
    }

    /// What a crash now would leave of a file.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn durable(&self, path: &Path) -> io::Result<Vec<u8>> {
        let disk = &mut *self.0.lock();
        let file = disk.index(path)?;
        Ok(disk.contents(file)?.durable.clone())
    }

    /// Replaces a file's content, durably.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn overwrite(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        let disk = &mut *self.0.lock();
        let file = disk.index(path)?;
        let contents = disk.contents(file)?;
        contents.durable.clone_from(&content);
        contents.live = content;
        Ok(())
    }
}

impl FileSystem for SimFs {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let disk = &mut *self.0.lock();
        if disk.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let refused = &disk.refused_suffix;
        if !refused.is_empty() && path.to_string_lossy().ends_with(refused.as_str()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = disk.files.len();
        disk.files.push(Contents::default());
        disk.live.insert(path.to_path_buf(), file);
        Ok(Box::new(SimFile {
            disk: Arc::clone(&self.0),
            file,
        }))
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        let disk = &mut *self.0.lock();
        let file = disk.index(path)?;
        Ok(Bytes::copy_from_slice(&disk.contents(file)?.live))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let disk = &mut *self.0.lock();
        let file = disk.index(path)?;
        disk.sync(file)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.0.lock();
        Ok(disk
            .live
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let disk = &mut *self.0.lock();
        let file = disk.live.remove(from).ok_or_else(|| not_found(from))?;
        disk.live.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let disk = &mut *self.0.lock();
        let file = disk.index(from)?;
        if disk.live.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.live.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().live.remove(path).map(drop).ok_or_else(|| not_found(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let disk = &mut *self.0.lock();
        let inside = |path: &Path| path.parent() == Some(dir);
        disk.durable.retain(|path, _| !inside(path));
        for (path, file) in disk.live.iter().filter(|(path, _)| inside(path)) {
            disk.durable.insert(path.clone(), *file);
        }
        Ok(())
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        let disk = self.0.lock();
        let taken: u64 = disk
            .live
            .values()
            .filter_map(|file| disk.files.get(*file))
            .map(|f| f.live.len() as u64)
            .sum();
        let available = disk.space.unwrap_or(ENDLESS_BYTES);
        Ok(Space {
            total: taken.saturating_add(available),
            available,
            filesystem: 1,
        })
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<DirLock> {
        let disk = &mut *self.0.lock();
        if disk.locks.contains_key(dir) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        disk.locks_taken += 1;
        let number = disk.locks_taken;
        disk.locks.insert(dir.to_path_buf(), number);
        Ok(Box::new(SimLock {
            disk: Arc::clone(&self.0),
            dir: dir.to_path_buf(),
            number,
        }))
    }
}

impl WriteFile for SimFile {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let disk = &mut *self.disk.lock();
        let space = disk
            .space
            .map_or(usize::MAX, |space| usize::try_from(space).unwrap_or(usize::MAX));
        let live = &mut disk.contents(self.file)?.live;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let overwritten = live
            .len()
            .checked_sub(start)
            .ok_or_else(|| io::Error::other("a write behind the end of the file"))?;
        let written = data.get(..overwritten.saturating_add(space)).unwrap_or(data);
        let end = start + written.len();
        let grown = end.saturating_sub(live.len());
        live.resize(live.len() + grown, 0);
        if let Some(place) = live.get_mut(start..end) {
            place.copy_from_slice(written);
        }
        if let Some(space) = &mut disk.space {
            *space -= grown as u64;
        }
        if written.len() < data.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.lock().sync(self.file)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let disk = &mut *self.disk.lock();
        let contents = disk.contents(self.file)?;
        contents.live.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }
}
