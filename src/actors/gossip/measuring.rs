//! How the node is, as it tells the others.
//!
//! Owns: the rules by which its numbers make it worse than it says itself (section 5.7 of the low-level design): more than
//! 90 % of processors, memory or disk used is degraded, more than a tenth of the requests failed is unhealthy. Does not own:
//! the numbers, or what the node says of itself (see [`crate::actors::health`]).

use super::record::Report;
use crate::actors::health::{Health, Status};
use crate::actors::vitals;

/// Share of a resource from which on the node is degraded.
const MOST_USED: f64 = 0.9;
/// Share of failed requests from which on it is unhealthy …
const MOST_ERRORS: f64 = 0.1;
/// … when there are so many a second: one of two says little.
const LEAST_REQUESTS: f64 = 0.5;

/// The node's health, now.
#[must_use]
pub fn report(health: &Health) -> Report {
    let (memory, rates) = (vitals::memory(), health.vitals.rates());
    let disk = health.disk.disks().first().map_or(0.0, |disk| disk.space.used());
    let used = [
        rates.cpu.min(1.0),
        match memory.limit {
            0 => 0.0,
            limit => memory.own as f64 / limit as f64,
        },
        disk,
    ];
    let [cpu, memory, disk] = used.map(|share| share as f32);
    Report {
        status: health.status().0.max(judged(used, rates.requests, rates.errors)),
        is_latched: health.latched_reason().is_some(),
        is_draining: health.drain_reason().is_some(),
        is_disk_full: health.disk_stop_reason().is_some(),
        is_leaving: false,
        cpu,
        memory,
        disk,
        requests_per_s: rates.requests as f32,
        error_rate: rates.errors as f32,
        cache_hit_rate: rates.cache_hits as f32,
    }
}

fn judged(used: [f64; 3], requests_per_s: f64, error_rate: f64) -> Status {
    if error_rate > MOST_ERRORS && requests_per_s >= LEAST_REQUESTS {
        Status::Unhealthy
    } else if used.iter().any(|share| *share > MOST_USED) {
        Status::Degraded
    } else {
        Status::Healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_make_a_node_worse_from_where_the_design_says() {
        for (used, requests, errors, expected) in [
            ([0.9, 0.9, 0.9], 100.0, 0.1, Status::Healthy),
            ([0.91, 0.0, 0.0], 100.0, 0.0, Status::Degraded),
            ([0.0, 0.91, 0.0], 0.0, 0.0, Status::Degraded),
            ([0.0, 0.0, 0.91], 0.0, 0.0, Status::Degraded),
            ([0.0, 0.0, 0.0], 100.0, 0.11, Status::Unhealthy),
            ([1.0, 1.0, 1.0], 100.0, 0.11, Status::Unhealthy),
            ([0.0, 0.0, 0.0], 0.1, 1.0, Status::Healthy),
        ] {
            assert_eq!(
                judged(used, requests, errors),
                expected,
                "{used:?}, {requests}, {errors}"
            );
        }
        assert!(Status::Unhealthy > Status::Degraded && Status::Degraded > Status::Healthy);
    }
}
