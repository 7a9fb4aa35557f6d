//! A handle to an actor that survives the actor's restarts, with a bound that ractor's own mailboxes lack.
//!
//! Owns: the current address, the bound in messages and bytes, and the counts. Does not own: restarts (the supervisor
//! publishes a new address), or messages that wait for nothing but were admitted elsewhere.

use crate::actors::address::{ActorRef, Message, MessagingErr};
use crate::storage::sync::{ArcSwapOption, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use tokio::time::Instant;

/// The bound of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Most messages that wait.
    pub messages: usize,
    /// Most bytes that they hold together.
    pub bytes: usize,
}

/// A message on its way, with the room that it takes.
#[derive(Debug)]
pub struct Envelope<M> {
    /// What was sent.
    pub message: M,
    /// Whether it comes from the actor's own thread, task or timer.
    pub(super) is_own: bool,
    /// When it was sent.
    pub(super) sent: Instant,
    /// When the work on it began; until then, when it was sent.
    pub(super) begun: Instant,
    /// Frees its room when the message was handled, or was lost with its actor.
    _room: Room,
}

#[derive(Debug)]
struct Room {
    used: Arc<Used>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.used.messages.fetch_sub(1, Ordering::AcqRel);
        self.used.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
struct Used {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    refused: AtomicU64,
}

/// Why a message was not delivered; the message comes back.
#[derive(Debug)]
pub enum Undelivered<M> {
    /// The mailbox is full.
    Full(M),
    /// The actor is being restarted.
    Down(M),
}

/// Tells what a mailbox holds, whatever its messages are.
#[derive(Debug, Clone)]
pub struct MailboxGauge {
    bound: Bound,
    used: Arc<Used>,
}

impl MailboxGauge {
    /// What the mailbox holds now.
    #[must_use]
    pub fn stats(&self) -> MailboxStats {
        MailboxStats {
            messages: self.used.messages.load(Ordering::Relaxed),
            bytes: self.used.bytes.load(Ordering::Relaxed),
            refused: self.used.refused.load(Ordering::Relaxed),
            bound: self.bound,
        }
    }
}

/// What a mailbox holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxStats {
    /// Messages that wait or are being handled.
    pub messages: usize,
    /// Bytes that they hold.
    pub bytes: usize,
    /// Messages refused so far because the mailbox was full.
    pub refused: u64,
    /// What it may hold; messages that were admitted elsewhere may exceed it.
    pub bound: Bound,
}

/// Sends to whichever actor currently has the role.
#[derive(Debug)]
pub struct Mailbox<M: Message> {
    bound: Bound,
    used: Arc<Used>,
    address: Arc<ArcSwapOption<ActorRef<Envelope<M>>>>,
}

impl<M: Message> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self {
            bound: self.bound,
            used: Arc::clone(&self.used),
            address: Arc::clone(&self.address),
        }
    }
}

impl<M: Message> Mailbox<M> {
    /// A mailbox without an actor: every message is [`Undelivered::Down`] until one is published.
    #[must_use]
    pub fn new(bound: Bound) -> Self {
        Self {
            bound,
            used: Arc::default(),
            address: Arc::default(),
        }
    }

    /// Makes `actor` the one that gets messages from now on.
    pub fn publish(&self, actor: ActorRef<Envelope<M>>) {
        self.address.store(Some(Arc::new(actor)));
    }

    /// Sends a message that holds `bytes`, if there is room.
    ///
    /// # Errors
    /// Hands the message back when the mailbox is full or the actor down.
    pub fn send(&self, message: M, bytes: usize) -> Result<(), Undelivered<M>> {
        self.send_within(self.bound, message, bytes)
    }

    /// As [`Mailbox::send`], if it is within half of the bound: the other half is left to those who wait for an answer.
    ///
    /// # Errors
    /// As [`Mailbox::send`].
    pub fn send_within_half(&self, message: M, bytes: usize) -> Result<(), Undelivered<M>> {
        let half = Bound {
            messages: self.bound.messages / 2,
            bytes: self.bound.bytes / 2,
        };
        self.send_within(half, message, bytes)
    }

    fn send_within(&self, bound: Bound, message: M, bytes: usize) -> Result<(), Undelivered<M>> {
        let room = self.room(bytes);
        let messages = self.used.messages.load(Ordering::Acquire);
        let held = self.used.bytes.load(Ordering::Acquire);
        // A message larger than the bound passes through an empty mailbox: limits of size are not this one's business.
        if messages > bound.messages || (held > bound.bytes && messages > 1) {
            self.used.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Undelivered::Full(message));
        }
        self.deliver(message, room)
    }

    /// Sends a message whose number is bounded already, by a permit that it carries or by what caused it. It counts,
    /// but is not refused.
    ///
    /// # Errors
    /// Hands the message back when the actor is down.
    pub fn send_admitted(&self, message: M) -> Result<(), M> {
        let room = self.room(0);
        self.deliver(message, room).map_err(|undelivered| match undelivered {
            Undelivered::Full(message) | Undelivered::Down(message) => message,
        })
    }

    /// What tells how much it holds.
    #[must_use]
    pub fn gauge(&self) -> MailboxGauge {
        MailboxGauge {
            bound: self.bound,
            used: Arc::clone(&self.used),
        }
    }

    /// What it holds now.
    #[must_use]
    pub fn stats(&self) -> MailboxStats {
        self.gauge().stats()
    }

    /// Wraps a message that an actor's own helper sends to exactly that actor, not to its successor.
    #[must_use]
    pub fn envelope(&self, message: M) -> Envelope<M> {
        let now = Instant::now();
        Envelope {
            message,
            is_own: true,
            sent: now,
            begun: now,
            _room: self.room(0),
        }
    }

    fn room(&self, bytes: usize) -> Room {
        self.used.messages.fetch_add(1, Ordering::AcqRel);
        self.used.bytes.fetch_add(bytes, Ordering::AcqRel);
        Room {
            used: Arc::clone(&self.used),
            bytes,
        }
    }

    fn deliver(&self, message: M, room: Room) -> Result<(), Undelivered<M>> {
        let address = self.address.load();
        let Some(actor) = address.as_ref() else {
            return Err(Undelivered::Down(message));
        };
        let now = Instant::now();
        let envelope = Envelope {
            message,
            is_own: false,
            sent: now,
            begun: now,
            _room: room,
        };
        match actor.send_message(envelope) {
            Ok(()) => Ok(()),
            Err(MessagingErr::SendErr(envelope)) => Err(Undelivered::Down(envelope.message)),
            // A typed reference to a live actor knows neither of the other errors; were there one, the message would be
            // gone, and its reply port with it, which its sender sees.
            Err(_) => Ok(()),
        }
    }
}
