//! StreamsActor: the parent of the StreamActors, one for each node that is streamed to.
//!
//! It takes orders, makes them durable before they are answered, starts a StreamActor again that ended (at once when it had
//! settled, with backoff when not; as often as it takes), and every second saves how far the streams are. When it ends, its
//! children end with it; its successor finds the streams in the registry and starts all of them.
//!
//! Owns: the children. Does not own: the streams (see [`super::registry`]).

use crate::actors::mailbox::{Envelope, Mailbox};
use crate::actors::refusal::Refusal;
use crate::actors::reply::Reply;
use crate::actors::streaming::registry::{Ordered, Streams};
use crate::actors::streaming::stream::{Stream, StreamOrder, StreamState};
use crate::actors::streaming::stream_actor::StreamActor;
use crate::actors::streaming::work::Source;
use crate::actors::supervisor::{Tree, end_told_by};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two saves of how far the streams are: what is sent again after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// A child that lived at least this long is started again at once.
const SETTLED_AFTER: Duration = Duration::from_millis(5);
/// First pause before one that did not; it doubles up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// What StreamsActor is told.
#[derive(Debug)]
pub enum StreamsMessage {
    /// Begin a stream. The answer is in words for a person.
    Start(StreamOrder, Reply<String>),
    /// End the stream to this node. Answered likewise.
    Stop(String, Reply<String>),
    /// Time to save how far the streams are.
    Save,
    /// The pause before a child is over.
    StartAgain(String),
    /// End all work, but no stream, and save: the node stops.
    Close(Reply<()>),
}

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
}

struct Child {
    cell: ActorCell,
    started_at: Instant,
}

/// What it knows.
#[derive(Default)]
pub struct StreamsState {
    children: HashMap<String, Child>,
    /// How often a child ended before it had settled.
    unsettled: HashMap<String, u32>,
    closed: bool,
}

/// The name of a child, for people.
fn name_of(target: &str) -> String {
    format!("stream-{target}")
}

impl Actor for StreamsActor {
    type Msg = Envelope<StreamsMessage>;
    type State = StreamsState;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<StreamsState, ActorProcessingErr> {
        let mailbox = self.mailbox.clone();
        myself.send_interval(SAVE_EVERY, move || mailbox.envelope(StreamsMessage::Save));
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
            StreamsMessage::Start(order, reply) => reply.send(self.order(&myself, order, state).await),
            StreamsMessage::Stop(target, reply) => reply.send(self.stop(&target, state).await),
            StreamsMessage::Save => {
                if let Err(why) = self.streams.save().await {
                    tracing::warn!(%why, "how far the streams are was not saved; trying again");
                }
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
                reply.send(self.streams.save().await);
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
        self.ended(&myself, target, lived.unwrap_or_default(), reason, state);
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
        let actor = StreamActor {
            source: self.source.clone(),
            stream: Arc::clone(stream),
        };
        match Actor::spawn_linked(None, actor, (), myself.get_cell()).await {
            Ok((actor, _task)) => {
                let cell = actor.get_cell();
                self.tree.started(&name_of(target), &cell);
                let started_at = Instant::now();
                state.children.insert(target.clone(), Child { cell, started_at });
            }
            Err(error) => self.ended(myself, target.clone(), Duration::ZERO, error.to_string(), state),
        }
    }

    fn ended(
        &self,
        myself: &ActorRef<Envelope<StreamsMessage>>,
        target: String,
        lived: Duration,
        reason: String,
        state: &mut StreamsState,
    ) {
        let unsettled = state.unsettled.entry(target.clone()).or_default();
        *unsettled = if lived >= SETTLED_AFTER { 0 } else { *unsettled + 1 };
        let pause = match *unsettled {
            0 => Duration::ZERO,
            n => (FIRST_BACKOFF * 2_u32.pow(n.min(10))).min(LONGEST_BACKOFF),
        };
        tracing::warn!(
            actor = name_of(&target),
            reason,
            ?pause,
            "an actor ended; starting it again"
        );
        self.tree.ended(&name_of(&target), reason);
        let mailbox = self.mailbox.clone();
        myself.send_after(pause, move || mailbox.envelope(StreamsMessage::StartAgain(target)));
    }

    fn end_child(&self, target: &str, state: &mut StreamsState) {
        if let Some(child) = state.children.remove(target) {
            child.cell.stop(None);
        }
        state.unsettled.remove(target);
        self.tree.forget(&name_of(target));
    }

    async fn order(
        &self,
        myself: &ActorRef<Envelope<StreamsMessage>>,
        order: StreamOrder,
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
        if let Err(refusal) = self.streams.save().await {
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
        self.streams.save().await?;
        Ok(match removed {
            Some(_) => format!("the stream has ended: {target}"),
            None => format!("there is no stream: {target}"),
        })
    }
}
