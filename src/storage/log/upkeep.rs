//! Upkeep of the log while somebody else writes it.
//!
//! Owns: deleting segments, and syncing ahead. Both may take the disk a tenth of a second, and hold the log only to look
//! and to note the result. Does not own: when they are due.

use super::path;
use super::writer::Log;
use crate::storage::error::{Error, Result};
use parking_lot::Mutex;
use std::io::ErrorKind;

/// Deletes closed segments that are wholly flushed, as far as [`Log::set_flushed`] was told, and that have no change above
/// `up_to`. Returns how many.
///
/// # Errors
/// When a file cannot be removed; it is then tried again the next time.
pub fn delete_flushed(log: &Mutex<Log>, up_to: u64) -> Result<usize> {
    let (fs, dir) = log.lock().place();
    let (mut deleted, mut result) = (0, Ok(()));
    while result.is_ok() {
        let Some(oldest) = log.lock().oldest_flushed().filter(|oldest| oldest.last_seq <= up_to) else {
            break;
        };
        let segment = path(&dir, oldest.id);
        match fs.remove(&segment) {
            Err(error) if error.kind() != ErrorKind::NotFound => result = Err(Error::io("remove", &segment, error)),
            // Or somebody else was at it as well, and faster.
            _ => {
                log.lock().forget_oldest(oldest.id);
                deleted += 1;
            }
        }
    }
    if deleted > 0 {
        fs.sync_dir(&dir).map_err(|e| Error::io("sync", &dir, e))?;
    }
    result.map(|()| deleted)
}

/// Syncs the open segment if it has at least so many bytes that are not: whoever closes it then has little left to wait
/// for. Returns whether it did. A failure latches the log, as that of any sync does.
pub fn sync_ahead(log: &Mutex<Log>, least_bytes: u64) -> bool {
    let (unsynced, (fs, dir)) = {
        let log = log.lock();
        match log.unsynced(least_bytes) {
            Some(unsynced) => (unsynced, log.place()),
            None => return false,
        }
    };
    match fs.sync_file(&path(&dir, unsynced.segment)) {
        Ok(()) => log.lock().synced(unsynced),
        // Perhaps the file could not even be opened. What is true of it the log's own descriptor tells: a failed write is
        // told to each.
        Err(_) => {
            let _ = log.lock().sync_open();
        }
    }
    true
}
