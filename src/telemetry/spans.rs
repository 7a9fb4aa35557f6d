//! Makes spans of what is kept, by OpenTelemetry's conventions for RPC and for databases.
//!
//! Owns: their names and attributes. Never among them: a key or a value.

use crate::actors::trail::call::Call;
use crate::actors::trail::traces::Kept;
use crate::actors::trail::work::{LogWrite, Value, Work};
use crate::actors::trail::{Detail, Hop, Noted, TraceContext, Trail, context};
use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::borrow::Cow;
use std::str::FromStr;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The service, by the name that its calls have.
const SERVICE: &str = "storage.StorageNodeService";

/// The version of the semantic conventions that the names of attributes are from: the first with those of RPC stable.
const CONVENTIONS: &str = "https://opentelemetry.io/schemas/1.45.0";

/// Spans from which on a part is full: a collector takes messages of 4 MiB, as a rule.
const PART: usize = 2000;

/// Makes the spans of a node.
pub(super) struct Spans {
    scope: InstrumentationScope,
    resource: Resource,
}

/// The same moment on two clocks.
#[derive(Clone, Copy)]
struct Clock {
    time: SystemTime,
    instant: Instant,
}

impl Clock {
    fn now() -> Self {
        Self {
            time: SystemTime::now(),
            instant: Instant::now(),
        }
    }

    fn at(&self, instant: Instant) -> SystemTime {
        let before = self.instant.saturating_duration_since(instant);
        let after = instant.saturating_duration_since(self.instant);
        let past = self.time.checked_sub(before).unwrap_or(self.time);
        past.checked_add(after).unwrap_or(past)
    }
}

fn number(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn micros(time: Duration) -> i64 {
    number(time.as_micros())
}

/// A span that is kept as one of OpenTelemetry's.
fn span_context(context: TraceContext, is_remote: bool, state: TraceState) -> SpanContext {
    let flags = if context.sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::NOT_SAMPLED
    };
    SpanContext::new(
        TraceId::from(context.trace),
        SpanId::from(context.span),
        flags,
        is_remote,
        state,
    )
}

/// As [`TraceContext`], of a span that is sent.
fn sent(context: TraceContext) -> TraceContext {
    TraceContext {
        sampled: true,
        ..context
    }
}

/// A `tracestate`; one that is not as the standard has it is as none.
fn state_of(text: Option<&str>) -> TraceState {
    text.and_then(|text| TraceState::from_str(text).ok())
        .unwrap_or_default()
}

fn link(to: TraceContext) -> Link {
    Link::with_context(span_context(to, false, TraceState::NONE))
}

/// That the work began, after it was queued.
fn begun(at: SystemTime) -> Event {
    Event::new("begun", at, Vec::new(), 0)
}

fn full_name(method: &str) -> String {
    format!("{SERVICE}/{method}")
}

fn status_of(error: Option<&String>) -> Status {
    error.map_or(Status::Unset, |why| Status::error(why.clone()))
}

impl Spans {
    pub(super) fn of(node_id: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self {
            scope: InstrumentationScope::builder("pairdb-node")
                .with_version(version)
                .with_schema_url(CONVENTIONS)
                .build(),
            resource: Resource::builder_empty()
                .with_service_name("pairdb-storage-node")
                .with_attributes([
                    KeyValue::new("service.instance.id", node_id.to_owned()),
                    KeyValue::new("service.version", version),
                ])
                .build(),
        }
    }

    /// What the spans are about.
    pub(super) fn resource(&self) -> &Resource {
        &self.resource
    }

    /// All spans of what is kept, in parts that are sent by themselves: those of a request are in one.
    pub(super) fn of_kept(&self, kept: Vec<Kept>) -> Vec<Vec<SpanData>> {
        let clock = Clock::now();
        let (mut parts, mut spans) = (Vec::new(), Vec::with_capacity(kept.len() * 6));
        for kept in kept {
            match kept {
                Kept::Request(trail) => self.of_request(&trail, clock, &mut spans),
                Kept::Work(work) => spans.push(self.of_work(&work, clock)),
                Kept::Call(call) => spans.push(self.of_call(&call, clock)),
            }
            if spans.len() >= PART {
                parts.push(std::mem::take(&mut spans));
            }
        }
        if !spans.is_empty() {
            parts.push(spans);
        }
        parts
    }

