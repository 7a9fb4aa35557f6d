//! `pairdb-node`: see [`pairdb_node::cli`].

use clap::Parser;
use std::process::ExitCode;

/// Frees memory to the system and keeps it unfragmented better than the system's own under many small values.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pairdb_node::cli::Cli::parse().run()
}
