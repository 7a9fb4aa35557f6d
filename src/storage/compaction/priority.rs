//! The priority of threads that compact: they take what others leave of the processors.
//!
//! Owns: that one setting. Does not own: the threads. How much compaction writes is bounded by its pace (see
//! [`super::throttle`]); what it computes is bounded by this. A thread cannot get its priority back without a privilege,
//! so it must be one that does nothing else.

/// Nice value of such a thread: where all processors are wanted it gets about a tenth of what an ordinary one gets. Not
/// the lowest, since a flush now and then waits for it to record its result.
const NICE: i32 = 10;

/// Lowers the priority of the calling thread for good. Where the system refuses, it stays as it is.
pub fn lower() {
    // On Linux a thread has a priority of its own, and its number where others have that of a process.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
}
