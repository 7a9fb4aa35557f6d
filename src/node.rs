//! The node: puts the engine, the actors and the protocol together.
//!
//! Owns: the order of start and of shutdown, and what ends the process. It alone sees all layers. Does not own: any work.

use crate::actors::Handles;
use crate::actors::admission::{Admission, AdmissionLimits};
use crate::actors::cache::{CacheActor, CacheStats, ShardStats};
use crate::actors::compaction::{CompactionActor, CompactionMessage, CompactionStats};
use crate::actors::disk::{DiskActor, DiskWatch};
use crate::actors::flush::{FlushActor, FlushMessage, FlushStats};
use crate::actors::gateway::{Connections, GatewayMessage, RpcGateway};
use crate::actors::health::{Health, RequestCounts};
use crate::actors::mailbox::{Bound, Mailbox};
use crate::actors::maintenance::Maintenance;
use crate::actors::memtable::{MemtableActor, MemtableMessage, MemtableStats};
use crate::actors::refusal::Refusal;
use crate::actors::reply::{Reply, reply_port};
use crate::actors::requests::{Requests, Timeouts};
use crate::actors::scrub::ScrubActor;
use crate::actors::supervisor::{ChildSpec, Intensity, Supervisor, SupervisorMessage, Tree};
use crate::actors::wal::{SharedLog, SyncPolicy, WalActor, WalMessage, WalOptions};
use crate::config::{self, Config};
use crate::rpc;
use crate::storage::cache::CacheOptions;
use crate::storage::compaction::debt::LevelOptions;
use crate::storage::compaction::jobs::Jobs;
use crate::storage::compaction::throttle::Throttle;
use crate::storage::error::Error as StorageError;
use crate::storage::fs::{DirLock, FileSystem};
use crate::storage::log::writer::LogOptions;
use crate::storage::recovery::{self, Options, Recovered, Report};
use crate::storage::scrub::ScrubProgress;
use crate::storage::space::SpaceThresholds;
use crate::storage::table::TableOptions;
use crate::storage::table::block::Compression;
use crate::storage::tables::Tables;
use crate::storage::time::RealTime;
use ractor::{Actor, ActorRef};
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// Connections that may wait to be accepted.
const LISTEN_BACKLOG: u32 = 1024;
/// Most writes under way: far more than share a sync, far less than memory minds.
const MAX_WRITES: usize = 16_384;
/// Most reads under way.
const MAX_READS: usize = 16_384;
/// Reads of tables that run at once, each on a thread that may block.
const MAX_LOADS: usize = 32;
/// Scans that may be open at once: each may keep a full set of memtables alive.
const MAX_SCANS: usize = 4;
/// Most bytes that wait in one cache shard's mailbox. Keys only: values come from the view.
const CACHE_MAILBOX_BYTES: usize = 16 << 20;
/// Most cache shards; more than cores would only cost.
const MAX_SHARDS: usize = 16;
/// Longest time between two looks at the age of log segments.
const LONGEST_AGE_CHECK: Duration = Duration::from_secs(10);

/// Why the node cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Host and port.
        address: String,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// The data cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An actor ended again and again.
    #[error("gave up: {0}")]
    GaveUp(String),
    /// Something that should not happen did.
    #[error("{0}")]
    Internal(String),
}

/// A running node.
pub struct Node {
    address: SocketAddr,
    report: Report,
    requests: Requests,
    health: Arc<Health>,
    tree: Arc<Tree>,
    supervisor: watch::Receiver<Option<ActorRef<SupervisorMessage>>>,
    guardian: JoinHandle<()>,
    gave_up: watch::Receiver<Option<String>>,
    shutdown_timeout: Duration,
    admin: Option<JoinHandle<()>>,
    _locks: Vec<DirLock>,
}

