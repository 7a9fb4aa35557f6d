//! `pairdb-node`: see [`pairdb_node::cli`].

use clap::Parser;
use std::process::ExitCode;

/// Frees memory to the system and keeps it unfragmented better than the system's own under many small values.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A huge page is in memory as a whole, however little of it is used, and each thread's heap has its own: with them the
    // process takes up to twice what it allocates. Where the system knows no such setting it has no such pages.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    pairdb_node::cli::Cli::parse().run()
}
