//! The start of the gossip: its socket, its keys, and its intervals.
//!
//! Owns: that a port that is taken and a key that cannot be read are known before anything else begins. Does not own: what
//! is gossiped (see [`crate::actors::gossip`]).

use super::NodeError;
use crate::actors::gossip::key_file::KeyFile;
use crate::actors::gossip::pace::Pace;
use crate::actors::gossip::watch::GossipWatch;
use crate::actors::gossip::wire::Keys;
use crate::config::Config;
use rustix::net::sockopt::{set_socket_recv_buffer_size, socket_recv_buffer_size};
use std::os::fd::AsFd;
use std::sync::Arc;

/// Bytes of packets that may wait for the gossip: a flood fills the usual buffer within a few milliseconds, and what it keeps out
/// then is the others' probes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Where the keys are, if there are any.
pub(super) fn key_file(config: &Config) -> Option<KeyFile> {
    let path = config.gossip.key_file.clone()?;
    let cluster = config.gossip.cluster_name.clone();
    Some(KeyFile { path, cluster })
}

/// Its intervals.
pub(super) fn pace(config: &Config) -> Pace {
    let gossip = &config.gossip;
    Pace {
        gossip_interval: gossip.gossip_interval,
        probe_interval: gossip.probe_interval,
        probe_timeout: gossip.probe_timeout,
    }
}

/// Reads the keys that the gossip would have.
///
/// # Errors
/// What is wrong with their file, not what it says.
pub fn read_gossip_keys(config: &Config) -> Result<Keys, String> {
    match key_file(config) {
        Some(file) => file.read(),
        None => Keys::of_nobody(&config.gossip.cluster_name),
    }
}

/// Asks for the whole buffer. Says how much of it the system gave: no more than it allows, and a node gossips with less, too.
fn ask_for_buffer(socket: impl AsFd) -> usize {
    let _ = set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
    // The system adds as much again for its own accounts.
    socket_recv_buffer_size(&socket).map_or(0, |bytes| bytes / 2)
}

/// Whether it is much less than was asked for.
fn is_little(granted: usize) -> bool {
    granted < RECEIVE_BUFFER / 2
}

/// Binds the socket and reads the keys; none, when there is no gossip.
pub(super) async fn prepare(config: &Config) -> Result<Option<Arc<GossipWatch>>, NodeError> {
    if !config.gossip.enabled {
        return Ok(None);
    }
    let keys = read_gossip_keys(config).map_err(NodeError::Gossip)?;
    let (host, port) = (config.gossip_host(), config.gossip.bind_port);
    let listen = |cause| NodeError::Listen {
        address: format!("{host}:{port} (UDP, for the gossip)"),
        cause,
    };
    let socket = tokio::net::UdpSocket::bind((host, port)).await.map_err(listen)?;
    let granted = ask_for_buffer(&socket);
    if is_little(granted) {
        tracing::warn!(
            bytes = granted,
            wanted = RECEIVE_BUFFER,
            "gossip: a flood of packets would keep the other nodes' out: the system allows this socket a small buffer (net.core.rmem_max)"
        );
    }
    let bound = socket.local_addr().map_err(listen)?;
    let socket = socket.into_std().map_err(listen)?;
    Ok(Some(GossipWatch::new(socket, bound, keys)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_buffer_is_as_large_as_the_system_allows() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
        let allowed = allowed.trim().parse::<usize>().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(ask_for_buffer(&socket), allowed.min(RECEIVE_BUFFER));
        assert!(is_little(212_992), "what Linux allows by itself");
        assert!(!is_little(RECEIVE_BUFFER) && !is_little(RECEIVE_BUFFER - 1024));
    }

    #[test]
    fn each_interval_is_that_of_its_name() {
        let mut config = Config::default();
        let [gossip_interval, probe_interval, probe_timeout] = [1, 2, 3].map(Duration::from_secs);
        config.gossip.gossip_interval = gossip_interval;
        config.gossip.probe_interval = probe_interval;
        config.gossip.probe_timeout = probe_timeout;
        let expected = Pace {
            gossip_interval,
            probe_interval,
            probe_timeout,
        };
        assert_eq!(pace(&config), expected);
    }
}
