//! What the node can say of itself.
//!
//! Owns: the judgement (healthy, degraded, unhealthy) and the numbers behind it, read without asking any actor, so that
//! the answer comes even when none of them answers. Does not own: the numbers' sources.

use crate::actors::Handles;
use crate::actors::access::AccessCounts;
use crate::actors::admission::Admission;
use crate::actors::answer_room::AnswerRoom;
use crate::actors::cache::{CacheStats, ShardStats};
use crate::actors::compaction::CompactionStats;
use crate::actors::disk::DiskWatch;
use crate::actors::drain::{Drain, DrainPhase};
use crate::actors::flush::FlushStats;
use crate::actors::gossip::watch::GossipWatch;
use crate::actors::history::History;
use crate::actors::memtable::MemtableStats;
use crate::actors::overload::{Kind, Overload};
use crate::actors::quotas::Quotas;
use crate::actors::registration::{Registered, RegistrationWatch};
use crate::actors::reloads::ReloadWatch;
use crate::actors::request_counts::RequestCounts;
use crate::actors::streaming::Streaming;
use crate::actors::supervisor::{ChildStatus, Tree};
use crate::actors::vitals::{self, Vitals};
use crate::actors::wal::SharedLog;
use crate::storage::compaction::jobs::Jobs;
use crate::storage::recovery::Report;
use crate::storage::scrub::ScrubProgress;
use crate::storage::space::SpaceLevel;
use crate::storage::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// All is well.
    Healthy,
    /// It serves, but something needs attention.
    Degraded,
    /// It cannot do its work.
    Unhealthy,
}

impl Status {
    /// The word that the wire contract has for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How the node came to its data when it started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recovery {
    /// How long that took.
    pub took: Duration,
    /// What was done.
    pub report: Report,
}

/// Where the numbers come from.
pub struct Health {
    /// Who the node is.
    pub node_id: String,
    /// Host and port at which others reach it.
    pub address: String,
    /// What tells the time.
    pub time: Arc<dyn Time>,
    /// When the node started, by [`Time::elapsed`].
    pub started: Duration,
    /// How it came to its data then.
    pub recovery: Recovery,
    /// Mailboxes and view.
    pub handles: Handles,
    /// Permits.
    pub admission: Arc<Admission>,
    /// Whether the node gets done what it is asked.
    pub overload: Arc<Overload>,
    /// What each tenant may use.
    pub quotas: Arc<Quotas>,
    /// What answers hold until they are taken.
    pub answers: Arc<AnswerRoom>,
    /// The log.
    pub log: Arc<SharedLog>,
    /// The tree of actors.
    pub tree: Arc<Tree>,
    /// Flushes.
    pub flush: Arc<FlushStats>,
    /// The walk over all tables.
    pub scrub: Arc<ScrubProgress>,
    /// Whether writes are taken.
    pub drain: Arc<Drain>,
    /// The disks.
    pub disk: Arc<DiskWatch>,
    /// Compaction's failures.
    pub compaction: Arc<CompactionStats>,
    /// Compaction's jobs.
    pub jobs: Arc<Jobs>,
    /// Applied writes.
    pub memtable: Arc<MemtableStats>,
    /// The cache's answers.
    pub cache: Arc<CacheStats>,
    /// The cache's shards.
    pub shards: Vec<Arc<ShardStats>>,
    /// Bytes that all of them may hold together.
    pub cache_max_bytes: usize,
    /// What is measured over a minute.
    pub vitals: Arc<Vitals>,
    /// What it did in the last ten minutes.
    pub history: Arc<History>,
    /// Whether the coordinator knows the node.
    pub registration: Arc<RegistrationWatch>,
    /// The other nodes, and how they are; none without gossip.
    pub gossip: Option<Arc<GossipWatch>>,
    /// The streams to other nodes.
    pub streaming: Arc<Streaming>,
    /// Requests.
    pub requests: Arc<RequestCounts>,
    /// What was refused to those who may not ask.
    pub access: Arc<AccessCounts>,
    /// What became of reloads.
    pub reloads: Arc<ReloadWatch>,
}

