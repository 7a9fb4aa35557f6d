//! Reads segments back, and judges what does not read.
//!
//! Owns: the walk over one segment and the decision between a torn tail (quiet) and damage (an error with file and
//! offset). Does not own: which segments there are, or what to do with a change.

use super::record::{Change, RECORD_HEADER_BYTES, RECORD_TYPE_AT, RawRecord, Unreadable};
use super::{HEADER, HEADER_BYTES, HEADER_FIELDS, path};
use crate::storage::codec::{Reader, SECTOR_BYTES, has_hole};
use crate::storage::error::{Error, Result};
use crate::storage::fs::{Faults, FileSystem};
use crate::storage::idempotency::Remembered;
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// Bytes that a scan behind an unreadable record checks at most: content can be made to look like headers of long records
/// at every byte. Past this only marks are looked for, which are short and prove damage by themselves.
const SCAN_BUDGET_BYTES: usize = 1 << 30;
/// How far ahead of its predecessor a record's sequence number may be and still be believed in a scan.
const MAX_SEQ_STEP: u64 = 1 << 32;

/// An opened segment.
#[derive(Debug)]
pub struct Segment {
    /// Its number.
    pub id: u64,
    /// Valid length of the segment before it in bytes; 0 when it is the first.
    pub previous_len: u64,
    /// Last sequence number before it.
    pub base_seq: u64,
    /// When it was begun, in milliseconds since the Unix epoch.
    pub opened_ms: u64,
    /// The salt of its checksums.
    pub salt: u32,
    path: PathBuf,
    content: Bytes,
    faults: Faults,
}

/// How a walk over a segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Bytes of the segment that hold whole records.
    pub valid_len: u64,
    /// Last sequence number met.
    pub last_seq: u64,
}

impl Segment {
    /// Opens segment `id` in `dir` and checks its header.
    ///
    /// # Errors
    /// When it cannot be read, or its header is damaged or cut off: a segment gets its name only when its header is
    /// durable.
    pub fn open(fs: &dyn FileSystem, dir: &Path, id: u64) -> Result<Self> {
        let path = path(dir, id);
        let content = fs.read(&path).map_err(|e| Error::io("read", &path, e))?;
        let segment = Self::read(path, content)?;
        if segment.id != id {
            let detail = format!("its name says segment {id}, its header says {}", segment.id);
            return Err(Error::corruption(&segment.path, 0, detail));
        }
        Ok(segment)
    }

