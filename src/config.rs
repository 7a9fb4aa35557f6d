//! The configuration: file, then environment, then flags.
//!
//! Owns: every key, its default, and the checks of values that cannot work. Does not own: what a value does. The keys of
//! the low-level design keep their names; `config.toml` documents each.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Prefix of the environment variables: `PAIRDB__SERVER__PORT` is `server.port`.
const ENV_PREFIX: &str = "PAIRDB__";
/// Sets `server.node_id`, as orchestrators like to.
const ENV_NODE_ID: &str = "NODE_ID";
/// Least room for memtables that takes the largest value.
const MIN_MEMTABLE: u64 = 16 << 20;

/// All of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who the node is and how it is reached.
    pub server: Server,
    /// Where its data are.
    pub storage: Storage,
    /// The commit log.
    pub commit_log: CommitLog,
    /// The memtables.
    pub mem_table: MemTable,
    /// The tables.
    pub sstable: SsTable,
    /// The read cache.
    pub cache: Cache,
    /// Background compaction.
    pub compaction: Compaction,
    /// How full the disks may be.
    pub disk: Disk,
    /// Gossip of health.
    pub gossip: Gossip,
    /// Metrics over HTTP.
    pub metrics: Metrics,
    /// Logs.
    pub logging: Logging,
    /// The supervisor.
    pub supervisor: Supervisor,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Server {
    pub node_id: String,
    pub host: String,
    pub port: u16,
    pub max_connections: usize,
    #[serde(with = "humantime_serde")]
    pub read_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}

/// `[storage]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Storage {
    pub data_dir: PathBuf,
    pub commit_log_dir: Option<PathBuf>,
    pub sstable_dir: Option<PathBuf>,
    pub max_disk_usage: f64,
}

/// `[commit_log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct CommitLog {
    pub segment_size: ByteSize,
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    pub sync_writes: bool,
    #[serde(with = "humantime_serde")]
    pub sync_interval: Duration,
    pub buffer_size: ByteSize,
}

/// `[mem_table]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct MemTable {
    pub max_size: ByteSize,
    pub flush_threshold: ByteSize,
    pub num_mem_tables: usize,
}

/// `[sstable]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct SsTable {
    pub l0_size: ByteSize,
    pub l1_size: ByteSize,
    pub l2_size: ByteSize,
    pub level_multiplier: u64,
    pub bloom_filter_fp: f64,
    pub block_size: ByteSize,
    pub index_interval: usize,
    pub compression: Compression,
}

/// `sstable.compression`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "config.toml documents each value")]
pub enum Compression {
    Lz4,
    None,
}

/// `[cache]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Cache {
    pub max_size: ByteSize,
    pub frequency_weight: f64,
    pub recency_weight: f64,
    #[serde(with = "humantime_serde")]
    pub adaptive_window: Duration,
}

/// `[compaction]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Compaction {
    pub l0_trigger: usize,
    pub workers: usize,
    pub throttle: u32,
    #[serde(with = "humantime_serde")]
    pub gc_grace: Duration,
}

/// `[disk]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Disk {
    pub warn_usage: f64,
    pub stop_usage: f64,
    #[serde(with = "humantime_serde")]
    pub check_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub scrub_interval: Duration,
    pub scrub_throttle: u32,
}

/// `[gossip]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Gossip {
    pub enabled: bool,
    pub bind_port: u16,
    pub seed_nodes: Vec<String>,
    #[serde(with = "humantime_serde")]
    pub gossip_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub probe_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Metrics {
    pub enabled: bool,
    pub port: u16,
    pub path: String,
}

/// `[logging]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Logging {
    pub level: Level,
    pub format: LogFormat,
}

/// `logging.level`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "config.toml documents each value")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// `logging.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "config.toml documents each value")]
pub enum LogFormat {
    Json,
    Console,
}

/// `[supervisor]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Supervisor {
    pub max_restarts: usize,
    #[serde(with = "humantime_serde")]
    pub restart_window: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            node_id: "storage-node-1".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 50052,
            max_connections: 1000,
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            commit_log_dir: None,
            sstable_dir: None,
            max_disk_usage: 0.9,
        }
    }
}

impl Default for CommitLog {
    fn default() -> Self {
        Self {
            segment_size: ByteSize::gib(1),
            max_age: Duration::from_secs(7 * 24 * 3600),
            sync_writes: true,
            sync_interval: Duration::from_secs(1),
            buffer_size: ByteSize::mib(1),
        }
    }
}

impl Default for MemTable {
    fn default() -> Self {
        Self {
            max_size: ByteSize::mib(64),
            flush_threshold: ByteSize::mib(56),
            num_mem_tables: 2,
        }
    }
}

