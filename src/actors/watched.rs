//! What every actor is wrapped in: the points at which faults are injected, and the signs that it makes progress.
//!
//! Owns: that each start and each message passes its point, and the note of when either was begun. Does not own: what
//! the actor does, or what follows when it makes no progress (see [`crate::actors::supervisor`]).

use crate::actors::faults::{Faults, MESSAGE, Passed, START};
use crate::actors::mailbox::Envelope;
use crate::actors::trail::TraceContext;
use crate::storage::histogram::Histogram;
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Whether an actor makes progress. One that waits for messages does; one that has been at the same message, or at its start,
/// for long does not. A full neighbour holds nobody up: messages are refused, not waited with.
#[derive(Debug)]
pub struct Pulse {
    origin: Instant,
    /// When the present message, or start, was begun, in microseconds since the origin; 0: there is none.
    begun_us: AtomicU64,
    handled: AtomicU64,
    /// The request at which the actor ended, or failed, last.
    fatal: Mutex<Option<TraceContext>>,
    /// How long messages waited.
    pub queued: Histogram,
    /// How long they were worked on.
    pub worked: Histogram,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            begun_us: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            fatal: Mutex::default(),
            queued: Histogram::of_durations(),
            worked: Histogram::of_durations(),
        }
    }
}

impl Pulse {
    /// For how long the actor has been at its present message, or at its start.
    #[must_use]
    pub fn busy(&self) -> Duration {
        match self.begun_us.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            begun => self.origin.elapsed().saturating_sub(Duration::from_micros(begun)),
        }
    }

    /// Messages handled by all generations.
    #[must_use]
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// The request at which the actor ended last, if it was one. Told once.
    pub(super) fn take_fatal(&self) -> Option<TraceContext> {
        self.fatal.lock().take()
    }

    fn note_begun(&self, begun: Instant) {
        let since = u64::try_from(begun.duration_since(self.origin).as_micros()).unwrap_or(u64::MAX);
        self.begun_us.store(since.max(1), Ordering::Relaxed);
    }

    /// Begins work that is no message: a start, or what follows from the end of a child.
    fn begin_other(&self) -> Other<'_> {
        self.note_begun(Instant::now());
        Other(self)
    }

    fn begin(&self, begun: Instant, sent: Instant, context: Option<TraceContext>) -> Beat<'_> {
        self.note_begun(begun);
        self.queued.observe(begun.duration_since(sent));
        Beat {
            pulse: self,
            begun,
            context,
        }
    }
}

/// Work that is no message, and does not count as one. Ends with it, whatever ends it.
struct Other<'a>(&'a Pulse);

impl Drop for Other<'_> {
    fn drop(&mut self) {
        self.0.begun_us.store(0, Ordering::Relaxed);
    }
}

/// One message. Ends with it, whatever ends it.
struct Beat<'a> {
    pulse: &'a Pulse,
    begun: Instant,
    /// That of the message's request, until the message is done with.
    context: Option<TraceContext>,
}

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        self.pulse.begun_us.store(0, Ordering::Relaxed);
        self.pulse.handled.fetch_add(1, Ordering::Relaxed);
        self.pulse.worked.observe(self.begun.elapsed());
        if self.context.is_some() {
            *self.pulse.fatal.lock() = self.context;
        }
    }
}

/// A message of which a point must know whether it may get lost.
pub trait Losable {
    /// Whether it comes from another actor. What an actor has of its own thread, task or timer cannot get lost without it.
    fn may_be_lost(&self) -> bool;

    /// When it was sent.
    fn sent(&self) -> Instant;

    /// Takes note that the work on it begins.
    fn begin(&mut self, _now: Instant) {}

    /// The place among all traces of the request that it carries on, or of the first of them.
    fn context(&self) -> Option<TraceContext> {
        None
    }
}

/// A message of an actor's own tasks and timers, where it has no mailbox of ours: nobody else sends to it.
#[derive(Debug)]
pub struct Own<M> {
    /// What was sent.
    pub message: M,
    sent: Instant,
}

impl<M> From<M> for Own<M> {
    fn from(message: M) -> Self {
        Self {
            message,
            sent: Instant::now(),
        }
    }
}

impl<M> Losable for Own<M> {
    fn may_be_lost(&self) -> bool {
        false
    }

    fn sent(&self) -> Instant {
        self.sent
    }
}

/// What an actor is told, of which it is known whether it carries on a request.
pub trait Trailed {
    /// The place among all traces of that request, or of the first of them.
    fn context(&self) -> Option<TraceContext> {
        None
    }
}

impl<M: Trailed> Losable for Envelope<M> {
    fn may_be_lost(&self) -> bool {
        !self.is_own
    }

    fn sent(&self) -> Instant {
        self.sent
    }

    fn begin(&mut self, now: Instant) {
        self.begun = now;
    }

    fn context(&self) -> Option<TraceContext> {
        self.message.context()
    }
}

/// An actor with its points and its pulse.
pub struct Watched<A> {
    /// The actor.
    pub inner: A,
    /// Its name among the injections.
    pub name: Arc<str>,
    /// The injections.
    pub faults: Arc<Faults>,
    /// Its pulse; all generations have the same.
    pub pulse: Arc<Pulse>,
}

impl<A: Actor<Msg: Losable>> Actor for Watched<A> {
    type Msg = A::Msg;
    type State = A::State;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let _beat = self.pulse.begin_other();
        let _on = self.faults.pass_waiting(&self.name, START, false).await?;
        self.inner.pre_start(myself, arguments).await
    }

    async fn post_start(&self, myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        let _beat = self.pulse.begin_other();
        self.inner.post_start(myself, state).await
    }

    async fn post_stop(&self, myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        self.inner.post_stop(myself, state).await
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        mut message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let now = Instant::now();
        message.begin(now);
        let mut beat = self.pulse.begin(now, message.sent(), message.context());
        let may_drop = message.may_be_lost();
        match self.faults.pass_waiting(&self.name, MESSAGE, may_drop).await? {
            Passed::On => self.inner.handle(myself, message, state).await?,
            Passed::Drop => {}
        }
        beat.context = None;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let _beat = self.pulse.begin_other();
        self.inner.handle_supervisor_evt(myself, event, state).await
    }
}
