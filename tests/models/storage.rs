//! The engine as the models see it: as it is, but for what threads meet at.

pub use pairdb_node::storage::{compaction, histogram, key, version, view};

#[path = "../../src/storage/published.rs"]
pub mod published;

/// The names of `src/storage/sync.rs`. The model checker takes every order of memory for the strictest, and what swaps an
/// [`Arc`] without a lock is a lock here: an order that is too weak is not found, an order of steps is.
pub mod sync {
    pub use shuttle::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::fmt;
    use std::ops::Deref;
    use std::sync::Arc;

    pub struct Mutex<T>(shuttle::sync::Mutex<T>);
    pub type MutexGuard<'a, T> = shuttle::sync::MutexGuard<'a, T>;

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    impl<T> fmt::Debug for Mutex<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mutex")
        }
    }

    /// What was loaded.
    pub struct Guard<T>(T);

    impl<T> Deref for Guard<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    #[derive(Debug)]
    pub struct ArcSwap<T>(Mutex<Arc<T>>);

    impl<T> ArcSwap<T> {
        pub fn from_pointee(value: T) -> Self {
            Self(Mutex::new(Arc::new(value)))
        }

        pub fn load_full(&self) -> Arc<T> {
            Arc::clone(&self.0.lock())
        }

        pub fn load(&self) -> Guard<Arc<T>> {
            Guard(self.load_full())
        }

        /// As the original: without the lock while `change` works, and again when another was faster.
        pub fn rcu(&self, mut change: impl FnMut(&Arc<T>) -> T) {
            loop {
                let before = self.load_full();
                let after = Arc::new(change(&before));
                let mut current = self.0.lock();
                if Arc::ptr_eq(&current, &before) {
                    *current = after;
                    return;
                }
            }
        }
    }

    #[derive(Debug)]
    pub struct ArcSwapOption<T>(Mutex<Option<Arc<T>>>);

    impl<T> Default for ArcSwapOption<T> {
        fn default() -> Self {
            Self(Mutex::new(None))
        }
    }

    impl<T> ArcSwapOption<T> {
        pub fn store(&self, value: Option<Arc<T>>) {
            *self.0.lock() = value;
        }

        pub fn load(&self) -> Guard<Option<Arc<T>>> {
            Guard(self.0.lock().clone())
        }
    }
}
