//! Who may talk to the node, and how: TLS, and tokens.
//!
//! Owns: what the files say that the configuration names, as they were when they were last whole: a file that is bad changes
//! nothing. Does not own: when they are looked at (see `node`), or what a call needs a right for (each service asks).

mod guard;
mod incoming;
mod rights;
mod slot;
mod tls;
mod tokens;
mod way;

pub(super) use guard::{Guard, Whom};
pub(super) use incoming::Incoming;
pub(super) use rights::Rights;
pub use tls::client as tls_client;
pub use tokens::{Digest, LEAST_TOKEN_BYTES, Tokens, read_token};
pub use way::{Shown, Way, by_tls};

use crate::actors::access::AccessCounts;
use crate::storage::time::{RealTime, Time as _};
use arc_swap::ArcSwapOption;
use http::HeaderValue;
use slot::Slot;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};

/// A certificate, and the key that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those that lead from it to the one that is trusted; PEM.
    pub cert: PathBuf,
    /// The private key; PEM.
    pub key: PathBuf,
}

/// Where it is said who may talk to the node. Nothing: everybody, in plain text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityFiles {
    /// What the node shows, to clients and to other nodes.
    pub identity: Option<Identity>,
    /// Whose certificates clients must show.
    pub client_ca: Option<PathBuf>,
    /// Tokens of tenants.
    pub tokens: Option<PathBuf>,
    /// Tokens of those who administer the node.
    pub admin_tokens: Option<PathBuf>,
    /// Whose certificates other nodes must show.
    pub peer_ca: Option<PathBuf>,
    /// The token that other nodes are shown.
    pub peer_token: Option<PathBuf>,
    /// Whose certificate the coordinator must show.
    pub coordinator_ca: Option<PathBuf>,
    /// The token that the coordinator is shown.
    pub coordinator_token: Option<PathBuf>,
}

impl SecurityFiles {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn own(&self) -> impl Iterator<Item = &PathBuf> {
        self.identity.iter().flat_map(|own| [&own.cert, &own.key])
    }

    /// For a server: its own, and whom it trusts.
    fn of_server(&self) -> Vec<PathBuf> {
        let trusted = self.identity.as_ref().and(self.client_ca.as_ref());
        self.own().chain(trusted).cloned().collect()
    }

    /// For a client that speaks TLS: whom it trusts, and its own.
    fn of_client(&self, trusted: Option<&PathBuf>) -> Vec<PathBuf> {
        let own = trusted.iter().flat_map(|_| self.own());
        trusted.into_iter().chain(own).cloned().collect()
    }
}

/// What had changed in the files of a key of the configuration, or why what is there now cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The key, as `security.tokens_file`.
    pub key: &'static str,
    /// The reason; none: it is in force.
    pub problem: Option<String>,
}

/// What is in force.
#[derive(Debug)]
pub struct Security {
    files: watch::Sender<SecurityFiles>,
    server: Slot<ServerConfig>,
    tokens: Slot<Tokens>,
    admins: Slot<Tokens>,
    peers: Slot<ClientConfig>,
    peer_token: Slot<HeaderValue>,
    coordinator: Slot<ClientConfig>,
    coordinator_token: Slot<HeaderValue>,
    /// What was refused.
    pub counts: Arc<AccessCounts>,
}

impl Security {
    /// Reads the files.
    ///
    /// # Errors
    /// Every file that cannot be used, and why.
    pub fn open(files: SecurityFiles) -> Result<Arc<Self>, Vec<String>> {
        let this = Self {
            files: watch::Sender::new(files),
            server: Slot::default(),
            tokens: Slot::default(),
            admins: Slot::default(),
            peers: Slot::default(),
            peer_token: Slot::default(),
            coordinator: Slot::default(),
            coordinator_token: Slot::default(),
            counts: Arc::default(),
        };
        let problems: Vec<String> = this
            .look()
            .into_iter()
            .filter_map(|Look { key, problem }| Some(format!("{key}: {}", problem?)))
            .collect();
        if problems.is_empty() {
            Ok(Arc::new(this))
        } else {
            Err(problems)
        }
    }

