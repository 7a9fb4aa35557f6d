//! What became of reloads of the configuration and of the files that it names.
//!
//! Owns: the counts, and the last reload as it is shown. Does not own: reloading (see `node`).

use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What became of a key, or of a file, that had changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is in force.
    Applied,
    /// The running node keeps the value that it has.
    NeedsRestart,
    /// Why the running node keeps what it has.
    Failed(String),
}

/// A key of the configuration whose value, or whose file, had changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// As `compaction.throttle`.
    pub key: String,
    /// What became of it.
    pub change: Change,
}

/// A reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What had changed; nothing, when the configuration was refused as a whole.
    pub outcomes: Vec<Outcome>,
    /// Why the configuration was refused.
    pub refused: Option<String>,
}

impl Reload {
    fn failed(&self) -> bool {
        let is_failure = |outcome: &Outcome| matches!(outcome.change, Change::Failed(_));
        self.refused.is_some() || self.outcomes.iter().any(is_failure)
    }
}

/// What became of them.
#[derive(Debug, Default)]
pub struct ReloadWatch {
    last: ArcSwapOption<Reload>,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl ReloadWatch {
    /// Takes note of a reload.
    pub fn note(&self, reload: Reload) {
        let count = if reload.failed() { &self.failed } else { &self.succeeded };
        count.fetch_add(1, Ordering::Relaxed);
        self.last.store(Some(Arc::new(reload)));
    }

    /// The last one since the start.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Reload>> {
        self.last.load_full()
    }

    /// How many did what they should, and how many not all of it, since the start.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (
            self.succeeded.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed),
        )
    }
}
