//! What became of reloads of the configuration and of the files that it names.
//!
//! Owns: the counts, the last reload and the last look at files as they are shown, and what of a look is news. Does not own:
//! reloading (see `node`).

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
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

impl Outcome {
    fn failed(&self) -> bool {
        matches!(self.change, Change::Failed(_))
    }
}

impl Reload {
    fn failed(&self) -> bool {
        self.refused.is_some() || self.outcomes.iter().any(Outcome::failed)
    }
}

/// What became of them.
#[derive(Debug, Default)]
pub struct ReloadWatch {
    last: ArcSwapOption<Reload>,
    last_look: ArcSwapOption<Reload>,
    /// What could not be used when the files were last looked at.
    bad: Mutex<Vec<Outcome>>,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl ReloadWatch {
    fn count(&self, reload: &Reload) {
        let count = if reload.failed() { &self.failed } else { &self.succeeded };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note of a reload of the configuration.
    pub fn note(&self, reload: Reload) {
        self.count(&reload);
        self.last.store(Some(Arc::new(reload)));
    }

    /// Takes note of what had changed when the files were looked at, at a time in milliseconds since the Unix epoch. Says whether
    /// that is news: what is as bad as it was at the look before is counted, and nothing else.
    pub fn note_look(&self, at_ms: u64, outcomes: Vec<Outcome>) -> bool {
        let failures = outcomes.iter().filter(|outcome| outcome.failed());
        let failures: Vec<Outcome> = failures.cloned().collect();
        let mut bad = self.bad.lock();
        let is_news = failures.len() < outcomes.len() || failures != *bad;
        *bad = failures;
        if outcomes.is_empty() {
            return false;
        }
        let look = Reload {
            at_ms,
            outcomes,
            refused: None,
        };
        self.count(&look);
        if is_news {
            self.last_look.store(Some(Arc::new(look)));
        }
        is_news
    }

    /// The last one of the configuration since the start.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Reload>> {
        self.last.load_full()
    }

    /// The last look at the files that found something new, since the start.
    #[must_use]
    pub fn last_look(&self) -> Option<Arc<Reload>> {
        self.last_look.load_full()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(key: &str, change: Change) -> Outcome {
        Outcome {
            key: key.to_owned(),
            change,
        }
    }

    #[test]
    fn a_file_that_stays_bad_is_news_once_and_hides_no_reload() {
        let watch = ReloadWatch::default();
        let reload = Reload {
            at_ms: 1,
            outcomes: vec![outcome("compaction.throttle", Change::Applied)],
            refused: None,
        };
        watch.note(reload.clone());
        let bad = |why: &str| vec![outcome("security.tokens_file", Change::Failed(why.to_owned()))];
        assert!(watch.note_look(2, bad("gone")));
        assert!(!watch.note_look(3, bad("gone")), "it is as bad as it was");
        assert_eq!(watch.last_look().unwrap().at_ms, 2);
        assert!(watch.note_look(4, bad("no digest")), "it is bad in another way");
        assert!(
            !watch.note_look(5, Vec::new()),
            "it is as it was when it was last whole"
        );
        assert!(watch.note_look(6, bad("no digest")), "it was well in between");
        let mixed = || [bad("no digest"), vec![outcome("security.tls_cert", Change::Applied)]].concat();
        assert!(
            watch.note_look(7, mixed()) && watch.note_look(8, mixed()),
            "what is applied is news"
        );
        assert_eq!(watch.counts(), (1, 6), "each look counts that found something");
        assert_eq!(*watch.last().unwrap(), reload);
    }
}
