//! A segment of the commit log, record by record or in one line.
//!
//! Owns: how its records and its end are shown. Does not own: reading them (see [`crate::storage::log::reader`]).

use super::output::{date, key};
use super::{Inspection, Stop, read_copy};
use crate::storage::log;
use crate::storage::log::reader::Segment;
use crate::storage::log::record::Operation;
use bytes::Bytes;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

impl<W: Write> Inspection<'_, W> {
    pub(super) fn segment(&mut self, path: &Path) -> Result<(), Stop> {
        let segment = Segment::read(path.to_path_buf(), read_copy(path)?)?;
        writeln!(self.out, "commit log segment {}", path.display())?;
        writeln!(self.out, "  segment      {}", segment.id)?;
        match segment.previous_len {
            0 => writeln!(self.out, "  previous     none")?,
            len => writeln!(self.out, "  previous     {len} bytes are valid")?,
        }
        writeln!(self.out, "  base seq     {}", segment.base_seq)?;
        writeln!(self.out, "  opened       {}", date(segment.opened_ms))?;
        writeln!(self.out, "  salt         {:08x}", segment.salt)?;
        writeln!(self.out, "  size         {} bytes", segment.size())?;
        let expected_len = stated_len(path, &segment);
        let mut records = 0;
        let walked = segment.walk(0, expected_len, |at, record| {
            records += 1;
            if !self.within_limit(records - 1) {
                // Even what is not shown must decode.
                if record.is_change() {
                    segment.change(at, record)?;
                }
                return Ok(());
            }
            if let Some(durable) = record.durable() {
                let seq = record.seq;
                return Ok(writeln!(
                    self.out,
                    "at {at:<10} mark    seq {seq}  {durable} bytes are durable"
                )?);
            }
            if let Some(answered) = segment.note(at, record)? {
                let (seq, shown) = (answered.seq, key(answered.name.key.as_str()));
                let applied = if answered.outcome.applied {
                    "applied"
                } else {
                    "kept out"
                };
                return Ok(writeln!(
                    self.out,
                    "at {at:<10} note    seq {}  {shown}  the write with seq {seq} was answered: {applied}",
                    record.seq
                )?);
            }
            let change = segment.change(at, record)?;
            let operation = match change.operation {
                Operation::Write => "write",
                Operation::Repair => "repair",
                Operation::Delete => "delete",
            };
            write!(self.out, "at {at:<10} {operation:<7} ")?;
            write!(self.out, "seq {}  {}  ", change.version.seq, key(change.key.as_str()))?;
            self.version(&change.version)
        });
        if let Some(hidden) = self
            .args
            .limit
            .and_then(|limit| records.checked_sub(limit))
            .filter(|n| *n > 0)
        {
            writeln!(self.out, "({hidden} more records)")?;
        }
        let end = walked?;
        let (valid, written) = (end.valid_len, segment.written_bytes());
        let torn = written.saturating_sub(valid);
        match expected_len {
            Some(_) => writeln!(
                self.out,
                "end at {valid}: clean, where the next segment says that it is; last seq {}",
                end.last_seq
            )?,
            None if torn > 0 => writeln!(
                self.out,
                "end at {valid}: a torn tail of {torn} bytes, a write that was interrupted or is under way; last seq {}",
                end.last_seq
            )?,
            None => writeln!(self.out, "end at {valid}: clean; last seq {}", end.last_seq)?,
        }
        let ahead = segment.size().saturating_sub(valid.max(written));
        if ahead > 0 {
            writeln!(self.out, "{ahead} bytes of zeros behind it, written ahead")?;
        }
        Ok(())
    }
}

/// The valid length of a segment that the one after it, in the same directory, states.
fn stated_len(path: &Path, segment: &Segment) -> Option<u64> {
    let dir = path.parent()?;
    if path != log::path(dir, segment.id) {
        return None;
    }
    let next = log::path(dir, segment.id.checked_add(1)?);
    let mut head = Vec::new();
    File::open(&next)
        .and_then(|file| file.take(log::HEADER_BYTES).read_to_end(&mut head))
        .ok()?;
    let next = Segment::read(next, Bytes::from(head)).ok()?;
    (next.id == segment.id + 1).then_some(next.previous_len)
}

pub(super) fn segment_line(path: &Path) -> Result<String, Stop> {
    let segment = Segment::read(path.to_path_buf(), read_copy(path)?)?;
    let mut changes = 0_u64;
    let end = segment.walk(0, stated_len(path, &segment), |at, record| {
        if record.is_change() {
            segment.change(at, record)?;
            changes += 1;
        }
        Ok::<(), Stop>(())
    })?;
    let torn = segment.written_bytes().saturating_sub(end.valid_len);
    let seqs = if changes == 0 {
        format!("no changes behind seq {}", segment.base_seq)
    } else {
        format!(
            "{changes} changes behind seq {} up to {}",
            segment.base_seq, end.last_seq
        )
    };
    let torn = if torn > 0 {
        format!(", and {torn} of a torn tail")
    } else {
        String::new()
    };
    Ok(format!(
        "segment {}, {} bytes, {} of them valid{torn}, {seqs}, opened {}",
        segment.id,
        segment.size(),
        end.valid_len,
        date(segment.opened_ms)
    ))
}
