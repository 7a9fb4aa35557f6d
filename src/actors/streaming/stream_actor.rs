//! StreamActor: works on one stream.
//!
//! Owns: the task that does the work, which ends with it. Does not own: the stream, which outlives it: a successor goes on
//! where it was.

use crate::actors::streaming::stream::{Stream, StreamState};
use crate::actors::streaming::target::Failed;
use crate::actors::streaming::work::{Source, work};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// What StreamActor is told.
#[derive(Debug)]
pub enum StreamMessage {
    /// The work ended: the stream cannot go on, or the task broke.
    Ended(Result<Failed, String>),
}

/// The actor.
pub struct StreamActor {
    /// What the work needs.
    pub source: Source,
    /// What it works on.
    pub stream: Arc<Stream>,
}

/// The work; given up with the actor.
pub struct Working<T = ()>(JoinHandle<T>);

impl<T> Drop for Working<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Actor for StreamActor {
    type Msg = StreamMessage;
    type State = Working;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<StreamMessage>, (): ()) -> Result<Working, ActorProcessingErr> {
        let mut working = Working(tokio::spawn(work(self.source.clone(), Arc::clone(&self.stream))));
        Ok(Working(tokio::spawn(async move {
            let ended = (&mut working.0).await.map_err(|broken| broken.to_string());
            let _ = myself.send_message(StreamMessage::Ended(ended));
        })))
    }

    async fn handle(
        &self,
        _myself: ActorRef<StreamMessage>,
        message: StreamMessage,
        _working: &mut Working,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            StreamMessage::Ended(Ok(Failed(why))) => {
                self.stream.enter(StreamState::Failed(why));
                // Nobody takes from it any more.
                self.stream.tap.close();
                Ok(())
            }
            StreamMessage::Ended(Err(why)) => Err(why.into()),
        }
    }
}
