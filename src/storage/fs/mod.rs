//! The only door of the engine to files.
//!
//! Owns: the [`FileSystem`] and [`WriteFile`] traits, the real one ([`RealFs`]) and one in memory that can crash, tear,
//! fill up and fail ([`SimFs`]). What cannot be read of a file that is read already is told by [`Faults`]. Does not own: any
//! format, name or policy.

mod durable;
mod mapped;
mod real;
mod sim;

pub use durable::{create_durably, remove_durably};
pub use mapped::Faults;
pub use real::RealFs;
pub use sim::{Failure, Fault, Operation, OperationKind, SimFs, Survival};

use bytes::Bytes;
use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

/// Held for as long as a directory is locked; dropping it unlocks.
pub type DirLock = Box<dyn Any + Send + Sync>;

/// How much a file system holds and has left, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Its size, without what is set apart for root.
    pub total: u64,
    /// What a process without privileges may still write.
    pub available: u64,
    /// Tells file systems apart: directories with the same number share one.
    pub filesystem: u64,
}

impl Space {
    /// The share of the file system that is taken, 0 to 1.
    #[must_use]
    pub fn used(&self) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        1.0 - self.available as f64 / self.total as f64
    }
}

/// Files, directories, and what makes them durable.
pub trait FileSystem: Debug + Send + Sync {
    /// Makes a directory and its parents. One that exists is fine. Returns those that did not, the outermost first.
    ///
    /// # Errors
    /// As the operating system's.
    fn create_dir_all(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Removes a directory in which there is nothing.
    ///
    /// # Errors
    /// As the operating system's.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes a new, empty file to write to.
    ///
    /// # Errors
    /// When it exists already, or as the operating system's.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// The whole content of a file as it is now, without a copy where the system can map it. It is then read from the disk
    /// when it is looked at, and what cannot be read are zeros: [`Faults`] of the content says so.
    ///
    /// # Errors
    /// As the operating system's.
    fn read(&self, path: &Path) -> io::Result<Bytes>;

    /// Opens a file that is there, to write to it or to make durable what somebody else wrote.
    ///
    /// # Errors
    /// As the operating system's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// The names of the files in a directory, in no order.
    ///
    /// # Errors
    /// As the operating system's.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Gives a file another name, replacing what had it. Durable after [`FileSystem::sync_dir`].
    ///
    /// # Errors
    /// As the operating system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name. Durable after [`FileSystem::sync_dir`].
    ///
    /// # Errors
    /// As the operating system's, for example when the two names would lie on different file systems.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`FileSystem::sync_dir`].
    ///
    /// # Errors
    /// As the operating system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the operating system's.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// How full the file system is that holds `dir`.
    ///
    /// # Errors
    /// As the operating system's.
    fn space(&self, dir: &Path) -> io::Result<Space>;

    /// Takes a directory for this process alone.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process has it.
    fn lock_dir(&self, dir: &Path) -> io::Result<DirLock>;
}

/// A file that is written to.
pub trait WriteFile: Debug + Send {
    /// Writes all of `data` at byte `offset`, which is at most the file's length.
    ///
    /// # Errors
    /// As the operating system's; part of it may then have been written.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Has a part of what was written go to the disk now, and waits for it: a matter of pace, nothing is durable by it.
    ///
    /// # Errors
    /// As the operating system's. It tells a failure once, so a later [`WriteFile::sync`] may succeed although what was
    /// written is lost.
    fn write_out(&mut self, offset: u64, length: u64) -> io::Result<()>;

    /// Makes what was written durable (fdatasync).
    ///
    /// # Errors
    /// As the operating system's. What is durable is then unknown, and another call may find nothing to do.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// As the operating system's.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}
