//! What others could do to a node that listens beyond its own machine without protection.
//!
//! Owns: the words of that warning, and telling it in the log. Does not own: the protection (see [`crate::rpc::security`]).

use crate::config::Config;
use std::net::SocketAddr;

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listening {
    /// For clients.
    pub(super) clients: SocketAddr,
    /// Where faults are injected, if they are.
    pub(super) faults: Option<SocketAddr>,
    /// Where metrics and status are shown, if they are.
    pub(super) shown: Option<SocketAddr>,
}

/// Tells in the log what stands open, but for what was told `before`. Returns all that does.
pub(super) fn tell(config: &Config, listening: &Listening, before: &[String]) -> Vec<String> {
    let open = warnings(config, listening);
    // As errors, so that no level of logging leaves them out.
    for warning in open.iter().filter(|warning| !before.contains(warning)) {
        tracing::error!("{warning}");
    }
    open
}

/// A warning for each thing that stands open.
fn warnings(config: &Config, listening: &Listening) -> Vec<String> {
    let security = &config.security;
    let clients = listener(
        config,
        listening.clients,
        security.tokens_file.is_some(),
        "reads, writes and deletes the data of every tenant (security.tokens_file)",
    );
    let breakers = listening.faults.and_then(|address| {
        let has_tokens = security.admin_tokens_file.is_some();
        listener(
            config,
            address,
            has_tokens,
            "breaks the node (security.admin_tokens_file)",
        )
    });
    let lookers = listening.shown.filter(is_beyond_loopback).map(|address| {
        format!(
            "LISTENING BEYOND LOOPBACK AT {address} WITHOUT TLS AND WITHOUT TOKENS: whoever reaches it sees what the node does, its \
             directories and the names of tenants, though no key and no value (metrics.host)"
        )
    });
    let shown = |to: &str, token: bool, is_secret: bool| {
        let warning = format!("THE TOKEN FOR {to} GOES THERE IN PLAIN TEXT (security.{to}_ca is not set)");
        (token && !is_secret).then_some(warning)
    };
    let to_peers = shown("peer", security.peer_token_file.is_some(), security.peer_ca.is_some());
    let to_coordinator = shown(
        "coordinator",
        security.coordinator_token_file.is_some(),
        security.coordinator_ca.is_some(),
    );
    [clients, breakers, lookers, to_peers, to_coordinator]
        .into_iter()
        .flatten()
        .collect()
}

fn is_beyond_loopback(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

fn listener(config: &Config, address: SocketAddr, has_tokens: bool, harm: &str) -> Option<String> {
    let security = &config.security;
    if !is_beyond_loopback(&address) {
        return None;
    }
    let who = match security.client_ca {
        Some(_) => "whoever has a certificate of security.client_ca",
        None => "whoever reaches it",
    };
    let why = match (security.tls_cert.is_some(), has_tokens) {
        (true, true) => return None,
        (false, true) => "WITHOUT TLS: tokens and data can be read on the way (security.tls_cert)".to_owned(),
        (true, false) => format!("WITHOUT TOKENS: {who} {harm}"),
        (false, false) => format!("WITHOUT TLS (security.tls_cert) AND WITHOUT TOKENS: {who} {harm}"),
    };
    Some(format!("LISTENING BEYOND LOOPBACK AT {address} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn at(clients: SocketAddr, faults: Option<SocketAddr>) -> Listening {
        Listening {
            clients,
            faults,
            shown: None,
        }
    }

    #[test]
    fn what_stands_open_is_said_and_nothing_else() {
        let own: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let all: SocketAddr = "0.0.0.0:2".parse().unwrap();
        let mut config = Config::default();
        assert!(warnings(&config, &at(own, Some(own))).is_empty());
        assert!(warnings(&config, &at("[::1]:1".parse().unwrap(), None)).is_empty());
        let open = warnings(&config, &at(all, None));
        assert!(
            open[0].contains("WITHOUT TLS") && open[0].contains("WITHOUT TOKENS"),
            "{open:?}"
        );
        assert!(warnings(&config, &at(own, Some(all)))[0].contains("breaks the node"));
        let file = || Some(PathBuf::from("f"));
        config.security.tokens_file = file();
        assert!(warnings(&config, &at(all, None))[0].contains("WITHOUT TLS: tokens"));
        config.security.tls_cert = file();
        assert!(warnings(&config, &at(all, None)).is_empty());
        assert!(warnings(&config, &at(all, Some(all)))[0].contains("WITHOUT TOKENS: whoever reaches it breaks"));
        config.security.client_ca = file();
        assert!(warnings(&config, &at(all, Some(all)))[0].contains("has a certificate"));
        config.security.admin_tokens_file = file();
        assert!(warnings(&config, &at(all, Some(all))).is_empty());
        config.security.peer_token_file = file();
        assert!(warnings(&config, &at(own, None))[0].contains("PLAIN TEXT"));
        config.security.peer_ca = file();
        let shown = Listening {
            shown: Some(all),
            ..at(own, None)
        };
        assert!(warnings(&config, &shown)[0].contains("metrics.host"));
        let shown = Listening {
            shown: Some(own),
            ..shown
        };
        assert!(warnings(&config, &shown).is_empty());
        assert!(warnings(&config, &at(own, None)).is_empty());
    }
}
