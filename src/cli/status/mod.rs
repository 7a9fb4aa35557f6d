//! `status`: how a running node is, in all its parts.
//!
//! Owns: asking it, and the two forms of the answer. Does not own: the numbers (the node's).

mod text;

use super::client::explain;
use super::{Failure, Running};
use crate::rpc::admin_pb as pb;
use clap::Args;
use std::io::{self, Write};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    node: Running,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let mut node = args.node.socket()?.connect().await?;
    let answer = node.status(pb::StatusRequest {}).await;
    let status = answer.map_err(|status| explain(&status))?.into_inner();
    let shown = if args.json {
        format!("{}\n", serde_json::to_string(&status)?)
    } else {
        text::of(&status)
    };
    match io::stdout().lock().write_all(shown.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.map_err(|error| format!("cannot write to standard output: {error}"))?,
    }
    let is_unhealthy = status.health.is_some_and(|health| health.status == "unhealthy");
    Ok(if is_unhealthy {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
