//! Where the other nodes of the cluster are.
//!
//! Owns: what is known of it, whoever said so last: the configuration, a coordinator that names a target, gossip. Does not
//! own: connections.

use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Most nodes that it knows: what others say must not fill the memory.
const MOST_NODES: usize = 10_000;

/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeAddress {
    /// A name, or an address without brackets.
    pub host: String,
    /// TCP port of gRPC.
    pub port: u16,
}

impl NodeAddress {
    /// Of `host:port` or `[host]:port`; [`None`] when it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let host = bare.unwrap_or(host);
        let fits = !host.is_empty() && !host.contains(['/', '[', ']', '@']) && !host.contains(char::is_whitespace);
        // Several colons without brackets: where the port begins would be a guess.
        (fits && (bare.is_some() || !host.contains(':'))).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{}:{}", self.host, self.port)
        }
    }
}

/// The addresses, by the nodes' ids. Clones are the same book.
#[derive(Debug, Clone, Default)]
pub struct AddressBook(Arc<RwLock<BTreeMap<String, NodeAddress>>>);

impl AddressBook {
    /// A book with these nodes.
    #[must_use]
    pub fn new(nodes: BTreeMap<String, NodeAddress>) -> Self {
        Self(Arc::new(RwLock::new(nodes)))
    }

    /// Takes over what the configuration says now, where it said something else `before`. What others have said since stays.
    pub fn reconfigure(&self, before: &BTreeMap<String, NodeAddress>, now: &BTreeMap<String, NodeAddress>) {
        let mut nodes = self.0.write();
        nodes.retain(|id, address| now.contains_key(id) || before.get(id) != Some(address));
        for (id, address) in now.iter().filter(|(id, address)| before.get(*id) != Some(*address)) {
            nodes.insert(id.clone(), address.clone());
        }
    }

    /// Where a node is.
    #[must_use]
    pub fn get(&self, node_id: &str) -> Option<NodeAddress> {
        self.0.read().get(node_id).cloned()
    }

    /// Notes where a node is, in place of what was known. Says whether there was room for it.
    pub fn learn(&self, node_id: &str, address: NodeAddress) -> bool {
        let mut nodes = self.0.write();
        let has_room = nodes.len() < MOST_NODES || nodes.contains_key(node_id);
        if has_room {
            nodes.insert(node_id.to_owned(), address);
        }
        has_room
    }
}
