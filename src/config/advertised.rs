//! Under which address a node is known to others, and who the others are.
//!
//! Owns: the choice between what an orchestrator says and the configuration, and the checks of addresses. Does not own: who
//! is told (see [`crate::actors::registration`]).

use super::keys::{Config, Server};
use crate::actors::address_book::NodeAddress;
use crate::storage::limits;
use std::net::IpAddr;

/// What an orchestrator says of the pod in which the node runs. Its names are the coordinator's convention.
#[derive(Debug, Default)]
pub(super) struct Pod {
    namespace: Option<String>,
    ip: Option<String>,
}

impl Pod {
    /// Looks at a variable of the environment.
    pub(super) fn see(&mut self, name: &str, value: &str) {
        let value = Some(value.to_owned()).filter(|value| !value.is_empty());
        match name {
            "POD_NAMESPACE" => self.namespace = value,
            "POD_IP" => self.ip = value,
            _ => {}
        }
    }

    /// Puts the pod's name, or else its address, in place of what is configured.
    pub(super) fn name(self, server: &mut Server) {
        let node_id = &server.node_id;
        let name = self
            .namespace
            .map(|namespace| format!("{node_id}.pairdb-storage-node-headless.{namespace}.svc.cluster.local"));
        if let Some(host) = name.or(self.ip) {
            server.advertise_host = Some(host);
        }
    }
}

impl Config {
    /// The host under which others reach the node.
    #[must_use]
    pub fn advertised_host(&self) -> &str {
        self.server.advertise_host.as_deref().unwrap_or(&self.server.host)
    }

    /// What cannot work of how nodes reach each other.
    pub(super) fn check_cluster(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, key: &str, value: &dyn std::fmt::Display, right: &str| {
            if !holds {
                problems.push(format!("{key} = {value}: {right}"));
            }
        };
        for (id, address) in &self.cluster.nodes {
            let fits = limits::check_clock_entry(id, 0).is_ok() && NodeAddress::parse(address).is_some();
            let entry = format!("{id:?} = {address:?}");
            require(
                fits,
                "cluster.nodes",
                &entry,
                "must be the id of a node and \"host:port\"",
            );
        }
        let host = self.advertised_host();
        if self.server.advertise_host.is_some() || self.coordinator.enabled {
            require(
                is_reachable(host),
                "server.advertise_host",
                &host,
                "must be a name or an address by which others reach the node, and not one that means all of its own",
            );
        }
        let coordinator = &self.coordinator;
        if !coordinator.enabled {
            return problems;
        }
        require(
            NodeAddress::parse(&format!("{}:{}", bracketed(&coordinator.host), coordinator.port)).is_some(),
            "coordinator.host",
            &format!("{}, port {}", coordinator.host, coordinator.port),
            "must be a name or an address, and the port above 0",
        );
        require(
            (1..=10_000).contains(&coordinator.virtual_nodes),
            "coordinator.virtual_nodes",
            &coordinator.virtual_nodes,
            "must be 1 to 10000",
        );
        require(
            (1..=1_000_000).contains(&coordinator.tries),
            "coordinator.tries",
            &coordinator.tries,
            "must be 1 to 1000000",
        );
        for (key, value) in [
            ("coordinator.interval", coordinator.interval),
            ("coordinator.timeout", coordinator.timeout),
        ] {
            let shown = humantime::format_duration(value);
            require(!value.is_zero(), key, &shown, "must be longer than zero, as in \"5s\"");
        }
        problems
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// Whether a host may be told to others: a name, or an address of one machine.
fn is_reachable(host: &str) -> bool {
    let is_unspecified = host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    !is_unspecified && NodeAddress::parse(&format!("{}:1", bracketed(host))).is_some()
}
