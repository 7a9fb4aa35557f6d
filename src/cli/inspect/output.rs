//! What all files have in common when they are shown: versions, keys, clocks, dates, and damage.
//!
//! Owns: that wording, and the bounds on what is shown. Does not own: any file.

use super::{Inspection, Stop};
use crate::storage::clock::VectorClock;
use crate::storage::error::Error;
use crate::storage::manifest::QUARANTINE;
use crate::storage::version::{Value, Version};
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

/// Most bytes of a value that are shown.
const SHOWN_VALUE_BYTES: usize = 60;
/// The last millisecond that can be written as a date, at the end of the year 9999.
const LAST_DATE_MS: u64 = 253_402_300_799_999;

impl<W: Write> Inspection<'_, W> {
    /// Says what damage ended the view of a file.
    pub(super) fn settle(&mut self, shown: Result<(), Stop>) -> Result<(), Stop> {
        match shown {
            Err(Stop::Damage(error)) => self.damaged(&error),
            other => other,
        }
    }

    pub(super) fn damaged(&mut self, error: &Error) -> Result<(), Stop> {
        self.damage += 1;
        Ok(writeln!(self.out, "{}", damage_line(error))?)
    }

    pub(super) fn within_limit(&self, shown: u64) -> bool {
        self.args.limit.is_none_or(|limit| shown < limit)
    }

    /// The rest of a line about a version, which has begun.
    pub(super) fn version(&mut self, version: &Version) -> Result<(), Stop> {
        write!(self.out, "{}  ", clock(&version.clock))?;
        match &version.value {
            Value::Tombstone => write!(self.out, "deleted  ")?,
            Value::Live(value) => write!(self.out, "{} bytes  ", value.len())?,
        }
        write!(self.out, "{}", date(version.timestamp_ms))?;
        if let Some(value) = version.value.live().filter(|_| self.args.values) {
            let shown = value.get(..SHOWN_VALUE_BYTES).unwrap_or(value);
            let cut = if shown.len() < value.len() { "..." } else { "" };
            write!(self.out, "  \"{}\"{cut}", shown.escape_ascii())?;
        }
        Ok(writeln!(self.out)?)
    }
}

fn damage_line(error: &Error) -> String {
    match error {
        Error::Format { file, detail } => format!("damage in {} at byte 0: {detail}", file.display()),
        other => other.to_string(),
    }
}

pub(super) fn level_name(level: u8) -> String {
    match level {
        QUARANTINE => "quarantine".to_owned(),
        level => format!("L{level}"),
    }
}

/// So many of a thing.
pub(super) fn counted(n: u64, thing: &str) -> String {
    match n {
        1 => format!("1 {thing}"),
        n => format!("{n} {thing}s"),
    }
}

/// A key as it can be shown on one line of a terminal, whatever is in it.
pub(super) fn key(stored: &str) -> String {
    format!("{stored:?}")
}

fn clock(clock: &VectorClock) -> String {
    let entries: Vec<String> = clock
        .entries()
        .iter()
        .map(|entry| format!("{}:{}", entry.id.escape_debug(), entry.counter))
        .collect();
    format!("{{{}}}", entries.join(","))
}

pub(super) fn date(ms: u64) -> String {
    UNIX_EPOCH
        .checked_add(Duration::from_millis(ms))
        .filter(|_| ms <= LAST_DATE_MS)
        .map_or_else(
            || format!("{ms} ms after 1970"),
            |time| humantime::format_rfc3339_millis(time).to_string(),
        )
}
