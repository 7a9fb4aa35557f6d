//! What a node is made of: the engine's options, and what all generations of the actors share.
//!
//! Owns: the translation of the configuration. Does not own: the actors (see [`super::children`]), or any order.

use super::machine::Machine;
use crate::actors::Handles;
use crate::actors::address_book::{AddressBook, NodeAddress};
use crate::actors::admission::{Admission, AdmissionLimits};
use crate::actors::answer_room::AnswerRoom;
use crate::actors::cache::{CacheStats, ShardStats};
use crate::actors::compaction::CompactionStats;
use crate::actors::disk::DiskWatch;
use crate::actors::drain::{Drain, Drained};
use crate::actors::faults::{AFTER_INSTALL, BEFORE_INSTALL, Faults};
use crate::actors::flush::FlushStats;
use crate::actors::gossip::names::NameService;
use crate::actors::gossip::watch::GossipWatch;
use crate::actors::health::{Health, Recovery};
use crate::actors::history::History;
use crate::actors::mailbox::{Bound, Mailbox};
use crate::actors::memtable::MemtableStats;
use crate::actors::overload::Overload;
use crate::actors::peers::Peers;
use crate::actors::quotas::{Quota, Quotas};
use crate::actors::request_counts::RequestCounts;
use crate::actors::requests::{Requests, Timeouts};
use crate::actors::shard::Shard;
use crate::actors::streaming::Streaming;
use crate::actors::streaming::registry::Streams;
use crate::actors::streaming::tap::Taps;
use crate::actors::supervisor::Tree;
use crate::actors::trail::traces::Traces;
use crate::actors::vitals::Vitals;
use crate::actors::wal::SharedLog;
use crate::config::{self, Config};
use crate::rpc::peer::GrpcDial;
use crate::rpc::security::Security;
use crate::rpc::server::Http2;
use crate::storage::compaction::debt::LevelOptions;
use crate::storage::compaction::jobs::Jobs;
use crate::storage::compaction::throttle::Throttle;
use crate::storage::fs::{DirLock, FileSystem};
use crate::storage::idempotency::{REMEMBERED_BYTES, Recent};
use crate::storage::log::writer::LogOptions;
use crate::storage::recovery::{Options, Recovered};
use crate::storage::scrub::ScrubProgress;
use crate::storage::space::SpaceThresholds;
use crate::storage::stream_records::StreamRecord;
use crate::storage::table::TableOptions;
use crate::storage::table::block::Compression;
use crate::storage::tables::{Installer, Moment, Tables, Watch};
use crate::storage::time::Time;
use crate::storage::view::Published;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Most writes under way: far more than share a sync, far less than memory minds. Dozens of the largest batches.
const MAX_WRITES: usize = 65_536;
/// Most reads under way.
const MAX_READS: usize = 65_536;
/// Reads of tables that run at once, each on a thread that may block.
const MAX_LOADS: usize = 32;
/// Scans that may be open at once: each may keep a full set of memtables alive.
const MAX_SCANS: usize = 4;
/// Copies to other nodes that may be under way at once.
const MAX_COPIES: usize = 4;
/// Most bytes that wait in one cache shard's mailbox: half of them of reads, which are keys, and half of writes, with their values.
const CACHE_MAILBOX_BYTES: usize = 32 << 20;
/// Most bytes that wait in the mailbox of an actor that is told of no values.
const MAILBOX_BYTES: usize = 16 << 20;
/// Most cache shards; more than cores would only cost.
const MAX_SHARDS: usize = 16;

