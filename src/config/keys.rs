//! Every key, by section, with its type.
//!
//! Owns: names and types. Does not own: defaults, or which values can work.

use super::security::Security;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

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
    /// The other nodes.
    pub cluster: Cluster,
    /// Who puts the nodes together to a cluster.
    pub coordinator: Coordinator,
    /// What each tenant may use.
    pub tenants: Tenants,
    /// How full the disks may be.
    pub disk: Disk,
    /// Gossip of health.
    pub gossip: Gossip,
    /// Metrics over HTTP.
    pub metrics: Metrics,
    /// Logs.
    pub logging: Logging,
    /// Traces.
    pub tracing: Tracing,
    /// The supervisor.
    pub supervisor: Supervisor,
    /// Faults to see that the node holds.
    pub admin: Admin,
    /// Who may talk to the node, and how.
    pub security: Security,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Server {
    pub node_id: String,
    pub host: String,
    pub port: u16,
    pub advertise_host: Option<String>,
    pub max_connections: usize,
    pub max_concurrent_streams: u32,
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub keepalive_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub read_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub max_queue_delay: Duration,
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
    #[serde(with = "humantime_serde")]
    pub idempotency_window: Duration,
}

/// `[commit_log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct CommitLog {
    #[serde(serialize_with = "super::sizes::serialize")]
    pub segment_size: ByteSize,
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    pub sync_writes: bool,
    #[serde(with = "humantime_serde")]
    pub sync_interval: Duration,
    #[serde(serialize_with = "super::sizes::serialize")]
    pub buffer_size: ByteSize,
}

/// `[mem_table]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct MemTable {
    #[serde(serialize_with = "super::sizes::serialize")]
    pub max_size: ByteSize,
    #[serde(serialize_with = "super::sizes::serialize")]
    pub flush_threshold: ByteSize,
    pub num_mem_tables: usize,
}

/// `[sstable]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct SsTable {
    #[serde(serialize_with = "super::sizes::serialize")]
    pub l0_size: ByteSize,
    #[serde(serialize_with = "super::sizes::serialize")]
    pub l1_size: ByteSize,
    #[serde(serialize_with = "super::sizes::serialize")]
    pub l2_size: ByteSize,
    pub level_multiplier: u64,
    pub bloom_filter_fp: f64,
    #[serde(serialize_with = "super::sizes::serialize")]
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
    #[serde(serialize_with = "super::sizes::serialize")]
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

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Cluster {
    pub nodes: BTreeMap<String, String>,
}

/// `[tenants]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Tenants {
    pub default: Quota,
    pub quota: BTreeMap<String, Quota>,
}

/// `tenants.default`, and each of `tenants.quota`
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Quota {
    pub operations_per_s: u64,
    #[serde(serialize_with = "super::sizes::serialize")]
    pub bytes_per_s: ByteSize,
    #[serde(serialize_with = "super::sizes::serialize")]
    pub stored_bytes: ByteSize,
}

/// `[coordinator]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Coordinator {
    pub enabled: bool,
    pub host: String,
    pub port: u16,
    pub virtual_nodes: u32,
    pub tries: u32,
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
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
    pub cluster_name: String,
    pub bind_host: Option<String>,
    pub bind_port: u16,
    pub key_file: Option<PathBuf>,
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
    pub host: String,
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
    Trace,
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

/// `[tracing]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Tracing {
    pub enabled: bool,
    pub endpoint: String,
    pub sample_ratio: f64,
    #[serde(with = "humantime_serde")]
    pub slow_request: Duration,
    #[serde(with = "humantime_serde")]
    pub export_timeout: Duration,
}

/// `[supervisor]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Supervisor {
    pub max_restarts: usize,
    #[serde(with = "humantime_serde")]
    pub restart_window: Duration,
    #[serde(with = "humantime_serde")]
    pub stuck_after: Duration,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "config.toml documents each key")]
pub struct Admin {
    pub host: String,
    pub port: u16,
    pub fault_injection: bool,
}

impl Level {
    /// As the configuration has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl Config {
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
}
