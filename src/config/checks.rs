//! Values that cannot work, and what would be right.
//!
//! Owns: the checks that types alone do not make. Does not own: what a value does.

use super::{Config, ConfigError};
use crate::storage::limits;
use bytesize::ByteSize;

/// Least room for memtables that takes the largest value.
const MIN_MEMTABLE: u64 = 16 << 20;

impl Config {
    /// Checks what types alone do not.
    ///
    /// # Errors
    /// All values that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, key: &str, value: &dyn std::fmt::Display, right: &str| {
            if !holds {
                problems.push(format!("{key} = {value}: {right}"));
            }
        };
        let server = &self.server;
        let id_fits =
            limits::check_clock_entry(&server.node_id, 0).is_ok() && !server.node_id.chars().any(char::is_control);
        require(
            id_fits,
            "server.node_id",
            &server.node_id,
            "must have 1 to 128 bytes and no control characters",
        );
        require(
            !server.host.is_empty(),
            "server.host",
            &server.host,
            "must be an address or a name",
        );
        require(
            !self.admin.fault_injection || !self.admin.host.is_empty(),
            "admin.host",
            &self.admin.host,
            "must be an address or a name",
        );
        require(
            server.max_connections > 0,
            "server.max_connections",
            &server.max_connections,
            "must be at least 1",
        );
        require(
            server.max_concurrent_streams > 0,
            "server.max_concurrent_streams",
            &server.max_concurrent_streams,
            "must be at least 1",
        );
        for (key, value) in [
            ("server.keepalive_interval", server.keepalive_interval),
            ("server.keepalive_timeout", server.keepalive_timeout),
            ("server.read_timeout", server.read_timeout),
            ("server.write_timeout", server.write_timeout),
            ("server.shutdown_timeout", server.shutdown_timeout),
            ("commit_log.max_age", self.commit_log.max_age),
            ("commit_log.sync_interval", self.commit_log.sync_interval),
            ("supervisor.restart_window", self.supervisor.restart_window),
            ("supervisor.stuck_after", self.supervisor.stuck_after),
            ("disk.check_interval", self.disk.check_interval),
        ] {
            let shown = humantime::format_duration(value);
            require(!value.is_zero(), key, &shown, "must be longer than zero, as in \"10s\"");
        }
        let log = &self.commit_log;
        require(
            log.segment_size >= ByteSize::kib(64),
            "commit_log.segment_size",
            &log.segment_size,
            "must be at least 64KiB",
        );
        require(
            (ByteSize::kib(4)..=ByteSize::mib(256)).contains(&log.buffer_size),
            "commit_log.buffer_size",
            &log.buffer_size,
            "must be 4KiB to 256MiB",
        );
        let memory = &self.mem_table;
        require(
            memory.max_size >= ByteSize::b(MIN_MEMTABLE),
            "mem_table.max_size",
            &memory.max_size,
            "must be at least 16MiB, so that the largest value (10MiB) fits",
        );
        require(
            memory.flush_threshold > ByteSize::b(0) && memory.flush_threshold <= memory.max_size,
            "mem_table.flush_threshold",
            &memory.flush_threshold,
            "must be above 0 and at most mem_table.max_size: a memtable is sealed at the threshold, and the room up to max_size takes what is under way meanwhile",
        );
        require(
            (2..=64).contains(&memory.num_mem_tables),
            "mem_table.num_mem_tables",
            &memory.num_mem_tables,
            "must be 2 to 64: one is written to while another is flushed",
        );
        let table = &self.sstable;
        require(
            table.bloom_filter_fp > 0.0 && table.bloom_filter_fp <= 0.5,
            "sstable.bloom_filter_fp",
            &table.bloom_filter_fp,
            "must be above 0 and at most 0.5, as in 0.01 for 1 %",
        );
        require(
            (ByteSize::b(512)..=ByteSize::mib(4)).contains(&table.block_size),
            "sstable.block_size",
            &table.block_size,
            "must be 512B to 4MiB",
        );
        for (key, size) in [
            ("sstable.l0_size", table.l0_size),
            ("sstable.l1_size", table.l1_size),
            ("sstable.l2_size", table.l2_size),
        ] {
            require(size >= ByteSize::mib(1), key, &size, "must be at least 1MiB");
        }
        require(
            (1..=100).contains(&table.level_multiplier),
            "sstable.level_multiplier",
            &table.level_multiplier,
            "must be 1 to 100",
        );
        let (disk, throttle) = (&self.disk, self.storage.max_disk_usage);
        require(
            disk.warn_usage > 0.0 && disk.warn_usage <= throttle,
            "disk.warn_usage",
            &disk.warn_usage,
            "must be above 0 and at most storage.max_disk_usage, as in 0.8 for 80 %",
        );
        require(
            throttle < disk.stop_usage,
            "storage.max_disk_usage",
            &throttle,
            "must be below disk.stop_usage: writes are slowed down before they are refused",
        );
        require(
            disk.stop_usage <= 1.0,
            "disk.stop_usage",
            &disk.stop_usage,
            "must be at most 1, as in 0.95 for 95 %",
        );
        let compaction = &self.compaction;
        require(
            (1..=100).contains(&compaction.l0_trigger),
            "compaction.l0_trigger",
            &compaction.l0_trigger,
            "must be 1 to 100: every read asks all tables of L0",
        );
        require(
            compaction.workers <= 64,
            "compaction.workers",
            &compaction.workers,
            "must be 0 (no compaction) to 64",
        );
        require(
            table.index_interval > 0,
            "sstable.index_interval",
            &table.index_interval,
            "must be at least 1",
        );
        let cache = &self.cache;
        for (key, weight) in [
            ("cache.frequency_weight", cache.frequency_weight),
            ("cache.recency_weight", cache.recency_weight),
        ] {
            require((0.0..=1.0).contains(&weight), key, &weight, "must be 0 to 1");
        }
        require(
            cache.frequency_weight + cache.recency_weight > 0.0,
            "cache.recency_weight",
            &cache.recency_weight,
            "must be above 0 when cache.frequency_weight is 0: only their ratio counts",
        );
        require(
            (1..=100_000).contains(&self.supervisor.max_restarts),
            "supervisor.max_restarts",
            &self.supervisor.max_restarts,
            "must be 1 to 100000",
        );
        let metrics = &self.metrics;
        require(
            !metrics.enabled || !metrics.host.is_empty(),
            "metrics.host",
            &metrics.host,
            "must be the address to listen on, as in \"127.0.0.1\"",
        );
        let (server, admin) = (&self.server, &self.admin);
        let is_same =
            |host: &str, port: u16| metrics.enabled && metrics.port == port && metrics.host == host && port != 0;
        require(
            !(is_same(&server.host, server.port) || admin.fault_injection && is_same(&admin.host, admin.port)),
            "metrics.port",
            &metrics.port,
            "must be another than server.port and admin.port",
        );
        let is_plain = |path: &str| {
            let chars = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
            path.starts_with('/') && !path.ends_with('/') && path.chars().all(chars)
        };
        let is_taken = |path: &str| path == "/status" || path.starts_with("/health");
        require(
            is_plain(&metrics.path) && !is_taken(&metrics.path),
            "metrics.path",
            &metrics.path,
            "must begin with \"/\", hold letters, digits, \"-\", \"_\", \".\" and \"/\" alone, and be neither /status nor below /health",
        );
        problems.extend(self.check_tracing());
        problems.extend(self.check_tenants());
        problems.extend(self.check_cluster());
        problems.extend(self.check_security());
        problems.extend(self.check_gossip());
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Impossible(problems))
        }
    }

    fn check_tracing(&self) -> Vec<String> {
        let (tracing, mut problems) = (&self.tracing, Vec::new());
        if !(0.0..=1.0).contains(&tracing.sample_ratio) {
            let ratio = tracing.sample_ratio;
            problems.push(format!(
                "tracing.sample_ratio = {ratio}: must be 0 to 1, as in 0.01 for 1 %"
            ));
        }
        let address = tracing.endpoint.parse::<http::Uri>();
        let is_plain = |uri: &http::Uri| uri.scheme_str() == Some("http") && uri.host().is_some();
        if tracing.endpoint.contains('@') {
            // Not told: it would stand in the log.
            problems.push(
                "tracing.endpoint: must hold no user and no password, which would be logged: nothing with \"@\""
                    .to_owned(),
            );
        } else if !address.is_ok_and(|uri| is_plain(&uri)) {
            let endpoint = &tracing.endpoint;
            problems.push(format!(
                "tracing.endpoint = {endpoint}: must be the collector's address for OTLP over gRPC, as in \
                 \"http://127.0.0.1:4317\"; this version encrypts nothing on the way there"
            ));
        }
        if tracing.export_timeout.is_zero() {
            problems.push("tracing.export_timeout = 0s: must be longer than zero, as in \"5s\"".to_owned());
        }
        problems
    }

    fn check_tenants(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for name in self.tenants.quota.keys() {
            if let Err(error) = limits::check_tenant(name) {
                problems.push(format!(
                    "tenants.quota.{name:?}: is no tenant, whose name must have 1 to {} bytes without ':' and control \
                     characters ({error})",
                    limits::MAX_TENANT_BYTES
                ));
            }
        }
        problems
    }
}
