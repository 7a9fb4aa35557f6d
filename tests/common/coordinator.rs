//! A coordinator as the tests of whole clusters script it: which node has which keys, clients that write by that, and the check of
//! what they were told.
#![allow(dead_code, reason = "each test binary uses a part")]

use crate::common::*;
use pairdb_node::storage::key::Key;
use pairdb_node::storage::ring;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::RwLock;
use tonic::Code;

const POINTS: u64 = 8;
/// Writers of a load.
pub const WRITERS: u64 = 6;
/// Keys that each of them writes.
pub const KEYS_PER_WRITER: i64 = 200;

/// Which node has which point: a point has the places behind the point before it, up to itself.
#[derive(Clone, Default)]
pub struct Ring(pub BTreeMap<u64, String>);

impl Ring {
    pub fn with(mut self, node: &str) -> Self {
        for point in 0..POINTS {
            let key = Key::new("point", &format!("{node}-{point}")).unwrap();
            self.0.insert(ring::place(&key), node.to_owned());
        }
        self
    }

    pub fn without(mut self, node: &str) -> Self {
        self.0.retain(|_, owner| owner != node);
        self
    }

    pub fn owner(&self, place: u64) -> &str {
        let at_or_behind = self.0.range(place..).next();
        at_or_behind.or(self.0.iter().next()).unwrap().1
    }

    /// The ranges that change hands on the way from this ring to `next`: by the old owner and the new one.
    pub fn moves(&self, next: &Self) -> BTreeMap<(String, String), Vec<(u64, u64)>> {
        let mut points: Vec<u64> = self.0.keys().chain(next.0.keys()).copied().collect();
        points.sort_unstable();
        let mut moves: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (at, point) in points.iter().enumerate() {
            let previous = points[(at + points.len() - 1) % points.len()];
            let (old, new) = (self.owner(*point).to_owned(), next.owner(*point).to_owned());
            if old != new {
                moves.entry((old, new)).or_default().push((previous, *point));
            }
        }
        moves
    }
}

/// The ring that is used now, and where each node listens.
pub type Addresses = Arc<RwLock<(Ring, BTreeMap<String, SocketAddr>)>>;

/// Longest that a writer waits: for a node that was killed it would for ever.
pub const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// What a write may be answered while actors die, and while whole nodes do.
pub const ACTORS_DIE: &[Code] = &[Code::Unavailable];
pub const NODES_DIE: &[Code] = &[
    Code::Unavailable,
    Code::Unknown,
    Code::Internal,
    Code::Cancelled,
    Code::DeadlineExceeded,
];

/// Writes ascending numbers, from `first` on, to keys of its own, each to the node that has it now; the last that was acknowledged of each.
pub async fn write_on(
    (writer, first): (u64, i64),
    addresses: Addresses,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    expected: &[Code],
) -> BTreeMap<String, i64> {
    let mut clients: BTreeMap<String, Client> = BTreeMap::new();
    let mut acknowledged = BTreeMap::new();
    for number in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("w{writer}-{}", number % KEYS_PER_WRITER);
        // A write goes by one ring: the next is used when all of those by the old one are answered.
        let now = addresses.read().await;
        let owner = now.0.owner(ring::place(&Key::new("tenant", &key).unwrap()));
        let client = clients.entry(owner.to_owned()).or_insert_with(|| client(now.1[owner]));
        let request = write(&key, number.to_string().as_bytes(), &[("c", number)]);
        let answer = tokio::time::timeout(ANSWERED_WITHIN, client.write(request)).await;
        match answer.unwrap_or_else(|_elapsed| Err(tonic::Status::deadline_exceeded("no answer"))) {
            Ok(_) => {
                acknowledged.insert(key, number);
                written.fetch_add(1, Ordering::Relaxed);
            }
            Err(status) => assert!(expected.contains(&status.code()), "{status}"),
        }
    }
    acknowledged
}

/// Reads every key from the node that has it now. How many each node has; none is lost, and none is older than what was
/// acknowledged.
pub async fn check(addresses: &Addresses, acknowledged: &BTreeMap<String, i64>) -> BTreeMap<String, u64> {
    let (ring, addresses) = addresses.read().await.clone();
    let (mut owners, mut lost, mut older) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (key, number) in acknowledged {
        let owner = ring.owner(ring::place(&Key::new("tenant", key).unwrap()));
        *owners.entry(owner.to_owned()).or_insert(0) += 1;
        match client(addresses[owner]).read(read(key)).await {
            Ok(found) => {
                let value = String::from_utf8(found.into_inner().value).unwrap();
                if value.parse::<i64>().unwrap() < *number {
                    older.push(format!("{key}: {value}, but {number} was acknowledged"));
                }
            }
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound, "{key}: {status}");
                lost.push(key);
            }
        }
    }
    assert!(lost.is_empty() && older.is_empty(), "lost: {lost:?}; older: {older:?}");
    owners
}
