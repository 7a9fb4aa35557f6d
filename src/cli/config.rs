//! `config`: a node's configuration as `serve` with the same flags would have it.
//!
//! Owns: what a person reads of it. Does not own: what can work (see [`crate::config`]), or what its files may say.

use super::Failure;
use super::serve::ServeArgs;
use crate::node::read_gossip_keys;
use crate::rpc::security::Security;
use clap::{Args, Subcommand};
use std::io::{self, Write};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether it can work, and all that cannot; the files of [security] and the gossip's keys are read as well
    Check(ServeArgs),
    /// Print every key as it is in force: file, environment and flags put together, as TOML. No secret stands in it
    Print(ServeArgs),
}

pub(super) fn run(args: &ConfigArgs) -> Result<ExitCode, Failure> {
    let text = match &args.command {
        ConfigCommand::Check(args) => {
            let config = args.load()?;
            let files = Security::open(config.security.files());
            files.map_err(|problems| {
                format!(
                    "the files of [security] cannot be used:\n  - {}",
                    problems.join("\n  - ")
                )
            })?;
            if config.gossip.enabled {
                read_gossip_keys(&config)?;
            }
            "the configuration can work\n".to_owned()
        }
        ConfigCommand::Print(args) => toml::to_string(&args.load()?)?,
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => {
            written.map_err(|error| format!("cannot write to standard output: {error}"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
