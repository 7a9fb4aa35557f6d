//! Writes the log.
//!
//! Owns: the open segment, rotation, deletion of segments that are wholly flushed, the latch after a failed sync, the
//! cut after a full disk and the reserve that lets deletes go on, and the fence that keeps a writer of an earlier generation out. Does not own: threads or
//! batching. It is the same object for all generations of the actor that writes; what it says is durable is durable.

use super::reader::Segment;
use super::record::{Change, encode_mark};
use super::{HEADER, HEADER_BYTES, path};
use crate::storage::error::{Error, ErrorKind, Result};
use crate::storage::fs::{FileSystem, WriteFile};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How the log is written.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Directory of the segments.
    pub dir: PathBuf,
    /// A segment of this many bytes is closed and the next begun.
    pub segment_size: u64,
    /// A segment this old, in milliseconds, is closed and the next begun.
    pub max_age_ms: u64,
}

/// A segment that takes no more records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedSegment {
    /// Its number.
    pub id: u64,
    /// Its valid length in bytes.
    pub len: u64,
    /// Last sequence number in it.
    pub last_seq: u64,
    /// When it was begun, in milliseconds since the Unix epoch.
    pub opened_ms: u64,
}

/// Up to where a segment is known to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableEnd {
    /// The segment's number.
    pub id: u64,
    /// Bytes of it that hold whole, durable records.
    pub len: u64,
}

/// Zeros are written ahead of small batches in pieces of this size: syncing over bytes that the file has already needs
/// no change of its metadata, and takes about half the time.
const WRITE_AHEAD_BYTES: usize = 256 << 10;
/// Bytes of the file that keeps space for deletes on a full disk: some ten thousand.
const RESERVE_BYTES: usize = 2 << 20;
/// Name of that file.
pub(super) const RESERVE: &str = "RESERVE";
static ZEROS: [u8; WRITE_AHEAD_BYTES] = [0; WRITE_AHEAD_BYTES];

/// A batch up to this size is small: for it the cost of a sync is that of the metadata.
const SMALL_BATCH_BYTES: usize = WRITE_AHEAD_BYTES / 8;

struct OpenSegment {
    id: u64,
    file: Box<dyn WriteFile>,
    /// Bytes that the file has: those written, and zeros behind them.
    allocated: u64,
    /// Bytes written.
    len: u64,
    /// Bytes written and synced.
    durable: u64,
    opened_ms: u64,
}

impl OpenSegment {
    /// Writes zeros ahead of a small batch of so many bytes, where the file is too short. Only a convenience: without
    /// space for it the batch may still fit.
    fn make_room(&mut self, bytes: usize) {
        let short = self.len + bytes as u64 > self.allocated;
        if short && bytes <= SMALL_BATCH_BYTES && self.file.write_at(self.allocated, &ZEROS).is_ok() {
            self.allocated += WRITE_AHEAD_BYTES as u64;
        }
    }

    /// Writes a batch, its mark before its records, at the end; `mark` is then no longer what it was.
    fn write(&mut self, mark: &mut Vec<u8>, records: &[u8]) -> std::io::Result<()> {
        let end = self.len + (mark.len() + records.len()) as u64;
        if records.len() <= SMALL_BATCH_BYTES {
            // One system call costs more than the copy.
            mark.extend_from_slice(records);
            self.file.write_at(self.len, mark)?;
        } else {
            self.file.write_at(self.len, mark)?;
            self.file.write_at(self.len + mark.len() as u64, records)?;
        }
        self.len = end;
        self.allocated = self.allocated.max(end);
        Ok(())
    }

    /// Cuts off what lies behind `len`.
    fn cut(&mut self, len: u64) -> std::io::Result<()> {
        self.file.truncate(len)?;
        self.allocated = len;
        Ok(())
    }
}

/// Where a batch begins.
#[derive(Debug, Clone, Copy)]
struct BatchPlace {
    last_seq: u64,
    segment: u64,
    offset: u64,
}

/// Encoded records that are written and synced together.
#[derive(Debug, Default)]
pub struct EncodedBatch {
    /// All of them are deletes, which a full disk has a reserve for.
    pub deletes_only: bool,
    /// The records, encoded with the log's salt.
    pub bytes: Vec<u8>,
    /// Sequence number of the last change; 0 when there is none.
    pub last_seq: u64,
}

