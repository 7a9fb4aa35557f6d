//! Actors: their restarts, their mailboxes, and the time that messages take.
//!
//! Owns: the names of these metrics. Does not own: their counts.

use super::{MICROS, Out, encode_histogram};
use crate::actors::faults::SUPERVISOR;
use crate::actors::health::Health;
use crate::actors::mailbox::MailboxStats;
use crate::actors::watched::Pulse;
use crate::storage::histogram::Histogram;
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::Arc;

impl Out<'_> {
    pub(super) fn actors(&mut self, health: &Health) -> fmt::Result {
        let children = health.tree.children();
        let restarts = children
            .iter()
            .map(|child| (child.name.as_str(), child.restarts() as f64));
        let restarts = restarts.chain([(SUPERVISOR, health.tree.supervisor_restarts() as f64)]);
        self.family(
            ("actor_restarts", "Times that an actor was started again"),
            MetricType::Counter,
            "actor",
            restarts,
        )?;
        let running = children.iter().map(|child| (&child.name, f64::from(child.running)));
        self.family(
            ("actor_running", "1 while an actor runs"),
            MetricType::Gauge,
            "actor",
            running,
        )?;
        let mailboxes = health.tree.mailboxes();
        let of = |number: fn(&MailboxStats) -> f64| {
            mailboxes
                .iter()
                .map(move |(name, stats)| (name.as_str(), number(stats)))
        };
        self.family(
            ("actor_mailbox_depth", "Messages that wait or are being handled"),
            MetricType::Gauge,
            "actor",
            of(|stats| stats.messages as f64),
        )?;
        self.family(
            ("actor_mailbox_bytes", "Bytes that they hold"),
            MetricType::Gauge,
            "actor",
            of(|stats| stats.bytes as f64),
        )?;
        self.family(
            ("actor_mailbox_refused", "Messages refused since the mailbox was full"),
            MetricType::Counter,
            "actor",
            of(|stats| stats.refused as f64),
        )?;
        self.family(
            (
                "actor_mailbox_limit_messages",
                "Messages from which on more are refused",
            ),
            MetricType::Gauge,
            "actor",
            of(|stats| stats.bound.messages as f64),
        )?;
        self.family(
            (
                "actor_mailbox_limit_bytes",
                "Bytes from which on more messages are refused",
            ),
            MetricType::Gauge,
            "actor",
            of(|stats| stats.bound.bytes as f64),
        )?;
        let pulses = health.tree.pulses();
        self.by_actor("actor_queue_seconds", "Time that a message waited", &pulses, |pulse| {
            &pulse.queued
        })?;
        self.by_actor(
            "actor_handle_seconds",
            "Time that a message was worked on",
            &pulses,
            |pulse| &pulse.worked,
        )
    }

    /// A histogram of durations for each actor.
    fn by_actor(
        &mut self,
        name: &str,
        help: &str,
        pulses: &[(String, Arc<Pulse>)],
        of: fn(&Pulse) -> &Histogram,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (actor, pulse) in pulses {
            let labels = [("actor", actor.as_str())];
            encode_histogram(encoder.encode_family(&labels)?, &of(pulse).counted(), MICROS)?;
        }
        Ok(())
    }
}
