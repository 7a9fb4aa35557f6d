//! `verify`: whether everything that a node has on disk is as it was written.
//!
//! Owns: the locks for the time of it, and what a person or a program reads of the result. Does not own: what is checked
//! (see [`crate::storage::verify`]).

use super::{Failure, data_dir_flag};
use crate::config::Config;
use crate::node;
use crate::storage::error::Error;
use crate::storage::fs::RealFs;
use crate::storage::recovery;
use crate::storage::verify::{Verification, verify};
use clap::Args;
use indicatif::HumanBytes;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Configuration file; without one every key has its default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of all data, instead of storage.data_dir
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print one JSON object on the last line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let flags: Vec<_> = args
        .data_dir
        .as_deref()
        .map(data_dir_flag)
        .transpose()?
        .into_iter()
        .collect();
    let config = Config::load(args.config.as_deref(), std::env::vars(), &flags)?;
    let options = node::storage_options(&config);
    if !options.data_dir.is_dir() {
        let dir = options.data_dir.display();
        return Err(format!("there is no data directory at {dir}; name the node's by --data-dir or --config").into());
    }
    let begun = Instant::now();
    let _locks = recovery::lock_existing(&RealFs, &options).map_err(|error| match error {
        Error::Locked { dir } => Failure(format!(
            "a node is running on {}; stop it to have its files verified",
            dir.display()
        )),
        other => other.into(),
    })?;
    let found = verify(&RealFs, &options, |_bytes| Ok(()))?;
    match report(&mut io::stdout().lock(), &found, begun.elapsed(), args.json) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(format!("cannot write to standard output: {error}").into());
        }
        // Whoever reads has seen enough; what was found still counts.
        _ => {}
    }
    advice(&found)
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
