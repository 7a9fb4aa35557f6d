//! `verify`: whether everything that a node has on disk is as it was written.
//!
//! Owns: the locks for the time of it, asking a node that runs instead, and what a person or a program reads of the result.
//! Does not own: what is checked (see [`crate::storage::verify`]).

use super::client::{Socket, explain};
use super::{Failure, Running};
use crate::node;
use crate::rpc::admin_pb as pb;
use crate::storage::error::Error;
use crate::storage::fs::RealFs;
use crate::storage::recovery;
use crate::storage::verify::{Damage, Note, Verification, verify};
use clap::Args;
use indicatif::HumanBytes;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    node: Running,
    /// Print one JSON object on the last line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let options = node::storage_options(&args.node.data.config()?);
    if !options.data_dir.is_dir() {
        let dir = options.data_dir.display();
        return Err(format!("there is no data directory at {dir}; name the node's by --data-dir or --config").into());
    }
    let begun = Instant::now();
    let found = match recovery::lock_existing(&RealFs, &options) {
        Ok(_locks) => verify(&RealFs, &options, |_bytes| Ok(()))?,
        Err(Error::Locked { dir }) => ask_the_node(&args.node.socket()?, &options.data_dir, &dir).await?,
        Err(other) => return Err(other.into()),
    };
    match report(&mut io::stdout().lock(), &found, begun.elapsed(), args.json) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(format!("cannot write to standard output: {error}").into());
        }
        // Whoever reads has seen enough; what was found still counts.
        _ => {}
    }
    advice(&found)
}

/// Has the node that runs on the directory read its files.
async fn ask_the_node(socket: &Socket, data_dir: &Path, locked: &Path) -> Result<Verification, Failure> {
    let mut node = socket.connect().await.map_err(|_silent| {
        Failure(format!(
            "a node is running on {}, and its admin socket does not answer; stop it to have its files verified",
            locked.display()
        ))
    })?;
    let response = node
        .verify(pb::VerifyRequest {})
        .await
        .map_err(|status| explain(&status))?;
    let response = response.into_inner();
    let damage = response.damage.into_iter().map(|damage| Damage {
        file: PathBuf::from(damage.file),
        offset: damage.offset,
        detail: damage.detail,
    });
    Ok(Verification {
        files: response.files,
        bytes: response.bytes,
        tables: response.tables,
        keys: response.keys,
        segments: response.segments,
        changes: response.changes,
        damage: damage.collect(),
        notes: vec![Note {
            file: data_dir.to_path_buf(),
            detail: "a node runs on it: its log was read up to what was durable at the time".to_owned(),
        }],
    })
}

/// Prints what a verification found.
pub(super) fn report(out: &mut impl Write, found: &Verification, took: Duration, json: bool) -> io::Result<()> {
    for damage in &found.damage {
        writeln!(
            out,
            "damage in {} at byte {}: {}",
            damage.file.display(),
            damage.offset,
            damage.detail
        )?;
    }
    for note in &found.notes {
        writeln!(out, "note: {}: {}", note.file.display(), note.detail)?;
    }
    writeln!(
        out,
        "{} files read ({}) in {:.1} s: {} tables with {} keys, {} log segments with {} changes; {}",
        found.files,
        HumanBytes(found.bytes),
        took.as_secs_f64(),
        found.tables,
        found.keys,
        found.segments,
        found.changes,
        match found.damage.len() {
            0 => "no damage".to_owned(),
            1 => "damage in 1 place".to_owned(),
            n => format!("damage in {n} places"),
        }
    )?;
    if json {
        writeln!(out, "{}", as_json(found, took))?;
    }
    out.flush()
}

fn as_json(found: &Verification, took: Duration) -> serde_json::Value {
    let damage: Vec<_> = found
        .damage
        .iter()
        .map(|damage| {
            serde_json::json!({
                "file": damage.file.display().to_string(),
                "offset": damage.offset,
                "detail": damage.detail,
            })
        })
        .collect();
    let notes: Vec<_> = found
        .notes
        .iter()
        .map(|note| serde_json::json!({ "file": note.file.display().to_string(), "detail": note.detail }))
        .collect();
    serde_json::json!({
        "files": found.files,
        "bytes": found.bytes,
        "tables": found.tables,
        "keys": found.keys,
        "segments": found.segments,
        "changes": found.changes,
        "seconds": took.as_secs_f64(),
        "damage": damage,
        "notes": notes,
    })
}

/// The exit code, or what is to be done about the damage.
pub(super) fn advice(found: &Verification) -> Result<ExitCode, Failure> {
    if found.damage.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure(
        "there is damage. Restore the named files from a backup, or give the node an empty directory and fill it from its \
         replicas. A node starts with damaged data blocks of a table, and answers DATA_LOSS for the keys in them alone; \
         with a damaged log or manifest it does not start. Look into a file with `pairdb-node inspect FILE`"
            .to_owned(),
    ))
}
