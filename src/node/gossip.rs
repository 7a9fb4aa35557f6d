//! The start of the gossip: its socket, and its keys.
//!
//! Owns: that a port that is taken and a key that cannot be read are known before anything else begins. Does not own: what
//! is gossiped (see [`crate::actors::gossip`]).

use super::NodeError;
use crate::actors::gossip::key_file::KeyFile;
use crate::actors::gossip::watch::GossipWatch;
use crate::actors::gossip::wire::Keys;
use crate::config::Config;
use rustix::net::sockopt::set_socket_recv_buffer_size;
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
    // The system gives as much of it as it allows; a node gossips with less, too.
    let _ = set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
    let bound = socket.local_addr().map_err(listen)?;
    let socket = socket.into_std().map_err(listen)?;
    Ok(Some(GossipWatch::new(socket, bound, keys)))
}
