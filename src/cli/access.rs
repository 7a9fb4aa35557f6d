//! How a command gets in where a node does not let everybody in: the flags, and their variables of the environment.
//!
//! Owns: the arguments. Does not own: what is done with them (see [`super::client`]).

use super::client::Socket;
use super::{DataDir, Failure};
use clap::Args;
use std::path::PathBuf;

/// How to get in.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Access {
    /// Certificates that the node's is to be signed by: for https://
    #[arg(long, env = "PAIRDB_CA", value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Certificate to show, where the node asks for one
    #[arg(long, env = "PAIRDB_CERT", value_name = "FILE", requires_all = ["cert_key", "ca"])]
    pub(super) cert: Option<PathBuf>,
    /// Its key
    #[arg(long = "key", env = "PAIRDB_KEY", value_name = "FILE", requires = "cert")]
    pub(super) cert_key: Option<PathBuf>,
    /// File with the token to show, and nothing else
    #[arg(long, env = "PAIRDB_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

/// How to get in where the node is administered over the network.
#[derive(Debug, Clone, Args)]
pub(super) struct AdminAccess {
    /// Certificates that the node's is to be signed by: for https://
    #[arg(long, global = true, env = "PAIRDB_CA", value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Certificate to show, where the node asks for one
    #[arg(long, global = true, env = "PAIRDB_CERT", value_name = "FILE")]
    pub(super) cert: Option<PathBuf>,
    /// Its key
    #[arg(long = "key", global = true, env = "PAIRDB_KEY", value_name = "FILE")]
    pub(super) cert_key: Option<PathBuf>,
    /// File with the token to show, where the node asks for one (security.admin_tokens_file)
    #[arg(long, global = true, env = "PAIRDB_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub(super) admin_token_file: Option<PathBuf>,
}

impl AdminAccess {
    pub(super) fn access(&self) -> Access {
        Access {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            cert_key: self.cert_key.clone(),
            token_file: self.admin_token_file.clone(),
        }
    }
}

/// A node that runs on a data directory, which is asked by the socket there.
#[derive(Debug, Clone, Args)]
pub(super) struct Running {
    #[command(flatten)]
    pub(super) data: DataDir,
    /// File with the token to show, where the node asks for one (security.admin_tokens_file)
    #[arg(long, env = "PAIRDB_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub(super) admin_token_file: Option<PathBuf>,
}

impl Running {
    /// Its way to the node.
    pub(super) fn socket(&self) -> Result<Socket, Failure> {
        Socket::new(&self.data.config()?.storage.data_dir, self.admin_token_file.as_deref())
    }
}
