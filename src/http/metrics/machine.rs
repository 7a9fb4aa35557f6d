//! The machine, the node as a whole, and those that it knows.
//!
//! Owns: the names of these metrics. Does not own: their numbers.

use super::{Out, load};
use crate::actors::gossip::watch::{Counted, GossipCounts};
use crate::actors::gossip::wire::Refused;
use crate::actors::health::{Health, Status};
use crate::actors::vitals;
use crate::storage::fs::Space;
use crate::telemetry;
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::atomic::AtomicU64;

impl Out<'_> {
    /// Without gossip, or before it begins, the node knows itself alone.
    pub(super) fn gossip(&mut self, health: &Health) -> fmt::Result {
        let gossip = health.gossip.as_ref();
        let alone = || {
            let status = health.status().0;
            Counted {
                there: 1,
                healthy: usize::from(status == Status::Healthy),
                unhealthy: usize::from(status == Status::Unhealthy),
                down: 0,
            }
        };
        let counted = gossip.map(|gossip| gossip.counted());
        let counted = counted.filter(|counted| counted.there > 0).unwrap_or_else(alone);
        for (name, help, number) in [
            (
                "gossip_members_total",
                "Nodes that this one knows, itself included",
                counted.there,
            ),
            ("gossip_members_healthy", "Of these, the healthy ones", counted.healthy),
            (
                "gossip_members_unhealthy",
                "Of these, the unhealthy ones",
                counted.unhealthy,
            ),
            (
                "gossip_members_down",
                "Nodes that are taken for dead, and remembered",
                counted.down,
            ),
        ] {
            self.gauge(name, help, number as f64)?;
        }
        let counts = gossip.map(|gossip| &gossip.counts);
        let count = |of: fn(&GossipCounts) -> &AtomicU64| counts.map_or(0.0, |counts| load(of(counts)) as f64);
        let messages = [
            ("sent", count(|counts| &counts.sent)),
            ("received", count(|counts| &counts.received)),
            ("unsent", count(|counts| &counts.unsent)),
        ];
        self.family(
            ("gossip_messages", "Messages of gossip"),
            MetricType::Counter,
            "type",
            messages,
        )?;
        let refused = Refused::ALL.map(|why| {
            let mut all = counts.into_iter().flat_map(GossipCounts::refused);
            let count = all.find(|(reason, _)| *reason == why).map_or(0, |(_, count)| count);
            (why.as_str(), count as f64)
        });
        self.family(
            ("gossip_refused", "Packets of gossip that were not believed"),
            MetricType::Counter,
            "reason",
            refused,
        )
    }

    pub(super) fn system(&mut self, health: &Health) -> fmt::Result {
        let disks = health.disk.disks();
        let space = disks.first().map(|disk| disk.space);
        let number = |of: &dyn Fn(Space) -> f64| space.map_or(0.0, of);
        self.gauge(
            "system_disk_usage_bytes",
            "Bytes used of the fullest disk that holds data",
            number(&|space| space.total.saturating_sub(space.available) as f64),
        )?;
        self.gauge(
            "system_disk_available_bytes",
            "Bytes left on it",
            number(&|space| space.available as f64),
        )?;
        self.gauge(
            "system_disk_usage_percent",
            "Share of it that is used",
            number(&|space| space.used() * 100.0),
        )?;
        let thresholds = health.disk.thresholds();
        self.family(
            (
                "system_disk_threshold_percent",
                "Share from which a disk has an effect: people are warned, writes are slowed down, writes are refused",
            ),
            MetricType::Gauge,
            "effect",
            [
                ("warn", thresholds.warn * 100.0),
                ("throttle", thresholds.throttle * 100.0),
                ("stop", thresholds.stop * 100.0),
            ],
        )?;
        let (memory, rates) = (vitals::memory(), health.vitals.rates());
        self.gauge(
            "system_memory_usage_bytes",
            "Memory of the process, without mapped files",
            memory.own as f64,
        )?;
        self.gauge(
            "system_memory_resident_bytes",
            "Memory of the process, with mapped files",
            memory.resident as f64,
        )?;
        self.gauge(
            "system_memory_limit_bytes",
            "Memory that the process may have: the machine's, or its control group's; 0 when it is not known",
            memory.limit as f64,
        )?;
        self.gauge(
            "system_cpu_usage_percent",
            "Share of the machine's processors over the last minute",
            rates.cpu * 100.0,
        )
    }

    pub(super) fn node(&mut self, health: &Health) -> fmt::Result {
        self.family(
            ("node_info", "1, with the version of the node"),
            MetricType::Gauge,
            "version",
            [(env!("CARGO_PKG_VERSION"), 1.0)],
        )?;
        self.gauge(
            "node_uptime_seconds",
            "Time since the start",
            health.uptime().as_secs_f64(),
        )?;
        let now = health.status().0;
        let state = |status: Status| (status.as_str(), f64::from(status == now));
        let states = [Status::Healthy, Status::Degraded, Status::Unhealthy].map(state);
        self.family(
            ("node_health", "1 for the state that the node is in"),
            MetricType::Gauge,
            "status",
            states,
        )?;
        let draining = health.drain_reason().is_some();
        self.gauge(
            "node_draining",
            "1 while the node takes no writes since it drains",
            f64::from(draining),
        )?;
        let unknown = health.registration.problem().is_some();
        self.gauge(
            "coordinator_registration_failing",
            "1 while the coordinator does not know the node, or knows it elsewhere, although it was told",
            f64::from(unknown),
        )?;
        self.counter(
            "log_lines_dropped",
            "Lines of the log that were dropped since nobody took them in time",
            telemetry::dropped_lines(),
        )
    }
}
