//! `drain` and `undrain`: whether a node takes writes.
//!
//! Owns: asking a node that runs, and setting the mark of one that does not. Does not own: draining (the node's).

use super::client::explain;
use super::{DataDir, Failure, Running};
use crate::node;
use crate::rpc::admin_pb as pb;
use crate::storage::drain_mark;
use crate::storage::error::Error;
use crate::storage::fs::RealFs;
use crate::storage::recovery;
use crate::storage::time::{RealTime, Time};
use clap::Args;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    node: Running,
    /// Longest time to wait until everything is in tables; the node goes on with it in any case
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct UndrainArgs {
    #[command(flatten)]
    node: Running,
}

pub(super) async fn drain(args: &DrainArgs) -> Result<ExitCode, Failure> {
    let marked = on_stopped(&args.node.data, |dir| {
        drain_mark::set(&RealFs, dir, RealTime::default().now_ms())?;
        give_to_owner(dir, &dir.join(drain_mark::NAME))
    })?;
    if marked {
        println!("no node runs there; when one starts, it will take no writes");
        return Ok(ExitCode::SUCCESS);
    }
    let mut node = args.node.socket()?.connect().await?;
    let request = pb::DrainRequest {
        timeout_ms: u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let answer = node.drain(request).await.map_err(|status| explain(&status))?;
    if answer.into_inner().drained {
        println!("drained: no writes are taken, and everything is in tables");
        return Ok(ExitCode::SUCCESS);
    }
    let waited = humantime::format_duration(args.timeout);
    Err(format!("draining: no writes are taken; what is in memory is not in tables after {waited} yet").into())
}

pub(super) async fn undrain(args: &UndrainArgs) -> Result<ExitCode, Failure> {
    if !on_stopped(&args.node.data, |dir| drain_mark::clear(&RealFs, dir))? {
        let mut node = args.node.socket()?.connect().await?;
        let answer = node.undrain(pb::UndrainRequest {}).await;
        answer.map_err(|status| explain(&status))?;
    }
    println!("writes are taken");
    Ok(ExitCode::SUCCESS)
}

/// Gives a file to whom its directory belongs: what root makes there, whatever its umask, the node's user has to be able to read.
fn give_to_owner(dir: &Path, file: &Path) -> Result<(), Error> {
    let of = |path: &Path| fs::metadata(path).map_err(|e| Error::io("look at", path, e));
    let (owner, now) = (of(dir)?, of(file)?);
    if (owner.uid(), owner.gid()) == (now.uid(), now.gid()) {
        return Ok(());
    }
    chown(file, Some(owner.uid()), Some(owner.gid())).map_err(|e| Error::io("give to the node's user", file, e))
}

/// Does `work` in the data directory, unless a node has it; says whether it was done.
fn on_stopped(data: &DataDir, work: impl FnOnce(&Path) -> Result<(), Error>) -> Result<bool, Failure> {
    let options = node::storage_options(&data.config()?);
    if !options.data_dir.is_dir() {
        let dir = options.data_dir.display();
        return Err(format!("there is no data directory at {dir}; name the node's by --data-dir or --config").into());
    }
    match recovery::lock_existing(&RealFs, &options) {
        Ok(_locks) => {
            work(&options.data_dir)?;
            Ok(true)
        }
        Err(Error::Locked { .. }) => Ok(false),
        Err(other) => Err(other.into()),
    }
}