impl Node {
    /// Recovers what the disk holds, starts all actors and listens. Returns when the node serves.
    ///
    /// # Errors
    /// When the address is taken, or the data are in use, damaged or unreadable.
    pub async fn start(config: &Config, fs: Arc<dyn FileSystem>) -> Result<Self, NodeError> {
        // Bound before the recovery, so that a taken port is known at once; listened on after it, so that until then a
        // client is refused and does not hang.
        let (socket, shown) = bind(config).await?;
        let options = storage_options(config);
        let files = Arc::clone(&fs);
        let recovered = tokio::task::spawn_blocking(move || recovery::open(&files, &options))
            .await
            .map_err(|panicked| NodeError::Internal(format!("the recovery failed: {panicked}")))??;
        let listen = |cause| NodeError::Listen {
            address: shown.clone(),
            cause,
        };
        let listener = socket.listen(LISTEN_BACKLOG).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let listener = Arc::new(listener.into_std().map_err(listen)?);
        let report = recovered.report;
        for table in recovered.published.load().tables.quarantine() {
            let (error, keys) = (table.error(), (&table.first_key, &table.last_key));
            tracing::error!(%error, ?keys, "a table stands aside: what cannot be read of it answers DATA_LOSS");
        }
        let (parts, locks) = Parts::new(config, recovered, fs);
        let serve = rpc::server::serve(parts.requests.clone(), Arc::clone(&parts.health));
        let admin = admin_service(config, &parts);
        let connections = Connections::new(serve, config.server.max_connections);
        let specs = Arc::new(parts.children(config, listener, connections));
        let (gave_up, given_up) = watch::channel(None);
        let intensity = Intensity {
            restarts: config.supervisor.max_restarts,
            window: config.supervisor.restart_window,
        };
        let (current, supervisor) = watch::channel(None);
        let guardian = tokio::spawn(guard(Arc::clone(&parts.tree), specs, intensity, current, gave_up));
        let node = Self {
            address,
            report,
            requests: parts.requests,
            health: parts.health,
            tree: parts.tree,
            supervisor,
            guardian,
            gave_up: given_up,
            shutdown_timeout: config.server.shutdown_timeout,
            admin,
            _locks: locks,
        };
        node.wait_until_serving().await?;
        Ok(node)
    }

