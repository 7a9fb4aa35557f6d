//! Room for answers that clients have asked for and not taken yet.
//!
//! What one connection may hold is bounded, and shrinks as the room of all does: it holds no more than is left to the others. A
//! little it may hold in any case, so that clients which take nothing keep nobody from small answers. And a connection whose
//! client takes next to nothing of what it holds, while others are refused for want of room, gives it back: it is ended.
//!
//! Owns: the bounds, waiting for room, and which connections are in the way. Does not own: what an answer holds, when it is taken
//! (see `rpc::sending`), or the end of a connection (see `rpc::connection`).

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Most bytes that the answers of all connections hold, beside what each may in any case.
pub const ALL_BYTES: usize = 128 << 20;
/// Most bytes that those of one connection hold: a few of the largest.
pub const CONNECTION_BYTES: usize = 32 << 20;
/// Of these, most bytes of results of streams: the rest is for calls of their own, which are not made to wait.
pub const STREAMED_BYTES: usize = 21 << 20;

/// Bytes that a connection may hold in any case; who takes fewer between two looks takes next to nothing.
pub const SURE_BYTES: usize = 64 << 10;

/// The room of all connections.
#[derive(Debug, Default)]
pub struct AnswerRoom {
    held: Mutex<usize>,
    freed: Notify,
    /// Answers that had no room, because of what others held.
    refused: AtomicU64,
}

impl AnswerRoom {
    /// Bytes that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        *self.held.lock()
    }

    /// The room of a connection.
    #[must_use]
    pub fn of_connection(self: &Arc<Self>) -> Arc<ConnectionRoom> {
        Arc::new(ConnectionRoom {
            all: Arc::clone(self),
            held: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            looked: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }
}

/// The room of one connection.
#[derive(Debug)]
pub struct ConnectionRoom {
    all: Arc<AnswerRoom>,
    held: AtomicUsize,
    /// Bytes that its client has taken since the last look, and that were given back.
    taken: AtomicUsize,
    looked: Mutex<Looked>,
    /// Whose turn it is to wait for room: one at a time, in order.
    turn: tokio::sync::Mutex<()>,
}

/// What was seen of a connection when it was looked at last.
#[derive(Debug, Default)]
struct Looked {
    /// It held more than is its own.
    has_much: bool,
    /// What had been refused to all by then.
    refused: u64,
}

impl ConnectionRoom {
    /// Its client has taken so many bytes, of whatever.
    pub fn taken(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether, from the last look to this one, it held much, its client took next to nothing, and others were refused for want
    /// of room.
    #[must_use]
    pub fn is_in_the_way(&self) -> bool {
        let now = Looked {
            has_much: self.held.load(Ordering::Relaxed) > SURE_BYTES,
            refused: self.all.refused.load(Ordering::Relaxed),
        };
        let takes_nothing = self.taken.swap(0, Ordering::Relaxed) < SURE_BYTES;
        let mut looked = self.looked.lock();
        let is_in_the_way = looked.has_much && now.has_much && takes_nothing && now.refused > looked.refused;
        *looked = now;
        is_in_the_way
    }

    /// Holds room for an answer of so many bytes, if there is any.
    #[must_use]
    pub fn try_hold(self: &Arc<Self>, bytes: usize) -> Option<HeldRoom> {
        self.try_hold_of(CONNECTION_BYTES, bytes)
    }

    /// As [`ConnectionRoom::try_hold`], for the result of a stream.
    #[must_use]
    pub fn try_hold_streamed(self: &Arc<Self>, bytes: usize) -> Option<HeldRoom> {
        // Whoever waits has asked before.
        let _turn = self.turn.try_lock().ok()?;
        self.try_hold_of(STREAMED_BYTES, bytes)
    }

    fn try_hold_of(self: &Arc<Self>, most: usize, bytes: usize) -> Option<HeldRoom> {
        // The largest answers have clocks and keys beside their values; one of them is let in by itself.
        let bytes = bytes.min(STREAMED_BYTES);
        let mut all = self.all.held.lock();
        let own = self.held.load(Ordering::Relaxed);
        let left = ALL_BYTES.saturating_sub(*all);
        if own + bytes > most.min(left).max(SURE_BYTES) {
            if own + bytes <= most {
                self.all.refused.fetch_add(1, Ordering::Relaxed);
            }
            return None;
        }
        *all += bytes;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        let room = Arc::clone(self);
        Some(HeldRoom { room, bytes })
    }

    /// As [`ConnectionRoom::try_hold_streamed`], as soon as there is room.
    pub async fn hold(self: &Arc<Self>, bytes: usize) -> HeldRoom {
        let _turn = self.turn.lock().await;
        let mut freed = std::pin::pin!(self.all.freed.notified());
        loop {
            // Before the look, so that nothing is missed between the two.
            freed.as_mut().enable();
            if let Some(held) = self.try_hold_of(STREAMED_BYTES, bytes) {
                return held;
            }
            freed.as_mut().await;
            freed.set(self.all.freed.notified());
        }
    }

    /// Whether its client has taken everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.load(Ordering::Relaxed) == 0
    }
}

/// Room that an answer holds; given back when this is dropped.
#[derive(Debug)]
pub struct HeldRoom {
    room: Arc<ConnectionRoom>,
    bytes: usize,
}

impl HeldRoom {
    /// Whether an answer of so many bytes has room in it.
    #[must_use]
    pub fn suffices_for(&self, bytes: usize) -> bool {
        self.bytes >= bytes.min(STREAMED_BYTES)
    }
}

impl Drop for HeldRoom {
    fn drop(&mut self) {
        let all = &self.room.all;
        {
            let mut held = all.held.lock();
            *held -= self.bytes;
            self.room.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.room.taken(self.bytes);
        if self.bytes > 0 {
            all.freed.notify_waiters();
        }
    }
}
