//! Work that no request does alone: it has a trace of its own, with links to what caused it.
//!
//! Owns: what is noted of such work, and the memory of what caused what comes later. Does not own: the work.

use crate::actors::trail::TraceContext;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Sealed memtables whose cause is remembered: more than there may be.
const MOST_SEALED: usize = 256;

/// A number or a word of some work.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// Words.
    Text(String),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A piece of work: a flush, a compaction, a pass of a stream, a restart.
#[derive(Debug, Clone)]
pub struct Work {
    /// What it is.
    pub name: &'static str,
    /// Its own span; that of rare work is sampled always.
    pub context: TraceContext,
    /// When it was due.
    pub queued: Instant,
    /// When it was begun.
    pub begun: Instant,
    /// When it ended.
    pub ended: Instant,
    /// What caused it.
    pub cause: Option<TraceContext>,
    /// What is to be said of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Work {
    /// Work that was due at `queued` and is begun now.
    #[must_use]
    pub fn begin(name: &'static str, queued: Option<Instant>, cause: Option<TraceContext>) -> Self {
        let begun = Instant::now();
        Self {
            name,
            context: TraceContext {
                sampled: true,
                ..TraceContext::root()
            },
            queued: queued.unwrap_or(begun),
            begun,
            ended: begun,
            cause,
            attributes: Vec::new(),
            error: None,
        }
    }

    /// Says something of it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// It has ended now.
    #[must_use]
    pub fn end(mut self, error: Option<String>) -> Self {
        self.ended = Instant::now();
        self.error = error;
        self
    }
}

/// One write of the log, with its sync: all the requests in its batch share it.
#[derive(Debug)]
pub struct LogWrite {
    /// Its span.
    pub context: TraceContext,
    /// When the log was free for it.
    pub begun: Instant,
    /// When it was done with.
    pub ended: Instant,
    /// How long the sync took of that; zero, when there was none.
    pub synced: Duration,
    /// Writes in it.
    pub writes: usize,
    /// Bytes of them, encoded.
    pub bytes: usize,
    /// Why it failed, if it did.
    pub error: Option<String>,
    told: AtomicBool,
}

impl LogWrite {
    /// A write of the log that has ended now, and of which the sync, if there was one, began then.
    #[must_use]
    pub fn ended(
        (begun, sync_begun): (Instant, Option<Instant>),
        (writes, bytes): (usize, usize),
        error: Option<String>,
    ) -> Self {
        let ended = Instant::now();
        Self {
            context: TraceContext::root(),
            begun,
            ended,
            synced: sync_begun.map_or(Duration::ZERO, |begun| ended.saturating_duration_since(begun)),
            writes,
            bytes,
            error,
            told: AtomicBool::new(false),
        }
    }

    /// Whether it is told now for the first time: its batch has many requests, and it is one span.
    #[must_use]
    pub fn is_first_told(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }
}

impl fmt::Display for LogWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (writes, bytes, sync) = (self.writes, self.bytes, self.synced.as_micros());
        write!(f, "batch of {writes} writes, {bytes} bytes, of it sync {sync} us")
    }
}

/// What caused work that comes later.
#[derive(Debug, Default)]
pub struct Causes {
    sealed: Mutex<BTreeMap<u64, (Instant, Option<TraceContext>)>>,
    tables: Mutex<Option<TraceContext>>,
}

impl Causes {
    /// A write has filled memtable `id`, which may have to wait until it is sealed. The first counts. `by`: its span, if it is
    /// kept.
    pub fn filled(&self, id: u64, by: Option<TraceContext>) {
        let mut sealed = self.sealed.lock();
        if sealed.len() >= MOST_SEALED {
            sealed.pop_first();
        }
        sealed.entry(id).or_insert_with(|| (Instant::now(), by));
    }

    /// Memtable `id` was sealed now, because it was full or for another reason.
    pub fn sealed(&self, id: u64) {
        self.filled(id, None);
        self.sealed
            .lock()
            .entry(id)
            .and_modify(|(at, _by)| *at = Instant::now());
    }

    /// When memtable `id` was sealed, and what filled it.
    #[must_use]
    pub fn of_flush(&self, id: u64) -> (Option<Instant>, Option<TraceContext>) {
        let known = self.sealed.lock().get(&id).copied();
        (known.map(|(at, _)| at), known.and_then(|(_, cause)| cause))
    }

    /// Memtable `id` is a table now, which this span made.
    pub fn flushed(&self, id: u64, by: TraceContext) {
        self.sealed.lock().remove(&id);
        self.changed_tables(by);
    }

    /// This span has changed the tables, so that there may be something to compact.
    pub fn changed_tables(&self, by: TraceContext) {
        *self.tables.lock() = Some(by);
    }

    /// What has changed the tables last.
    #[must_use]
    pub fn of_compaction(&self) -> Option<TraceContext> {
        *self.tables.lock()
    }
}
