//! Who was refused, and what became of reloads.
//!
//! Owns: the names of these metrics. Does not own: their counts (see [`crate::actors::access`], [`crate::actors::reloads`]).

use super::{Out, load};
use crate::actors::health::Health;
use prometheus_client::metrics::MetricType;
use std::fmt;

impl Out<'_> {
    pub(super) fn access(&mut self, health: &Health) -> fmt::Result {
        let counts = &health.access;
        let reasons = [
            ("handshake", &counts.handshakes),
            ("unauthenticated", &counts.unauthenticated),
            ("denied", &counts.denied),
        ];
        self.family(
            (
                "access_refused",
                "Connections refused in their TLS handshake, calls without a token that is known, and what a token does not allow",
            ),
            MetricType::Counter,
            "reason",
            reasons.map(|(reason, count)| (reason, load(count) as f64)),
        )?;
        self.gauge(
            "security_certificate_expiry_timestamp_seconds",
            "When the certificate that the node shows is no longer good, in seconds since the Unix epoch; 0 without TLS",
            load(&counts.certificate_expires) as f64,
        )?;
        let (succeeded, failed) = health.reloads.counts();
        self.family(
            ("reloads", "Reloads of the configuration, and of files that it names"),
            MetricType::Counter,
            "outcome",
            [("succeeded", succeeded as f64), ("failed", failed as f64)],
        )
    }
}
