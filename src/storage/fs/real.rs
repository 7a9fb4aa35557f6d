//! The operating system's file system.

use super::{DirLock, FileSystem, Space, WriteFile, mapped};
use crate::storage::progress;
use bytes::Bytes;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Files of the operating system; reads are memory-mapped.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

#[derive(Debug)]
struct RealFile(File);

/// The error of a map, with what to do about one that is not about this file.
fn explained(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::OutOfMemory {
        return error;
    }
    let detail = format!("{error}: each table takes a map, and there may be no more than vm.max_map_count; raise it");
    io::Error::new(io::ErrorKind::OutOfMemory, detail)
}

impl FileSystem for RealFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let missing = dir
            .ancestors()
            .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
        let mut missing: Vec<_> = missing.map(Path::to_path_buf).collect();
        missing.reverse();
        fs::create_dir_all(dir)?;
        Ok(missing)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        progress::step();
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        progress::step();
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::new());
        }
        // SAFETY: the engine never changes bytes that it has written (a recovery writes some once more as they are): files are appended to, renamed and unlinked, and
        // the log, which alone is ever cut, is cut only behind the last byte that anything reads through a map. The
        // directory lock keeps other nodes away. What somebody else cuts or the disk loses is found by [`mapped`].
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&file).map_err(explained)? };
        mapped::hold(map)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        progress::step();
        Ok(Box::new(RealFile(OpenOptions::new().write(true).open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        progress::step();
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        progress::step();
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        progress::step();
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        progress::step();
        File::open(dir)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stats = rustix::fs::statvfs(dir)?;
        // As df has it: what only root may use counts neither as taken nor as free.
        let taken = stats.f_blocks.saturating_sub(stats.f_bfree);
        Ok(Space {
            total: taken.saturating_add(stats.f_bavail).saturating_mul(stats.f_frsize),
            available: stats.f_bavail.saturating_mul(stats.f_frsize),
            filesystem: fs::metadata(dir)?.dev(),
        })
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<DirLock> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("LOCK"))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl WriteFile for RealFile {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        progress::step();
        self.0.write_all_at(data, offset)
    }

    fn write_out(&mut self, offset: u64, length: u64) -> io::Result<()> {
        progress::step();
        let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let (offset, length) = (
            offset.try_into().map_err(out_of_range)?,
            length.try_into().map_err(out_of_range)?,
        );
        let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        // SAFETY: the call takes numbers alone, and the descriptor is open as long as the file is held.
        #[allow(unsafe_code)]
        let done = unsafe { libc::sync_file_range(self.0.as_raw_fd(), offset, length, flags) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The system, or this file system, does not know it.
            Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE | libc::EOPNOTSUPP) => self.0.sync_data(),
            _ => Err(error),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        progress::step();
        self.0.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        progress::step();
        self.0.set_len(len)
    }
}
