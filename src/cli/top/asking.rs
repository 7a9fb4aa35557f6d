//! Asking the node again and again, also when it goes away and comes back.
//!
//! Owns: when it is asked, and how long an answer may take. Does not own: what is shown of it.

use super::super::Failure;
use super::super::client::{AdminClient, Socket, explain};
use crate::rpc::admin_pb::{StatusRequest, StatusResponse};
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// Longest time to an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends what the node says, or why it says nothing, once in each `every`, for as long as somebody takes it.
pub(super) async fn ask(socket: Socket, every: Duration, told: Sender<Result<StatusResponse, Failure>>) {
    let mut turns = tokio::time::interval(every);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut node = None;
    loop {
        turns.tick().await;
        let answer = tokio::time::timeout(PATIENCE, once(&mut node, &socket)).await;
        let answer = answer.unwrap_or_else(|_late| Err(format!("no answer within {PATIENCE:?}").into()));
        if told.send(answer).await.is_err() {
            return;
        }
    }
}

/// The connection of the time before; one that failed, or came to no answer, is not used again.
async fn once(node: &mut Option<AdminClient>, socket: &Socket) -> Result<StatusResponse, Failure> {
    let mut client = match node.take() {
        Some(client) => client,
        None => socket.connect().await?,
    };
    let answer = client.status(StatusRequest {}).await;
    let status = answer.map_err(|status| explain(&status))?.into_inner();
    *node = Some(client);
    Ok(status)
}
