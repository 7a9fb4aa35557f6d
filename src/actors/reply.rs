//! The reply port of a request, which travels with it from actor to actor.

use crate::actors::refusal::Refusal;
use std::time::Duration;
use tokio::sync::oneshot;

/// Answers one request, once. Dropped without an answer (with the message, its actor or its batch), it tells the caller
/// that a component is restarting.
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<Result<T, Refusal>>);

/// Where the answer arrives.
#[derive(Debug)]
pub struct Answer<T>(oneshot::Receiver<Result<T, Refusal>>);

/// A reply port and where its answer arrives.
#[must_use]
pub fn reply_port<T>() -> (Reply<T>, Answer<T>) {
    let (sender, receiver) = oneshot::channel();
    (Reply(sender), Answer(receiver))
}

/// Asks `component` something: `send` sends a message with the reply port, and says whether it could. Waits for the answer
/// for at most `limit`.
///
/// # Errors
/// As [`Answer::within`]; [`Refusal::Restarting`] also when the message could not be sent.
pub async fn ask<T>(
    component: &'static str,
    limit: Duration,
    send: impl FnOnce(Reply<T>) -> bool,
) -> Result<T, Refusal> {
    let (reply, answer) = reply_port();
    if send(reply) {
        answer.within(limit, component).await
    } else {
        Err(Refusal::Restarting(component))
    }
}

impl<T> Reply<T> {
    /// Answers. A caller that has gone away is nobody's loss.
    pub fn send(self, answer: Result<T, Refusal>) {
        let _ = self.0.send(answer);
    }
}

impl<T> Answer<T> {
    /// Waits for the answer for at most `limit`. `component` is named when the port was lost.
    ///
    /// # Errors
    /// The refusal that was sent; [`Refusal::Restarting`] when the port was lost; [`Refusal::TimedOut`].
    pub async fn within(self, limit: Duration, component: &'static str) -> Result<T, Refusal> {
        match tokio::time::timeout(limit, self.0).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_lost)) => Err(Refusal::Restarting(component)),
            Err(_elapsed) => Err(Refusal::TimedOut(limit)),
        }
    }
}