    async fn wait_until_serving(&self) -> Result<(), NodeError> {
        let expected = self.requests.handles.caches.len() + 7;
        let mut changed = self.tree.changes();
        loop {
            let running = self.tree.children().iter().filter(|child| child.running).count();
            if running >= expected {
                return Ok(());
            }
            tokio::select! {
                _ = changed.changed() => {}
                why = self.failed() => return Err(NodeError::GaveUp(why)),
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the recovery did.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report
    }

    /// Its way to carry out requests, without the network.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// How it is.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// The tree of its actors.
    #[must_use]
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Returns when the node cannot go on, with the reason.
    pub async fn failed(&self) -> String {
        let mut gave_up = self.gave_up.clone();
        let why = gave_up.wait_for(Option::is_some).await.map(|why| why.clone());
        why.ok()
            .flatten()
            .unwrap_or_else(|| "the supervisor is gone".to_owned())
    }

    /// Stops in the order in which data flow: admits nothing more, lets connections end, makes the log durable, applies
    /// what it holds, flushes, ends the actors. A step that takes longer than its share of `server.shutdown_timeout` is
    /// reported and passed over: the next start does what it left.
    pub async fn shutdown(self) {
        let begun = Instant::now();
        let total = self.shutdown_timeout;
        let handles = self.requests.handles.clone();
        if let Some(admin) = &self.admin {
            admin.abort();
        }
        self.requests.accepting.store(false, Ordering::Release);
        let drain = |reply| handles.gateway.send_admitted(GatewayMessage::Drain(reply)).is_ok();
        step("closing the connections", total.mul_f64(0.35), drain).await;
        let close = |reply| handles.wal.send_admitted(WalMessage::Close(reply)).is_ok();
        step("ending the log", total.mul_f64(0.2), close).await;
        let settle = |reply| handles.memtable.send_admitted(MemtableMessage::Settle(reply)).is_ok();
        step("applying the last writes", total.mul_f64(0.1), settle).await;
        // Twice: a full set of memtables leaves no room to seal the active one before the first is flushed.
        for _ in 0..2 {
            let seal = |reply| {
                handles.memtable.send_admitted(MemtableMessage::Seal).is_ok()
                    && handles.memtable.send_admitted(MemtableMessage::Settle(reply)).is_ok()
            };
            step("sealing the memtable", total.mul_f64(0.05), seal).await;
            let flush = |reply| handles.flush.send_admitted(FlushMessage::Settle(reply)).is_ok();
            step("flushing", total.mul_f64(0.1), flush).await;
        }
        let stop = |reply| handles.compaction.send_admitted(CompactionMessage::Stop(reply)).is_ok();
        step("ending compactions", total.mul_f64(0.05), stop).await;
        self.guardian.abort();
        let supervisor = self.supervisor.borrow().clone();
        if let Some(supervisor) = supervisor {
            let quiet = |reply| {
                supervisor
                    .send_message(SupervisorMessage::StopRestarting(reply))
                    .is_ok()
            };
            step("ending the actors", total.mul_f64(0.05), quiet).await;
            // A parent that stops ends its children.
            supervisor.stop(None);
        }
        tracing::info!(took = ?begun.elapsed(), "stopped");
    }
}

/// One step of the shutdown: `ask` sends a message with the reply port, and says whether it could.
async fn step(what: &str, budget: Duration, ask: impl FnOnce(Reply<()>) -> bool) {
    let begun = Instant::now();
    let (reply, answer) = reply_port();
    let result = if ask(reply) {
        answer.within(budget, "the actor").await
    } else {
        Err(Refusal::Restarting("the actor"))
    };
    match result {
        Ok(()) => tracing::debug!(what, took = ?begun.elapsed(), "shutdown step done"),
        Err(why) => {
            tracing::warn!(what, %why, ?budget, "a shutdown step was not completed; the next start makes up for it")
        }
    }
}

/// Serves the admin service, where its socket can be made. A node serves its clients without it, too.
fn admin_service(config: &Config, parts: &Parts) -> Option<JoinHandle<()>> {
    let maintenance = Maintenance {
        handles: parts.requests.handles.clone(),
        tables: Arc::clone(&parts.tables),
        log: Arc::clone(&parts.log),
        log_dir: config.commit_log_dir(),
        fs: Arc::clone(&parts.fs),
    };
    match rpc::admin::bind(&config.storage.data_dir) {
        Ok(listener) => Some(tokio::spawn(rpc::admin::serve(listener, maintenance))),
        Err(error) => {
            let dir = config.storage.data_dir.display();
            tracing::warn!(%error, %dir, "no admin socket: backup and verify will not reach this node while it runs");
            None
        }
    }
}

/// Keeps a supervisor running: were it to end, its children would have ended with it, and all are started anew.
async fn guard(
    tree: Arc<Tree>,
    specs: Arc<Vec<ChildSpec>>,
    intensity: Intensity,
    current: watch::Sender<Option<ActorRef<SupervisorMessage>>>,
    gave_up: watch::Sender<Option<String>>,
) {
    let mut ends = std::collections::VecDeque::new();
    loop {
        let actor = Supervisor {
            specs: Arc::clone(&specs),
            intensity,
            tree: Arc::clone(&tree),
            gave_up: gave_up.clone(),
        };
        let ended = match Actor::spawn(None, actor, ()).await {
            Ok((supervisor, task)) => {
                current.send_replace(Some(supervisor));
                task.await.err().map(|error| error.to_string())
            }
            Err(error) => Some(error.to_string()),
        };
        tracing::error!(reason = ended, "the supervisor ended; starting it and all actors again");
        let now = Instant::now();
        ends.push_back(now);
        ends.retain(|at| now.duration_since(*at) <= intensity.window);
        if ends.len() > intensity.restarts {
            gave_up.send_replace(Some(format!(
                "the supervisor ended {} times within {:?}",
                ends.len(),
                intensity.window
            )));
            return;
        }
    }
}

/// Runs a node until `stop` completes or it cannot go on.
///
/// # Errors
/// As [`Node::start`]; [`NodeError::GaveUp`] when an actor ended again and again.
pub async fn run(config: &Config, fs: Arc<dyn FileSystem>, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
    let node = Node::start(config, fs).await?;
    let report = node.report();
    tracing::info!(
        node_id = config.server.node_id,
        address = %node.address(),
        data_dir = %config.storage.data_dir.display(),
        replayed = report.replayed,
        log_bytes = report.log_bytes,
        torn_bytes = report.torn_bytes,
        "serving"
    );
    tokio::select! {
        () = stop => {
            tracing::info!("stopping");
            node.shutdown().await;
            Ok(())
        }
        why = node.failed() => Err(NodeError::GaveUp(why)),
    }
}

async fn bind(config: &Config) -> Result<(TcpSocket, String), NodeError> {
    let shown = format!("{}:{}", config.server.host, config.server.port);
    let listen = |cause| NodeError::Listen {
        address: shown.clone(),
        cause,
    };
    let address = tokio::net::lookup_host((config.server.host.as_str(), config.server.port))
        .await
        .map_err(listen)?
        .next()
        .ok_or_else(|| listen(std::io::Error::other("the name has no address")))?;
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
    .map_err(listen)?;
    // A node that restarts must not wait for the connections of its predecessor to be forgotten.
    socket.set_reuseaddr(true).map_err(listen)?;
    socket.bind(address).map_err(listen)?;
    Ok((socket, shown))
}

fn bytes(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
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
    }
}

/// What the actors share, made once: it outlives every generation of them.
struct Parts {
    requests: Requests,
    health: Arc<Health>,
    tree: Arc<Tree>,
    log: Arc<SharedLog>,
    tables: Arc<Tables>,
    jobs: Arc<Jobs>,
    fs: Arc<dyn FileSystem>,
}

impl Parts {
    fn new(config: &Config, recovered: Recovered, fs: Arc<dyn FileSystem>) -> (Self, Vec<DirLock>) {
        let published = recovered.published;
        let memory = config.mem_table.num_mem_tables;
        let write_bytes = memory.saturating_mul(bytes(config.mem_table.max_size));
        let disk = DiskWatch::new(SpaceThresholds {
            warn: config.disk.warn_usage,
            throttle: config.storage.max_disk_usage,
            stop: config.disk.stop_usage,
        });
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
        let shards = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_SHARDS));
        let mailbox = |messages, bytes| Bound { messages, bytes };
        let handles = Handles {
            wal: Mailbox::new(mailbox(2 * MAX_WRITES, write_bytes)),
            memtable: Mailbox::new(mailbox(MAX_WRITES, write_bytes)),
            flush: Mailbox::new(mailbox(MAX_WRITES, write_bytes)),
            compaction: Mailbox::new(mailbox(MAX_WRITES, write_bytes)),
            scrub: Mailbox::new(mailbox(MAX_WRITES, write_bytes)),
            disk: Mailbox::new(mailbox(MAX_WRITES, write_bytes)),
            caches: (0..shards)
                .map(|_| Mailbox::new(mailbox(2 * MAX_READS, CACHE_MAILBOX_BYTES)))
                .collect(),
            gateway: Mailbox::new(mailbox(MAX_READS, CACHE_MAILBOX_BYTES)),
            published,
        };
        let tree = Arc::new(Tree::default());
        let log = SharedLog::new(recovered.log);
        let jobs = Jobs::new(
            Arc::clone(&recovered.tables),
            Arc::clone(&handles.published),
            Arc::new(RealTime::default()),
            u64::from(config.compaction.throttle).saturating_mul(1_000_000),
        );
        let counts = Arc::new(RequestCounts::default());
        let health = Arc::new(Health {
            handles: handles.clone(),
            admission: Arc::clone(&admission),
            log: Arc::clone(&log),
            tree: Arc::clone(&tree),
            flush: Arc::new(FlushStats::default()),
            scrub: Arc::new(ScrubProgress::default()),
            disk,
            compaction: Arc::new(CompactionStats::default()),
            jobs: Arc::clone(&jobs),
            memtable: Arc::new(MemtableStats::default()),
            cache: Arc::new(CacheStats::default()),
            shards: (0..shards).map(|_| Arc::new(ShardStats::default())).collect(),
            requests: Arc::clone(&counts),
        });
        let requests = Requests {
            handles,
            admission,
            loads: Arc::new(Semaphore::new(MAX_LOADS)),
            scans: Arc::new(Semaphore::new(MAX_SCANS)),
            timeouts: Timeouts {
                read: config.server.read_timeout,
                write: config.server.write_timeout,
            },
            counts,
            accepting: Arc::new(AtomicBool::new(true)),
        };
        let parts = Self {
            requests,
            health,
            tree,
            log,
            tables: recovered.tables,
            jobs,
            fs,
        };
        (parts, recovered.locks)
    }

    /// The children of the supervisor, in the order of their start: whoever is sent to before who sends.
    fn children(&self, config: &Config, listener: Arc<TcpListener>, connections: Arc<Connections>) -> Vec<ChildSpec> {
        let handles = &self.requests.handles;
        let mut children = Vec::new();
        let shard_bytes = bytes(config.cache.max_size) / handles.caches.len().max(1);
        for (shard, (mailbox, held)) in handles.caches.iter().zip(&self.health.shards).enumerate() {
            let options = CacheOptions {
                max_bytes: shard_bytes,
                frequency_weight: config.cache.frequency_weight,
                recency_weight: config.cache.recency_weight,
                adaptive_window: config.cache.adaptive_window,
            };
            let (loads, stats) = (Arc::clone(&self.requests.loads), Arc::clone(&self.health.cache));
            let (held, handles) = (Arc::clone(held), handles.clone());
            children.push(ChildSpec::new(format!("cache-{shard}"), mailbox.clone(), move || {
                CacheActor {
                    shard,
                    options,
                    loads: Arc::clone(&loads),
                    stats: Arc::clone(&stats),
                    held: Arc::clone(&held),
                    handles: handles.clone(),
                }
            }));
        }
        let rate = u64::from(config.disk.scrub_throttle).saturating_mul(1_000_000);
        let throttle = Arc::new(Throttle::new(Arc::new(RealTime::default()), rate));
        let (tables, progress) = (Arc::clone(&self.tables), Arc::clone(&self.health.scrub));
        let (interval, neighbours) = (config.disk.scrub_interval, handles.clone());
        children.push(ChildSpec::new("scrub", handles.scrub.clone(), move || ScrubActor {
            tables: Arc::clone(&tables),
            interval,
            throttle: Arc::clone(&throttle),
            progress: Arc::clone(&progress),
            mailbox: neighbours.scrub.clone(),
            handles: neighbours.clone(),
        }));
        let dirs = vec![
            config.storage.data_dir.clone(),
            config.sstable_dir(),
            config.commit_log_dir(),
        ];
        let (fs, watch, mailbox) = (
            Arc::clone(&self.fs),
            Arc::clone(&self.health.disk),
            handles.disk.clone(),
        );
        let every = config.disk.check_interval;
        children.push(ChildSpec::new("disk", handles.disk.clone(), move || DiskActor {
            fs: Arc::clone(&fs),
            dirs: dirs.clone(),
            every,
            watch: Arc::clone(&watch),
            mailbox: mailbox.clone(),
        }));
        let (tables, jobs, stats) = (
            Arc::clone(&self.tables),
            Arc::clone(&self.jobs),
            Arc::clone(&self.health.compaction),
        );
        let (workers, neighbours) = (config.compaction.workers, handles.clone());
        children.push(ChildSpec::new("compaction", handles.compaction.clone(), move || {
            CompactionActor {
                tables: Arc::clone(&tables),
                jobs: Arc::clone(&jobs),
                workers,
                stats: Arc::clone(&stats),
                handles: neighbours.clone(),
            }
        }));
        let (tables, stats, neighbours) = (
            Arc::clone(&self.tables),
            Arc::clone(&self.health.flush),
            handles.clone(),
        );
        children.push(ChildSpec::new("flush", handles.flush.clone(), move || FlushActor {
            tables: Arc::clone(&tables),
            stats: Arc::clone(&stats),
            handles: neighbours.clone(),
        }));
        let (stats, neighbours) = (Arc::clone(&self.health.memtable), handles.clone());
        let (flush_threshold, num_mem_tables) =
            (bytes(config.mem_table.flush_threshold), config.mem_table.num_mem_tables);
        children.push(ChildSpec::new("memtable", handles.memtable.clone(), move || {
            MemtableActor {
                flush_threshold,
                num_mem_tables,
                stats: Arc::clone(&stats),
                handles: neighbours.clone(),
            }
        }));
        let (log, neighbours) = (Arc::clone(&self.log), handles.clone());
        let options = WalOptions {
            node_id: config.server.node_id.clone(),
            buffer_size: bytes(config.commit_log.buffer_size),
            sync: SyncPolicy {
                every_batch: config.commit_log.sync_writes,
                interval: config.commit_log.sync_interval,
            },
            age_check: (config.commit_log.max_age / 8).clamp(Duration::from_millis(50), LONGEST_AGE_CHECK),
        };
        children.push(ChildSpec::new("wal", handles.wal.clone(), move || WalActor {
            log: Arc::clone(&log),
            options: options.clone(),
            handles: neighbours.clone(),
        }));
        let neighbours = handles.clone();
        children.push(ChildSpec::new("gateway", handles.gateway.clone(), move || RpcGateway {
            listener: Arc::clone(&listener),
            connections: Arc::clone(&connections),
            handles: neighbours.clone(),
        }));
        children
    }
}
