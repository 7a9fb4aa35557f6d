//! The moment up to which the sender of a request waits for the answer.
//!
//! It belongs to the task that carries the request out, so that no step on the way can lose it; a reply port takes it
//! along to the actors. Owns: asking whether it has passed. Does not own: ending the wait (see `rpc::deadline`).

use crate::actors::refusal::Refusal;
use std::future::Future;
use std::time::Instant;

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Does `work` for a sender who waits until `deadline`.
pub async fn until<F: Future>(deadline: Instant, work: F) -> F::Output {
    DEADLINE.scope(deadline, work).await
}

/// The deadline of the request that this task carries out, when it has one.
#[must_use]
pub fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok()
}

/// Whether it has passed.
#[must_use]
pub fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// Refuses what nobody waits for any more.
///
/// # Errors
/// [`Refusal::DeadlineExceeded`]
pub fn check() -> Result<(), Refusal> {
    if has_passed(current()) {
        return Err(Refusal::DeadlineExceeded);
    }
    Ok(())
}