/// How far the log was when a sync of it began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsynced {
    pub(super) segment: u64,
    len: u64,
    last_seq: u64,
}

/// Numbers for health and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Segments on disk, the open one included.
    pub segments: usize,
    /// Their valid bytes.
    pub bytes: u64,
    /// Syncs of records done.
    pub syncs: u64,
    /// Batches written.
    pub batches: u64,
}

/// The log's only writer.
pub struct Log {
    fs: Arc<dyn FileSystem>,
    options: LogOptions,
    salt: u32,
    open: Option<OpenSegment>,
    closed: VecDeque<ClosedSegment>,
    /// Batches that the memtable may not have applied yet, for [`Log::changes_after`].
    recent: VecDeque<BatchPlace>,
    last_seq: u64,
    durable_seq: u64,
    /// Everything up to this sequence number is in tables, as far as the log was told.
    flushed_seq: u64,
    epoch: u64,
    latched: Option<String>,
    /// The log was latched by a failed sync, so what follows the last durable byte is unknown.
    unsure: bool,
    /// The log was ended for a clean stop.
    ended: bool,
    syncs: u64,
    batches: u64,
    frame: Vec<u8>,
    /// The reserve for deletes is there.
    reserved: bool,
}

impl Log {
    /// A log that goes on behind `closed` (in order), whose last sequence number is `last_seq`. Takes no record before
    /// [`Log::take_over`].
    pub fn new(
        fs: Arc<dyn FileSystem>,
        options: LogOptions,
        salt: u32,
        closed: VecDeque<ClosedSegment>,
        last_seq: u64,
    ) -> Self {
        Self {
            fs,
            options,
            salt,
            open: None,
            closed,
            recent: VecDeque::new(),
            last_seq,
            durable_seq: last_seq,
            flushed_seq: 0,
            epoch: 0,
            latched: None,
            unsure: false,
            ended: false,
            syncs: 0,
            batches: 0,
            frame: Vec::new(),
            reserved: false,
        }
    }

