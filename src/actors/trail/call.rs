//! A call that this node makes of another, for a request or for some work: it is part of the same trace, and the other node goes
//! on in it.
//!
//! Owns: what goes along with such a call, and what is noted of it. Does not own: the wire, or the work.

use crate::actors::address_book::NodeAddress;
use crate::actors::trail::traces::{Kept, Traces};
use crate::actors::trail::{self, Outcome, TraceContext};
use std::sync::Arc;
use tokio::time::Instant;

/// How a call ended whose answer nobody waited for.
const GIVEN_UP: Outcome = Outcome {
    code: 1,
    status: "CANCELLED",
    is_failure: false,
};

/// For whom a call is made.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its span.
    pub context: TraceContext,
    /// Whose part that is.
    pub parent: Option<TraceContext>,
    /// The `tracestate` that came with it.
    pub state: Option<Box<str>>,
}

/// A call that has ended.
#[derive(Debug)]
pub struct Call {
    /// The method, as the protocol calls it.
    pub method: &'static str,
    /// The node that was called.
    pub to: NodeAddress,
    /// Its own span.
    pub context: TraceContext,
    /// For whom it was made.
    pub caller: Caller,
    /// When it was begun.
    pub begun: Instant,
    /// When it ended.
    pub ended: Instant,
    /// How.
    pub outcome: Outcome,
}

/// A call on its way. Dropped before its end, it was given up.
#[derive(Debug)]
pub struct Calling {
    traces: Arc<Traces>,
    /// The span that goes along, and the `tracestate`.
    sent: Option<(TraceContext, Option<Box<str>>)>,
    call: Option<Call>,
}

impl Calling {
    /// A call that this task begins. It has a span of its own when its trace is sampled; otherwise that of its caller goes along,
    /// which may be kept all the same. Of a node that sends no traces it is the one before it.
    #[must_use]
    pub fn begin(traces: &Arc<Traces>, method: &'static str, to: &NodeAddress) -> Self {
        let mut calling = Self {
            traces: Arc::clone(traces),
            sent: None,
            call: None,
        };
        let Some(caller) = trail::caller() else {
            return calling;
        };
        let is_own = traces.are_sent() && caller.context.sampled;
        let context = match caller.parent {
            _ if is_own => caller.context.child(),
            _ if traces.are_sent() => caller.context,
            Some(parent) => parent,
            None => return calling,
        };
        calling.sent = Some((context, caller.state.clone()));
        let begun = Instant::now();
        calling.call = is_own.then(|| Call {
            method,
            to: to.clone(),
            context,
            caller,
            begun,
            ended: begun,
            outcome: GIVEN_UP,
        });
        calling
    }

    /// The `traceparent` and the `tracestate` that go along.
    #[must_use]
    pub fn headers(&self) -> Option<(String, Option<&str>)> {
        let (context, state) = self.sent.as_ref()?;
        Some((context.to_string(), state.as_deref()))
    }

    /// It has ended now.
    pub fn end(mut self, outcome: Outcome) {
        if let Some(call) = &mut self.call {
            call.outcome = outcome;
        }
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        if let Some(mut call) = self.call.take() {
            call.ended = Instant::now();
            let is_telling = call.outcome.code != 0;
            self.traces.keep(Kept::Call(Box::new(call)), is_telling);
        }
    }
}
