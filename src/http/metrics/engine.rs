//! Memtables, tables, the log and compaction.
//!
//! Owns: the names of these metrics. Does not own: their counts.

use super::{MICROS, Out, load};
use crate::actors::health::Health;
use crate::storage::levels::LEVELS;
use prometheus_client::metrics::MetricType;
use std::fmt;

impl Out<'_> {
    pub(super) fn memtables(&mut self, health: &Health) -> fmt::Result {
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

    pub(super) fn tables(&mut self, health: &Health) -> fmt::Result {
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
            "Time that a read of a key took which looked into tables",
            &reads,
            MICROS,
        )?;
        let writes = health.flush.time.counted().and(&health.jobs.table_times().counted());
        self.counter("sstable_writes", "Tables written", writes.total())?;
        self.histogram(
            "sstable_write_duration_seconds",
            "Time that writing a table took, without the pauses by which compaction keeps its pace",
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

    pub(super) fn log(&mut self, health: &Health) -> fmt::Result {
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
            "Time that appending a batch to an open segment took, without its sync",
            &times.append.counted(),
            MICROS,
        )?;
        self.histogram(
            "commitlog_rotation_duration_seconds",
            "Time that appending a batch took which began a new segment, without its sync",
            &times.rotate.counted(),
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

    /// What the start of this process found.
    pub(super) fn recovery(&mut self, health: &Health) -> fmt::Result {
        let recovery = &health.recovery;
        self.gauge(
            "recovery_duration_seconds",
            "Time that the start took to open the tables and read the log",
            recovery.took.as_secs_f64(),
        )?;
        self.gauge(
            "recovery_log_bytes",
            "Bytes of the commit log that it read",
            recovery.report.log_bytes as f64,
        )?;
        self.gauge(
            "recovery_replayed_writes",
            "Writes that it found in the log and in no table",
            recovery.report.replayed as f64,
        )
    }

    pub(super) fn compaction(&mut self, health: &Health) -> fmt::Result {
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
            "How far compaction is behind: up to 1 is ordinary work, from 4 on writes are delayed",
            debt.pressure,
        )?;
        self.gauge(
            "compaction_l0_limit",
            "Tables of L0 beyond which writes are refused",
            debt.l0_most as f64,
        )?;
        self.gauge(
            "compaction_write_delay_seconds",
            "Delay of each write meanwhile",
            debt.write_delay().as_secs_f64(),
        )?;
        let failing = health.compaction.failing.load().is_some();
        self.gauge("compaction_failing", "1 while compaction fails", f64::from(failing))
    }
}
