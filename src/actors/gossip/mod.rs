//! Gossip: which nodes there are, which of them live, and how each of them is, told from node to node over UDP.
//!
//! The protocol is SWIM, of the library foca. `core` wraps it as a pure machine: packets and the time go in, packets and
//! changes come out, so that a simulation runs a thousand of them (`tests/gossip_simulation`). What is ours there: whom a
//! node asks that knows nobody, that a stranger must answer before it counts, that whoever is suspected is told so, that a pause
//! of one's own is no death of others, and the versions of the health that is spread (`record`, `records`). `wire` lets in only what was signed with a key of the
//! cluster; `window` lets it in once.
//!
//! Owns: membership as this node sees it. Does not own: a socket or a clock but in `gossip_actor`; what a node's health is
//! (see [`crate::actors::health`]).

mod agenda;
mod codec;
mod contents;
pub mod core;
pub mod gossip_actor;
pub mod identity;
pub mod key_file;
pub mod measuring;
pub mod names;
pub mod pace;
pub mod record;
pub mod records;
pub mod seen;
pub mod watch;
mod window;
pub mod wire;
