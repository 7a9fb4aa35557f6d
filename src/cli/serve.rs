//! `serve`

use super::{DataDir, Failure};
use crate::config::Config;
use crate::storage::fs::RealFs;
use crate::{node, telemetry};
use clap::Args;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    data: DataDir,
    /// Address to listen on, as host:port, instead of server.host and server.port
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

pub(super) async fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    let config = load(&args)?;
    telemetry::init(&config.logging)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    match node::run(&config, Arc::new(RealFs), stop).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(%error, "the node ends");
            Err(error.into())
        }
    }
}

fn load(args: &ServeArgs) -> Result<Config, Failure> {
    let mut flags = Vec::new();
    if let Some(listen) = &args.listen {
        let wrong = || format!("--listen {listen}: must be host:port, as in 127.0.0.1:50052 or [::1]:50052");
        let (host, port) = listen.rsplit_once(':').ok_or_else(wrong)?;
        port.parse::<u16>().map_err(|_| wrong())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        flags.push(("server.host", host.to_owned()));
        flags.push(("server.port", port.to_owned()));
    }
    args.data.config_with(flags)
}
