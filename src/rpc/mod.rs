//! gRPC: decode, validate, send, encode.
//!
//! Owns: the wire and its translation to and from the actors' requests. Does not own: any state, or what a request does.

pub mod admin;
mod batch;
mod compression;
mod connection;
pub mod convert;
pub mod coordinator;
mod deadline;
mod drain;
pub mod faults;
mod health;
mod outgoing;
pub mod peer;
mod ranges;
mod receiving;
mod reflection;
mod replicate;
pub mod security;
mod sending;
pub mod server;
mod service;
mod shedding;
pub mod status;
mod stream;
mod streaming;
mod trails;

/// The path of the service's methods.
const SERVICE: &str = "/storage.StorageNodeService/";

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

/// The messages and the service of `proto/admin.proto`.
#[allow(
    missing_docs,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::default_trait_access
)]
pub mod admin_pb {
    tonic::include_proto!("pairdb.admin");
}

/// The messages and the service of `proto/coordinator.proto`.
#[allow(
    missing_docs,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::default_trait_access
)]
pub mod coordinator_pb {
    tonic::include_proto!("proto");
}

/// Largest message that is read at all, in bytes: well above the largest that is accepted, so that one which is a little too
/// large is told what is wrong with it.
pub const MAX_MESSAGE_BYTES: usize = 24 << 20;
const _: () = assert!(MAX_MESSAGE_BYTES > 2 * crate::storage::log::record::MAX_PAYLOAD_BYTES);
