//! A file system into which faults are injected.
//!
//! Each operation passes the point of [`DISK_IO`] that is named by what is done and to which kind of file, such as
//! `sync-log`. An error there is EIO or ENOSPC, before anything is done; a panic hits whichever thread is at it.
//!
//! Owns: those points. Does not own: the files, or what is injected (see [`crate::actors::faults`]).

use crate::actors::faults::{self, DISK_IO, Fault, Faults};
use crate::storage::fs::{DirLock, FileSystem, Space, WriteFile};
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All points, those of an operation together.
pub const POINTS: &[&str] = &[
    "create-log",
    "create-table",
    "create-manifest",
    "create-other",
    "write-log",
    "write-table",
    "write-manifest",
    "write-other",
    "sync-log",
    "sync-table",
    "sync-manifest",
    "sync-other",
    "rename-log",
    "rename-table",
    "rename-manifest",
    "rename-other",
    "remove-log",
    "remove-table",
    "remove-manifest",
    "remove-other",
    "sync-directory",
];

/// What is done to a file.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Create,
    Write,
    Sync,
    Rename,
    Remove,
}

/// The point of an operation on a file: four kinds of files in the order of [`POINTS`].
fn point(operation: Operation, path: &Path) -> &'static str {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let kind = if name.starts_with("commitlog-") {
        0
    } else if name.contains(".sst") {
        1
    } else if name.starts_with("MANIFEST") {
        2
    } else {
        3
    };
    POINTS.get(4 * operation as usize + kind).copied().unwrap_or_default()
}

/// The file system.
#[derive(Debug)]
pub struct FaultFs {
    inner: Arc<dyn FileSystem>,
    faults: Arc<Faults>,
}

impl FaultFs {
    /// Injects `faults` into `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn FileSystem>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }

    fn file(&self, path: &Path, inner: Box<dyn WriteFile>) -> Box<dyn WriteFile> {
        Box::new(FaultFile {
            inner,
            faults: Arc::clone(&self.faults),
            write: point(Operation::Write, path),
            sync: point(Operation::Sync, path),
        })
    }
}

fn pass(faults: &Faults, point: &'static str) -> io::Result<()> {
    match faults.strike(DISK_IO, point, false) {
        None => Ok(()),
        Some(Fault::DiskFull) => Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!("an injected ENOSPC at {point}"),
        )),
        Some(Fault::Stall(time)) => {
            std::thread::sleep(time);
            Ok(())
        }
        Some(Fault::Panic) => faults::panic_at(point),
        Some(Fault::Error | Fault::Kill | Fault::Drop) => Err(io::Error::other(format!("an injected EIO at {point}"))),
    }
}

impl FileSystem for FaultFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.create_dir_all(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.remove_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        pass(&self.faults, point(Operation::Create, path))?;
        Ok(self.file(path, self.inner.create(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        self.inner.read(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(self.file(path, self.inner.open(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        pass(&self.faults, point(Operation::Rename, to))?;
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        pass(&self.faults, point(Operation::Remove, path))?;
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        pass(&self.faults, "sync-directory")?;
        self.inner.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.inner.space(dir)
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<DirLock> {
        self.inner.lock_dir(dir)
    }
}

/// A file that is written to.
#[derive(Debug)]
struct FaultFile {
    inner: Box<dyn WriteFile>,
    faults: Arc<Faults>,
    write: &'static str,
    sync: &'static str,
}

impl WriteFile for FaultFile {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        pass(&self.faults, self.write)?;
        self.inner.write_at(offset, data)
    }

    fn write_out(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.inner.write_out(offset, length)
    }

    fn sync(&mut self) -> io::Result<()> {
        pass(&self.faults, self.sync)?;
        self.inner.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_on_each_kind_of_file_has_its_point() {
        let all = [
            Operation::Create,
            Operation::Write,
            Operation::Sync,
            Operation::Rename,
            Operation::Remove,
        ];
        let names = [
            "commitlog-000000000001.log",
            "000000000007.sst.tmp",
            "MANIFEST",
            "REMEMBERED",
        ];
        let points: Vec<_> = all
            .iter()
            .flat_map(|operation| names.map(|name| point(*operation, &Path::new("/data").join(name))))
            .chain(["sync-directory"])
            .collect();
        assert_eq!(points, POINTS);
        assert_eq!(point(Operation::Sync, Path::new("MANIFEST.tmp")), "sync-manifest");
    }
}
