//! Where the seeds are, and this node itself: names that are looked up again and again, since what a name means changes.
//!
//! Owns: when to look, and what was found last. Does not own: who is there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Longest that a name may take.
const WITHIN: Duration = Duration::from_secs(10);
/// Addresses of a name that count: a name may have any number.
const MOST: usize = 16;

/// A name with a port.
#[derive(Debug, Clone, Default)]
pub(super) struct Name {
    name: String,
    is_looking: bool,
    is_missing: bool,
    found: Vec<SocketAddr>,
}

impl Name {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.name
    }

    /// The addresses that were found last.
    pub(super) fn found(&self) -> &[SocketAddr] {
        &self.found
    }

    /// Begins to look, unless somebody does. What is returned ends with what was found, to be handed to [`Name::saw`].
    pub(super) fn look(&mut self) -> Option<impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + use<>> {
        if std::mem::replace(&mut self.is_looking, true) {
            return None;
        }
        let name = self.name.clone();
        Some(async move {
            let looked = tokio::time::timeout(WITHIN, tokio::net::lookup_host(name)).await;
            let found = looked.map_err(|_| io::Error::other("no answer of the name service"))??;
            Ok(found.take(MOST).collect())
        })
    }

    /// Takes what was found. A name that is not found now keeps what it had: the name service may be away for a while.
    /// `is_v4`: addresses of the other kind cannot be sent to.
    ///
    /// # Errors
    /// Why it is not found.
    pub(super) fn saw(&mut self, found: io::Result<Vec<SocketAddr>>, is_v4: bool) -> io::Result<()> {
        self.is_looking = false;
        let found = found?.into_iter().filter(|address| address.is_ipv4() == is_v4);
        let found: Vec<_> = found.collect();
        if found.is_empty() {
            let kind = if is_v4 { "IPv4" } else { "IPv6" };
            return Err(io::Error::other(format!("the name has no {kind} address")));
        }
        self.found = found;
        Ok(())
    }

    /// Notes whether it is found. Says whether that has changed.
    pub(super) fn is_news(&mut self, is_missing: bool) -> bool {
        std::mem::replace(&mut self.is_missing, is_missing) != is_missing
    }
}