impl Health {
    /// Time since the start.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.time.elapsed().saturating_sub(self.started)
    }

    /// A number of all shards of the cache together.
    pub fn sum_of_shards(&self, number: impl Fn(&ShardStats) -> u64) -> u64 {
        self.shards.iter().map(|shard| number(shard)).sum()
    }

    /// How the node is, and why it is not better.
    #[must_use]
    pub fn status(&self) -> (Status, Vec<String>) {
        let mut reasons = Vec::new();
        if let Some(latched) = self.latched_reason() {
            reasons.push(latched);
            return (Status::Unhealthy, reasons);
        }
        reasons.extend(self.drain_reason());
        if let Some(cause) = self.flush.failing.load_full() {
            reasons.push(format!("flushing fails: {cause}"));
        }
        if let Some(cause) = self.compaction.failing.load_full() {
            reasons.push(format!("compaction fails: {cause}"));
        }
        reasons.extend(self.disk_reason());
        reasons.extend(self.registration.problem());
        reasons.extend(self.gossip.iter().flat_map(|gossip| gossip.problems()));
        reasons.extend(self.streaming.problems());
        let admission = self.admission.stats();
        if admission.slow {
            reasons.push("writes are slowed down: the memtables are full".to_owned());
        }
        match admission.stopped {
            Some(why) => reasons.push(why),
            None if admission.behind => reasons.push("writes are slowed down: compaction is behind".to_owned()),
            None => {}
        }
        for (kind, name) in [(Kind::Read, "reads"), (Kind::Write, "writes")] {
            if let Some(limit) = self.overload.limit(kind) {
                reasons.push(format!(
                    "the node is overloaded: only {limit} {name} are let in at a time"
                ));
            }
        }
        let view = self.handles.published.load();
        let damaged = view.tables.quarantine().iter();
        reasons.extend(damaged.map(|table| {
            // Anybody may ask over HTTP: which keys stands in the status by the admin socket.
            format!("table {} is damaged: {}", table.id, table.cause)
        }));
        let stuck = self.tree.stuck().into_iter();
        reasons.extend(stuck.map(|(name, busy)| {
            format!("{name} makes no progress: it has been at one message, or at its start, for {busy:.1?}")
        }));
        let still = self.tree.still().into_iter();
        reasons.extend(still.map(|(work, time)| {
            format!("the work of {work} stands still: it has read, written and synced nothing for {time:.1?}")
        }));
        let down = self.tree.children().into_iter().filter(|child| !child.running);
        reasons.extend(down.map(|child| match child.generation {
            0 => format!("{} does not start", child.name),
            _ => format!("{} is restarting", child.name),
        }));
        let strain = self.vitals.strain();
        let worst = strain.iter().map(|(status, _)| *status).max();
        let known = match reasons.is_empty() {
            true => Status::Healthy,
            false => Status::Degraded,
        };
        reasons.extend(strain.into_iter().map(|(_, reason)| reason.to_owned()));
        (worst.map_or(known, |worst| worst.max(known)), reasons)
    }

    /// That the log takes no writes any more, and why.
    #[must_use]
    pub fn latched_reason(&self) -> Option<String> {
        let cause = self.log.latched()?;
        Some(format!("the commit log is latched: {cause}"))
    }

    /// That the node takes no writes since it was told to drain.
    #[must_use]
    pub fn drain_reason(&self) -> Option<String> {
        let reason = match self.drain.phase() {
            DrainPhase::Serving => return None,
            DrainPhase::Draining => "the node is draining: it takes no writes, and flushes",
            DrainPhase::Drained => "the node is drained: it takes no writes until it is undrained",
        };
        Some(reason.to_owned())
    }

    /// That a disk is so full that writes are refused.
    #[must_use]
    pub fn disk_stop_reason(&self) -> Option<String> {
        self.disk_reason().filter(|_| self.disk.level() == SpaceLevel::Stop)
    }

    fn disk_reason(&self) -> Option<String> {
        let effect = match self.disk.level() {
            SpaceLevel::Ample => return None,
            SpaceLevel::Stop => "; writes are refused but for deletes",
            SpaceLevel::Throttle => "; writes are slowed down",
            SpaceLevel::Warn => "",
        };
        let disks = self.disk.disks();
        let fullest = disks.first()?;
        let (used, dir) = (fullest.space.used() * 100.0, fullest.dir.display());
        Some(format!("the disk of {dir} is {used:.1} % full{effect}"))
    }

    /// The numbers, by name.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<String, String> {
        let view = self.handles.published.load();
        let log = self.log.stats();
        let admission = self.admission.stats();
        let restarts: u64 = self.tree.children().iter().map(ChildStatus::restarts).sum();
        let jobs = self.jobs.totals();
        let debt = view.tables.debt();
        let disks = self.disk.disks();
        let disk = disks.first();
        let memory = vitals::memory();
        let registered = matches!(*self.registration.state(), Registered::Known | Registered::KnownAt(_));
        let numbers = [
            ("write_requests", self.requests.writes.load(Ordering::Relaxed)),
            ("read_requests", self.requests.reads.load(Ordering::Relaxed)),
            ("request_errors", self.requests.errors.load(Ordering::Relaxed)),
            ("writes_in_flight", admission.writes as u64),
            ("reads_in_flight", admission.reads as u64),
            ("writes_slowed", admission.slowed),
            ("requests_refused", admission.refused),
            ("answer_bytes_waiting", self.answers.held() as u64),
            ("requests_shed", self.overload.shed()),
            ("requests_over_quota", self.quotas.refused()),
            ("cache_hits", self.cache.hits.load(Ordering::Relaxed)),
            ("cache_misses", self.cache.misses.load(Ordering::Relaxed)),
            (
                "cache_bytes",
                self.sum_of_shards(|s| s.bytes.load(Ordering::Relaxed) as u64),
            ),
            (
                "cache_entries",
                self.sum_of_shards(|s| s.entries.load(Ordering::Relaxed) as u64),
            ),
            ("memtable_bytes", view.memtable_bytes() as u64),
            ("memtables", view.sealed.len() as u64 + 1),
            ("memtable_flushes", self.flush.flushes.load(Ordering::Relaxed)),
            ("siblings_merged", self.memtable.siblings_merged.load(Ordering::Relaxed)),
            ("sstables", view.tables.all().count() as u64),
            ("sstable_bytes", view.tables.all().map(|table| table.size()).sum()),
            ("sstable_resident_bytes", view.tables.resident_bytes() as u64),
            ("sstables_l0", view.tables.level(0).len() as u64),
            ("sstables_quarantined", view.tables.quarantine().len() as u64),
            ("compaction_jobs_active", self.jobs.active() as u64),
            ("compaction_jobs_completed", jobs.completed),
            ("compaction_jobs_failed", jobs.failed),
            ("compaction_bytes_read", jobs.bytes_read),
            ("compaction_bytes_written", jobs.bytes_written),
            ("compaction_pending_bytes", debt.pending_bytes),
            ("compaction_tombstones_dropped", jobs.tombstones_dropped),
            ("scrub_tables", self.scrub.tables.load(Ordering::Relaxed)),
            ("scrub_tables_done", self.scrub.tables_done.load(Ordering::Relaxed)),
            ("scrubs_completed", self.scrub.completed.load(Ordering::Relaxed)),
            ("disk_total_bytes", disk.map_or(0, |disk| disk.space.total)),
            ("disk_available_bytes", disk.map_or(0, |disk| disk.space.available)),
            ("memory_usage_bytes", memory.own),
            ("memory_resident_bytes", memory.resident),
            ("coordinator_registered", u64::from(registered)),
            ("draining", u64::from(self.drain.phase() != DrainPhase::Serving)),
            ("commitlog_segments", log.segments as u64),
            ("commitlog_bytes", log.bytes),
            ("commitlog_syncs", log.syncs),
            ("applied_seq", self.handles.published.applied()),
            ("actor_restarts", restarts),
        ];
        let gossip = self.gossip.iter().flat_map(|gossip| gossip.metrics());
        let streams = self.streaming.metrics(self.time.now_ms());
        let rates = self.vitals.rates();
        let memory_limit = memory.limit.max(memory.own).max(1) as f64;
        let shares = [
            ("cpu_usage_percent", rates.cpu.min(1.0) * 100.0),
            ("memory_usage_percent", memory.own as f64 / memory_limit * 100.0),
            ("disk_usage_percent", disk.map_or(0.0, |disk| disk.space.used() * 100.0)),
            ("request_rate", rates.requests),
            ("error_rate", rates.errors),
            ("cache_hit_rate", rates.cache_hits),
        ];
        let numbers = numbers.into_iter().chain(streams);
        let numbers = numbers.map(|(name, number)| (name.to_owned(), number.to_string()));
        let shares = shares.map(|(name, share)| (name.to_owned(), format!("{share:.3}")));
        let tenants = self.quotas.usage().into_iter().flat_map(|usage| {
            let named = |number: &str, value: u64| (format!("tenant_{number}.{}", usage.tenant), value.to_string());
            [
                named("stored_bytes", usage.stored_bytes),
                named("over_quota", usage.refused),
            ]
        });
        let words = self.streaming.words(self.time.now_ms());
        numbers
            .chain(shares)
            .chain(tenants)
            .chain(gossip)
            .chain(words)
            .collect()
    }
}
