//! Passes over everything that the node holds, for a stream: the copy, and the comparison.
//!
//! A pass reads part after part, each from the view of that moment: so it holds no memtable and no table for long, and what it
//! meets is never older than what it was to copy. What is damaged it goes past, and takes note of. It has a few batches under way at a time, and notes how far the target has
//! acknowledged all of them.
//!
//! Owns: what goes into a batch, and how much is under way. Does not own: when a pass is due (see [`super::work`]).

use crate::actors::streaming::skipped::Skipped;
use crate::actors::streaming::stream::Stream;
use crate::actors::streaming::tap::Change;
use crate::actors::streaming::target::{Failed, Target};
use crate::actors::streaming::work::{BEFORE_BATCH, BEFORE_COMPARE, BEFORE_NOTE, BEFORE_PAGE, Points};
use crate::storage::digest::digest;
use crate::storage::error::Result as StorageResult;
use crate::storage::key::Key;
use crate::storage::lost::Lost;
use crate::storage::ring::{self, HashRanges};
use crate::storage::version::{Version, Versions};
use crate::storage::view::Published;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Most keys in a batch.
const BATCH_KEYS: usize = 500;
/// Bytes under way at a time; a batch that is larger by itself is under way alone.
const UNDER_WAY_BYTES: usize = 4 << 20;
/// Bytes at which a part ends: of what is sent, and of what is looked at.
const PART_BYTES: usize = 2 << 20;
const LOOK_BYTES: usize = 16 << 20;
/// What looking at a key costs beside its bytes, in bytes.
const KEY_BYTES: usize = 64;

/// What a pass does with what it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Sends the versions above this sequence number.
    Copy {
        /// The target has everything up to here.
        since: u64,
    },
    /// Sends what the target has otherwise, or not at all.
    Compare,
}

/// A pass.
pub struct Passing<'a> {
    /// Of this stream.
    pub stream: &'a Arc<Stream>,
    /// To here.
    pub target: &'a Arc<Target>,
    /// From here.
    pub published: &'a Arc<Published>,
    /// With what is injected into it.
    pub points: &'a Points,
    /// Doing this.
    pub work: Work,
}

/// Keys in order, as many as are read at a time.
struct Part {
    entries: Vec<(Key, Versions)>,
    /// Where the next part begins; [`None`]: there is none.
    next: Option<Key>,
    /// What could not be read on the way.
    lost: Vec<Lost>,
}

/// Keys that are sent together, with their bytes, and where the pass has come to behind them; [`None`]: to its end.
type Batch = (Vec<(Key, Versions)>, usize, Option<Key>);

/// What became of a batch.
#[derive(Default)]
struct Done {
    keys: u64,
    bytes: u64,
    /// The target cannot compare.
    is_unable: bool,
}

