//! `token`: tokens, and the lines by which a node knows them.
//!
//! Owns: making one by chance. Does not own: the file of a node (see [`crate::rpc::security`]). A token is never an argument:
//! others can see those.

use super::Failure;
use crate::rpc::security::{Digest, read_token};
use crate::storage::limits;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use std::io::Read;
use std::process::ExitCode;

/// Longest token that is read.
const MOST_BYTES: u64 = 64 << 10;

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Print a new token on the first line, for its holder, and on the second what goes into the node's file
    New(Of),
    /// Read a token from standard input, and print what goes into the node's file
    Hash(Of),
}

#[derive(Debug, Args)]
struct Of {
    /// Tenant of whom the token is; * for all, and for what concerns the node itself. In a file for administration, any name
    tenant: String,
}

pub(super) fn run(args: &TokenArgs) -> Result<ExitCode, Failure> {
    match &args.command {
        TokenCommand::New(of) => {
            let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
            let line = line(&of.tenant, &token)?;
            println!("{token}\n{line}");
        }
        TokenCommand::Hash(of) => {
            let mut content = Vec::new();
            std::io::stdin().take(MOST_BYTES).read_to_end(&mut content)?;
            let token = read_token(&content).map_err(|why| format!("what standard input holds {why}"))?;
            println!("{}", line(&of.tenant, token)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(tenant: &str, token: &str) -> Result<String, Failure> {
    limits::check_tenant(tenant)?;
    if tenant.trim() != tenant || tenant.starts_with('#') {
        return Err(format!("{tenant:?}: must not begin with # or a space, nor end with one").into());
    }
    Ok(format!("{tenant} {}", Digest::of(token.as_bytes())))
}