    /// Number of the segment that is open; [`None`] when the next append begins one.
    #[must_use]
    pub fn open_segment_id(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.id)
    }

    /// The salt that records must be encoded with.
    #[must_use]
    pub fn salt(&self) -> u32 {
        self.salt
    }

    /// Last sequence number written.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Why the log takes no more writes, if it does not.
    #[must_use]
    pub fn latched(&self) -> Option<&str> {
        self.latched.as_deref()
    }

    /// Every segment with the length up to which its records are durable, the oldest first, the open one last.
    pub fn durable_ends(&self) -> impl Iterator<Item = DurableEnd> {
        // One that is wholly flushed may be on its way out.
        let needed = self.closed.iter().filter(|s| s.last_seq > self.flushed_seq);
        let closed = needed.map(|s| DurableEnd { id: s.id, len: s.len });
        closed.chain(self.open.iter().map(|s| DurableEnd {
            id: s.id,
            len: s.durable,
        }))
    }

    /// Numbers for health and metrics.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats {
            segments: self.closed.len() + usize::from(self.open.is_some()),
            bytes: self.closed.iter().map(|s| s.len).sum::<u64>() + self.open.as_ref().map_or(0, |s| s.len),
            syncs: self.syncs,
            batches: self.batches,
        }
    }

    /// Makes the caller the log's writer: fences the earlier one out, syncs what it wrote and closes its segment. The
    /// next append begins a new one, so that nothing is ever appended to a tail that somebody else left. Returns the
    /// epoch to write with. A sync that fails latches the log, which the next append reports.
    pub fn take_over(&mut self) -> u64 {
        self.epoch += 1;
        // A failure latches the log, and the segment is closed at its last durable byte either way.
        let _ = self.sync_open();
        self.close_segment();
        self.last_seq = self.durable_seq;
        self.recent.retain(|batch| batch.last_seq <= self.durable_seq);
        // Without space for it, deletes go without until there is.
        let _ = self.keep_reserve();
        self.epoch
    }

    fn close_segment(&mut self) {
        if let Some(mut open) = self.open.take() {
            // Gives the space of the zeros back. Were it not to work, the next header says where the records end.
            let _ = open.cut(open.durable);
            self.closed.push_back(ClosedSegment {
                id: open.id,
                len: open.durable,
                last_seq: self.durable_seq,
                opened_ms: open.opened_ms,
            });
        }
    }

    /// Latches the log over a failed sync of a file or a directory. Also where the disk is full: what is on it is unknown, so
    /// this is no refusal after which to try again.
    fn latch(&mut self, path: &Path, source: std::io::Error) -> Error {
        let error = Error::io("sync", path, std::io::Error::other(source));
        self.latched = Some(error.to_string());
        error
    }

    /// A sync of what was appended failed, whoever made it.
    pub(super) fn fail_to_sync(&mut self, segment: &Path, source: std::io::Error) -> Error {
        self.unsure = true;
        self.latch(segment, source)
    }

    /// Begins a segment. One that cannot be made is tried again with the next batch; one whose header or name cannot be
    /// synced latches the log.
    fn open_segment(&mut self, now_ms: u64) -> Result<()> {
        let previous = self.closed.back();
        let id = previous.map_or(1, |s| s.id + 1);
        let mut fields = Vec::new();
        fields.extend_from_slice(&id.to_le_bytes());
        fields.extend_from_slice(&previous.map_or(0, |s| s.len).to_le_bytes());
        fields.extend_from_slice(&self.last_seq.to_le_bytes());
        fields.extend_from_slice(&now_ms.to_le_bytes());
        fields.extend_from_slice(&self.salt.to_le_bytes());
        let target = path(&self.options.dir, id);
        let temporary = target.with_extension("log.tmp");
        // An earlier attempt may have left it.
        let _ = self.fs.remove(&temporary);
        let mut file = self
            .fs
            .create(&temporary)
            .map_err(|e| Error::io("create", &temporary, e))?;
        let made = file
            .write_at(0, &HEADER.frame(&fields))
            .map_err(|e| Error::io("write", &temporary, e))
            .and_then(|()| file.sync().map_err(|e| self.latch(&temporary, e)))
            .and_then(|()| {
                self.fs
                    .rename(&temporary, &target)
                    .map_err(|e| Error::io("rename", &temporary, e))
            });
        if made.is_err() {
            let _ = self.fs.remove(&temporary);
        }
        made?;
        let dir = self.options.dir.clone();
        self.fs.sync_dir(&dir).map_err(|e| self.latch(&dir, e))?;
        self.open = Some(OpenSegment {
            id,
            file,
            allocated: HEADER_BYTES,
            len: HEADER_BYTES,
            durable: HEADER_BYTES,
            opened_ms: now_ms,
        });
        Ok(())
    }

    fn check_not_fenced(&self, epoch: u64) -> Result<()> {
        if epoch != self.epoch || self.ended {
            return Err(Error::Fenced);
        }
        Ok(())
    }

    fn check_writable(&self, epoch: u64) -> Result<()> {
        self.check_not_fenced(epoch)?;
        match &self.latched {
            Some(cause) => Err(Error::Latched { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Appends a batch, rotating first where size or age ask for it. Not durable before [`Log::sync`]. `applied` is the
    /// last sequence number that the memtable has applied: what lies below need not be found again.
    ///
    /// # Errors
    /// [`ErrorKind::DiskFull`]: nothing of the batch was kept, and the call can be repeated. Others: the log is latched,
    /// or the writer fenced.
    pub fn append(&mut self, epoch: u64, batch: &EncodedBatch, applied: u64, now_ms: u64) -> Result<()> {
        self.check_writable(epoch)?;
        if !batch.deletes_only {
            // Not before deletes have their reserve again: on a full disk they could otherwise not go on.
            self.keep_reserve()?;
            return self.try_append(epoch, batch, applied, now_ms);
        }
        match self.try_append(epoch, batch, applied, now_ms) {
            Err(error) if error.kind() == ErrorKind::DiskFull && self.give_up_reserve() => {
                self.try_append(epoch, batch, applied, now_ms)
            }
            done => done,
        }
    }

    fn keep_reserve(&mut self) -> Result<()> {
        if self.reserved {
            return Ok(());
        }
        let reserve = self.options.dir.join(RESERVE);
        if self.fs.read(&reserve).is_ok_and(|left| left.len() >= RESERVE_BYTES) {
            self.reserved = true;
            return Ok(());
        }
        // One that a crash interrupted may be of any size.
        let _ = self.fs.remove(&reserve);
        let mut file = self.fs.create(&reserve).map_err(|e| Error::io("create", &reserve, e))?;
        for at in (0..RESERVE_BYTES).step_by(WRITE_AHEAD_BYTES) {
            if let Err(source) = file.write_at(at as u64, &ZEROS) {
                let _ = self.fs.remove(&reserve);
                return Err(Error::io("write", &reserve, source));
            }
        }
        self.reserved = true;
        Ok(())
    }

    /// Frees the reserve; `false` when there is none.
    fn give_up_reserve(&mut self) -> bool {
        let held = std::mem::take(&mut self.reserved);
        held && self.fs.remove(&self.options.dir.join(RESERVE)).is_ok()
    }

    fn try_append(&mut self, epoch: u64, batch: &EncodedBatch, applied: u64, now_ms: u64) -> Result<()> {
        self.rotate_if_due(epoch, now_ms)?;
        if self.open.is_none() {
            self.open_segment(now_ms)?;
        }
        while self.recent.front().is_some_and(|b| b.last_seq <= applied) {
            self.recent.pop_front();
        }
        let Some(open) = self.open.as_mut() else {
            return Err(Error::Fenced);
        };
        self.frame.clear();
        encode_mark(&mut self.frame, self.salt, self.last_seq, open.durable);
        let start = open.len;
        open.make_room(self.frame.len() + batch.bytes.len());
        if let Err(source) = open.write(&mut self.frame, &batch.bytes) {
            let error = Error::io("write", &path(&self.options.dir, open.id), source);
            // The partial record is cut back, so that the next batch follows whole ones.
            if let Err(cut) = open.cut(start) {
                let cause = format!("{error}; and the partial record cannot be cut back: {cut}");
                self.latched = Some(cause.clone());
                let source = std::io::Error::other(cause);
                return Err(Error::io("write", &path(&self.options.dir, open.id), source));
            } else if error.kind() != ErrorKind::DiskFull {
                self.latched = Some(error.to_string());
            }
            return Err(error);
        }
        self.recent.push_back(BatchPlace {
            last_seq: batch.last_seq,
            segment: open.id,
            offset: start,
        });
        self.last_seq = self.last_seq.max(batch.last_seq);
        self.batches += 1;
        Ok(())
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// When the sync fails. What is on disk is then unknown, and the log takes no more writes: it is latched.
    pub fn sync(&mut self, epoch: u64) -> Result<()> {
        self.check_not_fenced(epoch)?;
        // Of a latched log, too: what was answered before it latched is not to wait for the next start.
        self.sync_open()?;
        self.check_writable(epoch)
    }

    /// Syncs, unless an earlier sync has failed: a second one would not tell what became of the first.
    pub(super) fn sync_open(&mut self) -> Result<()> {
        let Some(open) = self.open.as_mut().filter(|_| !self.unsure) else {
            return Ok(());
        };
        if open.durable == open.len {
            return Ok(());
        }
        if let Err(source) = open.file.sync() {
            let segment = path(&self.options.dir, open.id);
            return Err(self.fail_to_sync(&segment, source));
        }
        open.durable = open.len;
        self.durable_seq = self.last_seq;
        self.syncs += 1;
        Ok(())
    }

    /// Closes the open segment when its size or age asks for it; the next append begins another. Returns whether it did.
    ///
    /// # Errors
    /// As [`Log::sync`]; the segment then stays open.
    pub fn rotate_if_due(&mut self, epoch: u64, now_ms: u64) -> Result<bool> {
        self.check_writable(epoch)?;
        let due = self.open.as_ref().is_some_and(|open| {
            let old = now_ms.saturating_sub(open.opened_ms) >= self.options.max_age_ms;
            open.len >= self.options.segment_size || (old && open.len > HEADER_BYTES)
        });
        if !due {
            return Ok(false);
        }
        self.sync(epoch)?;
        self.close_segment();
        Ok(true)
    }

    /// Ends the log for a clean stop: syncs, and leaves a mark that vouches for every record before it.
    ///
    /// # Errors
    /// As [`Log::sync`].
    pub fn close(&mut self, epoch: u64) -> Result<()> {
        self.sync(epoch)?;
        self.ended = true;
        let Some(open) = self.open.as_mut() else {
            return Ok(());
        };
        let mut mark = Vec::new();
        encode_mark(&mut mark, self.salt, self.last_seq, open.durable);
        let segment = path(&self.options.dir, open.id);
        let marked = open
            .write(&mut mark, &[])
            .and_then(|()| open.cut(open.len))
            .and_then(|()| open.file.sync());
        if marked.is_ok() {
            open.durable = open.len;
        }
        self.close_segment();
        marked.map_err(|e| Error::io("close", &segment, e))
    }

    /// Takes note that everything up to a sequence number is in tables, durably.
    pub fn set_flushed(&mut self, flushed: u64) {
        self.flushed_seq = self.flushed_seq.max(flushed);
    }

    /// Begins the next segment where none is open and the newest is wholly flushed: the new header states where that one
    /// ends, so that it can be deleted, however long nothing is written.
    ///
    /// # Errors
    /// When the log takes no writes, or the next segment cannot be made.
    pub fn begin_if_flushed(&mut self, epoch: u64, now_ms: u64) -> Result<()> {
        self.check_writable(epoch)?;
        let newest = self.closed.back();
        if self.open.is_none() && newest.is_some_and(|newest| newest.last_seq <= self.flushed_seq) {
            self.open_segment(now_ms)?;
        }
        Ok(())
    }

    /// Whether there is a closed segment that can be deleted.
    #[must_use]
    pub fn has_flushed_segment(&self) -> bool {
        self.oldest_flushed().is_some()
    }

    /// Everything up to this sequence number is in tables, as far as it was told.
    #[must_use]
    pub fn flushed_seq(&self) -> u64 {
        self.flushed_seq
    }

    /// The oldest closed segment, if all its records are flushed, so that it can be deleted.
    pub(super) fn oldest_flushed(&self) -> Option<ClosedSegment> {
        // The newest closed segment stays until there is an open one: the next header is to state its length.
        let replaceable = self.open.is_some() || self.closed.len() > 1;
        let oldest = self.closed.front().filter(|_| replaceable);
        oldest.filter(|oldest| oldest.last_seq <= self.flushed_seq).copied()
    }

    /// States that the file of the oldest closed segment is gone.
    pub(super) fn forget_oldest(&mut self, id: u64) {
        if self.closed.front().is_some_and(|oldest| oldest.id == id) {
            self.closed.pop_front();
        }
    }

    /// Where its files are.
    #[must_use]
    pub fn place(&self) -> (Arc<dyn FileSystem>, PathBuf) {
        (Arc::clone(&self.fs), self.options.dir.clone())
    }

    /// What the open segment has beyond its last sync; [`None`] when that is less than so many bytes.
    pub(super) fn unsynced(&self, least: u64) -> Option<Unsynced> {
        let open = self.open.as_ref().filter(|_| self.latched.is_none())?;
        (open.len - open.durable >= least.max(1)).then_some(Unsynced {
            segment: open.id,
            len: open.len,
            last_seq: self.last_seq,
        })
    }

    /// States that a sync which somebody else made of `unsynced`, which the log was at before it began, succeeded.
    pub(super) fn synced(&mut self, unsynced: Unsynced) {
        // One that was closed since took a sync of its own.
        let open = self.open.as_mut().filter(|open| open.id == unsynced.segment);
        if let Some(open) = open.filter(|_| !self.unsure) {
            open.durable = open.durable.max(unsynced.len);
            self.durable_seq = self.durable_seq.max(unsynced.last_seq);
            self.syncs += 1;
        }
    }

    /// Whether a closed segment is older than the configured age, so that what keeps it should be flushed.
    #[must_use]
    pub fn has_overdue_segment(&self, now_ms: u64) -> bool {
        self.closed
            .front()
            .is_some_and(|s| now_ms.saturating_sub(s.opened_ms) >= self.options.max_age_ms)
    }

    /// Reads back the changes above `applied`, in order: what a memtable that restarted has yet to apply.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn changes_after(&self, applied: u64) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        let Some(first) = self.recent.iter().find(|batch| batch.last_seq > applied) else {
            return Ok(changes);
        };
        // What a failed sync left unknown is shown to nobody.
        let readable = |open: &OpenSegment| if self.unsure { open.durable } else { open.len };
        let ends = self
            .closed
            .iter()
            .map(|s| (s.id, s.len))
            .chain(self.open.as_ref().map(|s| (s.id, readable(s))));
        for (id, len) in ends.filter(|(id, _)| *id >= first.segment) {
            let from = if id == first.segment { first.offset } else { 0 };
            if from >= len {
                continue;
            }
            let segment = Segment::open(self.fs.as_ref(), &self.options.dir, id)?;
            segment.replay(from, applied, Some(len), |change| {
                changes.push(change.detached());
                Ok(())
            })?;
        }
        Ok(changes)
    }
}
