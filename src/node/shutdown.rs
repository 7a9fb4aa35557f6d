//! The shutdown of a node.
//!
//! Owns: its order, and the share of the time that each step may take. Does not own: the steps, which are the actors'.

use super::Node;
use crate::actors::compaction::CompactionMessage;
use crate::actors::gateway::GatewayMessage;
use crate::actors::gossip::gossip_actor::GossipMessage;
use crate::actors::maintenance::{FlushWithin, flush_memory};
use crate::actors::memtable::MemtableMessage;
use crate::actors::refusal::Refusal;
use crate::actors::reply::ask;
use crate::actors::streaming::streams_actor::StreamsMessage;
use crate::actors::supervisor::SupervisorMessage;
use crate::actors::wal::WalMessage;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Node {
    /// Stops in the order in which data flow: admits nothing more, tells the other nodes, lets connections end, makes the last
    /// writes durable, applies them, ends the log with the notes of what they were answered, ends the streams to other nodes,
    /// flushes, ends the actors. A step that takes longer than its share of `server.shutdown_timeout` is reported and passed
    /// over: the next start does what it left.
    pub async fn shutdown(mut self) {
        let begun = Instant::now();
        let total = self.shutdown_timeout;
        let handles = self.requests.handles.clone();
        if let Some(admin) = &self.admin {
            admin.abort();
        }
        if let Some(observed) = &self.observed {
            observed.site.stopping();
        }
        self.requests.accepting.store(false, Ordering::Release);
        self.requests.drain.stop();
        if let Some(gossip) = &self.health.gossip {
            let leave = ask("the gossip", total.mul_f64(0.02), |reply| {
                gossip.mailbox.send_admitted(GossipMessage::Leave(reply)).is_ok()
            });
            step("leaving the gossip", leave).await;
        }
        let drain = ask("the gateway", total.mul_f64(0.33), |reply| {
            handles.gateway.send_admitted(GatewayMessage::Drain(reply)).is_ok()
        });
        step("closing the connections", drain).await;
        let finish = ask("the log", total.mul_f64(0.1), |reply| {
            handles.wal.send_admitted(WalMessage::Finish(reply)).is_ok()
        });
        step("logging the last writes", finish).await;
        let settle = ask("the memtable", total.mul_f64(0.1), |reply| {
            handles.memtable.send_admitted(MemtableMessage::Settle(reply)).is_ok()
        });
        step("applying the last writes", settle).await;
        let close = ask("the log", total.mul_f64(0.1), |reply| {
            handles.wal.send_admitted(WalMessage::Close(reply)).is_ok()
        });
        step("ending the log", close).await;
        let close = ask("the streams", total.mul_f64(0.05), |reply| {
            handles.streams.send_admitted(StreamsMessage::Close(reply)).is_ok()
        });
        step("ending the streams", close).await;
        let within = FlushWithin {
            seal: total.mul_f64(0.05),
            flush: total.mul_f64(0.1),
        };
        step("flushing", flush_memory(&handles, within)).await;
        let stop = ask("the compaction", total.mul_f64(0.05), |reply| {
            handles.compaction.send_admitted(CompactionMessage::Stop(reply)).is_ok()
        });
        step("ending compactions", stop).await;
        self.guardian.abort();
        let supervisor = self.supervisor.borrow().clone();
        if let Some(supervisor) = supervisor {
            let quiet = ask("the supervisor", total.mul_f64(0.05), |reply| {
                supervisor
                    .send_message(SupervisorMessage::StopRestarting(reply).into())
                    .is_ok()
            });
            step("ending the actors", quiet).await;
            // A parent that stops ends its children.
            supervisor.stop(None);
        }
        if let Some(exporter) = self.exporter.take()
            && !exporter.close(total.mul_f64(0.05)).await
        {
            tracing::warn!("the collector has not taken the last traces");
        }
        if let Some(observed) = self.observed.take() {
            observed.close().await;
        }
        tracing::info!(took = ?begun.elapsed(), "stopped");
    }
}

/// Waits for one step of the shutdown, and reports one that was not completed.
async fn step(what: &str, work: impl Future<Output = Result<(), Refusal>>) {
    let begun = Instant::now();
    match work.await {
        Ok(()) => tracing::debug!(what, took = ?begun.elapsed(), "shutdown step done"),
        Err(why) => {
            let took = begun.elapsed();
            tracing::warn!(what, %why, ?took, "a shutdown step was not completed; the next start makes up for it");
        }
    }
}
