//! The other nodes, as the actors see them: one that takes versions of keys, and compares them with its own.
//!
//! Owns: what is asked of a peer. Does not own: the wire (see `rpc`), or where a peer is (see
//! [`crate::actors::address_book`]).

use crate::actors::address_book::{AddressBook, NodeAddress};
use crate::storage::key::Key;
use crate::storage::version::Version;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Why a peer did not take a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerError {
    /// It cannot be reached, or asks to try again.
    Passing(String),
    /// It does not want it.
    Refused(String),
}

/// A version on its way.
pub type Sending = Pin<Box<dyn Future<Output = Result<(), PeerError>> + Send>>;

/// Many versions on their way: a result for each, in their order.
pub type SendingBatch = Pin<Box<dyn Future<Output = Vec<Result<(), PeerError>>> + Send>>;

/// A comparison under way: the places of those that differ. [`None`]: the node cannot compare.
pub type Comparing = Pin<Box<dyn Future<Output = Result<Option<Vec<usize>>, PeerError>> + Send>>;

/// Another node.
pub trait Peer: Send + Sync {
    /// Gives it a version, which it merges with what it has: the clocks decide.
    fn put(&self, key: &Key, version: &Version) -> Sending;

    /// Gives it versions, as [`Peer::put`] gives it one.
    fn put_batch(&self, versions: &[(Key, Version)]) -> SendingBatch;

    /// Asks it which keys it has otherwise, by their digests (see [`crate::storage::digest`]).
    fn compare(&self, digests: &[(Key, u64)]) -> Comparing;
}

/// How to reach other nodes.
pub trait Dial: Send + Sync {
    /// The node at an address, whether it is there or not.
    ///
    /// # Errors
    /// When that is no address.
    fn dial(&self, address: &NodeAddress) -> Result<Arc<dyn Peer>, PeerError>;
}

/// The other nodes of the cluster.
#[derive(Clone)]
pub struct Peers {
    /// Where they are.
    pub book: AddressBook,
    /// How to reach them.
    pub dial: Arc<dyn Dial>,
    /// Bounds the copies that are under way at once.
    pub copies: Arc<Semaphore>,
}
