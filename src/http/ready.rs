//! `/health/ready`: whether requests may be sent to the node, and why not. `/health/serving`: whether reads may.
//!
//! Owns: that judgement. A node that restarts an actor is ready: its callers are told to try again. One that refuses all
//! writes is not; but it serves reads, and nothing but its start and its stop ends that.

use super::site::{Site, fresh};
use crate::actors::health::Health;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    /// "starting", "stopping", or the status of the node's health.
    status: &'static str,
    /// Why it is not ready; when it is, why it is not healthy.
    reasons: Vec<String>,
}

/// Why the node refuses writes altogether.
fn refusing(health: &Health) -> Vec<String> {
    let latched = health.latched_reason();
    latched
        .into_iter()
        .chain(health.drain_reason())
        .chain(health.disk_stop_reason())
        .collect()
}

fn judge(site: &Site, asked: Asked) -> Ready {
    let barred = |status, reason: &str| Ready {
        ready: false,
        status,
        reasons: vec![reason.to_owned()],
    };
    let Some(health) = site.health() else {
        return barred("starting", "the node is starting: it reads its log back");
    };
    if site.is_stopping() {
        return barred("stopping", "the node is being stopped");
    }
    let (status, known) = health.status();
    let refusing = match asked {
        Asked::All => refusing(health),
        Asked::Reads => Vec::new(),
    };
    Ready {
        ready: refusing.is_empty(),
        status: status.as_str(),
        reasons: if refusing.is_empty() { known } else { refusing },
    }
}

/// What is asked of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Reads and writes.
    All,
    /// Reads.
    Reads,
}

pub(super) fn answer(site: &Site, asked: Asked) -> Response {
    let ready = judge(site, asked);
    let text = serde_json::to_string(&ready).unwrap_or_default();
    let mut answer = fresh("application/json", format!("{text}\n"));
    if !ready.ready {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    answer
}
