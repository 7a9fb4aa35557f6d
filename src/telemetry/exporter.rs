//! Sends what is kept to a collector, by OTLP over gRPC.
//!
//! It has a thread and a runtime of its own: whatever becomes of the collector, no request shares anything with it but a queue
//! that nobody waits for. Spans are made here, of what the queue brings, with what requests leave of the processors: to make a
//! request's spans and send them costs as much as to answer a read from the cache, so that under full load and with all requests
//! sampled most find the queue full, and are counted. So is what the collector does not take in time. What it rejects of a batch
//! that it takes otherwise counts as taken: the library does not pass that answer on.
//!
//! Owns: the queue's far end, and the flush at an orderly stop. Does not own: what is kept.

use crate::actors::trail::traces::{Kept, QUEUE, Sampling, TraceCounts, Traces};
use crate::config::Config;
use crate::storage::priority;
use crate::telemetry::spans::Spans;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Traces that are sent together, a few spans each.
const TOGETHER: usize = 128;
/// Time for which the first of them waits for others.
const GATHER: Duration = Duration::from_millis(500);
/// Time between two looks for others. With every request sampled the queue has room for what comes meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// The thread that sends.
#[derive(Debug)]
pub struct Exporter {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Exporter {
    /// Has everything that is kept by now sent, within `limit`. Says whether it was tried to its end; what is left when it was
    /// not is lost.
    pub async fn close(self, limit: Duration) -> bool {
        // It may have ended: then there is nothing to send.
        let _ = self.stop.send(());
        tokio::time::timeout(limit, self.ended).await.is_ok()
    }
}

/// What a node with this configuration keeps of traces.
#[must_use]
pub fn sampling(config: &Config) -> Sampling {
    Sampling {
        ratio: config.tracing.sample_ratio,
        slow: config.tracing.slow_request,
    }
}

/// The traces of a node with this configuration, and what sends them, if they are sent anywhere.
#[must_use]
pub fn start(config: &Config) -> (Arc<Traces>, Option<Exporter>) {
    let sampling = sampling(config);
    if !config.tracing.enabled {
        return (Traces::new(sampling, None), None);
    }
    let (sender, queue) = channel(QUEUE);
    let traces = Traces::new(sampling, Some(sender));
    let (stop, stopped) = oneshot::channel();
    let (done, ended) = oneshot::channel();
    let sending = Sending {
        endpoint: config.tracing.endpoint.clone(),
        timeout: config.tracing.export_timeout,
        spans: Spans::of(&config.server.node_id),
        counts: Arc::clone(&traces.counts),
        is_failing: false,
    };
    let work = move || {
        priority::lower_to_the_last();
        sending.run(queue, stopped);
        // Whoever stopped it may not wait any more.
        let _ = done.send(());
    };
    match std::thread::Builder::new().name("pairdb-traces".to_owned()).spawn(work) {
        Ok(_detached) => (traces, Some(Exporter { stop, ended })),
        Err(error) => {
            tracing::error!(%error, "no thread for the traces: they are dropped");
            (traces, None)
        }
    }
}

struct Sending {
    endpoint: String,
    timeout: Duration,
    spans: Spans,
    counts: Arc<TraceCounts>,
    is_failing: bool,
}

impl Sending {
    fn run(mut self, queue: Receiver<Kept>, stopped: oneshot::Receiver<()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.send_all(queue, stopped)),
            Err(error) => tracing::error!(%error, "no runtime for the traces: they are dropped"),
        }
    }

    fn exporter(&self) -> Result<SpanExporter, ExporterBuildError> {
        let mut exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&self.endpoint)
            .with_timeout(self.timeout)
            .build()?;
        exporter.set_resource(self.spans.resource());
        Ok(exporter)
    }

    async fn send_all(&mut self, mut queue: Receiver<Kept>, mut stopped: oneshot::Receiver<()>) {
        let exporter = match self.exporter() {
            Ok(exporter) => exporter,
            Err(error) => {
                tracing::error!(
                    %error,
                    "traces cannot be sent (tracing.endpoint, or OTEL_EXPORTER_OTLP_* in the environment): they are dropped"
                );
                return;
            }
        };
        let mut is_stopping = false;
        loop {
            let mut kept = Vec::with_capacity(TOGETHER);
            if !is_stopping {
                is_stopping = gather(&mut queue, &mut kept, &mut stopped).await;
            }
            if is_stopping {
                queue.close();
                while kept.len() < TOGETHER
                    && let Ok(one) = queue.try_recv()
                {
                    kept.push(one);
                }
            }
            if kept.is_empty() {
                return;
            }
            let is_sent = self.send(&exporter, kept).await;
            if is_stopping && !is_sent {
                // Nobody waits for a collector that is not there.
                let mut left = 0;
                while queue.try_recv().is_ok() {
                    left += 1;
                }
                self.counts.dropped.fetch_add(left, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Sends these. Says whether the collector has taken them all.
    async fn send(&mut self, exporter: &SpanExporter, kept: Vec<Kept>) -> bool {
        let mut is_taken = true;
        for spans in self.spans.of_kept(kept) {
            is_taken &= self.send_part(exporter, spans).await;
        }
        is_taken
    }

    async fn send_part(&mut self, exporter: &SpanExporter, spans: Vec<SpanData>) -> bool {
        let count = spans.len() as u64;
        let exported = tokio::time::timeout(self.timeout, exporter.export(spans)).await;
        let problem = match exported {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_elapsed) => Some(format!("no answer within {:?}", self.timeout)),
        };
        let counter = if problem.is_none() {
            &self.counts.exported
        } else {
            &self.counts.failed
        };
        counter.fetch_add(count, Ordering::Relaxed);
        let was_failing = std::mem::replace(&mut self.is_failing, problem.is_some());
        match &problem {
            Some(why) if !was_failing => {
                tracing::warn!(
                    why,
                    endpoint = self.endpoint,
                    "the collector takes no traces; they are lost until it does"
                );
            }
            None if was_failing => tracing::info!(endpoint = self.endpoint, "the collector takes traces again"),
            _ => {}
        }
        problem.is_none()
    }
}

/// Takes what is kept: until there is enough of it, for a while from the first on. Says whether that is to end.
async fn gather(queue: &mut Receiver<Kept>, kept: &mut Vec<Kept>, stopped: &mut oneshot::Receiver<()>) -> bool {
    tokio::select! {
        taken = queue.recv_many(kept, TOGETHER) => if taken == 0 { return true },
        // Also when the node ended without an orderly stop.
        _ = &mut *stopped => return true,
    }
    let until = Instant::now() + GATHER;
    // Looked for, not waited for: whoever keeps a trace would have to wake this thread, which costs more than the request.
    while kept.len() < TOGETHER && Instant::now() < until {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = &mut *stopped => return true,
        }
        while kept.len() < TOGETHER
            && let Ok(one) = queue.try_recv()
        {
            kept.push(one);
        }
    }
    false
}
