//! Who a member is.
//!
//! Owns: when two that call themselves by the same node id are the same, and which of them counts. Does not own: what is
//! known of a member.

use crate::storage::limits;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use xxhash_rust::xxh3::xxh3_64;

/// One life of a node at one place. A node is its id: a later life of it, wherever that is, takes the place of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OnTheWire")]
pub struct Identity {
    /// Of the node's id. A packet names dozens of members, each of which foca looks up in a list of all.
    #[serde(skip)]
    hash: u64,
    /// The node's id. Empty in what is sent to a place of which nobody knows who is there.
    pub node_id: CompactString,
    /// Where it takes packets.
    pub address: SocketAddr,
    /// Which life: milliseconds since the Unix epoch at its beginning, or more, where the cluster knew of more.
    pub incarnation: u64,
}

#[derive(Deserialize)]
struct OnTheWire {
    node_id: CompactString,
    address: SocketAddr,
    incarnation: u64,
}

impl From<OnTheWire> for Identity {
    fn from(read: OnTheWire) -> Self {
        Self::new(read.node_id, read.address, read.incarnation)
    }
}

impl Identity {
    /// A life of a node.
    #[must_use]
    pub fn new(node_id: impl Into<CompactString>, address: SocketAddr, incarnation: u64) -> Self {
        let node_id = node_id.into();
        Self {
            hash: xxh3_64(node_id.as_bytes()),
            node_id,
            address,
            incarnation,
        }
    }

    /// Whoever is at `address`.
    #[must_use]
    pub fn anybody_at(address: SocketAddr) -> Self {
        Self::new("", address, 0)
    }

    /// Whether a node can be that: its id fits, and packets can be sent to it.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let id = self.node_id.as_str();
        limits::check_clock_entry(id, 0).is_ok()
            && !id.chars().any(char::is_control)
            && self.address.port() > 0
            && !self.address.ip().is_unspecified()
    }

    /// Whether it counts, and `other` does not, when both have the same node id.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        (self.incarnation, self.address) > (other.incarnation, other.address)
    }
}

impl foca::Identity for Identity {
    type Addr = u64;

    fn renew(&self) -> Option<Self> {
        let incarnation = self.incarnation.checked_add(1)?;
        Some(Self {
            incarnation,
            ..self.clone()
        })
    }

    fn addr(&self) -> u64 {
        self.hash
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.supersedes(adversary)
    }
}