    /// Takes other files in place of those that there are, and reads them all; they are taken only if all of them can be used.
    ///
    /// # Errors
    /// Every file that cannot be used, and why: what was in force stays.
    pub fn switch(&self, files: SecurityFiles) -> Result<(), Vec<String>> {
        Self::open(files.clone())?;
        self.files.send_replace(files);
        Ok(())
    }

    fn server_of(&self, files: &[Vec<u8>]) -> Result<ServerConfig, String> {
        let (config, until) = tls::server_until(files, RealTime::default().now_ms() / 1000)?;
        self.counts.certificate_expires.store(until, Ordering::Relaxed);
        Ok(config)
    }

    /// Reads the files again, and has in force what they say: each part that is whole. Tells what had changed, and what cannot
    /// be used.
    pub fn look(&self) -> Vec<Look> {
        let files = self.files.borrow().clone();
        let one = |file: &Option<PathBuf>| file.iter().cloned().collect::<Vec<_>>();
        let (peers, coordinator) = (
            files.of_client(files.peer_ca.as_ref()),
            files.of_client(files.coordinator_ca.as_ref()),
        );
        let (tokens, admins) = (one(&files.tokens), one(&files.admin_tokens));
        let (to_peers, to_coordinator) = (one(&files.peer_token), one(&files.coordinator_token));
        let looks = [
            (
                "security.tls_cert",
                self.server.look(&files.of_server(), |files| self.server_of(files)),
            ),
            ("security.tokens_file", self.tokens.look(&tokens, Tokens::of)),
            ("security.admin_tokens_file", self.admins.look(&admins, Tokens::of)),
            ("security.peer_ca", self.peers.look(&peers, tls::client_of)),
            (
                "security.peer_token_file",
                self.peer_token.look(&to_peers, way::shown_of),
            ),
            (
                "security.coordinator_ca",
                self.coordinator.look(&coordinator, tls::client_of),
            ),
            (
                "security.coordinator_token_file",
                self.coordinator_token.look(&to_coordinator, way::shown_of),
            ),
        ];
        let told = looks.into_iter().filter_map(|(key, look)| match look {
            Ok(false) => None,
            Ok(true) => Some(Look { key, problem: None }),
            Err(problem) => Some(Look {
                key,
                problem: Some(problem),
            }),
        });
        told.collect()
    }

    /// The files, as they are now and will be.
    #[must_use]
    pub fn files(&self) -> watch::Receiver<SecurityFiles> {
        self.files.subscribe()
    }

    /// How TLS is spoken on a connection that was accepted just now; [`None`]: not at all.
    pub(super) fn server(&self) -> Option<Arc<ServerConfig>> {
        self.server.current.load_full()
    }

    /// The tokens of tenants, if calls need one.
    pub(super) fn tokens(&self) -> &ArcSwapOption<Tokens> {
        &self.tokens.current
    }

    /// The tokens of those who administer the node, if calls need one.
    pub(super) fn admins(&self) -> &ArcSwapOption<Tokens> {
        &self.admins.current
    }

    /// How TLS is spoken to other nodes, if it is.
    pub(super) fn to_peers(&self) -> Option<Arc<ClientConfig>> {
        self.peers.current.load_full()
    }

    /// What other nodes are shown.
    pub(super) fn peer_token(&self) -> Option<HeaderValue> {
        self.peer_token.current.load().as_deref().cloned()
    }

    /// How TLS is spoken to the coordinator, if it is.
    pub(super) fn to_coordinator(&self) -> Option<Arc<ClientConfig>> {
        self.coordinator.current.load_full()
    }

    /// What the coordinator is shown.
    pub(super) fn coordinator_token(&self) -> Option<HeaderValue> {
        self.coordinator_token.current.load().as_deref().cloned()
    }
}
