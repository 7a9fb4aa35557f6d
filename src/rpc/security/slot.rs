//! What is made of files, as it was when they were last whole.
//!
//! Owns: reading them, and knowing whether they have changed. Does not own: what is made of them.

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most bytes of a file: some 100,000 tokens.
const MOST_BYTES: u64 = 16 << 20;

/// A place for it.
#[derive(Debug)]
pub(super) struct Slot<T> {
    pub(super) current: ArcSwapOption<T>,
    /// A digest of the files of which it was made.
    made_of: Mutex<Option<[u8; 32]>>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            current: ArcSwapOption::empty(),
            made_of: Mutex::new(None),
        }
    }
}

impl<T> Slot<T> {
    /// Reads the files, and puts what `make` makes of their contents in place of what is there, if they are others. Without
    /// files nothing is there. Says whether there was a change.
    ///
    /// # Errors
    /// In words, when a file cannot be read or used: what is there stays.
    pub(super) fn look(
        &self,
        paths: &[PathBuf],
        make: impl FnOnce(&[Vec<u8>]) -> Result<T, String>,
    ) -> Result<bool, String> {
        let mut made_of = self.made_of.lock();
        if paths.is_empty() {
            self.current.store(None);
            return Ok(made_of.take().is_some());
        }
        let contents = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        let mut hash = Sha256::new();
        for content in &contents {
            hash.update((content.len() as u64).to_le_bytes());
            hash.update(content);
        }
        let digest: [u8; 32] = hash.finalize().into();
        if *made_of == Some(digest) {
            return Ok(false);
        }
        let named = |problem| match paths {
            [path] => format!("{}: {problem}", path.display()),
            _ => problem,
        };
        let made = make(&contents).map_err(named)?;
        self.current.store(Some(Arc::new(made)));
        *made_of = Some(digest);
        Ok(true)
    }
}

/// Opens a regular file. A pipe would be waited for until somebody writes to it, which may be never.
fn open(path: &Path) -> io::Result<File> {
    // A pipe is opened at once so, and on a regular file it does nothing.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let file = open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut content));
    file.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    if content.len() as u64 > MOST_BYTES {
        let path = path.display();
        return Err(format!("{path} is too large; it must have at most {MOST_BYTES} bytes"));
    }
    Ok(content)
}
