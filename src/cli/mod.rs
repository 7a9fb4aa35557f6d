//! The command line.
//!
//! Owns: arguments, and what a person reads. Does not own: the node (see [`crate::node`]).

mod access;
mod backup;
mod bench;
mod chaos;
mod client;
mod config;
mod drain;
mod fault;
mod inspect;
mod kv;
mod log_level;
mod serve;
mod status;
mod token;
mod top;
mod transfer;
mod verify;
mod words;

pub use chaos::history;

use crate::config::Config;
use crate::telemetry;
use access::{Access, AdminAccess, Running};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// PairDB's storage node: serve it, talk to it, measure it.
#[derive(Debug, Parser)]
#[command(name = "pairdb-node", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node until SIGTERM or SIGINT; at SIGHUP it reads its configuration again
    Serve(serve::ServeArgs),
    /// Check the configuration of a node, or print it
    Config(config::ConfigArgs),
    /// Make a token for a tenant, or the line that has a node know one
    Token(token::TokenArgs),
    /// Store a value; reads it from standard input when none is given
    Put(kv::PutArgs),
    /// Print the value of a key
    Get(kv::KeyArgs),
    /// Delete a key
    Delete(kv::KeyArgs),
    /// Print how the node is
    Health(kv::HealthArgs),
    /// Show all parts of a running node: actors, levels, compaction jobs, memory, log, disks
    ///
    /// Asks by the admin socket in its data directory.
    Status(status::StatusArgs),
    /// The same live in a terminal: s orders the actors, q or Ctrl-C quits
    Top(top::TopArgs),
    /// Take no more writes, also after a restart, and make tables of all that is in memory; reads go on
    Drain(drain::DrainArgs),
    /// Take writes again
    Undrain(drain::UndrainArgs),
    /// Change what a running node logs, until it ends
    LogLevel(log_level::LogLevelArgs),
    /// Store every file below a directory: its path is the key, its content the value
    ///
    /// Run again after an interruption, it goes on where it was: what is stored already is not sent again.
    Import(transfer::TransferArgs),
    /// Write every key of a tenant as a file below a directory: the opposite of import
    Export(transfer::TransferArgs),
    /// Copy all data, consistently, while the node runs or not
    ///
    /// Each backup is whole by itself, and shares with the one before what did not change.
    Backup(backup::BackupArgs),
    /// Make a data directory of a backup
    Restore(backup::RestoreArgs),
    /// Show what a commit log segment, a table, a manifest or a data directory holds
    ///
    /// Reads alone: takes no lock and changes nothing, so that it can be used beside a running node.
    Inspect(inspect::InspectArgs),
    /// Read everything that a node has on disk, running or not, and name all damage
    Verify(verify::VerifyArgs),
    /// Measure a node's throughput and latency
    Bench(bench::BenchArgs),
    /// Break a single actor of a node, to see that it holds
    ///
    /// The node must allow it (admin.fault_injection).
    Fault(fault::FaultArgs),
    /// Break a node's actors while clients use it, and judge whether it held
    ///
    /// Exits with an error when an acknowledged write was lost, a read was wrong, or a call was not answered.
    Chaos(chaos::ChaosArgs),
    /// Serve the empty handlers that bench --baseline compares with
    #[command(hide = true)]
    BaselineServer(bench::BaselineServerArgs),
}

/// Which node and tenant to talk to.
#[derive(Debug, Clone, Args)]
struct Target {
    /// Address of the node
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50052")]
    addr: String,
    /// Tenant whose keys are meant
    #[arg(long, value_name = "NAME", default_value = "default")]
    tenant: String,
    #[command(flatten)]
    access: Access,
}

/// Which data directory is meant.
#[derive(Debug, Clone, Args)]
struct DataDir {
    /// Configuration file; without one every key has its default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of all data, instead of storage.data_dir
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDir {
    /// The node's configuration.
    fn config(&self) -> Result<Config, Failure> {
        self.config_with(Vec::new())
    }

    /// The node's configuration, with flags of the command's own: keys and their values.
    fn config_with(&self, mut flags: Vec<(&'static str, String)>) -> Result<Config, Failure> {
        if let Some(dir) = &self.data_dir {
            let dir = dir
                .to_str()
                .ok_or("--data-dir must be valid UTF-8, as the configuration is")?;
            flags.push(("storage.data_dir", dir.to_owned()));
        }
        Ok(Config::load(self.config.as_deref(), std::env::vars(), &flags)?)
    }
}

/// What a command failed with, in words for a person.
#[derive(Debug)]
pub struct Failure(String);

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl Cli {
    /// Runs the command. What goes wrong is on standard error.
    pub fn run(self) -> ExitCode {
        // The same runtime for the node and for what it is compared with.
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("error: cannot start: {error}");
                return ExitCode::FAILURE;
            }
        };
        let result = runtime.block_on(self.command.run());
        // What still runs on a blocking thread must not keep the process: the disk is in order at any moment.
        runtime.shutdown_background();
        match result {
            Ok(code) => code,
            Err(Failure(message)) => {
                telemetry::last_words(move || eprintln!("error: {message}"));
                ExitCode::FAILURE
            }
        }
    }
}

impl Command {
    async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Serve(args) => serve::run(args).await,
            Self::Config(args) => config::run(&args),
            Self::Token(args) => token::run(&args),
            Self::Put(args) => kv::put(args).await,
            Self::Get(args) => kv::get(args).await,
            Self::Delete(args) => kv::delete(args).await,
            Self::Health(args) => kv::health(args).await,
            Self::Status(args) => status::run(&args).await,
            Self::Top(args) => top::run(&args).await,
            Self::Drain(args) => drain::drain(&args).await,
            Self::Undrain(args) => drain::undrain(&args).await,
            Self::LogLevel(args) => log_level::run(args).await,
            Self::Import(args) => transfer::import(args).await,
            Self::Export(args) => transfer::export(args).await,
            Self::Backup(args) => backup::backup(args).await,
            Self::Restore(args) => backup::restore(&args),
            Self::Inspect(args) => inspect::run(&args),
            Self::Verify(args) => verify::run(&args).await,
            Self::Bench(args) => bench::run(args).await,
            Self::Fault(args) => fault::run(args).await,
            Self::Chaos(args) => chaos::run(args).await,
            Self::BaselineServer(args) => bench::serve_baseline(args).await,
        }
    }
}
