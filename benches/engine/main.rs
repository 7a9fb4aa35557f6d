//! The storage engine beside fjall: `cargo bench --bench engine -- [--dir DIR] [--only NAME] [--engine NAME] …`.
//!
//! Owns: which engines are compared here. The workloads and how they are run are in [`suite`], which `benches/peers`
//! shares to compare RocksDB in the same run; what is compared and how fairly is said in `benches/peers/README.md`.

mod suite;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    suite::main(&[suite::ours::DRIVER, suite::fjall::DRIVER])
}
