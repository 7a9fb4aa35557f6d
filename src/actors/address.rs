//! Where an actor is reached, as [`super::mailbox`] needs it: ractor's, but in `tests/models`, where a model stands in.

pub use ractor::{ActorRef, Message, MessagingErr};
