//! `[gossip]`: values that cannot work, and what follows from others.
//!
//! Owns: those checks, and where the gossip listens. Does not own: what is gossiped (see [`crate::actors::gossip`]).

use super::keys::Config;
use crate::actors::address_book::NodeAddress;
use std::net::IpAddr;
use std::time::Duration;

/// Seeds that may be named: any few that are up suffice.
const MOST_SEEDS: usize = 64;
/// Longest name of a cluster, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// Shortest interval: below it a machine's own delays look like deaths.
const SHORTEST: Duration = Duration::from_millis(10);
/// Longest: beyond it nobody learns anything.
const LONGEST: Duration = Duration::from_secs(600);

impl Config {
    /// Where the gossip listens.
    #[must_use]
    pub fn gossip_host(&self) -> &str {
        self.gossip.bind_host.as_deref().unwrap_or(&self.server.host)
    }

    pub(super) fn check_gossip(&self) -> Vec<String> {
        let (gossip, mut problems) = (&self.gossip, Vec::new());
        let mut require = |holds: bool, key: &str, value: &dyn std::fmt::Display, right: &str| {
            if !holds {
                problems.push(format!("gossip.{key} = {value}: {right}"));
            }
        };
        let name = &gossip.cluster_name;
        require(
            (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control),
            "cluster_name",
            name,
            "must have 1 to 128 bytes and no control characters",
        );
        for seed in &gossip.seed_nodes {
            require(
                NodeAddress::parse(seed).is_some(),
                "seed_nodes",
                &format!("{seed:?}"),
                "must be \"host:port\", with the port of the gossip there",
            );
        }
        require(
            gossip.seed_nodes.len() <= MOST_SEEDS,
            "seed_nodes",
            &format!("{} nodes", gossip.seed_nodes.len()),
            "must be at most 64: a few that are up suffice",
        );
        for (key, value) in [
            ("gossip_interval", gossip.gossip_interval),
            ("probe_timeout", gossip.probe_timeout),
            ("probe_interval", gossip.probe_interval),
        ] {
            let shown = humantime::format_duration(value);
            require(
                (SHORTEST..=LONGEST).contains(&value),
                key,
                &shown,
                "must be 10ms to 10m",
            );
        }
        require(
            gossip.probe_timeout < gossip.probe_interval,
            "probe_timeout",
            &humantime::format_duration(gossip.probe_timeout),
            "must be shorter than gossip.probe_interval, so that others can be asked to probe before the next probe; half of it is right",
        );
        if !gossip.enabled {
            return problems;
        }
        let host = self.gossip_host();
        require(!host.is_empty(), "bind_host", &host, "must be an address or a name");
        let address = host.parse::<IpAddr>();
        let is_loopback = host == "localhost" || address.as_ref().is_ok_and(IpAddr::is_loopback);
        require(
            gossip.key_file.is_some() || is_loopback,
            "key_file",
            &"(none)",
            "must be the file of the cluster's keys when the gossip listens beyond loopback (gossip.bind_host): without a key anybody may \
             say that nodes are dead. `openssl rand -base64 32` makes one",
        );
        // Others are told an address, and cannot send to one that means all.
        if address.is_ok_and(|address| address.is_unspecified()) {
            let advertised = self.advertised_host();
            let is_told = !advertised
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_unspecified());
            require(
                is_told && !advertised.is_empty(),
                "bind_host",
                &host,
                "needs server.advertise_host, by which others reach this node",
            );
        }
        problems
    }
}
