//! Gives each call its trail, in the trace that its client names (the headers `traceparent` and `tracestate`).
//!
//! It stands before everything else on a connection, so that what is refused unreceived has a trail as well. Owns: the headers,
//! the names of the operations, and the end of a trail. Does not own: what is noted on the way (see [`crate::actors::trail`]).

use crate::actors::trail::traces::Traces;
use crate::actors::trail::{self, Operation, Outcome, TraceContext, Trail};
use crate::rpc::pb::operation::Operation as Asked;
use crate::rpc::{SERVICE, deadline};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

/// How far a client's clock may be ahead of ours at its deadline.
const CLOCKS_APART: Duration = Duration::from_millis(100);

const fn call(method: &'static str, name: &'static str, is_timed: bool) -> Operation {
    Operation { method, name, is_timed }
}

/// The methods. Those that move, walk or watch last as long as there is something to do; and probes are not to stand among the
/// slowest reads and writes.
static METHODS: [Operation; 19] = [
    call("Write", "write", true),
    call("Read", "read", true),
    call("Delete", "delete", true),
    call("Repair", "repair", true),
    call("BatchWrite", "batch_write", true),
    call("BatchRead", "batch_read", true),
    call("BatchDelete", "batch_delete", true),
    call("Operations", "operations", false),
    call("Scan", "scan", false),
    call("StreamKeys", "stream_keys", false),
    call("GetKeyRange", "get_key_range", true),
    call("ReplicateData", "replicate_data", false),
    call("StartStreaming", "start_streaming", true),
    call("StopStreaming", "stop_streaming", true),
    call("GetStreamStatus", "get_stream_status", true),
    call("NotifyStreamingComplete", "notify_streaming_complete", true),
    call("CompareKeys", "compare_keys", true),
    call("DrainNode", "drain_node", false),
    call("HealthCheck", "health_check", false),
];

/// The operations of a stream.
static STREAMED: [Operation; 4] = [
    call("Operations", "write", true),
    call("Operations", "read", true),
    call("Operations", "delete", true),
    call("Operations", "repair", true),
];

/// Methods that answer with a stream: they end with it.
const STREAMING: [&str; 3] = ["Operations", "Scan", "StreamKeys"];

/// How a call with this status ended.
pub(super) fn outcome(code: Code) -> Outcome {
    let (status, is_failure) = match code {
        Code::Ok => ("OK", false),
        Code::Cancelled => ("CANCELLED", false),
        Code::Unknown => ("UNKNOWN", true),
        Code::InvalidArgument => ("INVALID_ARGUMENT", false),
        Code::DeadlineExceeded => ("DEADLINE_EXCEEDED", true),
        Code::NotFound => ("NOT_FOUND", false),
        Code::AlreadyExists => ("ALREADY_EXISTS", false),
        Code::PermissionDenied => ("PERMISSION_DENIED", false),
        Code::ResourceExhausted => ("RESOURCE_EXHAUSTED", true),
        Code::FailedPrecondition => ("FAILED_PRECONDITION", false),
        Code::Aborted => ("ABORTED", false),
        Code::OutOfRange => ("OUT_OF_RANGE", false),
        Code::Unimplemented => ("UNIMPLEMENTED", false),
        Code::Internal => ("INTERNAL", true),
        Code::Unavailable => ("UNAVAILABLE", true),
        Code::DataLoss => ("DATA_LOSS", true),
        Code::Unauthenticated => ("UNAUTHENTICATED", false),
    };
    Outcome {
        code: code as i32,
        status,
        is_failure,
    }
}

/// The codes with which the node failed, or refused; the worst last.
const FAILURES: [Code; 6] = [
    Code::ResourceExhausted,
    Code::DeadlineExceeded,
    Code::Unavailable,
    Code::Unknown,
    Code::Internal,
    Code::DataLoss,
];

/// How bad it is that an operation of a batch ended with this code; [`None`]: it is no failure of the node's.
pub(super) fn severity(code: Code) -> Option<usize> {
    FAILURES.iter().position(|failure| *failure == code)
}

/// Takes note of the worst failure among the operations of a batch, if there is one.
pub(super) fn failed_in_part(worst: Option<usize>) {
    if let Some(code) = worst.and_then(|worst| FAILURES.get(worst)) {
        trail::failed_in_part(outcome(*code));
    }
}

/// The status of an answer, as far as its headers, or its trailers, have one.
fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

/// A trail that ends with this; when it is not told how, its client has gone away, or its time was over.
struct Open {
    traces: Arc<Traces>,
    trail: Arc<Trail>,
    limit: Limit,
    outcome: Option<Outcome>,
}

/// The time that a client gave a call, which all operations of a stream share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    arrived: Instant,
    timeout: Option<Duration>,
}

impl Limit {
    /// That of a call with these headers, which arrived then.
    pub(super) fn of(headers: &HeaderMap, arrived: Instant) -> Self {
        Self {
            arrived,
            timeout: deadline::timeout(headers),
        }
    }

    /// How a call ended that is given up now.
    fn given_up(&self) -> Code {
        given_up(self.timeout, self.arrived.elapsed())
    }
}

impl Open {
    fn new(traces: &Arc<Traces>, trail: &Arc<Trail>, limit: Limit) -> Self {
        Self {
            traces: Arc::clone(traces),
            trail: Arc::clone(trail),
            limit,
            outcome: None,
        }
    }

    fn end(mut self, code: Code) {
        self.outcome = Some(outcome(code));
    }
}

