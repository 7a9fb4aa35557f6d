//! RegistrationActor: makes the node known to the coordinator of the cluster.
//!
//! It tries at once when the node listens, and again after a pause until it succeeds or its tries are used up; the node
//! serves whatever comes of it. A coordinator that refuses a node may know it already, so the node then looks itself up.
//!
//! Owns: when to try, and what the answers mean. Does not own: the coordinator's wire (see `rpc`). What became of it, and
//! the tries, outlive the actor: one that is killed goes on, and does not begin anew.

use crate::actors::address_book::NodeAddress;
use crate::actors::mailbox::{Envelope, Mailbox};
use crate::actors::timers;
use crate::actors::watched::Trailed;
use arc_swap::ArcSwap;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The node, as the coordinator is to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub node_id: String,
    /// Where others reach it.
    pub address: NodeAddress,
    /// Points of the ring that it asks for.
    pub virtual_nodes: u32,
}

/// Why the coordinator did not take a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddError {
    /// It answered that it cannot: it may know the node already.
    Refused(String),
    /// It did not answer, or nothing that can be understood.
    Failed(String),
}

/// An answer of the coordinator.
pub type Asked<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The coordinator.
pub trait Coordinator: Send + Sync {
    /// Asks it to take the node into the cluster. The answer is in words for a person.
    fn add(&self, member: &Member) -> Asked<Result<String, AddError>>;

    /// The address under which it knows a node, if it does.
    fn address_of(&self, node_id: &str) -> Asked<Result<Option<NodeAddress>, String>>;
}

/// How far the registration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// Not yet; why the last try failed, if there was one.
    Trying(Option<String>),
    /// The coordinator knows the node.
    Known,
    /// The coordinator knows the node under this other address.
    KnownAt(NodeAddress),
    /// No more tries; why the last one failed.
    GivenUp(String),
}

/// What outlives the actor.
#[derive(Debug)]
pub struct RegistrationWatch {
    state: ArcSwap<Registered>,
    tries: AtomicU32,
}

impl Default for RegistrationWatch {
    fn default() -> Self {
        Self {
            state: ArcSwap::from_pointee(Registered::Trying(None)),
            tries: AtomicU32::new(0),
        }
    }
}

impl RegistrationWatch {
    /// How far it is.
    #[must_use]
    pub fn state(&self) -> Arc<Registered> {
        self.state.load_full()
    }

    /// Tries so far.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries.load(Ordering::Relaxed)
    }

    /// What a person should do something about.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match self.state().as_ref() {
            Registered::Known | Registered::Trying(None) => None,
            Registered::Trying(Some(why)) => Some(format!("not registered with the coordinator yet: {why}")),
            Registered::KnownAt(address) => Some(format!("the coordinator knows this node at {address} instead")),
            Registered::GivenUp(why) => Some(format!(
                "not registered with the coordinator after {} tries; restart the node to try again: {why}",
                self.tries()
            )),
        }
    }
}

/// What RegistrationActor is told.
#[derive(Debug)]
pub enum RegistrationMessage {
    /// Time to try.
    Try,
    /// A try ended.
    Tried(Result<Registered, String>),
}

impl Trailed for RegistrationMessage {}

/// The actor.
pub struct RegistrationActor {
    /// Whom it asks.
    pub coordinator: Arc<dyn Coordinator>,
    /// What it says.
    pub member: Member,
    /// Most tries.
    pub tries: u32,
    /// From one try to the next.
    pub interval: Duration,
    /// A try without an answer by then failed.
    pub timeout: Duration,
    /// What outlives it.
    pub watch: Arc<RegistrationWatch>,
    /// Its own mailbox.
    pub mailbox: Mailbox<RegistrationMessage>,
}

impl Actor for RegistrationActor {
    type Msg = Envelope<RegistrationMessage>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        if matches!(self.watch.state().as_ref(), Registered::Trying(_)) {
            // A generation that was killed in the middle of a try used it up: no faster because of that.
            let pause = if self.watch.tries() == 0 {
                Duration::ZERO
            } else {
                self.interval
            };
            self.try_after(&myself, pause);
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match envelope.message {
            RegistrationMessage::Try => self.begin(&myself),
            RegistrationMessage::Tried(Ok(registered)) => self.registered(registered),
            RegistrationMessage::Tried(Err(why)) => self.failed(&myself, why),
        }
        Ok(())
    }
}

impl RegistrationActor {
    fn try_after(&self, myself: &ActorRef<Envelope<RegistrationMessage>>, pause: Duration) {
        let mailbox = self.mailbox.clone();
        timers::after(myself, pause, move || mailbox.envelope(RegistrationMessage::Try));
    }

    fn begin(&self, myself: &ActorRef<Envelope<RegistrationMessage>>) {
        if self.watch.tries.fetch_add(1, Ordering::Relaxed) >= self.tries {
            self.watch.tries.store(self.tries, Ordering::Relaxed);
            return self.give_up("the last try was interrupted".to_owned());
        }
        let trying = register(Arc::clone(&self.coordinator), self.member.clone());
        let (timeout, mailbox, myself) = (self.timeout, self.mailbox.clone(), myself.clone());
        tokio::spawn(async move {
            let tried = tokio::time::timeout(timeout, trying).await;
            let tried = tried.unwrap_or_else(|_elapsed| Err(format!("no answer within {timeout:?}")));
            // To this generation only: a successor tries by itself.
            let _ = myself.send_message(mailbox.envelope(RegistrationMessage::Tried(tried)));
        });
    }

    fn registered(&self, registered: Registered) {
        let (node_id, address) = (&self.member.node_id, &self.member.address);
        match &registered {
            Registered::KnownAt(other) => {
                tracing::warn!(node_id, %address, %other, "the coordinator knows this node at another address");
            }
            _ => tracing::info!(node_id, %address, "the coordinator knows this node"),
        }
        self.watch.state.store(Arc::new(registered));
    }

    fn failed(&self, myself: &ActorRef<Envelope<RegistrationMessage>>, why: String) {
        if self.watch.tries() >= self.tries {
            return self.give_up(why);
        }
        tracing::warn!(why, again_in = ?self.interval, "not registered with the coordinator");
        self.watch.state.store(Arc::new(Registered::Trying(Some(why))));
        self.try_after(myself, self.interval);
    }

    fn give_up(&self, why: String) {
        tracing::error!(
            why,
            tries = self.tries,
            "not registered with the coordinator; the node serves without it"
        );
        self.watch.state.store(Arc::new(Registered::GivenUp(why)));
    }
}

async fn register(coordinator: Arc<dyn Coordinator>, member: Member) -> Result<Registered, String> {
    match coordinator.add(&member).await {
        Ok(answer) => {
            tracing::info!(answer, "the coordinator takes this node into the cluster");
            Ok(Registered::Known)
        }
        Err(AddError::Failed(why)) => Err(why),
        Err(AddError::Refused(why)) => match coordinator.address_of(&member.node_id).await {
            Ok(Some(address)) if address == member.address => Ok(Registered::Known),
            Ok(Some(address)) => Ok(Registered::KnownAt(address)),
            Ok(None) => Err(why),
            Err(also) => Err(format!("{why}; nor does it say whether it knows this node: {also}")),
        },
    }
}
