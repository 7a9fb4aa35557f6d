//! Upkeep of the log while somebody else writes it.
//!
//! Owns: deleting segments, syncing ahead, and making durable what a writer left who is gone. The first two may take the disk a tenth of a second, and hold the log only to look
//! and to note the result. Does not own: when they are due.

use super::path;
use super::reader::Segment;
use super::writer::{Log, RESERVE};
use crate::storage::error::{Error, Result};
use crate::storage::fs::FileSystem;
use parking_lot::Mutex;
use std::io::ErrorKind;

/// Bytes that are written at once of what is written once more.
const REWRITTEN_AT_ONCE: usize = 1 << 20;

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
    let segment = path(&dir, unsynced.segment);
    // Without a descriptor of its own it is up to the log's.
    let synced = match fs.open(&segment) {
        Ok(mut file) => file.sync(),
        Err(_) => return log.lock().sync_open().is_ok(),
    };
    match synced {
        Ok(()) => log.lock().synced(unsynced),
        Err(error) => {
            let _ = log.lock().fail_to_sync(&segment, error);
        }
    }
    true
}

/// Makes the bytes `from..to` of a segment durable that a writer left who is gone, by writing them once more as they are: a
/// process that was killed leaves them in the system's memory, and after a sync that failed the system takes what it holds there
/// for written, so that a sync alone does nothing (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
///
/// # Errors
/// When they cannot be read, written or synced. A disk that has no space for it gives the reserve for deletes first.
pub fn rewrite(fs: &dyn FileSystem, segment: &Segment, from: u64, to: u64) -> Result<()> {
    let path = segment.path();
    let mut file = fs.open(path).map_err(|e| Error::io("open", path, e))?;
    let mut at = from;
    for mapped in segment.bytes(from, to).chunks(REWRITTEN_AT_ONCE) {
        // Read first, and judged: what the system cannot read are zeros by now, which must not be written in its place.
        let chunk = mapped.to_vec();
        segment.check_readable()?;
        let mut written = file.write_at(at, &chunk);
        // On a file system that copies on write even that takes space.
        if written
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::StorageFull)
        {
            let reserve = path.with_file_name(RESERVE);
            fs.remove(&reserve).map_err(|e| Error::io("remove", &reserve, e))?;
            written = file.write_at(at, &chunk);
        }
        written.map_err(|e| Error::io("write", path, e))?;
        at += chunk.len() as u64;
    }
    file.sync().map_err(|e| Error::io("sync", path, e))
}
