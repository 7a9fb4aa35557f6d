//! The storage engine beside fjall and RocksDB, in the same run: see `benches/peers/README.md`.
//!
//! Owns: which engines are compared. Shares workloads and drivers with the node's own bench (`benches/engine`), and
//! adds the one whose driver cannot be part of the node's build.

#[cfg(feature = "rocksdb")]
mod rocks;
#[path = "../../engine/suite/mod.rs"]
mod suite;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    suite::main(&[
        suite::ours::DRIVER,
        suite::fjall::DRIVER,
        #[cfg(feature = "rocksdb")]
        rocks::DRIVER,
    ])
}