    /// Takes the content of a file for a segment, whatever the file is called, and checks its header.
    ///
    /// # Errors
    /// When the header is damaged or cut off, or that of another kind of file.
    pub fn read(path: PathBuf, content: Bytes) -> Result<Self> {
        let mut fields = Reader(HEADER.open(&path, &content, 0, HEADER_FIELDS)?.1);
        let (id, previous_len) = fields.u64().zip(fields.u64()).unwrap_or_default();
        let (base_seq, opened_ms) = fields.u64().zip(fields.u64()).unwrap_or_default();
        let salt = fields.u32().unwrap_or_default();
        Ok(Self {
            id,
            previous_len,
            base_seq,
            opened_ms,
            salt,
            path,
            faults: Faults::of(&content),
            content,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.content.len() as u64
    }

    /// The bytes `from..to` of the file, or as many as it has of them.
    pub(super) fn bytes(&self, from: u64, to: u64) -> &[u8] {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.content.len());
        self.content.get(place(from)..place(to)).unwrap_or_default()
    }

    /// Bytes of the file up to the last that is not zero: the writer puts zeros ahead of its records.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.content
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last as u64 + 1)
    }

    /// Walks the changes with a sequence number above `after`, their values slices of the mapped file, from byte `from` (0: the first record), in order.
    ///
    /// `expected_len` is as for [`Segment::walk`].
    ///
    /// # Errors
    /// On damage, or when `each` fails.
    pub fn replay(
        &self,
        from: u64,
        after: u64,
        expected_len: Option<u64>,
        mut each: impl FnMut(Change) -> Result<()>,
    ) -> Result<End> {
        self.walk(from, expected_len, |at, record| {
            if !record.is_change() || record.seq <= after {
                return Ok(());
            }
            each(self.change(at, record)?)
        })
    }

    /// Walks all records, marks included, from byte `from` (0: the first) in order, each with its place in the file. What
    /// comes before damage is handed over before the damage is reported.
    ///
    /// `expected_len` is the valid length that the next segment's header states, or that the writer knows to be durable;
    /// the walk then ends exactly there. Without it, this is the last segment, whose tail may be torn.
    ///
    /// # Errors
    /// On damage, when part of the file cannot be read, or when `each` fails.
    pub fn walk<E: From<Error>>(
        &self,
        from: u64,
        expected_len: Option<u64>,
        each: impl FnMut(u64, &RawRecord<'_>) -> Result<(), E>,
    ) -> Result<End, E> {
        let end = self.walk_records(from, expected_len, each)?;
        self.check_readable()?;
        Ok(end)
    }

    /// Whether everything that was read of it so far is what the file holds. What cannot be read are zeros, and would pass
    /// for a torn tail; and the values of changes are read later than the walk.
    ///
    /// # Errors
    /// [`Error::Corruption`] with the place when not.
    pub fn check_readable(&self) -> Result<()> {
        self.faults.check(&self.path)
    }

    fn walk_records<E: From<Error>>(
        &self,
        from: u64,
        expected_len: Option<u64>,
        mut each: impl FnMut(u64, &RawRecord<'_>) -> Result<(), E>,
    ) -> Result<End, E> {
        let end = expected_len.unwrap_or(self.content.len() as u64);
        let bytes = usize::try_from(end)
            .ok()
            .and_then(|end| self.content.get(..end))
            .ok_or_else(|| {
                let detail = format!("{end} bytes of it were durable once; the file is shorter");
                Error::corruption(&self.path, self.content.len() as u64, detail)
            })?;
        let mut at = usize::try_from(from.max(HEADER_BYTES)).unwrap_or(usize::MAX);
        let mut last_seq = self.base_seq;
        while at < bytes.len() {
            let record = match RawRecord::read(bytes.get(at..).unwrap_or_default(), self.salt) {
                Ok(record) => record,
                Err(why) if expected_len.is_some() => return Err(self.damage(at, why).into()),
                Err(why) => {
                    self.judge_tail(bytes, at, last_seq, why)?;
                    break;
                }
            };
            if record.is_change() {
                if record.seq <= last_seq && from == 0 {
                    let detail = format!("sequence number {} after {last_seq}", record.seq);
                    return Err(Error::corruption(&self.path, at as u64, detail).into());
                }
                last_seq = last_seq.max(record.seq);
            }
            each(at as u64, &record)?;
            at += record.bytes();
        }
        Ok(End {
            valid_len: at as u64,
            last_seq,
        })
    }

    /// The change that the record at byte `at`, which a walk handed over, records. Its value is a slice of the file.
    ///
    /// # Errors
    /// When it does not decode, or is a mark.
    pub fn change(&self, at: u64, record: &RawRecord<'_>) -> Result<Change> {
        record
            .change(&self.content)
            .map_err(|detail| Error::corruption(&self.path, at, detail))
    }

    /// What a write was answered, if the record at byte `at`, which a walk handed over, is a note of it.
    ///
    /// # Errors
    /// When it does not decode.
    pub fn note(&self, at: u64, record: &RawRecord<'_>) -> Result<Option<Remembered>> {
        record
            .note()
            .map_err(|detail| Error::corruption(&self.path, at, detail))
    }

    fn damage(&self, at: usize, why: Unreadable) -> Error {
        let detail = match why {
            Unreadable::Incomplete => "the log ends inside a record",
            Unreadable::Damaged => "a record's checksum does not match",
        };
        Error::corruption(&self.path, at as u64, detail)
    }

    /// Decides what an unreadable record at `at` means. A later mark that calls these bytes durable proves damage. A
    /// later record without such a mark is of the same, unsynced batch: the disk may have written its sectors in any
    /// order, which leaves a hole of zeros; without such a hole it is damage too. With nothing readable behind it, it
    /// is the torn end of a write that was never acknowledged.
    fn judge_tail(&self, bytes: &[u8], at: usize, last_seq: u64, why: Unreadable) -> Result<()> {
        let mut next_readable = None;
        let mut checked = 0_usize;
        let mut place = at + 1;
        while place + RECORD_HEADER_BYTES <= bytes.len() {
            let rest = bytes.get(place..).unwrap_or_default();
            // No record is of type 0: the zeros that the writer puts ahead of its records are passed over at once.
            let zeros = rest.iter().skip(RECORD_TYPE_AT).take_while(|byte| **byte == 0).count();
            if zeros > 0 {
                place += zeros;
                continue;
            }
            let record = RawRecord::read_if(rest, self.salt, |seq, length| {
                let near = seq.checked_sub(last_seq).is_some_and(|step| step < MAX_SEQ_STEP);
                let cheap = length <= SECTOR_BYTES || checked <= SCAN_BUDGET_BYTES;
                if near && cheap {
                    checked = checked.saturating_add(length);
                }
                near && cheap
            });
            if let Ok(record) = record {
                if record.durable().is_some_and(|durable| durable > at as u64) {
                    return Err(self.damage(at, why));
                }
                next_readable.get_or_insert(place);
                place += record.bytes();
            } else {
                place += 1;
            }
        }
        match next_readable {
            Some(next) if !has_hole(bytes, at, next) => Err(self.damage(at, why)),
            _ => Ok(()),
        }
    }
}
