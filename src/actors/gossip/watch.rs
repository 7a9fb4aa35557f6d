//! What outlives the actor of the gossip: its socket and its keys, what it saw last, what it counted.
//!
//! Owns: those, and what is said of them to people. Does not own: how members come to be known (see [`super::core`]).

use super::core::Memory;
use super::gossip_actor::GossipMessage;
use super::names::Names;
use super::seen::{Life, Seen};
use super::wire::{Keys, Refused};
use crate::actors::health::Status;
use crate::actors::mailbox::{Bound, Mailbox};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Packets that may wait, and their bytes. More are refused, as a socket's own queue would drop them.
const PACKETS: Bound = Bound {
    messages: 4096,
    bytes: 4 << 20,
};

/// Packets so far.
#[derive(Debug, Default)]
pub struct GossipCounts {
    /// Sent.
    pub sent: AtomicU64,
    /// Those that the system did not take.
    pub unsent: AtomicU64,
    /// Received, and believed.
    pub received: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
}

impl GossipCounts {
    /// A packet was not believed.
    pub fn refuse(&self, why: Refused) {
        let at = Refused::ALL.iter().position(|reason| *reason == why);
        if let Some(count) = at.and_then(|at| self.refused.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Packets that were not believed, by why.
    pub fn refused(&self) -> impl Iterator<Item = (Refused, u64)> {
        let counts = Refused::ALL.iter().zip(&self.refused);
        counts.map(|(why, count)| (*why, count.load(Ordering::Relaxed)))
    }
}

/// How many nodes there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Those that are there, this one included.
    pub there: usize,
    /// Of these, those that say that they are healthy.
    pub healthy: usize,
    /// Of these, those that say that they are unhealthy.
    pub unhealthy: usize,
    /// Those that are taken for dead, as long as they are remembered, and did not leave in order.
    pub down: usize,
}

/// The gossip, as those see it who are not its actor.
#[derive(Debug)]
pub struct GossipWatch {
    /// Where packets come in: it outlives the actor, and keeps what comes while that is down.
    pub socket: UdpSocket,
    /// Where the socket is.
    pub bound: SocketAddr,
    /// The way to the actor.
    pub mailbox: Mailbox<GossipMessage>,
    /// Packets.
    pub counts: GossipCounts,
    keys: ArcSwap<Keys>,
    members: ArcSwap<Vec<Seen>>,
    memory: Mutex<Memory>,
    names: Mutex<Option<Names>>,
    /// The latest life that this node had.
    incarnation: AtomicU64,
    has_left: AtomicBool,
    problems: Mutex<BTreeMap<&'static str, String>>,
}

impl GossipWatch {
    /// Nobody is known yet.
    #[must_use]
    pub fn new(socket: UdpSocket, bound: SocketAddr, keys: Keys) -> Arc<Self> {
        Arc::new(Self {
            socket,
            bound,
            mailbox: Mailbox::new(PACKETS),
            counts: GossipCounts::default(),
            keys: ArcSwap::from_pointee(keys),
            members: ArcSwap::default(),
            memory: Mutex::default(),
            names: Mutex::default(),
            incarnation: AtomicU64::new(0),
            has_left: AtomicBool::new(false),
            problems: Mutex::default(),
        })
    }

    /// All nodes that are known, and that are remembered as dead: this one first, once it has begun.
    #[must_use]
    pub fn members(&self) -> Arc<Vec<Seen>> {
        self.members.load_full()
    }

    /// How many nodes there are, and how they are.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let mut counted = Counted::default();
        for member in self.members().iter() {
            counted.down += usize::from(member.life == Life::Down);
            if member.life.is_there() {
                let status = member.heard.as_ref().map(|heard| heard.record.report.status);
                counted.there += 1;
                counted.healthy += usize::from(status == Some(Status::Healthy));
                counted.unhealthy += usize::from(status == Some(Status::Unhealthy));
            }
        }
        counted
    }

    /// What is to be said of it, by name.
    pub(in crate::actors) fn metrics(&self) -> Vec<(String, String)> {
        let counted = self.counted();
        let refused: u64 = self.counts.refused().map(|(_, count)| count).sum();
        let numbers = [
            ("gossip_members", counted.there as u64),
            ("gossip_members_healthy", counted.healthy as u64),
            ("gossip_packets_refused", refused),
        ];
        let numbers = numbers.map(|(name, number)| (name.to_owned(), number.to_string()));
        let members = self.members();
        let words = members.iter().map(|member| {
            let status = member.heard.as_ref().map(|heard| heard.record.report.status.as_str());
            let word = format!("{}/{}", member.life.as_str(), status.unwrap_or("unknown"));
            (format!("member.{}", member.identity.node_id), word)
        });
        numbers.into_iter().chain(words).collect()
    }

    /// What a person should do something about.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.problems.lock().values().cloned().collect()
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> Arc<Keys> {
        self.keys.load_full()
    }

    pub(super) fn set_keys(&self, keys: Keys) {
        self.keys.store(Arc::new(keys));
    }

    /// Notes what is wrong with `about`, or that nothing is. Says whether that is new.
    pub(super) fn set_problem(&self, about: &'static str, problem: Option<String>) -> bool {
        let mut problems = self.problems.lock();
        let before = match problem.clone() {
            Some(problem) => problems.insert(about, problem),
            None => problems.remove(about),
        };
        before != problem
    }

    pub(super) fn saw(&self, members: Vec<Seen>, memory: Memory) {
        if let Some(own) = members.first() {
            self.incarnation.fetch_max(own.identity.incarnation, Ordering::Relaxed);
        }
        self.members.store(Arc::new(members));
        *self.memory.lock() = memory;
    }

    /// What is known of names, and which of them are being looked up.
    pub(super) fn names(&self) -> Option<Names> {
        self.names.lock().clone()
    }

    pub(super) fn keep_names(&self, names: Names) {
        *self.names.lock() = Some(names);
    }

    pub(super) fn memory(&self) -> Memory {
        self.memory.lock().clone()
    }

    /// A life that is later than all before, and than the clock says.
    pub(super) fn next_incarnation(&self, now_ms: u64) -> u64 {
        let before = self.incarnation.load(Ordering::Relaxed);
        let next = now_ms.max(before.saturating_add(1));
        self.incarnation.fetch_max(next, Ordering::Relaxed);
        next
    }

    /// That this node leaves for good.
    pub(super) fn leave(&self) {
        self.has_left.store(true, Ordering::Release);
    }

    /// Whether it has left.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Acquire)
    }

    /// What is known of whether a node lives; [`None`]: it is not known.
    #[must_use]
    pub fn life_of(&self, node_id: &str) -> Option<Life> {
        let members = self.members();
        let member = members.iter().find(|member| member.identity.node_id == node_id)?;
        Some(member.life)
    }
}
