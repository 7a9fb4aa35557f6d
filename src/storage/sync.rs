//! What the threads of the node meet at, for those parts that `tests/models` runs through all kinds of interleavings: there
//! the same names are a model checker's.

pub use arc_swap::{ArcSwap, ArcSwapOption, Guard};
pub use parking_lot::{Mutex, MutexGuard};
pub use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
