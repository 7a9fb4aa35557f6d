//! What the tests of that which a node shows over HTTP share.
#![allow(dead_code, reason = "each test binary uses a part")]

use crate::common::{self, PATIENCE};
use pairdb_node::config::Config;
use pairdb_node::node::Node;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

/// A configuration for a node in `dir` that shows its metrics, on ports that the system chooses.
pub fn shown(dir: &Path) -> Config {
    let mut config = common::config(dir);
    config.metrics.enabled = true;
    config.metrics.port = 0;
    config
}

/// Asks for a path. Returns the status and the body.
pub fn ask(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// All samples by name and labels, but for the label that all have.
pub fn samples(text: &str, node_id: &str) -> BTreeMap<String, f64> {
    let constant = format!("node_id=\"{node_id}\"");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect(line);
        assert!(name.starts_with("pairdb_") && name.contains(&constant), "{line}");
        let name = name
            .replace(&format!("{constant},"), "")
            .replace(&format!("{{{constant}}}"), "");
        (
            name.trim_start_matches("pairdb_").to_owned(),
            value.parse().expect(line),
        )
    };
    lines.map(sample).collect()
}

/// All samples of a node.
pub async fn metrics(node: &Node) -> BTreeMap<String, f64> {
    let address = node.metrics_address().unwrap();
    let (status, text) = tokio::task::spawn_blocking(move || ask(address, "/metrics"))
        .await
        .unwrap();
    assert_eq!(status, 200, "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    samples(&text, &node.health().node_id)
}
