//! What became of traces.
//!
//! Owns: the names of these metrics. Does not own: their counts (see [`crate::actors::trail::traces`]).

use super::{Out, load};
use crate::actors::health::Health;
use std::fmt;

impl Out<'_> {
    pub(super) fn traces(&mut self, health: &Health) -> fmt::Result {
        let counts = &health.handles.traces.counts;
        for (name, help, count) in [
            (
                "trace_spans_exported",
                "Spans that the collector has taken",
                &counts.exported,
            ),
            (
                "trace_spans_failed",
                "Spans that the collector has not taken, or not in time",
                &counts.failed,
            ),
            (
                "traces_dropped",
                "Traces for which the queue to the collector had no room",
                &counts.dropped,
            ),
            (
                "traces_limited",
                "Failed and slow requests beyond those that are kept in a second",
                &counts.limited,
            ),
        ] {
            self.counter(name, help, load(count))?;
        }
        Ok(())
    }
}
