//! How the node is, as it tells the others: what it says of itself, and the numbers.
//!
//! Owns: which of its numbers those are. Does not own: the numbers, or what they make of the node (see
//! [`crate::actors::health`]).

use super::record::Report;
use crate::actors::health::Health;
use crate::actors::vitals;

/// The node's health, now.
#[must_use]
pub fn report(health: &Health) -> Report {
    let rates = health.vitals.rates();
    Report {
        status: health.status().0,
        is_latched: health.latched_reason().is_some(),
        is_draining: health.drain_reason().is_some(),
        is_disk_full: health.disk_stop_reason().is_some(),
        is_leaving: false,
        cpu: rates.cpu.min(1.0) as f32,
        memory: vitals::memory().share() as f32,
        disk: health.disk.used() as f32,
        requests_per_s: rates.requests as f32,
        error_rate: rates.errors as f32,
        cache_hit_rate: rates.cache_hits as f32,
    }
}
