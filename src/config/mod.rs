//! The configuration: file, then environment, then flags.
//!
//! Owns: every key, its default, and the checks of values that cannot work. Does not own: what a value does. The
//! keys of the low-level design keep their names; `config.toml` documents each.

mod advertised;
mod checks;
mod defaults;
mod gossip;
mod keys;
mod loading;
mod security;
mod sizes;

pub use keys::{
    Cache, Cluster, CommitLog, Compaction, Compression, Config, Coordinator, Disk, Gossip, Level, LogFormat, Logging,
    MemTable, Metrics, Quota, Server, SsTable, Storage, Supervisor, Tenants, Tracing,
};
pub use loading::ConfigError;
pub use security::Security;
