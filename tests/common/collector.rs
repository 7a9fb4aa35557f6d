//! A collector that takes OTLP over gRPC, or does not, and what it was sent.
#![allow(dead_code, reason = "each test binary uses a part")]

use crate::common::*;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

/// What a collector was sent.
#[derive(Clone, Default)]
pub struct Taken {
    spans: Arc<Mutex<Vec<Span>>>,
    schemas: Arc<Mutex<BTreeSet<String>>>,
    asked: Arc<AtomicU64>,
    manner: Arc<Mutex<Manner>>,
}

/// How a collector answers.
#[derive(Clone, Copy, Default)]
pub enum Manner {
    /// At once.
    #[default]
    Good,
    /// After so long.
    Slow(Duration),
    /// With this status.
    Refuses(Code),
    /// Not at all.
    Hangs,
}

/// A collector that runs. Dropped, it ends with all its connections: they are tasks of its own runtime.
pub struct Collector {
    pub address: SocketAddr,
    pub taken: Taken,
    runtime: Option<Runtime>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tonic::async_trait]
impl TraceService for Taken {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let manner = *self.manner.lock().unwrap();
        match manner {
            Manner::Good => {}
            Manner::Slow(by) => tokio::time::sleep(by).await,
            Manner::Refuses(code) => return Err(Status::new(code, "not now")),
            Manner::Hangs => std::future::pending().await,
        }
        let resources = request.into_inner().resource_spans.into_iter();
        for scope in resources.flat_map(|resource| resource.scope_spans) {
            self.schemas.lock().unwrap().insert(scope.schema_url);
            self.spans.lock().unwrap().extend(scope.spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Taken {
    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// Of which schemas the attributes of all spans so far are said to be.
    pub fn schemas(&self) -> Vec<String> {
        self.schemas.lock().unwrap().iter().cloned().collect()
    }

    /// Those of a trace.
    pub fn of_trace(&self, trace: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| hex(&span.trace_id) == trace);
        spans
    }

    /// Waits for the root span of a trace, and returns all that came of it.
    pub async fn trace(&self, trace: &str) -> Vec<Span> {
        eventually("the trace arrives", async || !self.of_trace(trace).is_empty()).await;
        self.of_trace(trace)
    }

    /// Waits for spans of this name.
    pub async fn named(&self, name: &str) -> Vec<Span> {
        let named = || {
            self.spans()
                .into_iter()
                .filter(|span| span.name == name)
                .collect::<Vec<_>>()
        };
        eventually(name, async || !named().is_empty()).await;
        named()
    }

    /// How often it was sent something.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// From now on it answers so.
    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }
}

impl Collector {
    pub async fn start() -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let taken = Taken::default();
        let service = TraceServiceServer::new(taken.clone());
        let listening = runtime.spawn(async { TcpListener::bind("127.0.0.1:0").await.unwrap() });
        let listener = listening.await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(async move { serving.await.unwrap() });
        Self {
            address,
            taken,
            runtime: Some(runtime),
        }
    }
}

/// A configuration of a node in `dir` that sends its traces there, of which it keeps this share.
pub fn traced(dir: &Path, collector: SocketAddr, ratio: f64) -> pairdb_node::config::Config {
    let mut config = config(dir);
    config.tracing.enabled = true;
    config.tracing.endpoint = format!("http://{collector}");
    config.tracing.sample_ratio = ratio;
    // However slow the machine is on which the tests run.
    config.tracing.slow_request = PATIENCE;
    config.tracing.export_timeout = PATIENCE;
    // Of which the exporter has a twentieth.
    config.server.shutdown_timeout = 20 * PATIENCE;
    breakable(&mut config);
    config
}

/// A request in the trace of this number, which its caller keeps, or does not.
pub fn in_trace<T>(message: T, trace: u128, sampled: bool) -> Request<T> {
    let mut request = Request::new(message);
    let flags = u8::from(sampled);
    let parent = format!("00-{trace:032x}-{CALLER}-{flags:02x}");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    request
}

/// The span of the caller in [`in_trace`].
pub const CALLER: &str = "00f067aa0ba902b7";

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found
        .next()
        .unwrap_or_else(|| panic!("no {name} in {:?}", names(spans)));
    assert!(found.next().is_none(), "more than one {name} in {:?}", names(spans));
    span
}

pub fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

pub fn text(span: &Span, key: &str) -> Option<String> {
    match value(&span.attributes, key)? {
        Value::StringValue(text) => Some(text),
        other => panic!("{key}: {other:?}"),
    }
}

pub fn number(span: &Span, key: &str) -> Option<i64> {
    match value(&span.attributes, key)? {
        Value::IntValue(number) => Some(number),
        other => panic!("{key}: {other:?}"),
    }
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.clone()?.value
}
