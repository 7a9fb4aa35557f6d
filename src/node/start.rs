//! The start of a node.
//!
//! Owns: its order, and the supervisor's restart. Does not own: what is started (see [`super::composition`]).

use super::composition::{Parts, http2, storage_options};
use super::{Node, NodeError};
use crate::actors::gateway::Connections;
use crate::actors::maintenance::Maintenance;
use crate::actors::supervisor::{ChildSpec, Intensity, Supervisor, SupervisorMessage, Tree};
use crate::config::Config;
use crate::rpc;
use crate::storage::drain_mark;
use crate::storage::error::Error;
use crate::storage::fs::FileSystem;
use crate::storage::recovery;
use crate::storage::stream_records;
use ractor::{Actor, ActorRef};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Connections that may wait to be accepted.
const LISTEN_BACKLOG: u32 = 1024;

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
        let recover = move || {
            let recovered = recovery::open(&files, &options)?;
            let is_draining = drain_mark::load(files.as_ref(), &options.data_dir)?.is_some();
            let applied = recovered.published.applied();
            let streams = stream_records::recover(files.as_ref(), &options.data_dir, applied)?;
            Ok::<_, Error>((recovered, is_draining, streams))
        };
        let (recovered, is_draining, streams) = tokio::task::spawn_blocking(recover)
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
        let (parts, locks) = Parts::new(config, recovered, fs, is_draining, streams);
        let serve = rpc::server::serve(parts.requests.clone(), Arc::clone(&parts.health), http2(config));
        let admin = admin_service(config, &parts);
        let connections = Connections::new(serve, config.server.max_connections);
        let specs = Arc::new(parts.children(config, listener, connections, address.port()));
        let children = specs.iter().map(|spec| spec.name.clone()).collect();
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
            children,
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
        ))),
        Err(error) => {
            let dir = config.storage.data_dir.display();
            tracing::warn!(%error, %dir, "no admin socket: backup, verify and status will not reach this node while it runs");
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
    let mut ends = VecDeque::new();
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
