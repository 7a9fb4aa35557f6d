//! The start of a node.
//!
//! Owns: its order, the watch over the supervisor, and its restart. Does not own: what is started (see [`super::composition`]).

use super::children::intensity;
use super::composition::{Found, Parts, http2, storage_options};
use super::exposure::{self, Listening};
use super::gossip;
use super::machine::Machine;
use super::reload::{Reloader, watch_files};
use super::{FaultService, Node, NodeError, Observed};
use crate::actors::fault_fs::FaultFs;
use crate::actors::faults::{Faults, SUPERVISOR};
use crate::actors::gateway::Connections;
use crate::actors::maintenance::Maintenance;
use crate::actors::restarts::Intensity;
use crate::actors::supervisor::{ChildSpec, LOOK_EVERY, Supervisor, SupervisorMessage, Tree};
use crate::actors::threads::Threads;
use crate::actors::watched::{Own, Watched};
use crate::config::Config;
use crate::http;
use crate::rpc;
use crate::rpc::security::Security;
use crate::storage::drain_mark;
use crate::storage::error::Error;
use crate::storage::fs::FileSystem;
use crate::storage::recovery::{self, Options};
use crate::storage::stream_records;
use crate::telemetry;
use ractor::{Actor, ActorRef};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Connections that may wait to be accepted.
const LISTEN_BACKLOG: u32 = 1024;

/// Longest time to wait for a data directory that another process has. A command to a stopped node (`drain`, `undrain`) has
/// it for a moment only, and must not keep the node from starting.
const DIRECTORY_WAIT: Duration = Duration::from_secs(5);

/// How often a data directory that another process has is tried again.
const DIRECTORY_RETRY: Duration = Duration::from_millis(50);

impl Node {
    /// Recovers what the disk holds, starts all actors and listens. Returns when the node serves.
    ///
    /// # Errors
    /// When the address is taken, or the data are in use, damaged or unreadable.
    pub async fn start(config: &Config, fs: Arc<dyn FileSystem>) -> Result<Self, NodeError> {
        Self::start_on(config, Machine::real(fs)).await
    }