/// How a call ended that was given up after `elapsed`. A client gives up when its time is over, which by its clock may be a
/// little before it is by ours.
fn given_up(timeout: Option<Duration>, elapsed: Duration) -> Code {
    let is_late = |timeout: Duration| elapsed + (timeout / 10).min(CLOCKS_APART) >= timeout;
    if timeout.is_some_and(is_late) {
        Code::DeadlineExceeded
    } else {
        Code::Cancelled
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let given_up = || outcome(self.limit.given_up());
        self.traces.end(&self.trail, self.outcome.unwrap_or_else(given_up));
    }
}

/// The operation of a stream, by name.
pub(super) fn of_streamed(asked: Option<&Asked>) -> &'static Operation {
    let [write, read, delete, repair] = &STREAMED;
    match asked {
        Some(Asked::Write(_)) | None => write,
        Some(Asked::Read(_)) => read,
        Some(Asked::Delete(_)) => delete,
        Some(Asked::Repair(_)) => repair,
    }
}

/// Carries out an operation of a stream along a trail of its own. It is part of the trace in which the stream was called, if
/// that was begun elsewhere; otherwise it begins one, so that a long stream is no single endless trace.
pub(super) async fn of_operation<T>(
    traces: &Arc<Traces>,
    operation: &'static Operation,
    (stream, limit): (Option<&Trail>, Limit),
    work: impl Future<Output = T>,
    code: impl FnOnce(&T) -> Code,
) -> T {
    let stream = stream.filter(|stream| stream.parent.is_some());
    let state = stream.and_then(|stream| stream.state.as_deref());
    let Some(trail) = traces.begin(operation, stream.map(|stream| stream.context), state) else {
        return work.await;
    };
    let open = Open::new(traces, &trail, limit);
    let done = trail::along(trail, work).await;
    open.end(code(&done));
    done
}

/// Gives the calls of a server their trails.
#[derive(Clone)]
pub(super) struct Trails(pub(super) Arc<Traces>);

impl<S> Layer<S> for Trails {
    type Service = Trailing<S>;

    fn layer(&self, inner: S) -> Trailing<S> {
        Trailing {
            inner,
            traces: Arc::clone(&self.0),
        }
    }
}

/// A service whose calls have trails.
#[derive(Clone)]
pub(super) struct Trailing<S> {
    inner: S,
    traces: Arc<Traces>,
}

impl<S> Trailing<S> {
    fn begin(&self, request: &http::Request<Body>) -> Option<Arc<Trail>> {
        if !self.traces.are_on() {
            return None;
        }
        let method = request.uri().path().strip_prefix(SERVICE)?;
        let operation = METHODS.iter().find(|operation| operation.method == method)?;
        let headers = request.headers();
        let parent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        let parent = parent.and_then(TraceContext::parse);
        // It may stand in several headers, which are one list.
        let state = headers
            .get_all("tracestate")
            .iter()
            .filter_map(|value| value.to_str().ok());
        let state = state.collect::<Vec<_>>().join(",");
        self.traces
            .begin(operation, parent, (!state.is_empty()).then_some(&state))
    }
}

impl<S> Service<http::Request<Body>> for Trailing<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(trail) = self.begin(&request) else {
            return Box::pin(self.inner.call(request));
        };
        let limit = Limit::of(request.headers(), trail.started);
        let open = Open::new(&self.traces, &trail, limit);
        // Also what is done before the first await belongs to the request.
        let answer = trail::say(&trail, || self.inner.call(request));
        Box::pin(async move {
            let answer = trail::along(trail, answer).await;
            let code = match &answer {
                Ok(answer) => code_in(answer.headers()),
                Err(_broken) => Some(Code::Internal),
            };
            if code.is_none() && STREAMING.contains(&open.trail.operation.method) {
                return answer.map(|answer| answer.map(|body| Body::new(Ending { body, open })));
            }
            open.end(code.unwrap_or(Code::Ok));
            answer
        })
    }
}

/// An answer that is a stream, with whose end its call ends.
struct Ending {
    body: Body,
    open: Open,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(code) = frame.trailers_ref().and_then(code_in)
        {
            self.open.outcome = Some(outcome(code));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_given_up_when_its_time_is_over_was_late_and_not_cancelled() {
        let given_up = |timeout: Option<u64>, elapsed| {
            given_up(timeout.map(Duration::from_millis), Duration::from_millis(elapsed))
        };
        for (timeout, elapsed) in [(1000, 1000), (1000, 950), (50, 46), (60_000, 59_901)] {
            assert_eq!(
                given_up(Some(timeout), elapsed),
                Code::DeadlineExceeded,
                "{timeout} {elapsed}"
            );
        }
        for (timeout, elapsed) in [(1000, 800), (50, 40), (60_000, 59_000)] {
            assert_eq!(given_up(Some(timeout), elapsed), Code::Cancelled, "{timeout} {elapsed}");
        }
        assert_eq!(given_up(None, 5000), Code::Cancelled);
    }

    #[test]
    fn every_failure_of_the_node_has_its_place_among_the_operations_of_a_batch() {
        for code in (0..17).map(Code::from_i32) {
            assert_eq!(severity(code).is_some(), outcome(code).is_failure, "{code:?}");
        }
        assert!(severity(Code::DataLoss) > severity(Code::ResourceExhausted));
    }

    #[test]
    fn every_method_of_the_service_has_a_name() {
        let proto = include_str!("../../proto/storage.proto");
        let methods = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
        let mut methods: Vec<&str> = methods.filter_map(|line| line.split('(').next()).collect();
        let mut known = METHODS.each_ref().map(|operation| operation.method);
        methods.sort_unstable();
        known.sort_unstable();
        assert_eq!(methods, known);
    }
}
