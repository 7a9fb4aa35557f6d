//! The default of every key. `config.toml` gives the reasons.

use super::keys::{
    Admin, Cache, CommitLog, Compaction, Compression, Coordinator, Disk, Gossip, Level, LogFormat, Logging, MemTable,
    Metrics, Server, SsTable, Storage, Supervisor, Tracing,
};
use bytesize::ByteSize;
use std::path::PathBuf;
use std::time::Duration;

impl Default for Server {
    fn default() -> Self {
        Self {
            node_id: "storage-node-1".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 50052,
            advertise_host: None,
            max_connections: 1000,
            max_concurrent_streams: 1024,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            max_queue_delay: Duration::from_millis(100),
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
            idempotency_window: Duration::from_secs(300),
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

impl Default for Coordinator {
    fn default() -> Self {
        Self {
            enabled: false,
            host: "127.0.0.1".to_owned(),
            port: 50051,
            virtual_nodes: 150,
            tries: 10,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
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
            cluster_name: "pairdb".to_owned(),
            bind_host: None,
            bind_port: 7946,
            key_file: None,
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
            enabled: true,
            host: "127.0.0.1".to_owned(),
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

impl Default for Tracing {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoint: "http://127.0.0.1:4317".to_owned(),
            sample_ratio: 0.01,
            slow_request: Duration::from_millis(100),
            export_timeout: Duration::from_secs(5),
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self {
            max_restarts: 100,
            restart_window: Duration::from_secs(10),
            stuck_after: Duration::from_secs(10),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 50053,
            fault_injection: false,
        }
    }
}
