//! Whether work on threads gets on: the log's, flushes, compactions.
//!
//! Owns: what is under way, and how many steps each work has taken. A step is an operation on a file, or a wait for the pace of
//! compaction. Does not own: the threads, the time between two steps, or what follows when one stands still.

use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// The steps of the work that this thread is at.
    static PRESENT: RefCell<Option<Arc<AtomicU64>>> = const { RefCell::new(None) };
}

/// All work that is under way.
#[derive(Debug, Default)]
pub struct UnderWay(Mutex<Works>);

#[derive(Debug, Default)]
struct Works {
    last: u64,
    works: BTreeMap<u64, (&'static str, Arc<AtomicU64>)>,
}

/// Work that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Its number, which no other has.
    pub number: u64,
    /// What it is.
    pub name: &'static str,
    /// The steps that it has taken.
    pub steps: u64,
}

/// Ends the work that it stands for, also when that panics.
struct End<'a> {
    of: &'a UnderWay,
    number: u64,
    before: Option<Arc<AtomicU64>>,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        PRESENT.set(self.before.take());
        self.of.0.lock().works.remove(&self.number);
    }
}

impl UnderWay {
    /// Does work on this thread, and takes note of its steps.
    pub fn watch<T>(&self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let steps = Arc::new(AtomicU64::new(0));
        let number = {
            let mut works = self.0.lock();
            works.last += 1;
            let number = works.last;
            works.works.insert(number, (name, Arc::clone(&steps)));
            number
        };
        let _end = End {
            of: self,
            number,
            before: PRESENT.replace(Some(steps)),
        };
        work()
    }

    /// What is under way now, the oldest first.
    #[must_use]
    pub fn works(&self) -> Vec<Work> {
        let works = self.0.lock();
        let work = |(number, (name, steps)): (&u64, &(&'static str, Arc<AtomicU64>))| Work {
            number: *number,
            name,
            steps: steps.load(Ordering::Relaxed),
        };
        works.works.iter().map(work).collect()
    }
}

/// The work that this thread is at, if any, gets on.
pub fn step() {
    PRESENT.with_borrow(|present| {
        if let Some(steps) = present {
            steps.fetch_add(1, Ordering::Relaxed);
        }
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test panics")]

    use super::*;
    use crate::storage::fs::{FileSystem, RealFs};

    #[test]
    fn each_operation_on_a_file_is_a_step() {
        let (dir, under_way) = (tempfile::tempdir().unwrap(), UnderWay::default());
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        under_way.watch("work", || {
            let steps = || under_way.works()[0].steps;
            let mut file = RealFs.create(&path).unwrap();
            file.write_at(0, b"bytes").unwrap();
            file.write_out(0, 5).unwrap();
            file.sync().unwrap();
            file.truncate(1).unwrap();
            assert_eq!(steps(), 5);
            RealFs.rename(&path, &other).unwrap();
            RealFs.sync_dir(dir.path()).unwrap();
            RealFs.open(&other).unwrap().sync().unwrap();
            RealFs.read(&other).unwrap();
            RealFs.remove(&other).unwrap();
            assert_eq!(steps(), 11);
        });
    }

    #[test]
    fn work_is_named_with_its_own_steps_until_it_ends() {
        let under_way = UnderWay::default();
        let works = || {
            under_way
                .works()
                .iter()
                .map(|work| (work.name, work.steps))
                .collect::<Vec<_>>()
        };
        step();
        under_way.watch("outer", || {
            step();
            under_way.watch("inner", || {
                step();
                step();
                assert_eq!(works(), [("outer", 1), ("inner", 2)]);
            });
            step();
            assert_eq!(works(), [("outer", 2)]);
        });
        assert!(works().is_empty());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            under_way.watch("outer", || panic!("in the middle"));
        }));
        assert!(panicked.is_err() && works().is_empty());
        step();
    }
}
