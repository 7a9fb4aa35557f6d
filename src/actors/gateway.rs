//! RpcGateway: keeps the node's door open.
//!
//! It accepts connections and hands them to the server that speaks the protocol. The listening socket and the open
//! connections outlive it: while it restarts, new connections wait in the socket's queue, and open ones notice nothing.
//!
//! Owns: accepting, and the number of connections. Does not own: the protocol (a function of `rpc` is run on what it
//! accepts), or any state of a request.

use crate::actors::Handles;
use crate::actors::faults::{BEFORE_ACCEPT, Faults};
use crate::actors::mailbox::Envelope;
use crate::actors::reply::Reply;
use crate::actors::watched::Trailed;
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::future::Future;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

/// Connections on their way to the server.
const HAND_OVER: usize = 64;
/// Pause after a failed accept: without file descriptors the next one would fail at once as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// Held while it is open.
    pub permit: OwnedSemaphorePermit,
}

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Speaks the protocol on every connection that it is given, until the signal, and then until the last one is closed.
pub type Serve = dyn Fn(mpsc::Receiver<Accepted>, oneshot::Receiver<()>) -> Serving + Send + Sync;

struct Server {
    accepted: mpsc::Sender<Accepted>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// The open connections and the server that speaks on them: shared by all generations of the gateway.
pub struct Connections {
    serve: Arc<Serve>,
    places: Arc<Semaphore>,
    server: Mutex<Option<Server>>,
}

impl Connections {
    /// No connections yet; at most `most` at a time.
    #[must_use]
    pub fn new(serve: Arc<Serve>, most: usize) -> Arc<Self> {
        Arc::new(Self {
            serve,
            places: Arc::new(Semaphore::new(most)),
            server: Mutex::new(None),
        })
    }

    /// Where to hand connections over; starts the server when there is none, or when it ended.
    fn server(&self) -> mpsc::Sender<Accepted> {
        let server = &mut *self.server.lock();
        if let Some(running) = server.as_ref().filter(|running| !running.accepted.is_closed()) {
            return running.accepted.clone();
        }
        let (accepted, receiver) = mpsc::channel(HAND_OVER);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn((self.serve)(receiver, stopped));
        *server = Some(Server {
            accepted: accepted.clone(),
            stop,
            task,
        });
        accepted
    }

    /// Tells every client to go, and waits until the last has.
    async fn close(&self) {
        let server = self.server.lock().take();
        if let Some(Server { stop, task, .. }) = server {
            // A server that is gone has closed them.
            let _ = stop.send(());
            let _ = task.await;
        }
    }
}

/// What RpcGateway is told.
#[derive(Debug)]
pub enum GatewayMessage {
    /// Accept nothing more; answer when every connection is closed.
    Drain(Reply<()>),
    /// Accepting ended, which it does not by itself, but by a panic.
    Ended,
}

impl Trailed for GatewayMessage {}

/// The actor.
pub struct RpcGateway {
    /// The socket.
    pub listener: Arc<TcpListener>,
    /// What is open.
    pub connections: Arc<Connections>,
    /// Its neighbours.
    pub handles: Handles,
}

/// What it knows.
pub struct GatewayState {
    /// The task that accepts. It ends with its actor, also when that panics or is killed.
    accepting: JoinHandle<()>,
    /// Nothing more is to be accepted.
    draining: bool,
}

impl Drop for GatewayState {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Actor for RpcGateway {
    type Msg = Envelope<GatewayMessage>;
    type State = GatewayState;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<GatewayState, ActorProcessingErr> {
        let listener = tokio::net::TcpListener::from_std(self.listener.try_clone()?)?;
        let (connections, mailbox) = (Arc::clone(&self.connections), self.handles.gateway.clone());
        let faults = Arc::clone(&self.handles.faults);
        let accepting = tokio::spawn(async move {
            let _ended = Ended(|| {
                let _ = myself.send_message(mailbox.envelope(GatewayMessage::Ended));
            });
            accept(&listener, &connections, &faults).await;
        });
        Ok(GatewayState {
            accepting,
            draining: false,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut GatewayState,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.message {
            GatewayMessage::Drain(reply) => {
                state.draining = true;
                state.accepting.abort();
                let connections = Arc::clone(&self.connections);
                tokio::spawn(async move {
                    connections.close().await;
                    reply.send(Ok(()));
                });
                Ok(())
            }
            GatewayMessage::Ended if state.draining => Ok(()),
            GatewayMessage::Ended => Err("the server takes no connections".into()),
        }
    }
}

/// Tells that accepting has ended, whatever ends it.
struct Ended<F: Fn()>(F);

impl<F: Fn()> Drop for Ended<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Accepts until the server takes nothing more, even when it is started anew.
async fn accept(listener: &tokio::net::TcpListener, connections: &Connections, faults: &Faults) {
    loop {
        if faults.pass_waiting("gateway", BEFORE_ACCEPT, false).await.is_err() {
            return;
        }
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections.places).try_acquire_owned() else {
            // Closed at once, so that the client learns it now and not at its deadline.
            tracing::warn!(%peer, "refused a connection: server.max_connections are open");
            continue;
        };
        if connections.server().send(Accepted { stream, permit }).await.is_err() {
            return;
        }
    }
}
