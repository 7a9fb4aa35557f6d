//! What the node shows over HTTP: a page for people; metrics, health for probes, and its status for programs.
//!
//! Owns: the listener's connections and the paths. Does not own: the numbers (see [`crate::actors::health`]). Nothing can be
//! changed here, and nothing here waits for an actor, so that the answer comes even when none of them does.

mod connections;
mod metrics;
mod page;
mod ready;
mod site;

pub use connections::serve;
pub use site::Site;
