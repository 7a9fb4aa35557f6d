//! `import` and `export`: a tree of files as keys and values, and back.
//!
//! A file's path below the directory, with `/` between its parts, is its key. A value has at least one byte, so an empty
//! file is kept as the key `PATH//empty`, which no path can be: export makes the empty file of it again.

use super::client::{Client, connect, connect_lazily, explain, is_passing};
use super::{Failure, Target};
use crate::rpc::pb;
use crate::storage::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES, check_key};
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::{Code, Status};

/// Files under way at once.
const FILES_AT_ONCE: usize = 32;
/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// What follows the path of an empty file in its key.
const EMPTY_SUFFIX: &str = "//empty";
/// What the value of such a key is.
const EMPTY_MARK: &[u8] = b"empty file\n";

#[derive(Debug, Args)]
pub(super) struct TransferArgs {
    /// The directory
    dir: PathBuf,
    #[command(flatten)]
    target: Target,
    /// How long to wait for a node that is not there or asks to try again
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    retry_for: Duration,
}

#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    bytes: u64,
    already: u64,
    refused: u64,
}

enum Sent {
    Stored(u64),
    Already,
}

fn bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} files  {per_sec}  {eta} left") {
        bar.set_style(style);
    }
    bar
}

pub(super) async fn import(args: TransferArgs) -> Result<ExitCode, Failure> {
    if !args.dir.is_dir() {
        return Err(format!("{} is not a directory", args.dir.display()).into());
    }
    let client = connect_lazily(&args.target.addr, &args.target.access)?;
    let mut tally = Tally::default();
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(&args.dir).follow_links(true).sort_by_file_name() {
        match entry {
            Ok(entry) if entry.file_type().is_file() => files.push(entry.into_path()),
            Ok(_) => {}
            Err(error) => {
                tally.refused += 1;
                eprintln!("passed over: {error}");
            }
        }
    }
    let progress = bar(files.len() as u64);
    let mut files = files.into_iter();
    let mut under_way = JoinSet::new();
    let mut given_up = None;
    loop {
        while under_way.len() < FILES_AT_ONCE && given_up.is_none() {
            let Some(path) = files.next() else { break };
            let sender = Sender {
                client: client.clone(),
                tenant: args.target.tenant.clone(),
                retry_for: args.retry_for,
            };
            let dir = args.dir.clone();
            under_way.spawn(async move {
                let result = sender.send_file(&dir, &path).await;
                (path, result)
            });
        }
        let Some(done) = under_way.join_next().await else { break };
        let (path, result) = done?;
        progress.inc(1);
        match result {
            Ok(Sent::Stored(bytes)) => {
                tally.sent += 1;
                tally.bytes += bytes;
            }
            Ok(Sent::Already) => tally.already += 1,
            Err(NotSent::Refused(why)) => {
                tally.refused += 1;
                progress.suspend(|| eprintln!("refused: {}: {why}", path.display()));
            }
            Err(NotSent::Unreachable(why)) => {
                given_up.get_or_insert(why);
            }
        }
    }
    progress.finish_and_clear();
    println!(
        "{} files stored ({}), {} already there, {} refused",
        tally.sent,
        HumanBytes(tally.bytes),
        tally.already,
        tally.refused
    );
    if let Some(Failure(why)) = given_up {
        return Err(format!("{why}. Not all files are stored: run the same command again to go on").into());
    }
    Ok(if tally.refused == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

enum NotSent {
    /// This file cannot be stored.
    Refused(String),
    /// None can, now.
    Unreachable(Failure),
}

struct Sender {
    client: Client,
    tenant: String,
    retry_for: Duration,
}

impl Sender {
    async fn send_file(&self, dir: &Path, path: &Path) -> Result<Sent, NotSent> {
        let refused = |why: String| NotSent::Refused(why);
        let key = key_of(dir, path).map_err(refused)?;
        let size = fs::metadata(path).map_err(|error| refused(error.to_string()))?.len();
        if size > MAX_VALUE_BYTES as u64 {
            return Err(refused(format!(
                "has {size} bytes; a value has at most {MAX_VALUE_BYTES} (10 MiB)"
            )));
        }
        let content = tokio::fs::read(path)
            .await
            .map_err(|error| refused(error.to_string()))?;
        let empty_key = format!("{key}{EMPTY_SUFFIX}");
        // A file that has become empty, or is no longer, must not be kept in both forms.
        let (key, value, other) = if content.is_empty() {
            (empty_key, EMPTY_MARK.to_vec(), key)
        } else {
            (key, content, empty_key)
        };
        if self.read(&other).await?.is_some() {
            self.delete(&other).await?;
        }
        if self.read(&key).await?.as_ref() == Some(&value) {
            return Ok(Sent::Already);
        }
        self.write(&key, value).await?;
        Ok(Sent::Stored(size))
    }

    async fn read(&self, key: &str) -> Result<Option<Vec<u8>>, NotSent> {
        let request = || pb::ReadRequest {
            tenant_id: self.tenant.clone(),
            key: key.to_owned(),
        };
        let read = self
            .with_retries(|mut client| async move { client.read(request()).await.map(|r| r.into_inner().value) })
            .await;
        match read {
            Ok(value) => Ok(Some(value)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(not_sent(&status)),
        }
    }

    async fn write(&self, key: &str, value: Vec<u8>) -> Result<(), NotSent> {
        let request = || pb::WriteRequest {
            tenant_id: self.tenant.clone(),
            key: key.to_owned(),
            value: value.clone(),
            ..pb::WriteRequest::default()
        };
        self.with_retries(|mut client| async move { client.write(request()).await.map(drop) })
            .await
            .map_err(|status| not_sent(&status))
    }

    async fn delete(&self, key: &str) -> Result<(), NotSent> {
        let request = || pb::DeleteRequest {
            tenant_id: self.tenant.clone(),
            key: key.to_owned(),
            ..pb::DeleteRequest::default()
        };
        self.with_retries(|mut client| async move { client.delete(request()).await.map(drop) })
            .await
            .map_err(|status| not_sent(&status))
    }

    /// Repeats a call that may pass later. To repeat a write of the same content is harmless.
    async fn with_retries<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let begun = Instant::now();
        loop {
            match call(self.client.clone()).await {
                Err(status) if is_passing(&status) && begun.elapsed() < self.retry_for => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                result => return result,
            }
        }
    }
}

fn not_sent(status: &Status) -> NotSent {
    let failure = explain(status);
    if is_passing(status) {
        NotSent::Unreachable(failure)
    } else {
        NotSent::Refused(failure.0)
    }
}

fn key_of(dir: &Path, path: &Path) -> Result<String, String> {
    let relative = path.strip_prefix(dir).map_err(|error| error.to_string())?;
    let parts: Option<Vec<&str>> = relative.components().map(|part| part.as_os_str().to_str()).collect();
    let key = parts
        .ok_or("its name is not valid UTF-8, which a key must be")?
        .join("/");
    if key.len() + EMPTY_SUFFIX.len() > MAX_KEY_BYTES {
        let most = MAX_KEY_BYTES - EMPTY_SUFFIX.len();
        return Err(format!("its path has {} bytes; at most {most} are allowed", key.len()));
    }
    check_key(&key).map_err(|error| error.to_string())?;
    Ok(key)
}

pub(super) async fn export(args: TransferArgs) -> Result<ExitCode, Failure> {
    fs::create_dir_all(&args.dir).map_err(|error| format!("cannot create {}: {error}", args.dir.display()))?;
    let mut client = connect(&args.target.addr, &args.target.access).await?;
    let request = pb::ScanRequest {
        tenant_id: args.target.tenant,
        ..pb::ScanRequest::default()
    };
    let mut entries = client
        .scan(request)
        .await
        .map_err(|status| explain(&status))?
        .into_inner();
    let progress = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} files  {per_sec}") {
        progress.set_style(style);
    }
    let mut tally = Tally::default();
    while let Some(entry) = entries.message().await.map_err(|status| explain(&status))? {
        progress.inc(1);
        let (key, value) = match entry.key.strip_suffix(EMPTY_SUFFIX) {
            Some(path) if entry.value == EMPTY_MARK => (path, &[][..]),
            _ => (entry.key.as_str(), entry.value.as_slice()),
        };
        match write_below(&args.dir, key, value) {
            Ok(()) => {
                tally.sent += 1;
                tally.bytes += value.len() as u64;
            }
            Err(why) => {
                tally.refused += 1;
                progress.suspend(|| eprintln!("passed over: {key:?}: {why}"));
            }
        }
    }
    progress.finish_and_clear();
    println!(
        "{} files written ({}), {} keys passed over",
        tally.sent,
        HumanBytes(tally.bytes),
        tally.refused
    );
    Ok(if tally.refused == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Writes a file below `dir` and nowhere else: not through `..`, not through an absolute path, not through a link that
/// stands in the way.
fn write_below(dir: &Path, key: &str, content: &[u8]) -> Result<(), String> {
    let relative = Path::new(key);
    let normal = !key.is_empty()
        && !key.contains('\0')
        && relative.components().all(|part| matches!(part, Component::Normal(_)))
        && relative.components().count() == key.split('/').count();
    if !normal {
        return Err("it is not a plain relative path, and could lead out of the directory".to_owned());
    }
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let mut path = PathBuf::from(dir);
    for part in relative.parent().into_iter().flat_map(Path::components) {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(format!("{} is in the way, and no directory", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&path).map_err(|error| failed(&path, error))?;
            }
            Err(error) => return Err(failed(&path, error)),
        }
    }
    let target = dir.join(relative);
    match fs::symlink_metadata(&target) {
        Ok(found) if !found.is_file() => Err(format!("{} is in the way, and no plain file", target.display())),
        _ => fs::write(&target, content).map_err(|error| failed(&target, error)),
    }
}