    /// As [`Node::start`], on a machine that may be a simulated one.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_on(config: &Config, mut machine: Machine) -> Result<Self, NodeError> {
        let security = Security::open(config.security.files()).map_err(NodeError::Security)?;
        // Bound before the recovery, so that a taken port is known at once; listened on after it, so that until then a
        // client is refused and does not hang.
        let (socket, shown) = bind(&config.server.host, config.server.port).await?;
        let gossip = gossip::prepare(config).await?;
        let faults = Faults::new(Tree::new(Arc::clone(&machine.time)));
        let fault_socket = match config.admin.fault_injection {
            true => Some(bind(&config.admin.host, config.admin.port).await?),
            false => None,
        };
        if fault_socket.is_some() {
            machine.fs = Arc::new(FaultFs::new(machine.fs, Arc::clone(&faults)));
        }
        let observed = match config.metrics.enabled {
            true => observe(config).await,
            false => None,
        };
        let bound = |socket: &TcpSocket, shown: &str| {
            socket.local_addr().map_err(|cause| NodeError::Listen {
                address: shown.to_owned(),
                cause,
            })
        };
        let faults_at = fault_socket.as_ref().map(|(socket, shown)| bound(socket, shown));
        let listening = Listening {
            clients: bound(&socket, &shown)?,
            faults: faults_at.transpose()?,
            shown: observed.as_ref().map(|observed| observed.address),
        };
        // Before the recovery, which may take long: metrics are shown from now on.
        let told = exposure::tell(config, &listening, &[]);
        let mut options = storage_options(config);
        options.parallel_replay = machine.threads.are_parallel();
        let found = recover(&machine, options).await?;
        let listen = |cause| NodeError::Listen {
            address: shown.clone(),
            cause,
        };
        let listener = socket.listen(LISTEN_BACKLOG).map_err(listen)?;
        let address = listening.clients;
        let listener = Arc::new(listener.into_std().map_err(listen)?);
        let report = found.recovered.report;
        for table in found.recovered.published.load().tables.quarantine() {
            let (error, keys) = (table.error(), (&table.first_key, &table.last_key));
            tracing::error!(%error, ?keys, "a table stands aside: what cannot be read of it answers DATA_LOSS");
        }
        let (traces, exporter) = telemetry::start(config);
        let (parts, locks) = Parts::new(
            config,
            found,
            machine,
            faults,
            (address.port(), gossip),
            traces,
            security,
        );
        let security = Arc::clone(&parts.security);
        let serve = rpc::server::serve(
            parts.requests.clone(),
            Arc::clone(&parts.health),
            http2(config),
            security,
        );
        let admin = admin_service(config, &parts);
        let fault_service = match fault_socket {
            Some((socket, shown)) => Some(fault_service(socket, &shown, &parts)?),
            None => None,
        };
        let reloader = Reloader::new(config, &parts, (listening, told), telemetry::set_level);
        let connections = Connections::new(serve, config.server.max_connections);
        let specs = Arc::new(parts.children(config, listener, connections, address.port()));
        let children = specs.iter().map(|spec| spec.name.clone()).collect();
        let (gave_up, given_up) = watch::channel(None);
        let (current, supervisor) = watch::channel(None);
        let supervision = Supervision {
            tree: Arc::clone(&parts.tree),
            faults: Arc::clone(&parts.requests.handles.faults),
            specs,
            intensity: intensity(config),
            stuck_after: config.supervisor.stuck_after,
            threads: parts.requests.handles.threads.clone(),
        };
        let guardian = tokio::spawn(guard(supervision, current, gave_up));
        let node = Self {
            address,
            report,
            requests: parts.requests,
            health: parts.health,
            tree: parts.tree,
            children,
            supervisor,
            guardian,
            gave_up: given_up,
            shutdown_timeout: config.server.shutdown_timeout,
            admin,
            fault_service,
            observed,
            exporter,
            files: tokio::spawn(watch_files(Arc::clone(&reloader), config.security.check_interval)),
            reloader,
            _locks: locks,
        };
        node.wait_until_serving().await?;
        if let Some(observed) = &node.observed {
            observed.site.show(Arc::clone(&node.health));
        }
        Ok(node)
    }

    async fn wait_until_serving(&self) -> Result<(), NodeError> {
        let mut changed = self.tree.changes();
        loop {
            let now = self.tree.children();
            let runs = |name: &String| now.iter().any(|child| child.name == *name && child.running);
            if self.children.iter().all(runs) {
                return Ok(());
            }
            tokio::select! {
                _ = changed.changed() => {}
                why = self.failed() => return Err(NodeError::GaveUp(why)),
            }
        }
    }
}

async fn bind(host: &str, port: u16) -> Result<(TcpSocket, String), NodeError> {
    let shown = format!("{host}:{port}");
    let listen = |cause| NodeError::Listen {
        address: shown.clone(),
        cause,
    };
    let address = tokio::net::lookup_host((host, port))
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

/// Recovers what the disk holds. Waits for a moment while another process has it.
async fn recover(machine: &Machine, options: Options) -> Result<Found, NodeError> {
    let (options, began) = (Arc::new(options), Instant::now());
    let mut is_told = false;
    loop {
        let (files, options, begun) = (Arc::clone(&machine.fs), Arc::clone(&options), machine.time.elapsed());
        let work = move || {
            let recovered = recovery::open(&files, &options)?;
            let is_draining = drain_mark::load(files.as_ref(), &options.data_dir)?.is_some();
            let applied = recovered.published.applied();
            let streams = stream_records::recover(files.as_ref(), &options.data_dir, applied)?;
            Ok::<_, Error>((recovered, is_draining, streams))
        };
        let done = machine.threads.run(work).await;
        match done.map_err(|panicked| NodeError::Internal(format!("the recovery failed: {panicked}")))? {
            Err(error @ Error::Locked { .. }) if began.elapsed() < DIRECTORY_WAIT => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%error, at_most = ?DIRECTORY_WAIT, "waiting for the data directory");
                }
                tokio::time::sleep(DIRECTORY_RETRY).await;
            }
            done => {
                let (recovered, is_draining, streams) = done?;
                return Ok(Found {
                    recovered,
                    took: machine.time.elapsed().saturating_sub(begun),
                    is_draining,
                    streams,
                });
            }
        }
    }
}

