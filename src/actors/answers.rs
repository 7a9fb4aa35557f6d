//! Where the answer to an admitted operation goes: to its own caller, or to its place among the answers to a batch.
//!
//! The operations of a batch part ways (into shards of the cache, into batches of the log), and each is answered where it
//! ends. What was lost on the way, with its actor or its message, has no answer in the end, and nobody waits for it.
//!
//! Owns: the gathering of a batch's answers. Does not own: what an answer says, or what is done about one that was lost.

use crate::actors::refusal::Refusal;
use crate::actors::reply::Reply;
use crate::actors::trail::Trail;
use parking_lot::Mutex;
use std::sync::Arc;

/// The answers to a batch, in the order of its operations; [`None`] for one that was lost.
pub type Answers<T> = Vec<Option<Result<T, Refusal>>>;

/// Answers one operation, once. Holds what admitted it until then.
#[derive(Debug)]
pub struct Port<T, P>(Target<T, P>);

#[derive(Debug)]
enum Target<T, P> {
    Caller(Reply<T>, P),
    Batch(Arc<Gathering<T, P>>, usize),
}

impl<T, P> Port<T, P> {
    /// A port to the caller of a single operation.
    #[must_use]
    pub fn new(reply: Reply<T>, permit: P) -> Self {
        Self(Target::Caller(reply, permit))
    }

    /// Answers. What admitted the operation, or its batch with the last of its operations, is given back afterwards.
    pub fn send(self, answer: Result<T, Refusal>) {
        match self.0 {
            Target::Caller(reply, permit) => {
                reply.send(answer);
                drop(permit);
            }
            Target::Batch(gathering, place) => {
                if let Some(place) = gathering.answers.lock().get_mut(place) {
                    *place = Some(answer);
                }
            }
        }
    }

    /// Whether anybody still waits for the answer.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        match &self.0 {
            Target::Caller(reply, _) => reply.is_awaited(),
            Target::Batch(gathering, _) => gathering.reply.as_ref().is_some_and(Reply::is_awaited),
        }
    }

    /// The trail of the request that the operation is, or is part of.
    #[must_use]
    pub fn trail(&self) -> Option<&Arc<Trail>> {
        match &self.0 {
            Target::Caller(reply, _) => reply.trail(),
            Target::Batch(gathering, _) => gathering.trail(),
        }
    }

    /// Whether the operation is part of a batch.
    #[must_use]
    pub fn is_of_batch(&self) -> bool {
        matches!(self.0, Target::Batch(..))
    }
}

/// Gathers the answers to a batch, and sends them when the last of its ports is gone.
#[derive(Debug)]
pub struct Gathering<T, P> {
    answers: Mutex<Answers<T>>,
    reply: Option<Reply<Answers<T>>>,
    _permit: P,
}

impl<T, P> Gathering<T, P> {
    /// Expects the answers to `operations` operations, which `permit` admitted.
    #[must_use]
    pub fn new(operations: usize, reply: Reply<Answers<T>>, permit: P) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new((0..operations).map(|_| None).collect()),
            reply: Some(reply),
            _permit: permit,
        })
    }

    /// The trail of the batch.
    #[must_use]
    pub fn trail(&self) -> Option<&Arc<Trail>> {
        self.reply.as_ref().and_then(Reply::trail)
    }

    /// A port to the place of one operation.
    #[must_use]
    pub fn port(self: &Arc<Self>, place: usize) -> Port<T, P> {
        Port(Target::Batch(Arc::clone(self), place))
    }
}

impl<T, P> Drop for Gathering<T, P> {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply.send(Ok(std::mem::take(self.answers.get_mut())));
        }
    }
}
