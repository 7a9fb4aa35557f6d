//! RpcGateway: keeps the node's door open.
//!
//! It runs the function that serves connections on the listening socket. The socket outlives it: while it restarts, new
//! connections wait in the socket's queue, and those that are open finish what they have under way and are told to
//! reconnect.
//!
//! Owns: the serving task. Does not own: the socket, the protocol, or any state of a request.

use crate::actors::Handles;
use crate::actors::mailbox::Envelope;
use crate::actors::reply::Reply;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::future::Future;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Serves connections from a listener until the signal, and then until the last one is closed.
pub type Serve = dyn Fn(tokio::net::TcpListener, oneshot::Receiver<()>) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>>
    + Send
    + Sync;

/// What RpcGateway is told.
#[derive(Debug)]
pub enum GatewayMessage {
    /// Accept nothing more; answer when every connection is closed.
    Drain(Reply<()>),
    /// The serving task ended.
    Ended(Result<(), String>),
}

/// The actor.
pub struct RpcGateway {
    /// The socket.
    pub listener: Arc<TcpListener>,
    /// What serves it.
    pub serve: Arc<Serve>,
    /// Its neighbours.
    pub handles: Handles,
}

/// What it knows.
pub struct GatewayState {
    serving: AbortOnDrop,
    stop: Option<oneshot::Sender<()>>,
    draining: Vec<Reply<()>>,
}

/// Ends the task with its actor, also when the actor panics or is killed.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Actor for RpcGateway {
    type Msg = Envelope<GatewayMessage>;
    type State = GatewayState;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<GatewayState, ActorProcessingErr> {
        let listener = tokio::net::TcpListener::from_std(self.listener.try_clone()?)?;
        let (stop, stopped) = oneshot::channel();
        let serving = (self.serve)(listener, stopped);
        let mailbox = self.handles.gateway.clone();
        let task = tokio::spawn(async move {
            let ended = GatewayMessage::Ended(serving.await);
            let _ = myself.send_message(mailbox.envelope(ended));
        });
        Ok(GatewayState {
            serving: AbortOnDrop(task),
            stop: Some(stop),
            draining: Vec::new(),
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut GatewayState,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.message {
            GatewayMessage::Drain(reply) if state.serving.0.is_finished() => reply.send(Ok(())),
            GatewayMessage::Drain(reply) => {
                state.draining.push(reply);
                if let Some(stop) = state.stop.take() {
                    // A task that is gone already reports that it ended.
                    let _ = stop.send(());
                }
            }
            GatewayMessage::Ended(Ok(())) if state.stop.is_none() => {
                for reply in state.draining.drain(..) {
                    reply.send(Ok(()));
                }
            }
            GatewayMessage::Ended(result) => {
                let why = result.err().unwrap_or_else(|| "without a reason".to_owned());
                return Err(format!("serving ended: {why}").into());
            }
        }
        Ok(())
    }
}
