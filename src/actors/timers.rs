//! The timers of an actor, which end with it. Those of ractor sleep on until they find that nobody is there: with hours to
//! sleep, each generation of an actor would leave one behind.
//!
//! Owns: their tasks. Does not own: what an actor does when its time has come.

use ractor::{ActorRef, Message};
use std::future::Future;
use std::time::Duration;

/// Sends `message()` to exactly this generation of an actor, once in each `period`, the first time after one.
pub fn every<M: Message>(actor: &ActorRef<M>, period: Duration, message: impl Fn() -> M + Send + 'static) {
    let sent_to = actor.clone();
    while_alive(actor, async move {
        let mut ticks = tokio::time::interval(period);
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

fn while_alive<M: Message>(actor: &ActorRef<M>, work: impl Future<Output = ()> + Send + 'static) {
    let cell = actor.get_cell();
    tokio::spawn(async move {
        tokio::select! {
            _ = cell.wait(None) => {}
            () = work => {}
        }
    });
}
