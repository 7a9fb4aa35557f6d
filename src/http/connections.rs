//! The connections of those who look on.
//!
//! Owns: accepting, and the bounds that keep strangers from holding the node's descriptors: how many connections, and how
//! long one may take to ask. Does not own: what is answered.

use super::site::Site;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time; more wait in the socket's queue.
const MOST: usize = 64;
/// Time within which a connection must have asked for something.
const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// Longest life of a connection: one that is silent gives its place back.
const LIFE: Duration = Duration::from_secs(300);
/// Pause after a failed accept: without file descriptors the next one would fail at once as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers on every connection, until the task is ended.
pub async fn serve(listener: TcpListener, site: Arc<Site>, metrics_path: String) {
    let service = TowerToHyperService::new(site.routes(&metrics_path));
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection at metrics.port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = service.clone();
        tokio::spawn(async move {
            let mut builder = Builder::new(TokioExecutor::new()).http1_only();
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(ASKED_WITHIN);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // How it ends is its client's business.
            let _ = tokio::time::timeout(LIFE, connection).await;
            drop(place);
        });
    }
}
