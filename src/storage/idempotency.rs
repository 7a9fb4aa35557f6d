//! Writes that are remembered for a while, so that one which is sent again is not applied again.
//!
//! A client names a write by an idempotency key; with the key that is written to, that is the write's name. For a window
//! of time whoever uses the name again gets the answer of the first.
//!
//! Owns: what is remembered, and the bounds in time and memory. Does not own: how it outlives the process (see
//! [`crate::storage::remembered`]), who waits for a write, or the order in which writes are logged and applied.

use crate::storage::clock::VectorClock;
use crate::storage::key::Key;
use compact_str::CompactString;
use std::collections::{HashMap, VecDeque};

/// Bytes of names and answers after which the oldest are forgotten before their time.
pub const REMEMBERED_BYTES: usize = 64 << 20;
/// Bytes that a write costs beside its name and clock: its places in the table and in the order.
const ENTRY_OVERHEAD_BYTES: usize = 2 * (size_of::<WriteName>() + 64);

/// What a client calls a write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WriteName {
    /// The key that it is for.
    pub key: Key,
    /// The idempotency key.
    pub id: CompactString,
}

impl WriteName {
    fn bytes(&self) -> usize {
        ENTRY_OVERHEAD_BYTES + 2 * (self.key.heap_bytes() + self.id.len())
    }
}

/// What a write was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOutcome {
    /// The write's clock, joined with what memory knew of the key.
    pub clock: VectorClock,
    /// Whether it then was among the key's versions; otherwise a newer one dominated it.
    pub applied: bool,
}

impl WriteOutcome {
    /// What most writes are answered: nothing but the write itself is known of the key. A write that is found in the log
    /// was answered so, unless the log says otherwise.
    #[must_use]
    pub fn plain(clock: VectorClock) -> Self {
        Self { clock, applied: true }
    }
}

/// A write with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its name.
    pub name: WriteName,
    /// Its place in the log.
    pub seq: u64,
    /// When it arrived, in milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// What it was answered.
    pub outcome: WriteOutcome,
}

