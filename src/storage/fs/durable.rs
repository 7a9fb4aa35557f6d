//! Names that are made or removed for good.
//!
//! Owns: that what is answered holds also when a sync had failed before: the next of the same directory may find nothing to
//! do, and succeed, while what it was to cover is on no disk. Does not own: files' bytes.

use super::FileSystem;
use crate::storage::error::{Error, Result};
use std::io;
use std::path::Path;

/// Makes a directory and its parents, durably. Those that could not be made so are taken back: another attempt makes them anew.
///
/// # Errors
/// When they cannot be made, or not be synced.
pub fn create_durably(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    let made = fs.create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let durable = make_durable(fs, dir);
    if durable.is_err() {
        for dir in made.iter().rev() {
            let _ = fs.remove_dir(dir);
        }
    }
    durable
}

/// Makes the names of a directory and of those above it durable: any of them may have been made just now.
fn make_durable(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    for above in dir.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() {
            Path::new(".")
        } else {
            above
        };
        match fs.sync_dir(above) {
            // A directory that may not be opened is not one that this program made another in.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced.map_err(|e| Error::io("sync", above, e))?,
        }
    }
    Ok(())
}

/// Removes a file, durably; one that is not there, too. After a sync that failed a removal may be in no state that the next
/// sync looks at: when the file is gone already, its directory is changed once more, so that the sync covers all of it.
///
/// # Errors
/// When it cannot be removed, or the directory not synced.
pub fn remove_durably(fs: &dyn FileSystem, dir: &Path, name: &str) -> Result<()> {
    let path = dir.join(name);
    match fs.remove(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let stand_in = path.with_extension("tmp");
            // An earlier attempt may have left it.
            let _ = fs.remove(&stand_in);
            // A full disk has no room for it, and must not keep a node from what needs none.
            let _ = fs.create(&stand_in).and_then(|_empty| fs.remove(&stand_in));
        }
        Err(error) => return Err(Error::io("remove", &path, error)),
    }
    fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))
}
