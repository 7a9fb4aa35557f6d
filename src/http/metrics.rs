//! `/metrics`: all numbers of the node, in the text format of OpenMetrics 1.0, which Prometheus reads.
//!
//! Owns: the names, units and help of the metrics; the names that PairDB's dashboards and alerts know are kept, also where
//! a gauge of theirs ends in `_total`. Does not own: the numbers, which are read from where they are counted anyway when
//! somebody asks: a request pays for no more than a few additions.

use crate::actors::health::{Health, Status};
use crate::actors::mailbox::MailboxStats;
use crate::actors::vitals;
use crate::actors::watched::Pulse;
use crate::storage::histogram::{Counted, Histogram};
use crate::storage::levels::LEVELS;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The type of the answer.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Microseconds in a second: durations are counted in the former and shown in the latter.
const MICROS: f64 = 1e6;

/// All metrics, as they are now.
pub(super) fn of(health: &Arc<Health>) -> Result<String, fmt::Error> {
    let node_id = (Cow::Borrowed("node_id"), Cow::Owned(health.node_id.clone()));
    let mut registry = Registry::with_prefix_and_labels("pairdb", [node_id].into_iter());
    registry.register_collector(Box::new(Page(Arc::clone(health))));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

struct Page(Arc<Health>);

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page")
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Out(encoder);
        out.requests(&self.0)?;
        out.cache(&self.0)?;
        out.memtables(&self.0)?;
        out.tables(&self.0)?;
        out.log(&self.0)?;
        out.compaction(&self.0)?;
        out.streams(&self.0)?;
        out.tenants(&self.0)?;
        out.gossip(&self.0)?;
        out.traces(&self.0)?;
        out.system(&self.0)?;
        out.actors(&self.0)
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        counter.encode(encoder)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        gauge.encode(encoder)
    }

    /// One number for each value of a label.
    fn family<L: AsRef<str>>(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        label: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (of, value) in values {
            let labels = [(label, of.as_ref())];
            let mut encoder = encoder.encode_family(&labels)?;
            match kind {
                MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
                _ => encoder.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    /// A histogram, whose numbers are shown divided by `unit`.
    fn histogram(&mut self, name: &str, help: &str, counted: &Counted, unit: f64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        encode_histogram(encoder, counted, unit)
    }

    fn requests(&mut self, health: &Health) -> fmt::Result {
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
                "Reads and writes that were refused or failed; a missing key is neither",
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
        self.gauge("storage_reads_in_flight", "Reads under way", admission.reads as f64)
    }

    fn cache(&mut self, health: &Health) -> fmt::Result {
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

    fn memtables(&mut self, health: &Health) -> fmt::Result {
        let view = health.handles.published.load();
        let entries: usize = view.memtables().map(|memtable| memtable.entries()).sum();
        self.gauge(
            "memtable_size_bytes",
            "Bytes of all memtables",
            view.memtable_bytes() as f64,
        )?;
        self.gauge("memtable_entries_total", "Entries of all memtables", entries as f64)?;
        self.gauge(
            "memtable_count",
            "Memtables, the active one included",
            view.memtables().count() as f64,
        )?;
        self.counter(
            "memtable_flushes",
            "Memtables written to a table",
            load(&health.flush.flushes),
        )?;
        self.histogram(
            "memtable_flush_duration_seconds",
            "Time that a flush took",
            &health.flush.time.counted(),
            MICROS,
        )?;
        let failing = health.flush.failing.load().is_some();
        self.gauge("memtable_flush_failing", "1 while flushing fails", f64::from(failing))?;
        let merged = load(&health.memtable.siblings_merged);
        self.counter(
            "memtable_siblings_merged",
            "Siblings merged away to keep their bound",
            merged,
        )
    }

    fn tables(&mut self, health: &Health) -> fmt::Result {
        let tables = &health.handles.published.load().tables;
        let by_level = |number: &dyn Fn(usize) -> f64| -> Vec<(String, f64)> {
            (0..LEVELS).map(|level| (level.to_string(), number(level))).collect()
        };
        self.family(
            ("sstable_count_by_level", "Tables"),
            MetricType::Gauge,
            "level",
            by_level(&|level| tables.level(level).len() as f64),
        )?;
        self.family(
            ("sstable_size_bytes_by_level", "Bytes of tables"),
            MetricType::Gauge,
            "level",
            by_level(&|level| tables.level_bytes(level) as f64),
        )?;
        let reads = health.handles.published.reads.counted();
        self.counter("sstable_reads", "Reads of a key that looked into tables", reads.total())?;
        self.histogram(
            "sstable_read_duration_seconds",
            "Time that such a read took",
            &reads,
            MICROS,
        )?;
        let writes = health.flush.time.counted().and(&health.jobs.table_times().counted());
        self.counter("sstable_writes", "Tables written", writes.total())?;
        self.histogram(
            "sstable_write_duration_seconds",
            "Time that writing a table took",
            &writes,
            MICROS,
        )?;
        self.gauge(
            "sstable_resident_bytes",
            "Memory that filters and indexes take",
            tables.resident_bytes() as f64,
        )?;
        self.gauge(
            "sstable_quarantined",
            "Tables that stand aside, damaged",
            tables.quarantine().len() as f64,
        )?;
        let scrub = &health.scrub;
        self.gauge(
            "scrub_tables",
            "Tables that the walk over all tables is to read",
            load(&scrub.tables) as f64,
        )?;
        self.gauge(
            "scrub_tables_done",
            "Tables of it that are read",
            load(&scrub.tables_done) as f64,
        )?;
        self.counter(
            "scrub_completed",
            "Walks over all tables that were completed",
            load(&scrub.completed),
        )
    }

    fn log(&mut self, health: &Health) -> fmt::Result {
        let (stats, times) = (health.log.stats(), health.log.times());
        self.gauge(
            "commitlog_segments_total",
            "Segments of the commit log",
            stats.segments as f64,
        )?;
        self.gauge("commitlog_size_bytes", "Bytes of the commit log", stats.bytes as f64)?;
        self.counter("commitlog_appends", "Batches appended to the commit log", stats.batches)?;
        self.counter("commitlog_syncs", "Syncs of the commit log", stats.syncs)?;
        self.histogram(
            "commitlog_append_duration_seconds",
            "Time that appending a batch took, without its sync",
            &times.append.counted(),
            MICROS,
        )?;
        self.histogram(
            "commitlog_sync_duration_seconds",
            "Time that a batch's sync took",
            &times.sync.counted(),
            MICROS,
        )?;
        let latched = health.log.latched().is_some();
        self.gauge(
            "commitlog_latched",
            "1 when a sync has failed and the log takes no writes",
            f64::from(latched),
        )?;
        let applied = health.handles.published.applied();
        self.counter(
            "applied_sequence",
            "Sequence number of the last write that reads see",
            applied,
        )
    }

    fn compaction(&mut self, health: &Health) -> fmt::Result {
        let (totals, debt) = (health.jobs.totals(), health.handles.published.load().tables.debt());
        let jobs = [("completed", totals.completed as f64), ("failed", totals.failed as f64)];
        self.family(
            ("compaction_jobs", "Jobs that ended"),
            MetricType::Counter,
            "status",
            jobs,
        )?;
        self.gauge(
            "compaction_jobs_active",
            "Jobs that wait or run",
            health.jobs.active() as f64,
        )?;
        self.histogram(
            "compaction_job_duration_seconds",
            "Time from a job's choice to its end",
            &health.jobs.times().counted(),
            MICROS,
        )?;
        self.counter(
            "compaction_bytes_processed",
            "Bytes of tables read by jobs",
            totals.bytes_read,
        )?;
        self.counter(
            "compaction_bytes_written",
            "Bytes of tables written by jobs",
            totals.bytes_written,
        )?;
        self.counter(
            "compaction_tombstones_dropped",
            "Tombstones that had outlived their grace",
            totals.tombstones_dropped,
        )?;
        self.gauge(
            "compaction_pending_bytes",
            "Bytes by which levels are too large",
            debt.pending_bytes as f64,
        )?;
        self.gauge(
            "compaction_pressure",
            "How far compaction is behind: from 1 on, writes are delayed",
            debt.pressure,
        )?;
        self.gauge(
            "compaction_write_delay_seconds",
            "Delay of each write meanwhile",
            debt.write_delay().as_secs_f64(),
        )
    }

    fn streams(&mut self, health: &Health) -> fmt::Result {
        for (name, number) in health.streaming.metrics(health.time.now_ms()) {
            self.gauge(name, "Of the streams to other nodes", number as f64)?;
        }
        Ok(())
    }

    fn tenants(&mut self, health: &Health) -> fmt::Result {
        let usage = health.quotas.usage();
        let stored = usage
            .iter()
            .map(|usage| (usage.tenant.as_str(), usage.stored_bytes as f64));
        self.family(
            ("tenant_stored_bytes", "Bytes that a tenant with a quota has stored"),
            MetricType::Gauge,
            "tenant",
            stored,
        )?;
        let refused = usage.iter().map(|usage| (usage.tenant.as_str(), usage.refused as f64));
        self.family(
            ("tenant_over_quota", "Requests refused by a tenant's quota"),
            MetricType::Counter,
            "tenant",
            refused,
        )
    }

    /// The node knows itself alone.
    fn gossip(&mut self, health: &Health) -> fmt::Result {
        let is_healthy = health.status().0 == Status::Healthy;
        self.gauge(
            "gossip_members_total",
            "Nodes that this one knows, itself included",
            1.0,
        )?;
        self.gauge(
            "gossip_members_healthy",
            "Of these, the healthy ones",
            f64::from(is_healthy),
        )?;
        let none = [("sent", 0.0), ("received", 0.0)];
        self.family(
            ("gossip_messages", "Messages of gossip"),
            MetricType::Counter,
            "type",
            none,
        )
    }

    fn traces(&mut self, health: &Health) -> fmt::Result {
        let counts = &health.handles.traces.counts;
        for (name, help, count) in [
            (
                "trace_spans_exported",
                "Spans that the collector has taken",
                &counts.exported,
            ),
            (
                "trace_spans_failed",
                "Spans that the collector has not taken, or not in time",
                &counts.failed,
            ),
            (
                "traces_dropped",
                "Traces for which the queue to the collector had no room",
                &counts.dropped,
            ),
            (
                "traces_limited",
                "Failed and slow requests beyond those that are kept in a second",
                &counts.limited,
            ),
        ] {
            self.counter(name, help, load(count))?;
        }
        Ok(())
    }

    fn system(&mut self, health: &Health) -> fmt::Result {
        let disks = health.disk.disks();
        let space = disks.first().map(|disk| disk.space);
        let number = |of: &dyn Fn(crate::storage::fs::Space) -> f64| space.map_or(0.0, of);
        self.gauge(
            "system_disk_usage_bytes",
            "Bytes used of the fullest disk that holds data",
            number(&|space| space.total.saturating_sub(space.available) as f64),
        )?;
        self.gauge(
            "system_disk_available_bytes",
            "Bytes left on it",
            number(&|space| space.available as f64),
        )?;
        self.gauge(
            "system_disk_usage_percent",
            "Share of it that is used",
            number(&|space| space.used() * 100.0),
        )?;
        let (memory, rates) = (vitals::memory(), health.vitals.rates());
        self.gauge(
            "system_memory_usage_bytes",
            "Memory of the process, without mapped files",
            memory.own as f64,
        )?;
        self.gauge(
            "system_memory_resident_bytes",
            "Memory of the process, with mapped files",
            memory.resident as f64,
        )?;
        self.gauge(
            "system_cpu_usage_percent",
            "Share of the machine's processors over the last minute",
            rates.cpu * 100.0,
        )?;
        self.gauge(
            "node_uptime_seconds",
            "Time since the start",
            health.uptime().as_secs_f64(),
        )?;
        let now = health.status().0;
        let state = |status: Status| (status.as_str(), f64::from(status == now));
        let states = [Status::Healthy, Status::Degraded, Status::Unhealthy].map(state);
        self.family(
            ("node_health", "1 for the state that the node is in"),
            MetricType::Gauge,
            "status",
            states,
        )?;
        let draining = health.drain_reason().is_some();
        self.gauge(
            "node_draining",
            "1 while the node takes no writes since it drains",
            f64::from(draining),
        )
    }

    fn actors(&mut self, health: &Health) -> fmt::Result {
        let children = health.tree.children();
        let restarts = children.iter().map(|child| (&child.name, child.restarts() as f64));
        self.family(
            ("actor_restarts", "Times that an actor was started again"),
            MetricType::Counter,
            "actor",
            restarts,
        )?;
        let running = children.iter().map(|child| (&child.name, f64::from(child.running)));
        self.family(
            ("actor_running", "1 while an actor runs"),
            MetricType::Gauge,
            "actor",
            running,
        )?;
        let mailboxes = health.handles.mailboxes();
        let of = |number: fn(&MailboxStats) -> f64| {
            mailboxes
                .iter()
                .map(move |(name, stats)| (name.as_str(), number(stats)))
        };
        self.family(
            ("actor_mailbox_depth", "Messages that wait or are being handled"),
            MetricType::Gauge,
            "actor",
            of(|stats| stats.messages as f64),
        )?;
        self.family(
            ("actor_mailbox_bytes", "Bytes that they hold"),
            MetricType::Gauge,
            "actor",
            of(|stats| stats.bytes as f64),
        )?;
        self.family(
            ("actor_mailbox_refused", "Messages refused since the mailbox was full"),
            MetricType::Counter,
            "actor",
            of(|stats| stats.refused as f64),
        )?;
        let pulses = health.tree.pulses();
        self.by_actor("actor_queue_seconds", "Time that a message waited", &pulses, |pulse| {
            &pulse.queued
        })?;
        self.by_actor(
            "actor_handle_seconds",
            "Time that a message was worked on",
            &pulses,
            |pulse| &pulse.worked,
        )
    }

    /// A histogram of durations for each actor.
    fn by_actor(
        &mut self,
        name: &str,
        help: &str,
        pulses: &[(String, Arc<Pulse>)],
        of: fn(&Pulse) -> &Histogram,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (actor, pulse) in pulses {
            let labels = [("actor", actor.as_str())];
            encode_histogram(encoder.encode_family(&labels)?, &of(pulse).counted(), MICROS)?;
        }
        Ok(())
    }
}

fn encode_histogram(mut encoder: MetricEncoder, counted: &Counted, unit: f64) -> fmt::Result {
    let ends = counted
        .bounds
        .iter()
        .map(|bound| *bound as f64 / unit)
        .chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = ends.zip(counted.counts.iter().copied()).collect();
    encoder.encode_histogram::<NoLabelSet>(counted.sum as f64 / unit, counted.total(), &buckets, None)
}
