//! Bounds what requests hold in memory while they are received, before anything is known of them.
//!
//! Owns: a budget of bytes over all connections, and the time for which a request may make no progress. Does not own:
//! what a request may hold afterwards (see [`crate::actors::admission`]).

use http_body::{Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// Most bytes of requests being received, over all connections: a dozen of the largest.
pub const BUDGET_BYTES: usize = 128 << 20;
/// Time within which the next part of a request must arrive.
const PROGRESS_WITHIN: Duration = Duration::from_secs(10);

/// Puts the request bodies of a server under one budget.
#[derive(Debug, Clone, Default)]
pub(super) struct ReceiveBudget(Arc<AtomicUsize>);

impl<S> Layer<S> for ReceiveBudget {
    type Service = Receiving<S>;

    fn layer(&self, inner: S) -> Receiving<S> {
        Receiving {
            inner,
            budget: self.clone(),
        }
    }
}

/// A service whose request bodies count.
#[derive(Debug, Clone)]
pub(super) struct Receiving<S> {
    inner: S,
    budget: ReceiveBudget,
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Receiving<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let budget = self.budget.clone();
        self.inner.call(request.map(|body| {
            Body::new(Counted {
                body,
                budget,
                bytes: 0,
                stalled: None,
            })
        }))
    }
}

/// A body whose bytes count until it is dropped.
struct Counted {
    body: Body,
    budget: ReceiveBudget,
    bytes: usize,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl http_body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.stalled = None;
                let bytes = frame.data_ref().map_or(0, bytes::Bytes::len);
                self.bytes += bytes;
                if self.budget.0.fetch_add(bytes, Ordering::AcqRel) + bytes > BUDGET_BYTES {
                    let refusal = crate::actors::refusal::Refusal::Overloaded("too many large requests at once");
                    return Poll::Ready(Some(Err(super::status::of_refusal(&refusal))));
                }
            }
            Poll::Ready(_) => self.stalled = None,
            Poll::Pending => {
                let stalled = self
                    .stalled
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(PROGRESS_WITHIN)));
                std::task::ready!(stalled.as_mut().poll(context));
                return Poll::Ready(Some(Err(Status::deadline_exceeded(
                    "the rest of the request did not arrive",
                ))));
            }
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
