//! What a run measured, and how it is told.

use super::BenchArgs;
use crate::cli::Failure;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Latencies up to an hour, in microseconds, with three digits.
const HIGHEST_US: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

/// What one or more slices measured.
pub(super) struct Measured {
    /// Latencies of requests that succeeded, in microseconds, as met.
    pub(super) latencies: Histogram<u64>,
    /// Failures by status.
    pub(super) errors: BTreeMap<String, u64>,
    /// How long it took.
    pub(super) elapsed: Duration,
}

impl Measured {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self {
            latencies: Histogram::new_with_bounds(1, HIGHEST_US, DIGITS)?,
            errors: BTreeMap::new(),
            elapsed: Duration::ZERO,
        })
    }

    /// Takes note of a request: how many of its operations succeeded.
    pub(super) fn record(&mut self, latency: Duration, operations: u64) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(HIGHEST_US);
        self.latencies.saturating_record_n(us.clamp(1, HIGHEST_US), operations);
    }

    /// Takes note of an operation that failed.
    pub(super) fn fail(&mut self, code: tonic::Code, message: &str) {
        *self.errors.entry(format!("{code:?}: {message}")).or_default() += 1;
    }

    /// Adds another slice, measured after this one.
    pub(super) fn add(&mut self, other: Self) -> Result<(), Failure> {
        self.elapsed += other.elapsed;
        self.merge(other)
    }

    /// Adds what another worker measured at the same time.
    pub(super) fn merge(&mut self, other: Self) -> Result<(), Failure> {
        self.latencies.add(&other.latencies)?;
        for (status, count) in other.errors {
            *self.errors.entry(status).or_default() += count;
        }
        Ok(())
    }

    /// Operations that succeeded, a second.
    pub(super) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// The result.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    workload: String,
    distribution: String,
    keys: u64,
    value_size: u64,
    concurrency: u64,
    batch: u64,
    channels: u64,
    duration_s: f64,
    operations: u64,
    ops_per_s: f64,
    baseline_ops_per_s: Option<f64>,
    ratio: Option<f64>,
    /// With `--of-peak`: what the node answered when each request followed the answer to one before.
    peak_ops_per_s: Option<f64>,
    p50_us: u64,
    p95_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    errors: u64,
    errors_by_status: BTreeMap<String, u64>,
}

impl Report {
    pub(super) fn new(
        args: &BenchArgs,
        measured: &Measured,
        compared: Option<&Measured>,
        peak: Option<&Measured>,
    ) -> Result<Self, Failure> {
        let ops_per_s = measured.per_second();
        let corrected = corrected(args, measured);
        let latencies = corrected.as_ref().unwrap_or(&measured.latencies);
        let baseline_ops_per_s = compared.map(Measured::per_second);
        let name = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        Ok(Self {
            workload: name(&args.workload),
            distribution: name(&args.distribution),
            keys: args.keys,
            value_size: args.value_size,
            concurrency: args.concurrency,
            batch: args.batch,
            channels: args.channels,
            duration_s: measured.elapsed.as_secs_f64(),
            operations: measured.latencies.len(),
            ops_per_s,
            ratio: baseline_ops_per_s.map(|base| ops_per_s / base),
            baseline_ops_per_s,
            peak_ops_per_s: peak.map(Measured::per_second),
            p50_us: latencies.value_at_quantile(0.5),
            p95_us: latencies.value_at_quantile(0.95),
            p99_us: latencies.value_at_quantile(0.99),
            p999_us: latencies.value_at_quantile(0.999),
            max_us: latencies.max(),
            errors: measured.errors.values().sum(),
            errors_by_status: measured.errors.clone(),
        })
    }
}

/// The latencies corrected for coordinated omission, by HdrHistogram's method: a worker that waited longer than its mean
/// would have sent more requests meanwhile, and those count as having waited as well. At a fixed rate each latency is
/// measured from the moment at which the request was due, and needs no correction.
fn corrected(args: &BenchArgs, measured: &Measured) -> Option<Histogram<u64>> {
    let operations = measured.latencies.len();
    if args.rate.is_some() || args.of_peak.is_some() || operations == 0 {
        return None;
    }
    let busy_us = measured.elapsed.as_micros() as u64 * args.concurrency;
    let interval = (busy_us * args.batch / operations).max(1);
    Some(measured.latencies.clone_correct(interval))
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} of {} keys ({}), values of {} bytes, {} requests of {} in flight over {} channels, {:.1} s",
            self.workload,
            self.keys,
            self.distribution,
            self.value_size,
            self.concurrency,
            self.batch,
            self.channels,
            self.duration_s
        )?;
        writeln!(f, "  {:>10.0} operations/s", self.ops_per_s)?;
        if let (Some(base), Some(ratio)) = (self.baseline_ops_per_s, self.ratio) {
            writeln!(f, "  {base:>10.0} operations/s of an empty handler: ratio {ratio:.2}")?;
        }
        if let Some(peak) = self.peak_ops_per_s {
            let share = self.ops_per_s / peak;
            writeln!(f, "  {peak:>10.0} operations/s at its peak: {share:.2} of it")?;
        }
        write!(
            f,
            "  p50 {} µs, p95 {} µs, p99 {} µs, p99.9 {} µs, max {} µs; {} errors",
            self.p50_us, self.p95_us, self.p99_us, self.p999_us, self.max_us, self.errors
        )?;
        for (status, count) in &self.errors_by_status {
            write!(f, "\n  {count} × {status}")?;
        }
        Ok(())
    }
}
