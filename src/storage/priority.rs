//! The priority of threads whose work can wait: compaction, and the sending of traces. They take what others leave of the
//! processors.
//!
//! Owns: that one setting. Does not own: the threads. How much compaction writes is bounded by its pace (see
//! [`crate::storage::compaction::throttle`]); what it computes is bounded by this. A thread cannot get its priority back without a
//! privilege, so it must be one that does nothing else.

/// Nice value of a thread that compacts: where all processors are wanted it gets about a tenth of what an ordinary one gets.
/// Not the lowest, since a flush now and then waits for it to record its result.
const LOW: i32 = 10;
/// Of one for whose work nobody waits: a hundredth.
const LOWEST: i32 = 19;

/// Lowers the priority of the calling thread for good. Where the system refuses, it stays as it is.
pub fn lower() {
    set(LOW);
}

/// As [`lower`], for work that nobody waits for and that may be left undone.
pub fn lower_to_the_last() {
    set(LOWEST);
}

fn set(nice: i32) {
    // On Linux a thread has a priority of its own, and its number where others have that of a process.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice);
}
