//! The timers of an actor, which end with it. Those of ractor sleep on until they find that nobody is there: with hours to
//! sleep, each generation of an actor would leave one behind.
//!
//! Owns: their tasks. Does not own: what an actor does when its time has come.

use ractor::{ActorRef, Message};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior};

/// Sends `message()` to exactly this generation of an actor, once in each `period`, the first time after one.
pub fn every<M: Message>(actor: &ActorRef<M>, period: Duration, message: impl Fn() -> M + Send + 'static) {
    let sent_to = actor.clone();
    while_alive(actor, async move {
        let mut ticks = ticks(period);
        // The first comes at once.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if sent_to.send_message(message()).is_err() {
                return;
            }
        }
    });
}

/// Sends `message()` to exactly this generation of an actor when `pause` is over.
pub fn after<M: Message>(actor: &ActorRef<M>, pause: Duration, message: impl FnOnce() -> M + Send + 'static) {
    let sent_to = actor.clone();
    while_alive(actor, async move {
        tokio::time::sleep(pause).await;
        let _ = sent_to.send_message(message());
    });
}

/// After a pause, of the process or of the machine, the next tick comes, and not all that there would have been.
fn ticks(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn while_alive<M: Message>(actor: &ActorRef<M>, work: impl Future<Output = ()> + Send + 'static) {
    let cell = actor.get_cell();
    tokio::spawn(async move {
        tokio::select! {
            _ = cell.wait(None) => {}
            () = work => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_there_is_one_tick_and_the_next_a_period_later() {
        let period = Duration::from_millis(100);
        let mut ticks = ticks(period);
        ticks.tick().await;
        tokio::time::advance(1000 * period).await;
        ticks.tick().await;
        let next = tokio::time::timeout(period / 2, ticks.tick()).await;
        assert!(next.is_err(), "those that were missed come after it");
        tokio::time::timeout(period, ticks.tick()).await.unwrap();
    }
}
