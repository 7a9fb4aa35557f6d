//! Threads that flush and compact for a [`Store`].
//!
//! Owns: the threads, and when they wake. Does not own: the work.

use super::Store;
use crate::storage::error::Result;
use crate::storage::priority;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest sleep of a thread: what failed is tried again, and tombstones grow old, without anybody telling.
const LONGEST_SLEEP: Duration = Duration::from_millis(250);

/// What wakes threads up.
#[derive(Default)]
pub(super) struct Wake {
    running: Mutex<bool>,
    /// The same, for those who ask at every write.
    is_running: AtomicBool,
    changed: Condvar,
}

impl Wake {
    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }

    /// Tells every thread to look again.
    pub(super) fn all(&self) {
        let _running = self.running.lock();
        self.changed.notify_all();
    }

    fn set_running(&self, running: bool) {
        *self.running.lock() = running;
        self.is_running.store(running, Ordering::Release);
        self.changed.notify_all();
    }

    /// Waits, while threads run, for as long as `condition` holds.
    pub(super) fn wait_while(&self, condition: impl Fn() -> bool) {
        let mut running = self.running.lock();
        while *running && condition() {
            self.changed.wait_for(&mut running, LONGEST_SLEEP);
        }
    }

    /// Sleeps until somebody tells to look again, but not for long; `false` when it is time to end.
    fn sleep(&self) -> bool {
        let mut running = self.running.lock();
        if *running {
            self.changed.wait_for(&mut running, LONGEST_SLEEP);
        }
        *running
    }
}

/// Running threads. Dropped, it ends them, and waits for what they do.
pub struct Background {
    store: Arc<Store>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Background {
    fn drop(&mut self) {
        self.store.wake.set_running(false);
        self.store.jobs.stop();
        for thread in self.threads.drain(..) {
            // A panic of a thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Store {
    /// Starts a thread that flushes, one that syncs the log aside where writes do not, and `workers` that compact. To be called once.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start_background(self: &Arc<Self>, workers: usize) -> io::Result<Background> {
        self.wake.set_running(true);
        let mut background = Background {
            store: Arc::clone(self),
            threads: Vec::new(),
        };
        let flusher: fn(&Store) -> Result<bool> = Store::flush_oldest;
        let compactor: fn(&Store) -> Result<bool> = Store::compact_aside;
        let syncer: fn(&Store) -> Result<bool> = Store::sync_ahead;
        let work = [("pairdb-flush", flusher), ("pairdb-sync", syncer)]
            .into_iter()
            .take(if self.options.sync_writes { 1 } else { 2 })
            .chain(std::iter::repeat_n(("pairdb-compact", compactor), workers));
        for (name, work) in work {
            let store = Arc::clone(self);
            let thread = std::thread::Builder::new()
                .name(name.into())
                .spawn(move || store.run(work))?;
            background.threads.push(thread);
        }
        Ok(background)
    }

    /// Compacts, on a thread of lower priority unless it is urgent: readers who leave nothing would let tables pile up.
    fn compact_aside(&self) -> Result<bool> {
        if self.published.peek().tables.debt().is_urgent() || !self.jobs.is_due() {
            return self.compact();
        }
        let lowered = || {
            priority::lower();
            self.compact()
        };
        // A thread cannot raise its priority again, so each job has its own.
        std::thread::scope(|scope| scope.spawn(lowered).join()).unwrap_or(Ok(false))
    }

    fn run(&self, work: fn(&Self) -> Result<bool>) {
        loop {
            // What fails is tried again after a while; what it concerns stays where it was.
            if work(self).unwrap_or(false) {
                self.wake.all();
            } else if !self.wake.sleep() {
                return;
            }
        }
    }

    /// Seals what is in memory and waits until all of it is in tables, and nothing is due to be compacted. Only while
    /// threads run.
    pub fn settle(&self) {
        self.seal();
        self.wake.all();
        let busy = || {
            let view = self.published.load();
            !view.sealed.is_empty() || self.jobs.active() > 0 || self.jobs.is_due()
        };
        self.wake.wait_while(busy);
    }
}
