//! The actors, and what runs between them: mailboxes, permits, reply ports, supervision.
//!
//! Owns all concurrency of the node. Knows `storage`, and nothing of gRPC: the gateway is given a function that serves.

pub mod access;
pub mod address;
pub mod address_book;
pub mod admission;
pub mod answer_room;
pub mod answers;
pub mod batches;
pub mod cache;
pub mod compaction;
pub mod deadline;
pub mod disk;
pub mod drain;
pub mod fault_fs;
pub mod faults;
pub mod flush;
pub mod gateway;
pub mod gossip;
pub mod health;
pub mod history;
pub mod mailbox;
pub mod maintenance;
mod memory_limit;
pub mod memtable;
pub mod overload;
pub mod peers;
pub mod quotas;
pub mod ranges;
pub mod refusal;
pub mod registration;
pub mod reloads;
pub mod replication;
pub mod reply;
pub mod request_counts;
pub mod requests;
pub mod restarts;
pub mod scrub;
pub mod shard;
pub mod strain;
pub mod streaming;
pub mod supervisor;
pub mod threads;
pub mod timers;
pub mod trail;
pub mod vitals;
pub mod wal;
pub mod watched;
pub mod write;

use crate::storage::key::Key;
use crate::storage::view::Published;
use mailbox::Mailbox;
use std::sync::Arc;
use streaming::streams_actor::StreamsMessage;
use streaming::tap::Taps;
use threads::Threads;

/// Where every actor is reached, whatever generation of it runs, and the view that they share.
#[derive(Clone)]
pub struct Handles {
    /// The log's owner.
    pub wal: Mailbox<wal::WalMessage>,
    /// The memtable's writer.
    pub memtable: Mailbox<memtable::MemtableMessage>,
    /// The writer of L0 tables.
    pub flush: Mailbox<flush::FlushMessage>,
    /// The compaction of tables.
    pub compaction: Mailbox<compaction::CompactionMessage>,
    /// The reader of all tables.
    pub scrub: Mailbox<scrub::ScrubMessage>,
    /// The watch over the disks.
    pub disk: Mailbox<disk::DiskMessage>,
    /// The shards of the cache.
    pub caches: Arc<[shard::Shard]>,
    /// The acceptor of connections.
    pub gateway: Mailbox<gateway::GatewayMessage>,
    /// The parent of the streams to other nodes.
    pub streams: Mailbox<StreamsMessage>,
    /// What reads see.
    pub published: Arc<Published>,
    /// What is injected into the actors.
    pub faults: Arc<faults::Faults>,
    /// The writes that are remembered by their names.
    pub recent: Arc<write::RecentWrites>,
    /// Where live writes are kept for other nodes.
    pub taps: Arc<Taps>,
    /// What does the work that would hold an actor up.
    pub threads: Threads,
    /// Which trails are kept.
    pub traces: Arc<trail::traces::Traces>,
}

impl Handles {
    /// Number of the cache shard that a key belongs to.
    #[must_use]
    pub fn shard_of(&self, key: &Key) -> usize {
        // The upper half: the lower bits also choose slots inside a shard.
        ((key.hash64() >> 32) as usize) % self.caches.len().max(1)
    }
}