/// Shows metrics and status, from before the recovery on, so that a probe learns that the node starts. A node serves its
/// clients without it, too: two nodes of one machine may have the same `metrics.port`.
async fn observe(config: &Config) -> Option<Observed> {
    let listen = async {
        let (socket, shown) = bind(&config.metrics.host, config.metrics.port).await?;
        let listen = |cause| NodeError::Listen {
            address: shown.clone(),
            cause,
        };
        let listener = socket.listen(LISTEN_BACKLOG).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok::<_, NodeError>((address, listener))
    };
    match listen.await {
        Ok((address, listener)) => {
            let site = Arc::new(http::Site::default());
            let task = tokio::spawn(http::serve(listener, Arc::clone(&site), config.metrics.path.clone()));
            Some(Observed { address, site, task })
        }
        Err(error) => {
            tracing::error!(%error, "no metrics, status and health over HTTP (metrics.port)");
            None
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
        drain: Arc::clone(&parts.requests.drain),
        fs: Arc::clone(&parts.fs),
    };
    match rpc::admin::bind(&config.storage.data_dir) {
        Ok(listener) => Some(tokio::spawn(rpc::admin::serve(
            listener,
            maintenance,
            Arc::clone(&parts.health),
            telemetry::set_level,
            Arc::clone(&parts.security),
        ))),
        Err(error) => {
            let dir = config.storage.data_dir.display();
            tracing::warn!(%error, %dir, "no admin socket: backup, verify and status will not reach this node while it runs");
            None
        }
    }
}

/// Serves the injection of faults.
fn fault_service(socket: TcpSocket, shown: &str, parts: &Parts) -> Result<FaultService, NodeError> {
    let listen = |cause| NodeError::Listen {
        address: shown.to_owned(),
        cause,
    };
    let listener = socket.listen(LISTEN_BACKLOG).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    tracing::warn!(%address, "faults can be injected into this node (admin.fault_injection): it is no place for data that matter");
    let task = tokio::spawn(rpc::faults::serve(
        listener,
        Arc::clone(&parts.requests.handles.faults),
        Arc::clone(&parts.security),
    ));
    Ok(FaultService { address, task })
}

/// What every generation of the supervisor is made of.
struct Supervision {
    tree: Arc<Tree>,
    faults: Arc<Faults>,
    specs: Arc<Vec<ChildSpec>>,
    intensity: Intensity,
    stuck_after: Duration,
    threads: Threads,
}

impl Supervision {
    fn supervisor(&self, gave_up: &watch::Sender<Option<String>>) -> Watched<Supervisor> {
        let supervisor = Supervisor {
            specs: Arc::clone(&self.specs),
            intensity: self.intensity,
            stuck_after: self.stuck_after,
            faults: Arc::clone(&self.faults),
            threads: self.threads.clone(),
            tree: Arc::clone(&self.tree),
            gave_up: gave_up.clone(),
        };
        Watched {
            inner: supervisor,
            name: SUPERVISOR.into(),
            faults: Arc::clone(&self.faults),
            pulse: self.tree.pulse(SUPERVISOR),
        }
    }

    /// Waits for `work` of the supervisor, and looks meanwhile whether it makes progress: it looks after all others.
    async fn watch<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let pulse = self.tree.pulse(SUPERVISOR);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(LOOK_EVERY) => self.tree.judge(SUPERVISOR, pulse.busy(), self.stuck_after),
            }
        }
    }
}

/// Keeps a supervisor running: were it to end, its children would have ended with it, and all are started anew. One that makes
/// no progress is ended.
async fn guard(
    supervision: Supervision,
    current: watch::Sender<Option<ActorRef<Own<SupervisorMessage>>>>,
    gave_up: watch::Sender<Option<String>>,
) {
    let mut ends = VecDeque::new();
    let intensity = supervision.intensity;
    for generation in 1.. {
        let starting = Actor::spawn(None, supervision.supervisor(&gave_up), ());
        let ended = match supervision.watch(starting).await {
            Ok((supervisor, task)) => {
                current.send_replace(Some(supervisor));
                supervision.watch(task).await.err().map(|error| error.to_string())
            }
            Err(error) => Some(error.to_string()),
        };
        let ended = ended.unwrap_or_else(|| "it stopped".to_owned());
        let ended = supervision.tree.reason_of(SUPERVISOR, ended);
        supervision.tree.supervisor_ended(generation, &ended);
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