/// Where a name stands.
#[derive(Debug)]
pub enum Known<'a, W> {
    /// Nothing is known of it.
    New,
    /// Its write is in the log, or on the way there: whoever waits for it may join.
    UnderWay(&'a mut Vec<W>),
    /// Its write was answered so.
    Answered(&'a WriteOutcome),
}

#[derive(Debug)]
struct Entry<W> {
    seq: u64,
    timestamp_ms: u64,
    /// Until it is answered, the plain one.
    outcome: WriteOutcome,
    /// Until it is answered.
    waiting: Option<Vec<W>>,
}

impl<W> Entry<W> {
    fn bytes(&self, name: &WriteName) -> usize {
        name.bytes() + self.outcome.clock.heap_bytes()
    }
}

/// The writes of the last while. `W` waits for one that is under way.
#[derive(Debug)]
pub struct Recent<W> {
    window_ms: u64,
    most_bytes: usize,
    bytes: usize,
    entries: HashMap<WriteName, Entry<W>>,
    /// Names and numbers in the order of their writes, the oldest first.
    order: VecDeque<(u64, WriteName)>,
}

impl<W> Recent<W> {
    /// Remembers writes for so many milliseconds, in at most about `most_bytes`. With a window of 0 nothing.
    #[must_use]
    pub fn new(window_ms: u64, most_bytes: usize) -> Self {
        Self {
            window_ms,
            most_bytes,
            bytes: 0,
            entries: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Where a name stands at a time, in milliseconds since the Unix epoch.
    pub fn find(&mut self, name: &WriteName, now_ms: u64) -> Known<'_, W> {
        self.expire(now_ms);
        match self.entries.get_mut(name) {
            None => Known::New,
            Some(Entry {
                waiting: Some(waiting), ..
            }) => Known::UnderWay(waiting),
            Some(entry) => Known::Answered(&entry.outcome),
        }
    }

    /// Takes note that a write goes to the log, or is there. One that is known by its name and number stays as it is.
    pub fn begin(&mut self, name: WriteName, seq: u64, timestamp_ms: u64, clock: VectorClock) {
        if self.window_ms > 0 && !self.knows(&name, seq) {
            let entry = Entry {
                seq,
                timestamp_ms,
                outcome: WriteOutcome::plain(clock),
                waiting: Some(Vec::new()),
            };
            self.put(name, entry);
        }
    }

    /// Takes in a write that a start found. `is_known` says whether its answer was found as well; otherwise an answer that
    /// is there stays.
    pub fn recover(&mut self, found: Remembered, is_known: bool) {
        if self.window_ms == 0 {
            return;
        }
        if self.knows(&found.name, found.seq) {
            if is_known {
                self.correct(&found);
            }
            return;
        }
        let now_ms = found.timestamp_ms;
        let entry = Entry {
            seq: found.seq,
            timestamp_ms: found.timestamp_ms,
            outcome: found.outcome,
            waiting: None,
        };
        self.put(found.name, entry);
        // The bound of memory alone.
        self.expire(now_ms);
    }

    fn knows(&self, name: &WriteName, seq: u64) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.seq >= seq)
    }

    fn correct(&mut self, found: &Remembered) {
        if let Some(entry) = self.entries.get_mut(&found.name).filter(|entry| entry.seq == found.seq) {
            self.bytes = self.bytes + found.outcome.clock.heap_bytes() - entry.outcome.clock.heap_bytes();
            entry.outcome = found.outcome.clone();
        }
    }

    fn put(&mut self, name: WriteName, entry: Entry<W>) {
        self.remove(&name);
        self.bytes += entry.bytes(&name);
        self.order.push_back((entry.seq, name.clone()));
        self.entries.insert(name, entry);
    }

    fn remove(&mut self, name: &WriteName) -> Option<Entry<W>> {
        let entry = self.entries.remove(name)?;
        self.bytes -= entry.bytes(name);
        Some(entry)
    }

    /// Takes note of the answer to write `seq`. Returns it, with those who wait for it; [`None`], when the write was
    /// answered before or is not known.
    pub fn answer(&mut self, name: &WriteName, seq: u64, outcome: WriteOutcome) -> Option<(Remembered, Vec<W>)> {
        let entry = self.entries.get_mut(name).filter(|entry| entry.seq == seq)?;
        let waiting = entry.waiting.take()?;
        self.bytes = self.bytes + outcome.clock.heap_bytes() - entry.outcome.clock.heap_bytes();
        entry.outcome = outcome;
        let answered = Remembered {
            name: name.clone(),
            seq,
            timestamp_ms: entry.timestamp_ms,
            outcome: entry.outcome.clone(),
        };
        Some((answered, waiting))
    }

    /// Takes note that write `seq` did not come to be. Returns those who wait for it.
    pub fn fail(&mut self, name: &WriteName, seq: u64) -> Vec<W> {
        if self.entries.get(name).is_none_or(|entry| entry.seq != seq) {
            return Vec::new();
        }
        self.remove(name).and_then(|entry| entry.waiting).unwrap_or_default()
    }

    /// Forgets the writes that are under way with a number above `durable`: the log does not have them, and never will.
    pub fn forget_above(&mut self, durable: u64) {
        for lost in self.under_way().into_iter().filter(|write| write.seq > durable) {
            self.remove(&lost.name);
        }
    }

    /// The writes that are not answered yet, with the plain outcome.
    #[must_use]
    pub fn under_way(&self) -> Vec<Remembered> {
        self.remembered_if(|entry| entry.waiting.is_some())
    }

    /// Everything that is remembered, in the order of the log.
    #[must_use]
    pub fn remembered(&self) -> Vec<Remembered> {
        self.remembered_if(|_entry| true)
    }

    fn remembered_if(&self, wanted: impl Fn(&Entry<W>) -> bool) -> Vec<Remembered> {
        let remember = |(seq, name): &(u64, WriteName)| {
            let entry = self
                .entries
                .get(name)
                .filter(|entry| entry.seq == *seq && wanted(entry))?;
            Some(Remembered {
                name: name.clone(),
                seq: *seq,
                timestamp_ms: entry.timestamp_ms,
                outcome: entry.outcome.clone(),
            })
        };
        self.order.iter().filter_map(remember).collect()
    }

    /// Forgets what is older than the window, and the oldest beyond the bound of memory. One that is under way stays, and
    /// so do those behind it: it is answered soon.
    pub fn expire(&mut self, now_ms: u64) {
        while let Some((seq, name)) = self.order.front() {
            if let Some(entry) = self.entries.get(name).filter(|entry| entry.seq == *seq) {
                let is_old = entry.timestamp_ms.saturating_add(self.window_ms) <= now_ms;
                let is_too_much = self.bytes > self.most_bytes;
                if entry.waiting.is_some() || !(is_old || is_too_much) {
                    return;
                }
                let name = name.clone();
                self.remove(&name);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
