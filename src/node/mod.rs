//! The node: puts the engine, the actors and the protocol together.
//!
//! Owns: what ends the process, the order of its start (`start`) and of its shutdown (`shutdown`), and what it is made of
//! (`composition`, `children`) and runs on (`machine`), what of it changes meanwhile (`reload`), and what stands open
//! (`exposure`). It alone sees all layers. Does not own: any work.

mod children;
mod composition;
mod exposure;
mod gossip;
mod machine;
mod reload;
mod shutdown;
mod start;

pub use composition::{http2, storage_options};
pub use gossip::read_gossip_keys;
pub use machine::Machine;
pub use reload::Reloader;

use crate::actors::health::Health;
use crate::actors::requests::Requests;
use crate::actors::supervisor::{SupervisorMessage, Tree};
use crate::actors::watched::Own;
use crate::config::Config;
use crate::http::Site;
use crate::storage::error::Error as StorageError;
use crate::storage::fs::{DirLock, FileSystem};
use crate::storage::recovery::Report;
use crate::telemetry::Exporter;
use ractor::ActorRef;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

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
    /// What says who may talk to the node cannot be used.
    #[error("the files of [security] cannot be used:\n  - {}", .0.join("\n  - "))]
    Security(Vec<String>),
    /// The keys of the gossip cannot be had.
    #[error("{0}")]
    Gossip(String),
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
    /// The names of the supervisor's children.
    children: Vec<String>,
    supervisor: watch::Receiver<Option<ActorRef<Own<SupervisorMessage>>>>,
    guardian: JoinHandle<()>,
    gave_up: watch::Receiver<Option<String>>,
    shutdown_timeout: Duration,
    admin: Option<JoinHandle<()>>,
    fault_service: Option<FaultService>,
    observed: Option<Observed>,
    exporter: Option<Exporter>,
    reloader: Arc<Reloader>,
    /// Looks at the files of `[security]`.
    files: JoinHandle<()>,
    _locks: Vec<DirLock>,
}

/// Where faults are injected. Ends with the node.
struct FaultService {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for FaultService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where the node is looked at. Ends with the node.
struct Observed {
    address: SocketAddr,
    site: Arc<Site>,
    task: JoinHandle<()>,
}

impl Observed {
    /// Ends it, with its connections. The port is free afterwards.
    async fn close(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.files.abort();
    }
}

impl Node {
    /// Its way to take over a changed configuration.
    #[must_use]
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// Where it shows metrics and status, if it does.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.observed.as_ref().map(|observed| observed.address)
    }

    /// Where it listens for faults to inject, if it does.
    #[must_use]
    pub fn fault_address(&self) -> Option<SocketAddr> {
        self.fault_service.as_ref().map(|service| service.address)
    }

    /// Where it gossips, if it does.
    #[must_use]
    pub fn gossip_address(&self) -> Option<SocketAddr> {
        self.health.gossip.as_ref().map(|gossip| gossip.bound)
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
}

/// Runs a node until `stop` completes or it cannot go on; while it still reads its log back, `stop` ends it at once, and what it
/// had begun ends with the runtime. `reloads`: configurations that it is to take over, or why there is none.
///
/// # Errors
/// As [`Node::start`]; [`NodeError::GaveUp`] when an actor ended again and again.
pub async fn run(
    config: &Config,
    fs: Arc<dyn FileSystem>,
    stop: impl Future<Output = ()>,
    reloads: mpsc::Receiver<Result<Config, String>>,
) -> Result<(), NodeError> {
    let mut stop = pin!(stop);
    let node = tokio::select! {
        node = Node::start(config, fs) => node?,
        // As after a crash: the next start reads the log back.
        () = &mut stop => {
            tracing::info!("stopping before the node serves");
            return Ok(());
        }
    };
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
    // Beside what ends the node: a reload may hang, on a disk that does not answer.
    let reloading = tokio::spawn(take_over(Arc::clone(node.reloader()), reloads));
    let ended = tokio::select! {
        () = &mut stop => {
            tracing::info!("stopping");
            Ok(())
        }
        why = node.failed() => Err(NodeError::GaveUp(why)),
    };
    reloading.abort();
    if ended.is_ok() {
        node.shutdown().await;
    }
    ended
}

/// Takes over one configuration after the other.
async fn take_over(reloader: Arc<Reloader>, mut reloads: mpsc::Receiver<Result<Config, String>>) {
    while let Some(reload) = reloads.recv().await {
        let reloader = Arc::clone(&reloader);
        let work = move || match reload {
            Ok(config) => drop(reloader.reload(&config)),
            Err(why) => reloader.refused(&why),
        };
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%error, "a reload failed");
        }
    }
}