impl Default for SsTable {
    fn default() -> Self {
        Self {
            l0_size: ByteSize::mib(64),
            l1_size: ByteSize::mib(128),
            l2_size: ByteSize::mib(256),
            level_multiplier: 2,
            bloom_filter_fp: 0.01,
            block_size: ByteSize::kib(4),
            index_interval: 100,
            compression: Compression::Lz4,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            max_size: ByteSize::gib(1),
            frequency_weight: 0.5,
            recency_weight: 0.5,
            adaptive_window: Duration::from_secs(300),
        }
    }
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            l0_trigger: 4,
            workers: 2,
            throttle: 50,
            gc_grace: Duration::from_secs(10 * 24 * 3600),
        }
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            warn_usage: 0.8,
            stop_usage: 0.95,
            check_interval: Duration::from_millis(250),
            scrub_interval: Duration::from_secs(7 * 24 * 3600),
            scrub_throttle: 10,
        }
    }
}

impl Default for Gossip {
    fn default() -> Self {
        Self {
            enabled: false,
            bind_port: 7946,
            seed_nodes: Vec::new(),
            gossip_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_millis(500),
            probe_interval: Duration::from_secs(1),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            enabled: false,
            port: 9091,
            path: "/metrics".to_owned(),
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            level: Level::Info,
            format: LogFormat::Console,
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self {
            max_restarts: 100,
            restart_window: Duration::from_secs(10),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read, or a key or value does not fit.
    #[error("{0}")]
    Unreadable(String),
    /// Values that cannot work, each with its key, what it is and what would be right.
    #[error("the configuration cannot work:\n  - {}", .0.join("\n  - "))]
    Impossible(Vec<String>),
}

impl Config {
    /// Reads a file, if there is one, then `environment`, then `flags` (key and value), and checks the whole.
    ///
    /// # Errors
    /// Names the key, the value and what would be right.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(config::File::from(file).format(config::FileFormat::Toml));
        }
        let unreadable = |error: config::ConfigError| ConfigError::Unreadable(error.to_string());
        let mut overrides: Vec<(String, String)> = Vec::new();
        for (name, value) in environment {
            if name == ENV_NODE_ID {
                // Behind the prefixed name, which says more exactly what is meant.
                overrides.insert(0, ("server.node_id".to_owned(), value));
            } else if let Some(key) = name.strip_prefix(ENV_PREFIX) {
                overrides.push((key.to_lowercase().replace("__", "."), value));
            }
        }
        overrides.extend(flags.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        for (key, value) in overrides {
            builder = if key == "gossip.seed_nodes" {
                let nodes: Vec<String> = value.split(',').map(|node| node.trim().to_owned()).collect();
                builder.set_override(key, nodes).map_err(unreadable)?
            } else {
                builder.set_override(key, value).map_err(unreadable)?
            };
        }
        let merged = builder.build().map_err(unreadable)?;
        let config: Self = serde_path_to_error::deserialize(merged).map_err(|error| {
            let key = error.path().to_string();
            ConfigError::Unreadable(format!("configuration key {key}: {}", error.into_inner()))
        })?;
        config.check()?;
        Ok(config)
    }

    /// Where the log is.
    #[must_use]
    pub fn commit_log_dir(&self) -> PathBuf {
        let default = || self.storage.data_dir.join("commitlog");
        self.storage.commit_log_dir.clone().unwrap_or_else(default)
    }

    /// Where the tables are.
    #[must_use]
    pub fn sstable_dir(&self) -> PathBuf {
        let default = || self.storage.data_dir.join("sstables");
        self.storage.sstable_dir.clone().unwrap_or_else(default)
    }

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
        let id_fits = crate::storage::limits::check_clock_entry(&server.node_id, 0).is_ok()
            && !server.node_id.chars().any(char::is_control);
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
            server.max_connections > 0,
            "server.max_connections",
            &server.max_connections,
            "must be at least 1",
        );
        for (key, value) in [
            ("server.read_timeout", server.read_timeout),
            ("server.write_timeout", server.write_timeout),
            ("server.shutdown_timeout", server.shutdown_timeout),
            ("commit_log.max_age", self.commit_log.max_age),
            ("commit_log.sync_interval", self.commit_log.sync_interval),
            ("supervisor.restart_window", self.supervisor.restart_window),
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
        problems.extend(self.not_yet());
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Impossible(problems))
        }
    }

    /// Values that are well-formed, but that this version cannot honour. Accepting them would promise what is not done.
    fn not_yet(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut only = |kept: bool, key: &str, value: String, accepted: &str, lacks: &str| {
            if !kept {
                problems.push(format!(
                    "{key} = {value}: this version has no {lacks}; leave the key out, or set it to {accepted}"
                ));
            }
        };
        only(!self.gossip.enabled, "gossip.enabled", "true".into(), "false", "gossip");
        only(
            !self.metrics.enabled,
            "metrics.enabled",
            "true".into(),
            "false",
            "metrics endpoint",
        );
        problems
    }
}
