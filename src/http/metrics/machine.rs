//! The machine, the node as a whole, and those that it knows.
//!
//! Owns: the names of these metrics. Does not own: their numbers.

use super::Out;
use crate::actors::health::{Health, Status};
use crate::actors::vitals;
use crate::storage::fs::Space;
use prometheus_client::metrics::MetricType;
use std::fmt;

impl Out<'_> {
    /// The node knows itself alone.
    pub(super) fn gossip(&mut self, health: &Health) -> fmt::Result {
        let is_healthy = health.status().0 == Status::Healthy;
        self.gauge(
            "gossip_members_total",
            "Nodes that this one knows, itself included",
            1.0,
        )?;
        self.gauge(
            "gossip_members_healthy",
            "Of these, the healthy ones",
            f64::from(is_healthy),
        )?;
        let none = [("sent", 0.0), ("received", 0.0)];
        self.family(
            ("gossip_messages", "Messages of gossip"),
            MetricType::Counter,
            "type",
            none,
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
        )
    }
}
