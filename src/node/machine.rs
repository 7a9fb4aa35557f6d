//! What a node runs on.
//!
//! Owns: these together, so that a machine is real or simulated as a whole. Does not own: files, clocks, threads or names.

use crate::actors::gossip::names::NameService;
use crate::actors::threads::Threads;
use crate::storage::fs::FileSystem;
use crate::storage::time::{RealTime, Time};
use std::sync::Arc;

/// Files, a clock, threads, and where names are.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where files are.
    pub fs: Arc<dyn FileSystem>,
    /// What dates writes and paces what is done aside. The actors' timers follow the runtime's clock.
    pub time: Arc<dyn Time>,
    /// What does the work that may block.
    pub threads: Threads,
    /// What says where the gossip finds a name.
    pub name_service: NameService,
}

impl Machine {
    /// This machine, with other files perhaps.
    #[must_use]
    pub fn real(fs: Arc<dyn FileSystem>) -> Self {
        Self {
            fs,
            time: Arc::new(RealTime::default()),
            threads: Threads::system(),
            name_service: NameService::system(),
        }
    }
}
