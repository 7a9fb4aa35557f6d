//! `[security]`: who may talk to the node, and how.
//!
//! Owns: its keys, and which of them go together. Does not own: what the files say (see [`crate::rpc::security`]).

use super::keys::Config;
use crate::rpc::security::{Identity, SecurityFiles};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// `[security]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Security {
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
    pub tokens_file: Option<PathBuf>,
    pub admin_tokens_file: Option<PathBuf>,
    pub peer_ca: Option<PathBuf>,
    pub peer_token_file: Option<PathBuf>,
    pub coordinator_ca: Option<PathBuf>,
    pub coordinator_token_file: Option<PathBuf>,
    #[serde(with = "humantime_serde")]
    pub check_interval: Duration,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            tls_cert: None,
            tls_key: None,
            client_ca: None,
            tokens_file: None,
            admin_tokens_file: None,
            peer_ca: None,
            peer_token_file: None,
            coordinator_ca: None,
            coordinator_token_file: None,
            check_interval: Duration::from_secs(10),
        }
    }
}

impl Security {
    /// The files that they name.
    #[must_use]
    pub fn files(&self) -> SecurityFiles {
        let identity = self.tls_cert.clone().zip(self.tls_key.clone());
        SecurityFiles {
            identity: identity.map(|(cert, key)| Identity { cert, key }),
            client_ca: self.client_ca.clone(),
            tokens: self.tokens_file.clone(),
            admin_tokens: self.admin_tokens_file.clone(),
            peer_ca: self.peer_ca.clone(),
            peer_token: self.peer_token_file.clone(),
            coordinator_ca: self.coordinator_ca.clone(),
            coordinator_token: self.coordinator_token_file.clone(),
        }
    }

    /// Whether TLS is spoken by whom: what a running node does not change, since there would be connections of both kinds.
    #[must_use]
    pub fn speaks_tls(&self) -> [bool; 3] {
        [&self.tls_cert, &self.peer_ca, &self.coordinator_ca].map(Option::is_some)
    }
}

impl Config {
    /// What cannot work of who may talk to the node.
    pub(super) fn check_security(&self) -> Vec<String> {
        let security = &self.security;
        let mut problems = Vec::new();
        for (key, file) in [
            ("tls_cert", &security.tls_cert),
            ("tls_key", &security.tls_key),
            ("client_ca", &security.client_ca),
            ("tokens_file", &security.tokens_file),
            ("admin_tokens_file", &security.admin_tokens_file),
            ("peer_ca", &security.peer_ca),
            ("peer_token_file", &security.peer_token_file),
            ("coordinator_ca", &security.coordinator_ca),
            ("coordinator_token_file", &security.coordinator_token_file),
        ] {
            if file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
                problems.push(format!(
                    "security.{key} = \"\": must be a file; leave the key out for none"
                ));
            }
        }
        if security.tls_cert.is_some() != security.tls_key.is_some() {
            problems.push(
                "security.tls_cert, security.tls_key: must both be there, or neither: a certificate, and the key that belongs \
                 to it"
                    .to_owned(),
            );
        }
        if security.client_ca.is_some() && security.tls_cert.is_none() {
            problems.push(
                "security.client_ca: needs security.tls_cert and tls_key: without TLS no client shows a certificate"
                    .to_owned(),
            );
        }
        if security.check_interval.is_zero() {
            problems.push("security.check_interval = 0s: must be longer than zero, as in \"10s\"".to_owned());
        }
        problems
    }
}