/// A batch under way; given up when it is dropped.
struct UnderWay {
    task: JoinHandle<Result<Done, Failed>>,
    bytes: usize,
    /// The pass has come to this key when the batch is acknowledged.
    next: Option<Key>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Passing<'_> {
    /// Goes on from this key, to the end; a comparison ends early when the tap closes, since a copy is then due. Says whether it
    /// came to the end.
    ///
    /// # Errors
    /// When it can never be completed, or broke.
    pub async fn run(&self, mut from: Key) -> Result<bool, Failed> {
        let mut skipped = match self.work {
            Work::Copy { since } => Skipped::in_copy(since),
            Work::Compare => Skipped::default(),
        };
        let mut under_way: VecDeque<UnderWay> = VecDeque::new();
        let mut bytes = 0;
        loop {
            if self.work == Work::Compare && !self.stream.tap.is_open() {
                return Ok(false);
            }
            self.points.pass(BEFORE_PAGE).await?;
            let mut part = self.read(from).await?;
            self.skip(&std::mem::take(&mut part.lost), &mut skipped);
            let next = part.next.clone();
            for (entries, size, next) in batches(part, self.target.batch_bytes()) {
                while bytes + size > UNDER_WAY_BYTES
                    && let Some(first) = under_way.pop_front()
                {
                    bytes -= first.bytes;
                    if !self.finish(first, &skipped).await? {
                        self.note(None);
                        return Ok(true);
                    }
                }
                bytes += size;
                let (target, work, points) = (Arc::clone(self.target), self.work, self.points.clone());
                under_way.push_back(UnderWay {
                    task: tokio::spawn(send(target, work, entries, points)),
                    bytes: size,
                    next,
                });
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        for batch in under_way {
            if !self.finish(batch, &skipped).await? {
                self.note(None);
                return Ok(true);
            }
        }
        match self.work {
            Work::Copy { .. } => self.note(None),
            Work::Compare => {
                if skipped.is_empty() {
                    self.note(None);
                }
                self.stream.compared_but(skipped);
            }
        }
        Ok(true)
    }

    fn skip(&self, lost: &[Lost], skipped: &mut Skipped) {
        for lost in lost {
            if skipped.add(lost) {
                tracing::error!(target_node = self.stream.order().target, %lost, "damage: a stream goes past it");
            }
        }
        if !skipped.is_empty() {
            self.stream.skip(skipped.clone());
        }
    }

    async fn read(&self, from: Key) -> Result<Part, Failed> {
        let (published, stream, work) = (Arc::clone(self.published), Arc::clone(self.stream), self.work);
        let read = tokio::task::spawn_blocking(move || read_part(&published, &stream.order().ranges, from, work));
        let part = read
            .await
            .map_err(|panicked| Failed::Broken(format!("reading failed: {panicked}")))?;
        part.map_err(|error| Failed::ForGood(error.to_string()))
    }

    /// Waits for a batch. Says whether the pass has any use.
    async fn finish(&self, mut batch: UnderWay, skipped: &Skipped) -> Result<bool, Failed> {
        let done = (&mut batch.task).await;
        let done = done.map_err(|panicked| Failed::Broken(format!("sending failed: {panicked}")))??;
        self.points.pass(BEFORE_NOTE).await?;
        self.stream.count(|sent| match self.work {
            Work::Copy { .. } => {
                sent.keys_copied += done.keys;
                sent.bytes_copied += done.bytes;
            }
            Work::Compare => sent.keys_resent += done.keys,
        });
        // A comparison that is taken up again must come by what it went past.
        if batch.next.is_some() && (self.work != Work::Compare || skipped.is_empty()) {
            self.note(batch.next.as_ref());
        }
        Ok(!done.is_unable)
    }

    fn note(&self, next: Option<&Key>) {
        match self.work {
            Work::Copy { .. } => self.stream.passed(next),
            Work::Compare => self.stream.compared(next),
        }
    }
}

/// Reads on from a key, until enough was found or looked at.
fn read_part(published: &Published, ranges: &HashRanges, from: Key, work: Work) -> StorageResult<Part> {
    let since = match work {
        Work::Copy { since } => since,
        Work::Compare => 0,
    };
    let (mut entries, mut found, mut looked_at) = (Vec::new(), 0, 0);
    let mut scan = published.load().scan_since(&from, since);
    while let Some(entry) = scan.next() {
        let (key, versions) = entry?;
        let bytes = size_of_entry(&key, &versions);
        looked_at += bytes;
        let is_newer = |version: &&Version| version.seq > since;
        let is_full = |found| found >= PART_BYTES || looked_at >= LOOK_BYTES;
        let next = key.successor();
        if versions.all().iter().any(|v| is_newer(&v)) && ranges.contains(ring::place(&key)) {
            found += bytes;
            // Without the rest of their blocks.
            let newer = versions.all().iter().filter(is_newer).cloned().map(Version::detached);
            entries.push((key, newer.collect()));
        }
        if is_full(found) {
            return Ok(Part {
                entries,
                next: Some(next),
                lost: scan.lost().cloned().collect(),
            });
        }
    }
    Ok(Part {
        entries,
        next: None,
        lost: scan.lost().cloned().collect(),
    })
}

fn size_of_entry(key: &Key, versions: &Versions) -> usize {
    KEY_BYTES + key.as_bytes().len() + versions.heap_bytes()
}

/// The batches of a part, of about so many bytes.
fn batches(part: Part, most_bytes: usize) -> Vec<Batch> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut entries = part.entries.into_iter().peekable();
    while let Some((key, versions)) = entries.next() {
        bytes += size_of_entry(&key, &versions);
        let next = key.successor();
        batch.push((key, versions));
        let is_full = bytes >= most_bytes || batch.len() >= BATCH_KEYS;
        if is_full && entries.peek().is_some() {
            batches.push((std::mem::take(&mut batch), bytes, Some(next)));
            bytes = 0;
        }
    }
    // The last is as far as the part goes, also past keys that were not wanted.
    batches.push((batch, bytes, part.next));
    batches
}

async fn send(
    target: Arc<Target>,
    work: Work,
    mut entries: Vec<(Key, Versions)>,
    points: Points,
) -> Result<Done, Failed> {
    if work == Work::Compare && !entries.is_empty() {
        points.pass(BEFORE_COMPARE).await?;
        let digests: Vec<_> = entries
            .iter()
            .map(|(key, versions)| (key.clone(), digest(versions)))
            .collect();
        let Some(differing) = target.compare(&digests).await? else {
            return Ok(Done {
                is_unable: true,
                ..Done::default()
            });
        };
        let mut place = 0..;
        entries.retain(|_| place.next().is_some_and(|place| differing.contains(&place)));
    }
    let mut done = Done {
        keys: entries.len() as u64,
        ..Done::default()
    };
    let mut changes: Vec<Change> = Vec::with_capacity(entries.len());
    for (key, versions) in entries {
        for version in versions.all() {
            done.bytes += (key.as_bytes().len() + version.value.len()) as u64;
            changes.push((key.clone(), version.clone()));
        }
    }
    if !changes.is_empty() {
        points.pass(BEFORE_BATCH).await?;
        target.put(changes).await?;
    }
    Ok(done)
}
