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

/// What is known of where a node is.
#[derive(Debug, Default)]
struct Known {
    /// What the configuration says.
    configured: Option<NodeAddress>,
    /// What others say.
    learned: Option<NodeAddress>,
    /// Others said so last.
    prefers_learned: bool,
}

impl Known {
    fn address(&self) -> Option<&NodeAddress> {
        let (first, second) = match self.prefers_learned {
            true => (&self.learned, &self.configured),
            false => (&self.configured, &self.learned),
        };
        first.as_ref().or(second.as_ref())
    }
}

/// The addresses, by the nodes' ids. Clones are the same book.
#[derive(Debug, Clone, Default)]
pub struct AddressBook(Arc<RwLock<BTreeMap<String, Known>>>);

impl AddressBook {
    /// A book with these nodes, as the configuration has them.
    #[must_use]
    pub fn new(nodes: BTreeMap<String, NodeAddress>) -> Self {
        let book = Self::default();
        book.reconfigure(&nodes);
        book
    }

    /// Takes over what the configuration says now. What it says anew is preferred; what it says no more goes, and what others have
    /// said of that node stays.
    pub fn reconfigure(&self, now: &BTreeMap<String, NodeAddress>) {
        let mut nodes = self.0.write();
        for (id, address) in now {
            let known = nodes.entry(id.clone()).or_default();
            if known.configured.as_ref() != Some(address) {
                known.configured = Some(address.clone());
                known.prefers_learned = false;
            }
        }
        for (_, known) in nodes.iter_mut().filter(|(id, _)| !now.contains_key(*id)) {
            known.configured = None;
        }
        nodes.retain(|_, known| known.address().is_some());
    }

    /// Where a node is.
    #[must_use]
    pub fn get(&self, node_id: &str) -> Option<NodeAddress> {
        self.0.read().get(node_id)?.address().cloned()
    }

    /// Notes where a node is, in place of what was known. Says whether there was room for it.
    pub fn learn(&self, node_id: &str, address: NodeAddress) -> bool {
        let mut nodes = self.0.write();
        let has_room = nodes.len() < MOST_NODES || nodes.contains_key(node_id);
        if has_room {
            let known = nodes.entry(node_id.to_owned()).or_default();
            known.learned = Some(address);
            known.prefers_learned = true;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NodeAddress {
        NodeAddress::parse(text).unwrap()
    }

    fn nodes<const N: usize>(nodes: [(&str, &str); N]) -> BTreeMap<String, NodeAddress> {
        nodes.map(|(id, text)| (id.to_owned(), at(text))).into()
    }

    #[test]
    fn what_the_configuration_says_no_more_goes_and_what_others_said_stays() {
        let book = AddressBook::new(nodes([("a", "one:1"), ("b", "one:2"), ("c", "one:3")]));
        // The same address as the configuration has, and another one.
        assert!(book.learn("a", at("one:1")) && book.learn("b", at("two:2")));
        book.reconfigure(&BTreeMap::new());
        assert_eq!(book.get("a"), Some(at("one:1")), "the gossip said so, too");
        assert_eq!(book.get("b"), Some(at("two:2")));
        assert_eq!(book.get("c"), None, "nobody says so any more");
    }

    #[test]
    fn whoever_said_so_last_is_believed() {
        let book = AddressBook::new(nodes([("a", "one:1")]));
        assert!(book.learn("a", at("two:1")));
        assert_eq!(book.get("a"), Some(at("two:1")));
        book.reconfigure(&nodes([("a", "one:1"), ("b", "one:2")]));
        assert_eq!(
            book.get("a"),
            Some(at("two:1")),
            "the configuration said nothing new of it"
        );
        book.reconfigure(&nodes([("a", "three:1")]));
        assert_eq!((book.get("a"), book.get("b")), (Some(at("three:1")), None));
        book.reconfigure(&BTreeMap::new());
        assert_eq!(book.get("a"), Some(at("two:1")), "what was learned is not forgotten");
        assert!(book.learn("a", at("four:1")));
        book.reconfigure(&nodes([("a", "three:1")]));
        assert_eq!(book.get("a"), Some(at("three:1")));
    }
}
