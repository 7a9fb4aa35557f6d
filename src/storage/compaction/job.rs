//! Carries out one choice: merges its tables, and puts the result in their place.
//!
//! Owns: the merge of versions on the way down, the end of tombstones, and where one result ends and the next begins.
//! Does not own: the choice, the pace, or installing. A job that fails leaves everything as it was.

use super::pick::Choice;
use crate::storage::codec::peek_single_live;
use crate::storage::error::Result;
use crate::storage::key::Key;
use crate::storage::levels::TableChange;
use crate::storage::merger::Merger;
use crate::storage::progress;
use crate::storage::table::Cursor;
use crate::storage::tables::{NewTable, OpenTable, Tables};
use crate::storage::time::Time;
use crate::storage::version::{MAX_SIBLINGS, Versions};
use crate::storage::view::Published;
use std::sync::Arc;
use std::time::Duration;

/// What a job is to heed beside its choice.
pub struct JobContext<'a> {
    /// Where the tables are.
    pub tables: &'a Tables,
    /// What reads see: whether something newer may still need a tombstone.
    pub published: &'a Published,
    /// Milliseconds since the Unix epoch, when the job began.
    pub now_ms: u64,
    /// Called with bytes written since it was called last; may wait, and ends the job by an error.
    pub pace: &'a mut dyn FnMut(u64) -> Result<()>,
    /// What the time is that tables take.
    pub time: &'a dyn Time,
}

/// What a job did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Numbers of the tables that it made, or moved.
    pub outputs: Vec<u64>,
    /// Bytes of the tables that it read.
    pub bytes_read: u64,
    /// Bytes of the tables that it wrote; 0 for a move.
    pub bytes_written: u64,
    /// Keys whose tombstones had outlived their grace.
    pub tombstones_dropped: u64,
    /// How long each table that it wrote took, from its first key until it was durable, without the waits of the pace.
    pub table_times: Vec<Duration>,
}

/// Bytes written between two calls of `pace`.
const PACE_BYTES: u64 = 256 << 10;

/// Carries out `choice`, and publishes the result.
///
/// # Errors
/// When a table is damaged, cannot be written or recorded. Inputs and view are then as before.
pub fn run(choice: &Choice, context: &mut JobContext<'_>) -> Result<Outcome> {
    let removed: Vec<u64> = choice.inputs().map(|table| table.id()).collect();
    if choice.is_move {
        let change = TableChange {
            added: choice
                .upper
                .iter()
                .map(|table| (choice.to, Arc::clone(table)))
                .collect(),
            removed: removed.clone(),
            ..TableChange::default()
        };
        context.tables.install_compacted(&change, context.published)?;
        return Ok(Outcome {
            outputs: removed,
            ..Outcome::default()
        });
    }
    let to_bytes = context.published.load().tables.level_bytes(choice.to);
    let mut merge = Merge {
        choice,
        removed: &removed,
        table_bytes: context.tables.level_options().table_bytes(to_bytes),
        outputs: Vec::new(),
        open: None,
        paced: 0,
        begun: Duration::ZERO,
        waited: Duration::ZERO,
        table_times: Vec::new(),
        tombstones_dropped: 0,
    };
    let merged = merge.run(context);
    let (outputs, tombstones_dropped, table_times) = (merge.outputs, merge.tombstones_dropped, merge.table_times);
    if let Err(error) = merged {
        for output in outputs {
            context.tables.discard(output);
        }
        return Err(error);
    }
    let change = TableChange {
        added: outputs
            .iter()
            .map(|output| (choice.to, Arc::clone(output.table())))
            .collect(),
        removed: removed.clone(),
        ..TableChange::default()
    };
    // Were recording it to fail, the outputs must stay until the manifest is known not to name them: a sweep's work.
    context.tables.install_compacted(&change, context.published)?;
    Ok(Outcome {
        bytes_read: choice.inputs().map(|table| table.size()).sum(),
        bytes_written: outputs.iter().map(|output| output.table().size()).sum(),
        outputs: outputs.iter().map(|output| output.table().id()).collect(),
        tombstones_dropped,
        table_times,
    })
}

/// Keys with which a table is closed, however well they compress: while it is written, each has 8 bytes of memory.
const MOST_KEYS: u64 = 8 << 20;

