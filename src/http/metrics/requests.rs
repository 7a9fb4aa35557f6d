//! Requests, the cache, and tenants.
//!
//! Owns: the names of these metrics. Does not own: their counts.

use super::{MICROS, Out, load};
use crate::actors::health::Health;
use crate::actors::quotas::Usage;
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::atomic::Ordering;

impl Out<'_> {
    pub(super) fn requests(&mut self, health: &Health) -> fmt::Result {
        let counts = &health.requests;
        for (name, help, count) in [
            (
                "storage_write_requests",
                "Writes, repairs and deletes, those of batches each for itself",
                &counts.writes,
            ),
            (
                "storage_read_requests",
                "Reads, those of batches each for itself",
                &counts.reads,
            ),
            ("storage_repair_requests", "Writes that are repairs", &counts.repairs),
            ("storage_delete_requests", "Writes that are deletes", &counts.deletes),
            (
                "storage_request_errors",
                "Reads and writes that were refused or failed, but for what a tenant's quota refuses; a missing key is neither",
                &counts.errors,
            ),
        ] {
            self.counter(name, help, load(count))?;
        }
        for (name, help, histogram) in [
            (
                "storage_write_duration_seconds",
                "Time from a write's arrival to its answer",
                &counts.write_time,
            ),
            (
                "storage_read_duration_seconds",
                "Time from a read's arrival to its answer",
                &counts.read_time,
            ),
            (
                "storage_repair_duration_seconds",
                "Time from a repair's arrival to its answer",
                &counts.repair_time,
            ),
        ] {
            self.histogram(name, help, &histogram.counted(), MICROS)?;
        }
        self.histogram(
            "storage_write_bytes",
            "Bytes of the values written",
            &counts.write_bytes.counted(),
            1.0,
        )?;
        self.histogram(
            "storage_read_bytes",
            "Bytes of the values that reads found, siblings included",
            &counts.read_bytes.counted(),
            1.0,
        )?;
        let admission = health.admission.stats();
        self.counter(
            "storage_requests_refused",
            "Requests refused for lack of room",
            admission.refused,
        )?;
        self.counter(
            "storage_requests_shed",
            "Requests refused since the node was overloaded",
            health.overload.shed(),
        )?;
        self.counter("storage_writes_slowed", "Writes that were held up", admission.slowed)?;
        self.gauge("storage_writes_in_flight", "Writes under way", admission.writes as f64)?;
        self.gauge("storage_reads_in_flight", "Reads under way", admission.reads as f64)?;
        self.gauge(
            "storage_answer_bytes_waiting",
            "Bytes of answers that clients have asked for and not taken yet",
            health.answers.held() as f64,
        )
    }

    pub(super) fn cache(&mut self, health: &Health) -> fmt::Result {
        self.counter("cache_hits", "Reads answered from the cache", load(&health.cache.hits))?;
        self.counter(
            "cache_misses",
            "Reads that the cache could not answer",
            load(&health.cache.misses),
        )?;
        let evictions = health.sum_of_shards(|shard| load(&shard.evictions));
        self.counter("cache_evictions", "Entries that had to leave the cache", evictions)?;
        let bytes = health.sum_of_shards(|shard| shard.bytes.load(Ordering::Relaxed) as u64);
        self.gauge("cache_size_bytes", "Bytes that the cache holds", bytes as f64)?;
        let entries = health.sum_of_shards(|shard| shard.entries.load(Ordering::Relaxed) as u64);
        self.gauge("cache_entries_total", "Entries that the cache holds", entries as f64)?;
        let shards = health.shards.len().max(1) as f64;
        let recency = health.shards.iter().map(|shard| shard.recency()).sum::<f64>() / shards;
        self.gauge(
            "cache_recency_weight",
            "Weight of recency in the choice of what stays, 0 to 1; that of frequency is the rest",
            recency,
        )
    }

    /// Tenants that the configuration names, and all others together.
    pub(super) fn tenants(&mut self, health: &Health) -> fmt::Result {
        let own = health.quotas.usage();
        let others = health.quotas.usage_of_others(&own);
        let all: Vec<&Usage> = own.iter().chain([&others]).collect();
        let of = |number: fn(&Usage) -> u64| all.iter().map(move |usage| (&usage.tenant, number(usage) as f64));
        self.family(
            (
                "tenant_operations",
                "Operations that a tenant asked for, those of batches each for itself; \":other\" stands for all without a quota of their own",
            ),
            MetricType::Counter,
            "tenant",
            of(|usage| usage.operations),
        )?;
        self.family(
            ("tenant_over_quota", "Operations refused by a tenant's quota"),
            MetricType::Counter,
            "tenant",
            of(|usage| usage.refused),
        )?;
        self.family(
            (
                "tenant_stored_bytes",
                "Bytes that a tenant has in memtables and tables, what is overwritten and not compacted away yet included",
            ),
            MetricType::Gauge,
            "tenant",
            of(|usage| usage.stored_bytes),
        )?;
        let limited = own.iter().filter(|usage| usage.most_stored_bytes > 0);
        self.family(
            (
                "tenant_stored_limit_bytes",
                "Bytes that a tenant's quota lets it have there",
            ),
            MetricType::Gauge,
            "tenant",
            limited.map(|usage| (&usage.tenant, usage.most_stored_bytes as f64)),
        )
    }
}
