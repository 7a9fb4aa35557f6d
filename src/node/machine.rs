//! What a node runs on.
//!
//! Owns: the three together, so that a machine is real or simulated as a whole. Does not own: files, clocks or threads.

use crate::actors::threads::Threads;
use crate::storage::fs::FileSystem;
use crate::storage::time::{RealTime, Time};
use std::sync::Arc;

/// Files, a clock and threads.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where files are.
    pub fs: Arc<dyn FileSystem>,
    /// What dates writes and paces what is done aside. The actors' timers follow the runtime's clock.
    pub time: Arc<dyn Time>,
    /// What does the work that may block.
    pub threads: Threads,
}

impl Machine {
    /// This machine, with other files perhaps.
    #[must_use]
    pub fn real(fs: Arc<dyn FileSystem>) -> Self {
        Self {
            fs,
            time: Arc::new(RealTime::default()),
            threads: Threads::system(),
        }
    }
}