pub(super) fn bytes(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// How a node with this configuration speaks HTTP/2.
#[must_use]
pub fn http2(config: &Config) -> Http2 {
    Http2 {
        max_streams: config.server.max_concurrent_streams,
        keepalive_interval: config.server.keepalive_interval,
        keepalive_timeout: config.server.keepalive_timeout,
    }
}

/// How the engine of a node with this configuration is laid out.
#[must_use]
pub fn storage_options(config: &Config) -> Options {
    Options {
        data_dir: config.storage.data_dir.clone(),
        sstable_dir: config.sstable_dir(),
        log: LogOptions {
            dir: config.commit_log_dir(),
            segment_size: config.commit_log.segment_size.as_u64(),
            max_age_ms: config.commit_log.max_age.as_millis() as u64,
        },
        table: TableOptions {
            block_size: bytes(config.sstable.block_size),
            index_interval: config.sstable.index_interval,
            bloom_filter_fp: config.sstable.bloom_filter_fp,
            compression: match config.sstable.compression {
                config::Compression::Lz4 => Compression::Lz4,
                config::Compression::None => Compression::None,
            },
        },
        levels: LevelOptions {
            l0_trigger: config.compaction.l0_trigger,
            l0_size: config.sstable.l0_size.as_u64(),
            l1_size: config.sstable.l1_size.as_u64(),
            l2_size: config.sstable.l2_size.as_u64(),
            level_multiplier: config.sstable.level_multiplier,
            gc_grace_ms: u64::try_from(config.compaction.gc_grace.as_millis()).unwrap_or(u64::MAX),
        },
        flush_threshold: bytes(config.mem_table.flush_threshold),
        parallel_replay: true,
    }
}

/// MB/s, as the configuration has them, in bytes a second.
pub(super) fn rate(megabytes: u32) -> u64 {
    u64::from(megabytes).saturating_mul(1_000_000)
}

pub(super) fn thresholds(config: &Config) -> SpaceThresholds {
    SpaceThresholds {
        warn: config.disk.warn_usage,
        throttle: config.storage.max_disk_usage,
        stop: config.disk.stop_usage,
    }
}

/// The quotas of tenants, and that of everybody else.
pub(super) fn quota_settings(config: &Config) -> (BTreeMap<String, Quota>, Quota) {
    let quota = |quota: &config::Quota| Quota {
        operations_per_s: quota.operations_per_s,
        bytes_per_s: quota.bytes_per_s.as_u64(),
        stored_bytes: quota.stored_bytes.as_u64(),
    };
    let tenants = &config.tenants;
    let own = tenants
        .quota
        .iter()
        .map(|(name, own)| (name.clone(), quota(own)))
        .collect();
    (own, quota(&tenants.default))
}

fn quotas(config: &Config, published: &Arc<Published>, time: &Arc<dyn Time>) -> Arc<Quotas> {
    let (own, default) = quota_settings(config);
    Quotas::new(own, default, Arc::clone(published), Arc::clone(time))
}

/// Where the other nodes are.
pub(super) fn addresses(config: &Config) -> BTreeMap<String, NodeAddress> {
    let nodes = config.cluster.nodes.iter();
    // The configuration was checked: all of them are addresses.
    nodes
        .filter_map(|(id, address)| Some((id.clone(), NodeAddress::parse(address)?)))
        .collect()
}

/// Has installations of tables pass the points of those who install.
fn installs_pass_points(faults: Arc<Faults>) -> Watch {
    Box::new(move |installer, moment| {
        let actor = match installer {
            Installer::Flush => "flush",
            Installer::Compaction => "compaction",
        };
        let point = match moment {
            Moment::Before => BEFORE_INSTALL,
            Moment::After => AFTER_INSTALL,
        };
        // No error is injected there: it would be the disk's, which has points of its own.
        let _on = faults.pass(actor, point);
    })
}

/// What the actors share, made once: it outlives every generation of them.
pub(super) struct Parts {
    pub(super) requests: Requests,
    pub(super) health: Arc<Health>,
    pub(super) tree: Arc<Tree>,
    pub(super) log: Arc<SharedLog>,
    pub(super) tables: Arc<Tables>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) scrub_throttle: Arc<Throttle>,
    pub(super) security: Arc<Security>,
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) time: Arc<dyn Time>,
    pub(super) name_service: NameService,
}

/// What a start found on the disk.
pub(super) struct Found {
    pub(super) recovered: Recovered,
    /// How long that took.
    pub(super) took: Duration,
    pub(super) is_draining: bool,
    pub(super) streams: Vec<StreamRecord>,
}

