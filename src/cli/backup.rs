//! `backup` and `restore`

use super::client::explain;
use super::{DataDir, Failure, Running};
use crate::node::storage_options;
use crate::rpc::admin_pb as pb;
use crate::storage::backup::{self, Copied};
use crate::storage::error::Error;
use crate::storage::fs::{FileSystem, RealFs};
use crate::storage::manifest;
use crate::storage::store::Store;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Directory that holds the backups, on the node's machine; best on another disk
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Name of this backup; without one, the time
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    node: Running,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Directory that holds the backups
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Which of them; without one, the last
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    data: DataDir,
}

pub(super) async fn backup(args: BackupArgs) -> Result<ExitCode, Failure> {
    let config = args.node.data.config()?;
    let base = std::path::absolute(&args.to)?;
    if let Some(name) = args.name.as_deref().filter(|name| !backup::is_name(name)) {
        return Err(format!("--name {name}: must be a file name that does not begin with a dot").into());
    }
    let name = args.name.unwrap_or_else(|| {
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        now.replace([':', '-'], "")
    });
    let copied = match args.node.socket()?.connect().await {
        Ok(mut node) => {
            let request = pb::BackupRequest {
                directory: base.to_str().ok_or("--to must be valid UTF-8")?.to_owned(),
                name: name.clone(),
            };
            let response = node.backup(request).await.map_err(|status| explain(&status))?;
            let response = response.into_inner();
            Copied {
                dir: PathBuf::from(response.directory),
                tables: response.tables as usize,
                linked: response.linked as usize,
                reused: response.reused as usize,
                copied: response.copied as usize,
                bytes: response.bytes,
                damaged: response.damaged,
            }
        }
        Err(_not_running) => {
            let manifest = storage_options(&config).sstable_dir.join(manifest::NAME);
            if !manifest.exists() {
                let dir = config.storage.data_dir.display();
                return Err(format!("there is no data at {dir}; name the node's by --data-dir or --config").into());
            }
            let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
            let store = Store::open(&fs, storage_options(&config), &config.server.node_id).map_err(not_reached)?;
            let copied = store.backup(&base, &name)?;
            store.close()?;
            copied
        }
    };
    println!("{} {name}: {}", base.display(), summary(&copied));
    if copied.damaged.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let damaged = copied.damaged.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    Err(
        format!("tables {damaged} are damaged, and are so in the backup; keep older backups, and look at `health`")
            .into(),
    )
}

fn not_reached(error: Error) -> String {
    match error {
        Error::Locked { .. } => format!("{error}; its admin socket does not answer"),
        error => error.to_string(),
    }
}

pub(super) fn restore(args: &RestoreArgs) -> Result<ExitCode, Failure> {
    let config = args.data.config()?;
    let options = storage_options(&config);
    let from = match &args.name {
        Some(name) => args.from.join(name),
        None => latest(&args.from)?,
    };
    let copied = backup::restore(&RealFs, &from, &options.sstable_dir, &options.log.dir)?;
    println!(
        "restored {} into {}: {}",
        from.display(),
        options.data_dir.display(),
        summary(&copied)
    );
    Ok(ExitCode::SUCCESS)
}

/// The whole backup that was made last.
fn latest(base: &Path) -> Result<PathBuf, Failure> {
    let names = std::fs::read_dir(base).map_err(|error| format!("--from {}: {error}", base.display()))?;
    let whole = names
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|dir| dir.join("sstables").join(manifest::NAME).exists());
    let made = |dir: &PathBuf| {
        std::fs::metadata(dir.join("sstables").join(manifest::NAME))
            .and_then(|m| m.modified())
            .ok()
    };
    let last = whole.max_by_key(made);
    last.ok_or_else(|| Failure(format!("--from {}: there is no whole backup in it", base.display())))
}

fn summary(copied: &Copied) -> String {
    format!(
        "{} tables of {} ({} linked, {} shared with the backup before, {} copied)",
        copied.tables,
        bytesize::ByteSize::b(copied.bytes),
        copied.linked,
        copied.reused,
        copied.copied
    )
}
