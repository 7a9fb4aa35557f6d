//! StreamsActor: the parent of the StreamActors, one for each node that is streamed to.
//!
//! It takes orders, makes them durable before they are answered, starts a StreamActor again that ended, kills one that makes no
//! progress, and every second saves how far the streams are. A stream whose actor ends more often than the restart intensity
//! allows has failed: that is one target's trouble, and not the node's. When StreamsActor ends, its children end with it; its
//! successor finds the streams in the registry and starts all of them.
//!
//! Owns: the children. Does not own: the streams (see [`super::registry`]).

use crate::actors::faults::BEFORE_SAVE;
use crate::actors::mailbox::{Envelope, Mailbox};
use crate::actors::refusal::Refusal;
use crate::actors::reply::Reply;
use crate::actors::restarts::{Intensity, Restarts};
use crate::actors::streaming::registry::{Ordered, Streams};
use crate::actors::streaming::stream::{Stream, StreamOrder, StreamState};
use crate::actors::streaming::stream_actor::StreamActor;
use crate::actors::streaming::work::{Points, Source};
use crate::actors::supervisor::{Tree, end_told_by};
use crate::actors::timers;
use crate::actors::trail::{self, TraceContext};
use crate::actors::watched::{Pulse, Trailed, Watched};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Time between two saves of how far the streams are: what is sent again after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// What StreamsActor is told.
#[derive(Debug)]
pub enum StreamsMessage {
    /// Begin a stream. The answer is in words for a person.
    Start(StreamOrder, Reply<String>),
    /// End the stream to this node. Answered likewise.
    Stop(String, Reply<String>),
    /// Time to save how far the streams are, and to look whether all children make progress.
    Save,
    /// The pause before a child is over.
    StartAgain(String),
    /// End all work, but no stream, and save: the node stops.
    Close(Reply<()>),
}

impl Trailed for StreamsMessage {}

/// The actor.
pub struct StreamsActor {
    /// The streams.
    pub streams: Arc<Streams>,
    /// What work on them needs.
    pub source: Source,
    /// Where children are seen.
    pub tree: Arc<Tree>,
    /// Its own mailbox.
    pub mailbox: Mailbox<StreamsMessage>,
    /// How often a child may end.
    pub intensity: Intensity,
    /// Longest time that a child may be at one message.
    pub stuck_after: Duration,
}

struct Child {
    cell: ActorCell,
    pulse: Arc<Pulse>,
    started_at: Instant,
}

/// What it knows.
#[derive(Default)]
pub struct StreamsState {
    children: HashMap<String, Child>,
    restarts: HashMap<String, Restarts>,
    /// What saves how far they are, now and then.
    saving: Option<JoinHandle<()>>,
    closed: bool,
}

/// What the name of each child begins with.
pub const STREAM_PREFIX: &str = "stream-";

/// The name of a child, for people.
fn name_of(target: &str) -> String {
    format!("{STREAM_PREFIX}{target}")
}

