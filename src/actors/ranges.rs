//! Walks over a range of a tenant's keys, for whoever takes them at his own pace.
//!
//! Owns: where a range ends, and handing a walk over from the threads that may block to the task that sends, a bounded part
//! at a time. Does not own: the walk itself (see [`crate::storage::scan`]), or what becomes of an entry.
//!
//! A walk sees one moment: what is written later is not in it. One that ends before its range does, for whatever reason,
//! says so: an end without a word would pass for completeness.

use crate::actors::quotas::WalkMeter;
use crate::actors::refusal::Refusal;
use crate::actors::trail;
use crate::storage::key::Key;
use crate::storage::scan::Scan;
use crate::storage::version::Versions;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_stream::Stream;

/// Bytes of keys and values at which a part is handed over.
const PART_BYTES: usize = 256 << 10;
/// Parts that wait to be taken.
const PARTS_AHEAD: usize = 2;
/// Who takes nothing for so long has gone away; he begins again behind the last key that he took.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// A range of one tenant's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The tenant.
    pub tenant: String,
    /// The first key; empty: from the tenant's first.
    pub start: String,
    /// Behind the last key; empty: to the tenant's last.
    pub end: String,
}

impl KeyRange {
    /// Where a walk over it begins.
    #[must_use]
    pub fn first(&self) -> Key {
        Key::start_of(&self.tenant, &self.start)
    }

    /// Whether it reaches as far as a key that is not before its start.
    #[must_use]
    pub fn reaches(&self, key: &Key) -> bool {
        key.tenant() == self.tenant && (self.end.is_empty() || key.key() < self.end.as_str())
    }

    /// Whether it has a key.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        self.reaches(key) && key.key() >= self.start.as_str()
    }
}

/// An entry, or why there are no more.
pub type RangeItem = Result<(Key, Versions), Refusal>;

/// Everything in a range, in key order, tombstones too. Ends after an error. The permit bounds how many there are.
pub struct RangeWalk<P> {
    /// From the range's start on.
    pub scan: Scan,
    /// The range.
    pub range: KeyRange,
    /// Held as long as the walk is.
    pub permit: P,
}

impl<P> Iterator for RangeWalk<P> {
    type Item = RangeItem;

    fn next(&mut self) -> Option<Self::Item> {
        match self.scan.next()? {
            Ok((key, _)) if !self.range.reaches(&key) => None,
            Ok(entry) => Some(Ok(entry)),
            Err(error) => Some(Err(Refusal::from(&error))),
        }
    }
}

/// What admitted a walk that takes its time.
pub struct WalkPermit {
    /// Bounds how many there are.
    pub place: OwnedSemaphorePermit,
    /// Counts what it reads, where the tenant has a quota.
    pub meter: Option<WalkMeter>,
}

/// How a walk is handed over.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Entries at which a part is handed over, however small they are.
    pub entries: usize,
    /// When the walk ends, come to its end or not.
    pub until: Option<Instant>,
}

/// Entries in order, and how the walk ended, if it did.
struct Part {
    entries: Vec<(Key, Versions)>,
    bytes: usize,
    ended: Option<Result<(), Refusal>>,
}

/// The entries of a walk, which is a little ahead of whoever takes them, and ends when this is dropped.
pub struct Entries {
    parts: mpsc::Receiver<Part>,
    ready: std::vec::IntoIter<(Key, Versions)>,
    ended: Option<Result<(), Refusal>>,
}

impl Entries {
    /// Begins a walk. Each part of it is a hop of the request that this task carries out.
    #[must_use]
    pub fn of(walk: RangeWalk<WalkPermit>, pace: Pace) -> Self {
        let (sender, parts) = mpsc::channel(PARTS_AHEAD);
        tokio::spawn(trail::taken_along(hand_over(walk, pace, sender)));
        Self {
            parts,
            ready: Vec::new().into_iter(),
            ended: None,
        }
    }

    /// The next entry.
    pub async fn next(&mut self) -> Option<RangeItem> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Entries {
    type Item = RangeItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<RangeItem>> {
        loop {
            if let Some(entry) = self.ready.next() {
                return Poll::Ready(Some(Ok(entry)));
            }
            if let Some(ended) = &mut self.ended {
                return Poll::Ready(std::mem::replace(ended, Ok(())).err().map(Err));
            }
            match ready!(self.parts.poll_recv(context)) {
                Some(part) => {
                    self.ready = part.entries.into_iter();
                    self.ended = part.ended;
                }
                // Its time was over.
                None => self.ended = Some(Err(Refusal::Restarting("the walk over the keys"))),
            }
        }
    }
}

/// Reads part after part, until the end, until nobody takes them, or until the time is over. No thread waits meanwhile.
async fn hand_over(mut walk: RangeWalk<WalkPermit>, pace: Pace, sender: mpsc::Sender<Part>) {
    loop {
        let part;
        let read = trail::as_hop(trail::WALK, Instant::now(), move || read_part(walk, pace.entries));
        (walk, part) = match tokio::task::spawn_blocking(read).await {
            Ok(read) => read,
            // The thread's panic was reported; the channel ends without a word of the end.
            Err(_panicked) => return,
        };
        let ended = part.ended.is_some();
        let meter = walk.permit.meter.as_ref();
        let pause = meter.map_or(Duration::ZERO, |meter| meter.spend(part.bytes));
        let now = Instant::now();
        if pace.until.is_some_and(|until| now >= until) {
            return;
        }
        let stalled = now + STALLED_AFTER;
        let until = pace.until.map_or(stalled, |until| until.min(stalled));
        let sent = tokio::time::timeout_at(until, sender.send(part)).await;
        if ended || !matches!(sent, Ok(Ok(()))) {
            return;
        }
        if !pause.is_zero() {
            let rested = now + pause;
            let gone = tokio::time::timeout_at(pace.until.map_or(rested, |until| until.min(rested)), sender.closed());
            if gone.await.is_ok() {
                return;
            }
        }
    }
}

/// Bytes of an entry, as a walk and a quota count them.
pub(super) fn entry_bytes(key: &Key, versions: &Versions) -> usize {
    key.as_bytes().len() + versions.heap_bytes()
}

fn read_part<P>(mut walk: RangeWalk<P>, most: usize) -> (RangeWalk<P>, Part) {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    let ended = loop {
        match walk.next() {
            Some(Ok((key, versions))) => {
                bytes += entry_bytes(&key, &versions);
                entries.push((key, versions));
            }
            Some(Err(refusal)) => break Some(Err(refusal)),
            None => break Some(Ok(())),
        }
        if entries.len() >= most || bytes >= PART_BYTES {
            break None;
        }
    };
    (walk, Part { entries, bytes, ended })
}
