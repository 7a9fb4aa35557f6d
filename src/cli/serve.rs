//! `serve`

use super::{DataDir, Failure};
use crate::config::Config;
use crate::storage::fs::RealFs;
use crate::{node, telemetry};
use clap::Args;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    data: DataDir,
    /// Address to listen on, as host:port, instead of server.host and server.port
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

pub(super) async fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    let config = args.load()?;
    // Until the end: also of an error that follows here.
    let _log = telemetry::init(&config.logging)?;
    telemetry::log_panics();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (reloads, reloaded) = mpsc::channel(1);
    let reloading = tokio::spawn(reload(args, signal(SignalKind::hangup())?, reloads));
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let ended = node::run(&config, Arc::new(RealFs), stop, reloaded).await;
    reloading.abort();
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(%error, "the node ends");
            Err(error.into())
        }
    }
}

impl ServeArgs {
    /// The configuration as file, environment and these flags have it now.
    pub(super) fn load(&self) -> Result<Config, Failure> {
        let mut flags = Vec::new();
        if let Some(listen) = &self.listen {
            let wrong = || format!("--listen {listen}: must be host:port, as in 127.0.0.1:50052 or [::1]:50052");
            let (host, port) = listen.rsplit_once(':').ok_or_else(wrong)?;
            port.parse::<u16>().map_err(|_| wrong())?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            flags.push(("server.host", host.to_owned()));
            flags.push(("server.port", port.to_owned()));
        }
        self.data.config_with(flags)
    }
}

/// Reads the configuration again at each SIGHUP.
async fn reload(args: ServeArgs, mut hangup: Signal, reloads: mpsc::Sender<Result<Config, String>>) {
    while hangup.recv().await.is_some() {
        let again = args.clone();
        let loaded = tokio::task::spawn_blocking(move || again.load()).await;
        let loaded = match loaded {
            Ok(loaded) => loaded.map_err(|Failure(why)| why),
            Err(panicked) => Err(panicked.to_string()),
        };
        if reloads.send(loaded).await.is_err() {
            return;
        }
    }
}
