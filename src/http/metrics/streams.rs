//! Streams to other nodes.
//!
//! Owns: the names of these metrics. Does not own: their counts. The label `target` has few values: streams are bounded.

use super::Out;
use crate::actors::health::Health;
use crate::actors::streaming::stream::StreamStatus;
use prometheus_client::metrics::MetricType;
use std::fmt;

/// The words for what a stream is doing.
const STATES: [&str; 5] = ["copying", "streaming", "syncing", "completed", "failed"];

impl Out<'_> {
    pub(super) fn streams(&mut self, health: &Health) -> fmt::Result {
        let (streams, now_ms) = (health.streaming.all(), health.time.now_ms());
        let by_state = STATES.map(|state| {
            let streams = streams.iter().filter(|stream| stream.state.as_str() == state);
            (state, streams.count() as f64)
        });
        self.family(
            ("streams", "Streams to other nodes that are in a state"),
            MetricType::Gauge,
            "state",
            by_state,
        )?;
        let of = |number: &dyn Fn(&StreamStatus) -> f64| -> Vec<(&str, f64)> {
            let streams = streams.iter();
            streams.map(|stream| (stream.target.as_str(), number(stream))).collect()
        };
        for (name, help, kind, values) in [
            (
                "stream_stalled",
                "1 while a stream does not get on, and tries again",
                MetricType::Gauge,
                of(&|stream| f64::from(stream.problem.is_some() && stream.state.as_str() != "failed")),
            ),
            (
                "stream_keys_copied",
                "Keys that a stream's target has acknowledged of those that were there before",
                MetricType::Counter,
                of(&|stream| stream.sent.keys_copied as f64),
            ),
            (
                "stream_keys_forwarded",
                "Live writes that a stream's target has acknowledged",
                MetricType::Counter,
                of(&|stream| stream.sent.keys_streamed as f64),
            ),
            (
                "stream_waiting_bytes",
                "Bytes of live writes that a stream's target has not acknowledged",
                MetricType::Gauge,
                of(&|stream| stream.backlog.bytes as f64),
            ),
            (
                "stream_lag_seconds",
                "Time for which the oldest of these writes has waited",
                MetricType::Gauge,
                of(&|stream| stream.backlog.lag_ms(now_ms) as f64 / 1000.0),
            ),
            (
                "stream_overflows",
                "Times that too much waited, so that a stream went back to copying",
                MetricType::Counter,
                of(&|stream| stream.backlog.overflows as f64),
            ),
        ] {
            self.family((name, help), kind, "target", values)?;
        }
        Ok(())
    }
}
