//! StreamActor: works on one stream.
//!
//! Owns: the task that does the work, which ends with it. Does not own: the stream, which outlives it: a successor goes on
//! where it was.

use crate::actors::streaming::stream::Stream;
use crate::actors::streaming::target::Failed;
use crate::actors::streaming::work::{Points, Source, work};
use crate::actors::watched::Own;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// What StreamActor is told.
#[derive(Debug)]
pub enum StreamMessage {
    /// The work ended.
    Ended(Failed),
}

/// The actor.
pub struct StreamActor {
    /// What the work needs.
    pub source: Source,
    /// What it works on.
    pub stream: Arc<Stream>,
    /// What is injected into it.
    pub points: Points,
}

/// The work; given up with the actor.
pub struct Working<T = ()>(JoinHandle<T>);

impl<T> Drop for Working<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Actor for StreamActor {
    type Msg = Own<StreamMessage>;
    type State = Working;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<Working, ActorProcessingErr> {
        let (source, stream, points) = (self.source.clone(), Arc::clone(&self.stream), self.points.clone());
        let mut working = Working(tokio::spawn(work(source, stream, points)));
        Ok(Working(tokio::spawn(async move {
            let ended = (&mut working.0).await;
            let ended = ended.unwrap_or_else(|broken| Failed::Broken(broken.to_string()));
            let _ = myself.send_message(StreamMessage::Ended(ended).into());
        })))
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        _working: &mut Working,
    ) -> Result<(), ActorProcessingErr> {
        match message.message {
            StreamMessage::Ended(Failed::ForGood(why)) => {
                self.stream.fail(why);
                Ok(())
            }
            StreamMessage::Ended(Failed::Broken(why)) => Err(why.into()),
        }
    }
}