impl Actor for StreamsActor {
    type Msg = Envelope<StreamsMessage>;
    type State = StreamsState;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<StreamsState, ActorProcessingErr> {
        let mailbox = self.mailbox.clone();
        timers::every(&myself, SAVE_EVERY, move || mailbox.envelope(StreamsMessage::Save));
        Ok(StreamsState::default())
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut StreamsState,
    ) -> Result<(), ActorProcessingErr> {
        for stream in self.streams.all() {
            let order = stream.order();
            self.source.peers.book.learn(&order.target, order.address.clone());
            self.start(&myself, &stream, state).await;
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut StreamsState,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.message {
            StreamsMessage::Start(_, reply) if state.closed => reply.send(Err(Refusal::ShuttingDown)),
            StreamsMessage::Start(order, reply) => {
                let ordered = self.order(&myself, order, reply.context(), state).await;
                reply.send(ordered);
            }
            StreamsMessage::Stop(target, reply) => reply.send(self.stop(&target, state).await),
            StreamsMessage::Save => {
                self.look(state);
                self.save_aside(state).await;
            }
            StreamsMessage::StartAgain(target) => {
                if let Some(stream) = self.streams.get(&target) {
                    self.start(&myself, &stream, state).await;
                }
            }
            StreamsMessage::Close(reply) => {
                state.closed = true;
                for (_, child) in state.children.drain() {
                    child.cell.stop(None);
                }
                reply.send(self.save().await);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut StreamsState,
    ) -> Result<(), ActorProcessingErr> {
        let Some((cell, reason)) = end_told_by(event) else {
            return Ok(());
        };
        let ended = state
            .children
            .iter()
            .find(|(_, child)| child.cell.get_id() == cell.get_id());
        let Some(target) = ended.map(|(target, _)| target.clone()) else {
            // One that was stopped.
            return Ok(());
        };
        let lived = state.children.remove(&target).map(|child| child.started_at.elapsed());
        self.ended(&myself, target, lived, reason, state).await;
        Ok(())
    }
}

impl StreamsActor {
    /// Starts a child for a stream that has none.
    async fn start(&self, myself: &ActorRef<Envelope<StreamsMessage>>, stream: &Arc<Stream>, state: &mut StreamsState) {
        let target = &stream.order().target;
        if state.closed || state.children.contains_key(target) {
            return;
        }
        let name: Arc<str> = name_of(target).into();
        let (faults, pulse) = (Arc::clone(&self.source.faults), self.tree.pulse(&name));
        let points = Points {
            faults: Arc::clone(&faults),
            actor: Arc::clone(&name),
        };
        let actor = Watched {
            inner: StreamActor {
                source: self.source.clone(),
                stream: Arc::clone(stream),
                points,
            },
            name: Arc::clone(&name),
            faults,
            pulse: Arc::clone(&pulse),
        };
        match Actor::spawn_linked(None, actor, (), myself.get_cell()).await {
            Ok((actor, _task)) => {
                let cell = actor.get_cell();
                self.tree.started(&name, &cell);
                let child = Child {
                    cell,
                    pulse,
                    started_at: Instant::now(),
                };
                state.children.insert(target.clone(), child);
            }
            Err(error) => {
                let why = format!("it did not start: {error}");
                self.ended(myself, target.clone(), None, why, state).await;
            }
        }
    }

    /// Kills children that have been at one message for too long.
    fn look(&self, state: &StreamsState) {
        for (target, child) in &state.children {
            self.tree.judge(&name_of(target), child.pulse.busy(), self.stuck_after);
        }
    }

    /// Saves how far the streams are in a task of its own, unless one is at it: a disk that hangs is no reason to end the
    /// children, as the end of an actor that stands still would.
    async fn save_aside(&self, state: &mut StreamsState) {
        if state.saving.as_ref().is_some_and(|saving| !saving.is_finished()) {
            return;
        }
        let unsaved = |why: Refusal| tracing::warn!(%why, "how far the streams are was not saved; trying again");
        if let Err(why) = self.pass_save().await {
            unsaved(why);
            return;
        }
        let streams = Arc::clone(&self.streams);
        state.saving = Some(tokio::spawn(async move {
            streams.save().await.unwrap_or_else(unsaved);
        }));
    }

    async fn pass_save(&self) -> Result<(), Refusal> {
        let passed = self.source.faults.pass_waiting("streams", BEFORE_SAVE, false).await;
        passed
            .map(|_on| ())
            .map_err(|injected| Refusal::Internal(injected.to_string()))
    }

    async fn save(&self) -> Result<(), Refusal> {
        self.pass_save().await?;
        self.streams.save().await
    }

    async fn ended(
        &self,
        myself: &ActorRef<Envelope<StreamsMessage>>,
        target: String,
        lived: Option<Duration>,
        reason: String,
        state: &mut StreamsState,
    ) {
        let name = name_of(&target);
        let reason = self.tree.reason_of(&name, reason);
        let at_request = self.tree.ended(&name, reason.clone());
        let restarts = state.restarts.entry(target.clone()).or_default();
        let pause = match restarts.ended(lived, self.intensity) {
            Ok(pause) => pause,
            Err(times) => {
                if let Some(stream) = self.streams.get(&target) {
                    // What the actor leaves ends first, so that nobody says that the stream goes on.
                    let _alone = stream.worker.lock().await;
                    stream.fail(format!("{name} {times}, last: {reason}"));
                }
                // Nobody starts it again; its stream says so.
                self.tree.forget(&name);
                return;
            }
        };
        trail::say_at(at_request, || {
            tracing::warn!(actor = name, reason, ?pause, "an actor ended; starting it again");
        });
        let mailbox = self.mailbox.clone();
        timers::after(myself, pause, move || {
            mailbox.envelope(StreamsMessage::StartAgain(target))
        });
    }

    fn end_child(&self, target: &str, state: &mut StreamsState) {
        if let Some(child) = state.children.remove(target) {
            child.cell.stop(None);
        }
        state.restarts.remove(target);
        self.tree.forget(&name_of(target));
    }

    async fn order(
        &self,
        myself: &ActorRef<Envelope<StreamsMessage>>,
        order: StreamOrder,
        cause: Option<TraceContext>,
        state: &mut StreamsState,
    ) -> Result<String, Refusal> {
        let target = order.target.clone();
        if !self.source.peers.book.learn(&target, order.address.clone()) {
            return Err(Refusal::Overloaded("too many nodes are known"));
        }
        let was_known = self.streams.get(&target).is_some();
        let (stream, said) = match self.streams.order(order)? {
            Ordered::Known(stream) => {
                if matches!(stream.state(), StreamState::Failed(_)) {
                    self.end_child(&target, state);
                    stream.enter(StreamState::Copying);
                }
                (stream, "there is such a stream; it goes on")
            }
            Ordered::New(stream) => {
                self.end_child(&target, state);
                (stream, "the stream begins")
            }
        };
        stream.set_cause(cause.and_then(TraceContext::if_sampled));
        if let Err(refusal) = self.save().await {
            if was_known {
                self.start(myself, &stream, state).await;
            } else {
                self.streams.remove(&target);
            }
            return Err(refusal);
        }
        self.start(myself, &stream, state).await;
        Ok(format!("{said}: {target}"))
    }

    async fn stop(&self, target: &str, state: &mut StreamsState) -> Result<String, Refusal> {
        let removed = self.streams.remove(target);
        self.end_child(target, state);
        self.save().await?;
        Ok(match removed {
            Some(_) => format!("the stream has ended: {target}"),
            None => format!("there is no stream: {target}"),
        })
    }
}
