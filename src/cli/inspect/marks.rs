//! The small files beside the data: the drain mark, and what is kept of streams.
//!
//! Owns: how they are shown. Does not own: reading them (see [`crate::storage::drain_mark`] and
//! [`crate::storage::stream_records`]).

use super::output::{counted, date, key};
use super::{Inspection, Stop, read_copy};
use crate::storage::drain_mark;
use crate::storage::stream_records::{self, StreamRecord};
use std::io::Write;
use std::path::Path;

impl<W: Write> Inspection<'_, W> {
    pub(super) fn drain_mark(&mut self, path: &Path) -> Result<(), Stop> {
        let line = drain_mark_line(path)?;
        Ok(writeln!(self.out, "{line}")?)
    }

    pub(super) fn streams(&mut self, path: &Path) -> Result<(), Stop> {
        for stream in records(path)? {
            let (progress, sent) = (&stream.progress, &stream.sent);
            writeln!(
                self.out,
                "stream to {:?} at {}:{}",
                stream.target, stream.host, stream.port
            )?;
            writeln!(self.out, "  ranges       {}", stream.ranges.len())?;
            writeln!(self.out, "  acknowledged up to seq {}", progress.done_seq)?;
            if let Some(pass) = &progress.pass {
                writeln!(
                    self.out,
                    "  copying      up to seq {}, from key {}",
                    pass.seq,
                    key(&pass.from)
                )?;
            }
            writeln!(self.out, "  compared     {}", progress.compared)?;
            writeln!(
                self.out,
                "  sent         {} copied, {} forwarded, {} sent again",
                counted(sent.keys_copied, "key"),
                sent.keys_streamed,
                sent.keys_resent
            )?;
        }
        Ok(())
    }
}

pub(super) fn drain_mark_line(path: &Path) -> Result<String, Stop> {
    let since_ms = drain_mark::decode(path, &read_copy(path)?)?;
    Ok(format!("drain mark: the node takes no writes since {}", date(since_ms)))
}

pub(super) fn streams_line(path: &Path) -> Result<String, Stop> {
    let records = records(path)?;
    let targets: Vec<String> = records.iter().map(|record| format!("{:?}", record.target)).collect();
    Ok(format!(
        "{} to {}",
        counted(records.len() as u64, "stream"),
        targets.join(", ")
    ))
}

fn records(path: &Path) -> Result<Vec<StreamRecord>, Stop> {
    Ok(stream_records::decode(path, &read_copy(path)?)?)
}
