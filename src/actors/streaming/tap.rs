//! Taps: where live writes are kept for the nodes that they are forwarded to.
//!
//! MemtableActor feeds them what it has applied, in order, with the numbers between which it lies; each tap keeps what is in its
//! ranges until its target has acknowledged it. A tap is bounded: one that would hold too much, or that was not fed
//! something, closes itself, and what it lacks is then copied from the view, since all of it is there. Without a tap feeding
//! costs one look.
//!
//! Owns: what is kept, its bounds, and up to which number it is complete. Does not own: sending.

use crate::storage::key::Key;
use crate::storage::ring::{self, HashRanges};
use crate::storage::version::Version;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;

/// Most bytes that one tap holds.
pub const TAP_BYTES: usize = 16 << 20;
/// Most bytes that all taps hold together.
const ALL_TAPS_BYTES: usize = 64 << 20;
/// Bytes that a change costs beside its key, clock and value.
const CHANGE_BYTES: usize = size_of::<(Key, Version)>() + 64;

/// A key and what was written to it.
pub type Change = (Key, Version);

/// All taps.
#[derive(Debug, Default)]
pub struct Taps {
    open: ArcSwap<Vec<Arc<Tap>>>,
    held: Arc<AtomicUsize>,
}

impl Taps {
    /// A tap for these ranges, fed from now on, but closed.
    #[must_use]
    pub fn add(&self, ranges: HashRanges) -> Arc<Tap> {
        let (moved, _) = watch::channel(());
        let tap = Arc::new(Tap {
            ranges,
            held: Arc::clone(&self.held),
            kept: Mutex::default(),
            moved,
        });
        self.open.rcu(|taps| {
            let mut taps = Vec::clone(taps);
            taps.push(Arc::clone(&tap));
            taps
        });
        tap
    }

    /// Feeds it no more, and lets go of what it holds.
    pub fn remove(&self, tap: &Arc<Tap>) {
        self.open.rcu(|taps| {
            let others = taps.iter().filter(|other| !Arc::ptr_eq(other, tap));
            others.cloned().collect::<Vec<_>>()
        });
        tap.close();
    }

    /// Whether nobody wants to be fed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.load().is_empty()
    }

    /// Feeds what was applied behind the sequence number `before` and up to `through`, in its order. The caller has the
    /// right to apply.
    pub fn feed(&self, before: u64, through: u64, changes: &[Change]) {
        let taps = self.open.load();
        if taps.is_empty() {
            return;
        }
        let places: Vec<u64> = changes.iter().map(|(key, _)| ring::place(key)).collect();
        for tap in taps.iter() {
            let wanted = changes
                .iter()
                .zip(&places)
                .filter(|(_, place)| tap.ranges.contains(**place));
            tap.feed(before, through, wanted.map(|(change, _)| change));
        }
    }
}

/// One tap.
#[derive(Debug)]
pub struct Tap {
    ranges: HashRanges,
    held: Arc<AtomicUsize>,
    kept: Mutex<Kept>,
    /// Tells of everything that is fed, acknowledged, opened or closed.
    moved: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Takes what it is fed.
    is_open: bool,
    /// How often it was opened: what was taken from it before says nothing of it now.
    opened: u64,
    /// Everything above this number …
    base: u64,
    /// … and up to this one was fed.
    fed: u64,
    /// What was not acknowledged, in order.
    queue: VecDeque<Change>,
    bytes: usize,
    /// How often it was closed because it held too much or lacked something.
    overflows: u64,
}

/// The first changes of a tap, in order.
#[derive(Debug)]
pub struct Taken {
    /// The changes.
    pub changes: Vec<Change>,
    opened: u64,
}

/// How much a tap holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Changes that were not acknowledged.
    pub changes: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// When the first of them was taken by this node, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// How often it was too much.
    pub overflows: u64,
}

impl Backlog {
    /// For how long the first of them has waited, in milliseconds.
    #[must_use]
    pub fn lag_ms(&self, now_ms: u64) -> u64 {
        self.since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms))
    }
}

fn cost((key, version): &Change) -> usize {
    CHANGE_BYTES + key.as_bytes().len() + version.value.len() + version.clock.heap_bytes()
}

impl Tap {
    /// Takes everything that is applied behind the sequence number `applied`. The caller has the right to apply.
    pub fn open(&self, applied: u64) {
        // Whoever was late finds it open, with what it has kept since.
        if self.is_open() {
            return;
        }
        self.discard();
        let mut kept = self.kept.lock();
        kept.is_open = true;
        kept.opened += 1;
        kept.base = applied;
        kept.fed = applied;
        drop(kept);
        self.moved.send_replace(());
    }