struct Merge<'a, 'tables> {
    choice: &'a Choice,
    /// Numbers of the inputs.
    removed: &'a [u64],
    /// Bytes at which a result is closed.
    table_bytes: u64,
    outputs: Vec<NewTable>,
    open: Option<OpenTable<'tables>>,
    /// Bytes of the open table that were paced.
    paced: u64,
    /// When the open table was begun, and how long the pace has waited since then.
    begun: Duration,
    waited: Duration,
    table_times: Vec<Duration>,
    tombstones_dropped: u64,
}

impl<'tables> Merge<'_, 'tables> {
    fn run(&mut self, context: &mut JobContext<'tables>) -> Result<()> {
        let mut cursors: Vec<Cursor> = self
            .choice
            .upper
            .iter()
            .map(|table| Cursor::over(table, &[]).verifying())
            .collect();
        if !self.choice.lower.is_empty() {
            cursors.push(Cursor::new(Arc::new(self.choice.lower.clone()), &[]).verifying());
        }
        let mut merger = Merger::new(cursors);
        while merger.key()?.is_some() {
            self.entry(&merger, context)?;
            merger.advance();
        }
        self.close(context)
    }

    /// Writes what the inputs have for the least key.
    fn entry(&mut self, merger: &Merger, context: &mut JobContext<'tables>) -> Result<()> {
        let mut standing = merger.standing();
        let (Some(cursor), alone) = (standing.next(), standing.next().is_none()) else {
            return Ok(());
        };
        let key = std::str::from_utf8(cursor.key()).map_err(|_| cursor.damage("a key is not UTF-8"))?;
        match peek_single_live(cursor.encoded()) {
            // Most entries: nothing to merge, nothing to drop.
            Some(seq) if alone => self
                .open(context)?
                .builder()
                .add_single_live(key, cursor.encoded(), seq)?,
            _ => {
                let versions = merger.versions()?.bounded(MAX_SIBLINGS).0;
                if self.is_forgotten(key, &versions, context) {
                    self.tombstones_dropped += 1;
                    // Of these alone nothing is written for as long as it takes.
                    progress::step();
                    return Ok(());
                }
                self.open(context)?.builder().add(key, &versions)?;
            }
        }
        let bytes = self.open.as_mut().map_or(0, |open| open.builder().bytes());
        // A block counts as large as it is until it is closed, and may then turn out smaller.
        let ahead = bytes.saturating_sub(self.paced);
        if ahead >= PACE_BYTES {
            let begun = context.time.elapsed();
            (context.pace)(ahead)?;
            self.waited += context.time.elapsed().saturating_sub(begun);
            self.paced = bytes;
        }
        if bytes >= self.table_bytes || self.open_keys() >= MOST_KEYS {
            self.close(context)?;
        }
        Ok(())
    }

    fn open_keys(&mut self) -> u64 {
        self.open.as_mut().map_or(0, |open| open.builder().keys())
    }

    /// Whether nothing needs these versions any more: all are tombstones, older than their grace, and no memtable and no
    /// other table may hold anything that they hide. What arrives later than the grace after a delete is taken as new.
    fn is_forgotten(&self, key: &str, versions: &Versions, context: &JobContext<'_>) -> bool {
        let grace_ms = context.tables.level_options().gc_grace_ms;
        let outlived = versions
            .all()
            .iter()
            .all(|v| v.value.live().is_none() && v.timestamp_ms.saturating_add(grace_ms) <= context.now_ms);
        let Some(stored) = Key::from_stored(key).filter(|_| outlived) else {
            return false;
        };
        let view = context.published.load();
        let elsewhere = view
            .tables
            .may_contain(stored.as_bytes(), stored.hash64(), |id| self.removed.contains(&id));
        !elsewhere && view.get_in_memory(&stored).is_empty()
    }

    fn open(&mut self, context: &JobContext<'tables>) -> Result<&mut OpenTable<'tables>> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                (self.begun, self.waited) = (context.time.elapsed(), Duration::ZERO);
                context.tables.create(self.choice.to)?
            }
        };
        Ok(self.open.insert(open))
    }

    fn close(&mut self, context: &mut JobContext<'tables>) -> Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let table = open.finish()?;
        let took = context.time.elapsed().saturating_sub(self.begun);
        self.table_times.push(took.saturating_sub(self.waited));
        let rest = table.table().size().saturating_sub(std::mem::take(&mut self.paced));
        self.outputs.push(table);
        (context.pace)(rest)
    }
}