    fn span(
        &self,
        name: impl Into<Cow<'static, str>>,
        context: SpanContext,
        times: (SystemTime, SystemTime),
    ) -> SpanData {
        SpanData {
            span_context: context,
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: times.0,
            end_time: times.1,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    fn of_request(&self, trail: &Trail, clock: Clock, spans: &mut Vec<SpanData>) {
        let noted = trail.noted();
        let Some((took, _)) = noted.end else {
            return;
        };
        let begins = clock.at(trail.started);
        let context = span_context(sent(trail.context), false, state_of(trail.state.as_deref()));
        let is_streamed = trail.operation.method == "Operations" && trail.operation.name != "operations";
        let name = if is_streamed {
            format!("operations/{}", trail.operation.name)
        } else {
            full_name(trail.operation.method)
        };
        let mut root = self.span(name, context, (begins, begins + took));
        if !is_streamed {
            root.span_kind = SpanKind::Server;
        }
        if let Some(parent) = trail.parent {
            root.parent_span_id = SpanId::from(parent.span);
            root.parent_span_is_remote = !is_streamed;
        }
        describe(&mut root, trail, &noted, begins);
        spans.push(root);
        for hop in &noted.with_answer().hops {
            spans.push(self.of_hop(hop, trail, begins));
            if let Detail::Log(write) = &hop.detail
                && write.is_first_told()
            {
                spans.push(self.of_log_write(write, clock));
            }
        }
    }

    fn of_hop(&self, hop: &Hop, trail: &Trail, begins: SystemTime) -> SpanData {
        let context = TraceContext {
            span: context::span_id(),
            ..sent(trail.context)
        };
        let context = span_context(context, false, TraceState::NONE);
        let mut span = self.span(hop.name, context, (begins + hop.queued, begins + hop.ended));
        span.parent_span_id = SpanId::from(trail.context.span);
        span.attributes = vec![
            KeyValue::new("pairdb.queue_us", micros(hop.queue())),
            KeyValue::new("pairdb.work_us", micros(hop.work())),
        ];
        span.events.events.push(begun(begins + hop.begun));
        match &hop.detail {
            Detail::None => {}
            Detail::Cache { hits, misses } => span.attributes.extend([
                KeyValue::new("pairdb.cache.hits", i64::from(*hits)),
                KeyValue::new("pairdb.cache.misses", i64::from(*misses)),
            ]),
            Detail::Read(looked) => {
                span.attributes.extend([
                    KeyValue::new("pairdb.read.source", looked.source()),
                    KeyValue::new("pairdb.read.filters", i64::from(looked.filters)),
                    KeyValue::new("pairdb.read.filters_excluded", i64::from(looked.excluded)),
                    KeyValue::new("pairdb.read.blocks", i64::from(looked.blocks)),
                ]);
                let level = looked
                    .level
                    .map(|level| KeyValue::new("pairdb.read.level", i64::from(level)));
                span.attributes.extend(level);
            }
            Detail::Log(write) => {
                span.links.links.push(link(sent(write.context)));
                span.attributes
                    .push(KeyValue::new("pairdb.batch.writes", number(write.writes)));
                span.status = status_of(write.error.as_ref());
            }
        }
        span
    }

    /// The write of the log that all requests of a batch share.
    fn of_log_write(&self, write: &LogWrite, clock: Clock) -> SpanData {
        let context = span_context(sent(write.context), false, TraceState::NONE);
        let times = (clock.at(write.begun), clock.at(write.ended));
        let mut span = self.span("commit_log write", context, times);
        span.attributes = vec![
            KeyValue::new("pairdb.batch.writes", number(write.writes)),
            KeyValue::new("pairdb.batch.bytes", number(write.bytes)),
            KeyValue::new("pairdb.sync_us", micros(write.synced)),
        ];
        span.status = status_of(write.error.as_ref());
        span
    }

    /// A call of another node, which goes on below it.
    fn of_call(&self, call: &Call, clock: Clock) -> SpanData {
        let context = span_context(call.context, false, state_of(call.caller.state.as_deref()));
        let times = (clock.at(call.begun), clock.at(call.ended));
        let mut span = self.span(full_name(call.method), context, times);
        span.span_kind = SpanKind::Client;
        span.parent_span_id = SpanId::from(call.caller.context.span);
        span.attributes = vec![
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", full_name(call.method)),
            KeyValue::new("server.address", call.to.host.clone()),
            KeyValue::new("server.port", i64::from(call.to.port)),
            KeyValue::new("rpc.response.status_code", call.outcome.status),
        ];
        if call.outcome.code != 0 {
            span.attributes.push(KeyValue::new("error.type", call.outcome.status));
            span.status = Status::error(call.outcome.status);
        }
        span
    }

    fn of_work(&self, work: &Work, clock: Clock) -> SpanData {
        let context = span_context(sent(work.context), false, TraceState::NONE);
        let times = (clock.at(work.queued), clock.at(work.ended));
        let mut span = self.span(work.name, context, times);
        let since = |later: Instant, earlier| micros(later.saturating_duration_since(earlier));
        span.attributes = vec![
            KeyValue::new("pairdb.queue_us", since(work.begun, work.queued)),
            KeyValue::new("pairdb.work_us", since(work.ended, work.begun)),
        ];
        let attribute = |(name, value): &(&'static str, Value)| match value {
            Value::Number(value) => KeyValue::new(*name, number(*value)),
            Value::Text(text) => KeyValue::new(*name, text.clone()),
        };
        span.attributes.extend(work.attributes.iter().map(attribute));
        span.events.events.push(begun(clock.at(work.begun)));
        span.links.links.extend(work.cause.map(link));
        span.status = status_of(work.error.as_ref());
        span
    }
}

/// Says of a request's span what it was about, and how it ended.
fn describe(span: &mut SpanData, trail: &Trail, noted: &Noted, begins: SystemTime) {
    let attributes = &mut span.attributes;
    attributes.extend([
        KeyValue::new("db.system.name", "pairdb"),
        KeyValue::new("db.operation.name", trail.operation.name),
        KeyValue::new("rpc.system.name", "grpc"),
        KeyValue::new("rpc.method", full_name(trail.operation.method)),
    ]);
    if !noted.tenant.is_empty() {
        attributes.push(KeyValue::new("db.namespace", noted.tenant.to_string()));
    }
    if noted.left_out > 0 {
        attributes.push(KeyValue::new("pairdb.hops_left_out", i64::from(noted.left_out)));
    }
    if let Some((_, outcome)) = noted.end {
        attributes.push(KeyValue::new("rpc.response.status_code", outcome.status));
    }
    if let Some(failure) = noted.failure() {
        attributes.push(KeyValue::new("error.type", failure.status));
        span.status = Status::error(match noted.lost {
            Some((component, _)) => format!("{}: lost with {component}", failure.status),
            None => failure.status.to_owned(),
        });
    }
    if let Some((component, at)) = noted.lost {
        let lost_with = vec![KeyValue::new("pairdb.component", component)];
        span.events.events.push(Event::new("lost", begins + at, lost_with, 0));
    }
}