    /// Whether nothing is missed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.kept.lock().is_open
    }

    fn feed<'a>(&self, before: u64, through: u64, changes: impl Iterator<Item = &'a Change>) {
        let mut kept = self.kept.lock();
        if !kept.is_open {
            return;
        }
        // Something was applied, and not fed: whoever applied it ended in between.
        let mut is_complete = kept.fed == before;
        let held_before = kept.queue.len();
        if is_complete {
            for change in changes {
                let bytes = cost(change);
                let all = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
                kept.bytes += bytes;
                kept.queue.push_back(change.clone());
                is_complete = kept.bytes <= TAP_BYTES && all <= ALL_TAPS_BYTES;
                if !is_complete {
                    break;
                }
            }
        }
        if is_complete {
            kept.fed = through;
            let has_more = kept.queue.len() > held_before;
            drop(kept);
            if has_more {
                self.moved.send_replace(());
            }
            return;
        }
        kept.overflows += 1;
        drop(kept);
        self.close();
    }

    /// Takes nothing more, and lets go of what it holds.
    pub fn close(&self) {
        self.discard();
        self.moved.send_replace(());
    }

    fn discard(&self) {
        let mut kept = self.kept.lock();
        kept.is_open = false;
        let queue = std::mem::take(&mut kept.queue);
        let bytes = std::mem::take(&mut kept.bytes);
        if let Some((_, first)) = queue.front() {
            // What was acknowledged before stays true.
            kept.fed = first.seq - first.seq.min(1);
        }
        drop(kept);
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        if !queue.is_empty() {
            // It may be much, and this may be the writer's thread.
            tokio::task::spawn_blocking(move || drop(queue));
        }
    }

    /// The first changes, at most `most` and about `bytes`, but one in any case. Waits until there is one. They stay until
    /// they are acknowledged.
    pub async fn take(&self, most: usize, bytes: usize) -> Taken {
        let mut moved = self.moved.subscribe();
        loop {
            if let Some(taken) = self.first(most, bytes) {
                return taken;
            }
            // The sender lives as long as this.
            let _ = moved.changed().await;
        }
    }

    fn first(&self, most: usize, bytes: usize) -> Option<Taken> {
        let kept = self.kept.lock();
        let (mut changes, mut taken) = (Vec::new(), 0);
        for change in kept.queue.iter().take(most) {
            taken += cost(change);
            if taken > bytes && !changes.is_empty() {
                break;
            }
            changes.push(change.clone());
        }
        let opened = kept.opened;
        (!changes.is_empty()).then_some(Taken { changes, opened })
    }

    /// The target has these. After the tap was opened anew that says nothing.
    pub fn acknowledge(&self, taken: &Taken) {
        let mut kept = self.kept.lock();
        if kept.opened != taken.opened || kept.queue.len() < taken.changes.len() {
            return;
        }
        let bytes: usize = kept
            .queue
            .drain(..taken.changes.len())
            .map(|change| cost(&change))
            .sum();
        kept.bytes -= bytes;
        drop(kept);
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.moved.send_replace(());
    }

    /// What the target has acknowledged: everything above the first number and up to the second.
    #[must_use]
    pub fn acknowledged(&self) -> (u64, u64) {
        let kept = self.kept.lock();
        let through = match kept.queue.front() {
            Some((_, first)) => first.seq - first.seq.min(1),
            None => kept.fed,
        };
        (kept.base, through)
    }

    /// Waits until everything that was fed by now is acknowledged. `false`: it closed before.
    pub async fn drained(&self) -> bool {
        let mut moved = self.moved.subscribe();
        let fed = self.kept.lock().fed;
        loop {
            if !self.is_open() {
                return false;
            }
            if self.acknowledged().1 >= fed {
                return true;
            }
            let _ = moved.changed().await;
        }
    }

    /// Waits until it is closed.
    pub async fn closed(&self) {
        let mut moved = self.moved.subscribe();
        while self.is_open() {
            let _ = moved.changed().await;
        }
    }

    /// How much it holds.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let kept = self.kept.lock();
        Backlog {
            changes: kept.queue.len() as u64,
            bytes: kept.bytes as u64,
            since_ms: kept.queue.front().map(|(_, first)| first.timestamp_ms),
            overflows: kept.overflows,
        }
    }
}
