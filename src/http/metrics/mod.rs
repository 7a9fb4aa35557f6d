//! `/metrics`: all numbers of the node, in the text format of OpenMetrics 1.0, which Prometheus reads.
//!
//! Owns: the names, units and help of the metrics; the names that PairDB's dashboards and alerts know are kept, also where
//! a gauge of theirs ends in `_total`. Does not own: the numbers, which are read from where they are counted anyway when
//! somebody asks: a request pays for no more than a few additions.

mod access;
mod actors;
mod engine;
mod machine;
mod requests;
mod streams;
mod traces;

use crate::actors::health::Health;
use crate::storage::histogram::Counted;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The type of the answer.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Microseconds in a second: durations are counted in the former and shown in the latter.
const MICROS: f64 = 1e6;

/// All metrics, as they are now.
pub(super) fn of(health: &Arc<Health>) -> Result<String, fmt::Error> {
    let node_id = (Cow::Borrowed("node_id"), Cow::Owned(health.node_id.clone()));
    let mut registry = Registry::with_prefix_and_labels("pairdb", [node_id].into_iter());
    registry.register_collector(Box::new(Page(Arc::clone(health))));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

struct Page(Arc<Health>);

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page")
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Out(encoder);
        out.requests(&self.0)?;
        out.cache(&self.0)?;
        out.tenants(&self.0)?;
        out.memtables(&self.0)?;
        out.tables(&self.0)?;
        out.log(&self.0)?;
        out.recovery(&self.0)?;
        out.compaction(&self.0)?;
        out.streams(&self.0)?;
        out.gossip(&self.0)?;
        out.traces(&self.0)?;
        out.system(&self.0)?;
        out.node(&self.0)?;
        out.access(&self.0)?;
        out.actors(&self.0)
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        counter.encode(encoder)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        gauge.encode(encoder)
    }

    /// One number for each value of a label.
    fn family<L: AsRef<str>>(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        label: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (of, value) in values {
            let labels = [(label, of.as_ref())];
            let mut encoder = encoder.encode_family(&labels)?;
            match kind {
                MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
                _ => encoder.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    /// A histogram, whose numbers are shown divided by `unit`.
    fn histogram(&mut self, name: &str, help: &str, counted: &Counted, unit: f64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        encode_histogram(encoder, counted, unit)
    }
}

fn encode_histogram(mut encoder: MetricEncoder, counted: &Counted, unit: f64) -> fmt::Result {
    let ends = counted
        .bounds
        .iter()
        .map(|bound| *bound as f64 / unit)
        .chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = ends.zip(counted.counts.iter().copied()).collect();
    encoder.encode_histogram::<NoLabelSet>(counted.sum as f64 / unit, counted.total(), &buckets, None)
}
