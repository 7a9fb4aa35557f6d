//! The actors as the models see them: the mailbox and the chain of what a shard is told as they are, over a model of an actor.

#[path = "../../src/actors/mailbox.rs"]
pub mod mailbox;
#[path = "../../src/actors/shard.rs"]
pub mod shard;

/// The names of `src/actors/address.rs`.
pub mod address {
    use shuttle::sync::{Condvar, Mutex};
    use std::collections::VecDeque;
    use std::fmt;
    use std::sync::Arc;

    pub trait Message: Send + 'static {}

    impl<T: Send + 'static> Message for T {}

    pub enum MessagingErr<M> {
        SendErr(M),
        #[allow(dead_code, reason = "the original has more as well")]
        Other,
    }

    struct Queue<M> {
        waiting: VecDeque<M>,
        /// No messages come any more; those that wait are still handled.
        is_closed: bool,
        /// What was lost with the actor, when it was killed.
        lost: Option<VecDeque<M>>,
    }

    /// An actor: a queue that whoever plays the actor takes from. A killed one takes nothing, and loses what waits.
    pub struct ActorRef<M>(Arc<(Mutex<Queue<M>>, Condvar)>);

    impl<M> Clone for ActorRef<M> {
        fn clone(&self) -> Self {
            Self(Arc::clone(&self.0))
        }
    }

    impl<M> fmt::Debug for ActorRef<M> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an actor")
        }
    }

    impl<M> ActorRef<M> {
        pub fn new() -> Self {
            let queue = Queue {
                waiting: VecDeque::new(),
                is_closed: false,
                lost: None,
            };
            Self(Arc::new((Mutex::new(queue), Condvar::new())))
        }

        pub fn send_message(&self, message: M) -> Result<(), MessagingErr<M>> {
            let mut queue = self.0.0.lock().unwrap();
            if queue.is_closed || queue.lost.is_some() {
                drop(queue);
                return Err(MessagingErr::SendErr(message));
            }
            queue.waiting.push_back(message);
            self.0.1.notify_one();
            Ok(())
        }

        /// The next message; [`None`] when the actor has ended.
        pub fn next(&self) -> Option<M> {
            let mut queue = self.0.0.lock().unwrap();
            loop {
                if queue.lost.is_some() {
                    return None;
                }
                if let Some(message) = queue.waiting.pop_front() {
                    return Some(message);
                }
                if queue.is_closed {
                    return None;
                }
                queue = self.0.1.wait(queue).unwrap();
            }
        }

        /// Ends it when it has handled what waits.
        pub fn close(&self) {
            self.0.0.lock().unwrap().is_closed = true;
            self.0.1.notify_all();
        }

        /// Ends it as it stands.
        pub fn kill(&self) {
            let mut queue = self.0.0.lock().unwrap();
            if queue.lost.is_none() {
                let waiting = std::mem::take(&mut queue.waiting);
                queue.lost = Some(waiting);
            }
            drop(queue);
            self.0.1.notify_all();
        }

        /// What was lost with it.
        pub fn take_lost(&self) -> VecDeque<M> {
            let mut queue = self.0.0.lock().unwrap();
            queue.lost.as_mut().map(std::mem::take).unwrap_or_default()
        }
    }
}

/// The names of `src/actors/cache.rs` that the chain needs.
pub mod cache {
    use crate::reading::Reply;
    use crate::storage::key::Key;
    use crate::storage::version::Version;

    #[derive(Debug)]
    pub enum CacheMessage {
        Get {
            reply: Reply,
            told: u64,
        },
        Written {
            changes: Vec<(Key, Version)>,
            previous: u64,
            last: u64,
        },
        /// What was read, and how often the shard had been emptied when it was asked for.
        Loaded(u64, u64),
    }
}
