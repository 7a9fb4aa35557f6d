//! gRPC: decode, validate, send, encode.
//!
//! Owns: the wire and its translation to and from the actors' requests. Does not own: any state, or what a request does.

mod connection;
pub mod convert;
mod receiving;
pub mod server;
mod service;
pub mod status;

/// The messages and services of `proto/storage.proto`.
#[allow(
    missing_docs,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::default_trait_access
)]
pub mod pb {
    tonic::include_proto!("storage");
}

/// Largest message, in bytes: the largest value, and room for the key and for clocks as long as the contract allows.
pub const MAX_MESSAGE_BYTES: usize = crate::storage::log::record::MAX_PAYLOAD_BYTES + (1 << 20);
