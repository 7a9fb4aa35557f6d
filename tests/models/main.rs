//! The pieces of concurrency that are made by hand, run as they are through interleavings of their threads (shuttle): the
//! mailbox, the published view, and the chain of what a shard of the cache is told.
//!
//! `src/actors/mailbox.rs`, `src/actors/shard.rs` and `src/storage/published.rs` are compiled into this binary, over the names of
//! a model checker. What MemtableActor, CacheActor and a read do with them is written down once more in [`reading`], step by
//! step.
//!
//! PAIRDB_TEST_INTERLEAVINGS is how many interleavings each model is run through.
#![allow(dead_code, reason = "each model uses a part of what it runs")]

mod actors;
mod mailboxes;
mod reading;
mod storage;

/// Runs a model through interleavings: half of them by chance, half with few switches of threads (PCT), which finds what
/// needs an unlikely order.
pub fn explore(model: impl Fn() + Send + Sync + 'static) {
    let said = std::env::var("PAIRDB_TEST_INTERLEAVINGS");
    let count: usize = said.map_or(10_000, |said| said.parse().unwrap());
    let model = std::sync::Arc::new(model);
    let again = std::sync::Arc::clone(&model);
    shuttle::check_random(move || model(), count / 2);
    shuttle::check_pct(move || again(), count / 2, 3);
}

/// Whether an interleaving is found in which the model fails.
pub fn fails(model: impl Fn() + Send + Sync + 'static) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| explore(model))).is_err()
}
