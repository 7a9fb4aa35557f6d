//! Room for answers that clients have asked for and not taken yet.
//!
//! What one connection may hold is bounded, and shrinks as the room of all does: it holds no more than is left to the others. A
//! little it may hold in any case, so that clients which take nothing keep nobody from small answers.
//!
//! Owns: the two bounds, and waiting for room. Does not own: what an answer holds, or when it is taken (see `rpc::sending`).

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Most bytes that the answers of all connections hold, beside what each may in any case.
pub const ALL_BYTES: usize = 128 << 20;
/// Most bytes that those of one connection hold: a few of the largest.
pub const CONNECTION_BYTES: usize = 32 << 20;

/// Bytes that a connection may hold in any case.
pub const SURE_BYTES: usize = 64 << 10;

/// The room of all connections.
#[derive(Debug, Default)]
pub struct AnswerRoom {
    held: Mutex<usize>,
    freed: Notify,
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
            turn: tokio::sync::Mutex::default(),
        })
    }
}

/// The room of one connection.
#[derive(Debug)]
pub struct ConnectionRoom {
    all: Arc<AnswerRoom>,
    held: AtomicUsize,
    /// Whose turn it is to wait for room: one at a time, in order.
    turn: tokio::sync::Mutex<()>,
}

impl ConnectionRoom {
    /// Holds room for an answer of so many bytes, if there is any.
    #[must_use]
    pub fn try_hold(self: &Arc<Self>, bytes: usize) -> Option<HeldRoom> {
        // The largest answers have clocks and keys beside their values; one of them is let in by itself.
        let bytes = bytes.min(CONNECTION_BYTES);
        let mut all = self.all.held.lock();
        let own = self.held.load(Ordering::Relaxed);
        let most = CONNECTION_BYTES.min(ALL_BYTES.saturating_sub(*all));
        if own + bytes > most.max(SURE_BYTES) {
            return None;
        }
        *all += bytes;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        let room = Arc::clone(self);
        Some(HeldRoom { room, bytes })
    }

    /// As [`ConnectionRoom::try_hold`], as soon as there is room.
    pub async fn hold(self: &Arc<Self>, bytes: usize) -> HeldRoom {
        let _turn = self.turn.lock().await;
        let mut freed = std::pin::pin!(self.all.freed.notified());
        loop {
            // Before the look, so that nothing is missed between the two.
            freed.as_mut().enable();
            if let Some(held) = self.try_hold(bytes) {
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
        self.bytes >= bytes.min(CONNECTION_BYTES)
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
        if self.bytes > 0 {
            all.freed.notify_waiters();
        }
    }
}
