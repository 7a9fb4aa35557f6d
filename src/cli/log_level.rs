//! `log-level`: what a running node logs.
//!
//! Owns: asking the node. Does not own: what a filter may say (the node's).

use super::client::explain;
use super::{Failure, Running};
use crate::rpc::admin_pb as pb;
use clap::Args;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct LogLevelArgs {
    /// A level (trace, debug, info, warn, error, off), and others for parts: info,pairdb_node::actors::wal=trace
    #[arg(value_name = "FILTER")]
    filter: String,
    #[command(flatten)]
    node: Running,
}

pub(super) async fn run(args: LogLevelArgs) -> Result<ExitCode, Failure> {
    let mut node = args.node.socket()?.connect().await?;
    let request = pb::SetLogLevelRequest {
        filter: args.filter.clone(),
    };
    let answer = node.set_log_level(request).await.map_err(|status| explain(&status))?;
    println!("logs {} now; before: {}", args.filter, answer.into_inner().previous);
    Ok(ExitCode::SUCCESS)
}