impl Parts {
    pub(super) fn new(
        config: &Config,
        found: Found,
        machine: Machine,
        faults: Arc<Faults>,
        (port, gossip): (u16, Option<Arc<GossipWatch>>),
        traces: Arc<Traces>,
        security: Arc<Security>,
    ) -> (Self, Vec<DirLock>) {
        let Found {
            recovered,
            took,
            is_draining,
            streams,
        } = found;
        let published = recovered.published;
        let Machine {
            fs,
            time,
            threads,
            name_service,
        } = machine;
        let memory = config.mem_table.num_mem_tables;
        let write_bytes = memory.saturating_mul(bytes(config.mem_table.max_size));
        let disk = DiskWatch::new(thresholds(config));
        let admission = Admission::new(
            AdmissionLimits {
                writes: MAX_WRITES,
                write_bytes,
                slow_bytes: memory.saturating_mul(bytes(config.mem_table.flush_threshold)),
                reads: MAX_READS,
            },
            Arc::clone(&published),
            Arc::clone(&disk),
        );
        let overload = Overload::new(config.server.max_queue_delay, Arc::clone(&time));
        let quotas = quotas(config, &published, &time);
        let shards = threads.cores().min(MAX_SHARDS);
        let mailbox = |messages, bytes| Bound { messages, bytes };
        let window_ms = u64::try_from(config.storage.idempotency_window.as_millis()).unwrap_or(u64::MAX);
        let mut recent = Recent::new(window_ms, REMEMBERED_BYTES);
        for write in recovered.remembered {
            recent.recover(write, true);
        }
        recent.expire(time.now_ms());
        let recent = Arc::new(Mutex::new(recent));
        let tree = Arc::clone(faults.tree());
        tree.trace_to(Arc::clone(&traces));
        let handles = Handles {
            faults,
            wal: Mailbox::new(mailbox(2 * MAX_WRITES, write_bytes)),
            memtable: Mailbox::new(mailbox(MAX_WRITES, write_bytes)),
            flush: Mailbox::new(mailbox(MAX_WRITES, write_bytes)),
            compaction: Mailbox::new(mailbox(MAX_WRITES, write_bytes)),
            scrub: Mailbox::new(mailbox(MAX_WRITES, write_bytes)),
            disk: Mailbox::new(mailbox(MAX_WRITES, write_bytes)),
            caches: (0..shards)
                .map(|_| Shard::new(mailbox(2 * MAX_READS, CACHE_MAILBOX_BYTES)))
                .collect(),
            gateway: Mailbox::new(mailbox(MAX_READS, MAILBOX_BYTES)),
            streams: Mailbox::new(mailbox(MAX_READS, MAILBOX_BYTES)),
            published,
            recent: Arc::clone(&recent),
            taps: Arc::new(Taps::default()),
            threads,
            traces,
        };
        let (files, dir) = (Arc::clone(&fs), config.storage.data_dir.clone());
        let streaming = Arc::new(Streaming {
            streams: Streams::new(files, dir, Arc::clone(&handles.taps), streams),
            mailbox: handles.streams.clone(),
        });
        let mut log = recovered.log;
        log.set_flushed(recovered.tables.flushed_seq());
        let log = SharedLog::new(log, recent);
        recovered
            .tables
            .watch(installs_pass_points(Arc::clone(&handles.faults)));
        let jobs = Jobs::new(
            Arc::clone(&recovered.tables),
            Arc::clone(&handles.published),
            Arc::clone(&time),
            rate(config.compaction.throttle),
        );
        let drained = Drained {
            admission: Arc::clone(&admission),
            handles: handles.clone(),
            log: Arc::clone(&log),
            fs: Arc::clone(&fs),
            dir: config.storage.data_dir.clone(),
            time: Arc::clone(&time),
        };
        let drain = Drain::new(drained, is_draining);
        let counts = Arc::new(RequestCounts::default());
        let cache = Arc::new(CacheStats::default());
        let answers: Arc<AnswerRoom> = Arc::default();
        let health = Arc::new(Health {
            node_id: config.server.node_id.clone(),
            address: NodeAddress {
                host: config.advertised_host().to_owned(),
                port,
            }
            .to_string(),
            started: time.elapsed(),
            recovery: Recovery {
                took,
                report: recovered.report,
            },
            time: Arc::clone(&time),
            handles: handles.clone(),
            admission: Arc::clone(&admission),
            overload: Arc::clone(&overload),
            quotas: Arc::clone(&quotas),
            answers: Arc::clone(&answers),
            log: Arc::clone(&log),
            tree: Arc::clone(&tree),
            flush: Arc::new(FlushStats::default()),
            scrub: Arc::new(ScrubProgress::default()),
            drain: Arc::clone(&drain),
            disk: Arc::clone(&disk),
            compaction: Arc::new(CompactionStats::default()),
            jobs: Arc::clone(&jobs),
            memtable: Arc::new(MemtableStats::default()),
            vitals: Vitals::new(Arc::clone(&time), Arc::clone(&counts), Arc::clone(&cache), disk),
            history: History::new(
                Arc::clone(&time),
                Arc::clone(&counts),
                Arc::clone(&cache),
                Arc::clone(&tree),
                Arc::clone(&handles.published),
            ),
            cache,
            registration: Arc::default(),
            gossip,
            streaming: Arc::clone(&streaming),
            shards: (0..shards).map(|_| Arc::new(ShardStats::default())).collect(),
            cache_max_bytes: bytes(config.cache.max_size),
            requests: Arc::clone(&counts),
            access: Arc::clone(&security.counts),
            reloads: Arc::default(),
        });
        let dial = Arc::new(GrpcDial {
            security: Arc::clone(&security),
            traces: Arc::clone(&handles.traces),
        });
        let requests = Requests {
            handles,
            admission,
            loads: Arc::new(Semaphore::new(MAX_LOADS)),
            scans: Arc::new(Semaphore::new(MAX_SCANS)),
            overload,
            quotas,
            answers,
            timeouts: Timeouts {
                read: config.server.read_timeout,
                write: config.server.write_timeout,
            },
            counts,
            peers: Peers {
                book: AddressBook::new(addresses(config)),
                dial,
                copies: Arc::new(Semaphore::new(MAX_COPIES)),
            },
            streaming,
            drain,
            accepting: Arc::new(AtomicBool::new(true)),
            time: Arc::clone(&time),
        };
        let parts = Self {
            requests,
            health,
            tree,
            log,
            tables: recovered.tables,
            jobs,
            scrub_throttle: Arc::new(Throttle::new(Arc::clone(&time), rate(config.disk.scrub_throttle))),
            security,
            fs,
            time,
            name_service,
        };
        (parts, recovered.locks)
    }
}
