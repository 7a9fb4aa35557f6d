//! The reply port of a request, which travels with it from actor to actor.

use crate::actors::deadline;
use crate::actors::refusal::Refusal;
use crate::actors::trail::{self, TraceContext, Trail};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Answers one request, once. Dropped without an answer (with the message, its actor or its batch), it tells the caller
/// that a component is restarting.
#[derive(Debug)]
pub struct Reply<T> {
    sender: oneshot::Sender<Result<T, Refusal>>,
    deadline: Option<Instant>,
    trail: Option<Arc<Trail>>,
}

/// Where the answer arrives.
#[derive(Debug)]
pub struct Answer<T>(oneshot::Receiver<Result<T, Refusal>>);

/// A reply port and where its answer arrives. The port knows the deadline and the trail of the request that this task carries
/// out.
#[must_use]
pub fn reply_port<T>() -> (Reply<T>, Answer<T>) {
    let (sender, receiver) = oneshot::channel();
    let deadline = deadline::current();
    let trail = trail::current();
    let reply = Reply {
        sender,
        deadline,
        trail,
    };
    (reply, Answer(receiver))
}

/// Asks `component` something: `send` sends a message with the reply port, and says whether it could. Waits for the answer
/// for at most `limit`.
///
/// # Errors
/// As [`Answer::wait_for`]; [`Refusal::Restarting`] also when the message could not be sent; [`Refusal::TimedOut`].
pub async fn ask<T>(
    component: &'static str,
    limit: Duration,
    send: impl FnOnce(Reply<T>) -> bool,
) -> Result<T, Refusal> {
    let (reply, answer) = reply_port();
    if send(reply) {
        within(limit, answer.wait_for(component)).await
    } else {
        Err(Refusal::Restarting(component))
    }
}

/// Does `work`, for at most `limit`.
///
/// # Errors
/// As `work`; [`Refusal::TimedOut`].
pub async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    TimeLimit::from_now(limit).keep(work).await
}

/// The time that a request of several steps has for all of them.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit {
    limit: Duration,
    until: tokio::time::Instant,
}

impl TimeLimit {
    /// This time, from now on.
    #[must_use]
    pub fn from_now(limit: Duration) -> Self {
        Self {
            limit,
            until: tokio::time::Instant::now() + limit,
        }
    }

    /// Does a step, as long as there is time.
    ///
    /// # Errors
    /// As `work`; [`Refusal::TimedOut`].
    pub async fn keep<T>(self, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        tokio::time::timeout_at(self.until, work)
            .await
            .unwrap_or(Err(self.refusal()))
    }

    /// Waits for so long, or until the time is over.
    ///
    /// # Errors
    /// [`Refusal::TimedOut`].
    pub async fn sleep(self, time: Duration) -> Result<(), Refusal> {
        self.keep(async {
            tokio::time::sleep(time).await;
            Ok(())
        })
        .await
    }

    /// What is answered when the time is over.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        Refusal::TimedOut(self.limit)
    }
}

impl<T> Reply<T> {
    /// Answers. A caller that has gone away is nobody's loss.
    pub fn send(self, answer: Result<T, Refusal>) {
        let _ = self.sender.send(answer);
    }

    /// The place of the request among all traces.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        self.trail.as_ref().map(|trail| trail.context)
    }

    /// The trail of the request.
    #[must_use]
    pub fn trail(&self) -> Option<&Arc<Trail>> {
        self.trail.as_ref()
    }

    /// Whether anybody still waits for the answer: the deadline has not passed, and the caller has not gone away.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !self.sender.is_closed() && !deadline::has_passed(self.deadline)
    }
}

impl<T> Answer<T> {
    /// Waits for the answer. `component` is named when the port was lost.
    ///
    /// # Errors
    /// The refusal that was sent; [`Refusal::Restarting`] when the port was lost.
    pub async fn wait_for(self, component: &'static str) -> Result<T, Refusal> {
        let answered = self.0.await;
        trail::resumed();
        answered.unwrap_or_else(|_lost| {
            trail::lost(component);
            Err(Refusal::Restarting(component))
        })
    }
}
