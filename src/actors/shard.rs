//! A shard of the cache as its neighbours see it, and the chain of what it is told.
//!
//! Each message about writes names the last write before it that the shard was told of, and each question the last that was
//! told when it was asked. Whoever finds a link missing knows that he missed a write: one that was lost with an actor, or one
//! for which a slow shard's mailbox had no room.
//!
//! Owns: both ends of that chain. Does not own: what a shard holds (see [`crate::actors::cache`]). `tests/models` runs
//! this file through interleavings.

use crate::actors::cache::CacheMessage;
use crate::actors::mailbox::{Bound, Mailbox};
use crate::storage::key::Key;
use crate::storage::sync::{AtomicU64, Ordering};
use crate::storage::version::Version;
use std::sync::Arc;

/// A shard as others see it, whatever generation of it runs: where it is reached, and how far it was told of writes.
#[derive(Debug, Clone)]
pub struct Shard {
    /// Where it is reached.
    pub mailbox: Mailbox<CacheMessage>,
    told: Arc<AtomicU64>,
}

impl Shard {
    /// A shard that was told of nothing yet.
    #[must_use]
    pub fn new(bound: Bound) -> Self {
        Self {
            mailbox: Mailbox::new(bound),
            told: Arc::default(),
        }
    }

    /// Up to which sequence number the writes to this shard's keys were on their way to it. A question that is sent
    /// afterwards, with this number, is behind them in the mailbox.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// Tells of writes, the last of which is `last`. For the sole writer of the memtables.
    pub fn tell(&self, changes: Vec<(Key, Version)>, last: u64) {
        let previous = self.told();
        let bytes = changes.iter().map(|(key, version)| held_by(key, version)).sum();
        let message = CacheMessage::Written {
            changes,
            previous,
            last,
        };
        // No writer waits for a shard, and no permit bounds what waits for it: one that is too slow misses this, as one that
        // is down does. Either is empty before it answers again, and reads the view, which has these writes.
        let _ = self.mailbox.send_within_half(message, bytes);
        self.pass_over(last);
    }

    /// States that there were writes up to `seq` of which the shard is not told: whatever it holds may be older.
    pub fn pass_over(&self, seq: u64) {
        self.told.fetch_max(seq, Ordering::Release);
    }
}

/// Bytes that a write takes while it waits.
fn held_by(key: &Key, version: &Version) -> usize {
    size_of::<(Key, Version)>() + key.heap_bytes() + version.value.len() + version.clock.heap_bytes()
}

/// That a shard was not told of something: all that it holds, and all that is being read for it, may be older.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed;

/// Up to which number one generation of a shard heard of writes. Before the first message it holds nothing that could be old.
#[derive(Debug, Default)]
pub struct Heard(Option<u64>);

impl Heard {
    /// Takes note that the shard was told of writes up to `told` before.
    ///
    /// # Errors
    /// When it did not hear of them. It is told so once, and goes on with nothing.
    pub fn all_up_to(&mut self, told: u64) -> Result<(), Missed> {
        let heard = self.0.get_or_insert(told);
        if *heard < told {
            *heard = told;
            return Err(Missed);
        }
        Ok(())
    }

    /// Hears of the writes up to `last`, which follow those up to `previous`.
    ///
    /// # Errors
    /// As [`Heard::all_up_to`].
    pub fn hear(&mut self, previous: u64, last: u64) -> Result<(), Missed> {
        let heard = self.all_up_to(previous);
        self.0 = self.0.max(Some(last));
        heard
    }
}
