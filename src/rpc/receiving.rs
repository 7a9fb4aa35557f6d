//! Bounds what requests hold in memory while they are received, before anything is known of them.
//!
//! A stream of operations may last and be silent for as long as its client likes, so of its body only the message that is
//! being received counts, and only inside one must there be progress.
//!
//! Owns: a budget of bytes over all connections, the time for which a request may make no progress, and that a compressed
//! request stays so until all of it is there. Does not own: what a request may hold afterwards (see [`crate::actors::admission`]).

use http_body::{Body as _, Frame, SizeHint};
use std::collections::{HashSet, VecDeque};
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
/// The stream of operations.
const STREAM: &str = "/storage.StorageNodeService/Operations";
/// Time within which the next part of a request must arrive.
const PROGRESS_WITHIN: Duration = Duration::from_secs(10);

/// Puts the request bodies of a server under one budget.
#[derive(Debug, Clone)]
pub(super) struct ReceiveBudget {
    received: Arc<AtomicUsize>,
    /// Paths of the methods with one message a request; the others are conversations.
    unary: Arc<HashSet<String>>,
}

impl ReceiveBudget {
    pub(super) fn new(unary: HashSet<String>) -> Self {
        Self {
            received: Arc::default(),
            unary: Arc::new(unary),
        }
    }

    /// Whether the request is compressed, and all of it can be waited for.
    fn gathers<B>(&self, request: &http::Request<B>) -> bool {
        let encoding = request.headers().get("grpc-encoding");
        encoding.is_some_and(|encoding| encoding != "identity") && self.unary.contains(request.uri().path())
    }
}

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
        let gathering = budget.gathers(&request);
        let messages = (request.uri().path() == STREAM).then(Messages::default);
        self.inner.call(request.map(|body| {
            Body::new(Counted {
                body,
                budget,
                bytes: 0,
                messages,
                stalled: None,
                gathering,
                gathered: VecDeque::new(),
            })
        }))
    }
}

/// Follows the messages of a stream through its frames: each has a flag, its length (u32, big-endian), and so many bytes.
#[derive(Default)]
struct Messages {
    /// Bytes of the head that are there.
    head: usize,
    length: u32,
    /// Bytes of the message that are there.
    received: usize,
}

/// Bytes of a message's head.
const HEAD_BYTES: usize = 5;

impl Messages {
    fn take(&mut self, mut data: &[u8]) {
        while let Some((byte, rest)) = data.split_first() {
            if self.head < HEAD_BYTES {
                // The flag is shifted out by the length behind it.
                self.length = self.length << 8 | u32::from(*byte);
                self.head += 1;
                data = rest;
            } else {
                let more = data.len().min(self.length as usize - self.received);
                self.received += more;
                data = data.get(more..).unwrap_or_default();
            }
            if self.head == HEAD_BYTES && self.received == self.length as usize {
                *self = Self::default();
            }
        }
    }

    /// Bytes of the message that is being received; 0 between two.
    fn open_bytes(&self) -> usize {
        self.head + self.received
    }
}

/// A body whose bytes count until it is dropped; of a stream, those of the message that is being received.
struct Counted {
    body: Body,
    budget: ReceiveBudget,
    bytes: usize,
    /// Of a stream.
    messages: Option<Messages>,
    stalled: Option<Pin<Box<Sleep>>>,
    /// Nothing is passed on until the end has arrived: a few compressed bytes become a thousand times as many, which must
    /// not be held while a client takes its time.
    gathering: bool,
    gathered: VecDeque<Frame<bytes::Bytes>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.budget.received.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Counted {
    /// Counts what was received. Returns the bytes of all requests.
    fn count(&mut self, data: &[u8]) -> usize {
        let before = self.bytes;
        self.bytes = match &mut self.messages {
            None => before + data.len(),
            Some(messages) => {
                messages.take(data);
                messages.open_bytes()
            }
        };
        // One of the two is zero.
        let (more, less) = (self.bytes.saturating_sub(before), before.saturating_sub(self.bytes));
        let received = &self.budget.received;
        received.fetch_sub(less, Ordering::AcqRel);
        received.fetch_add(more, Ordering::AcqRel) + more
    }

    fn poll_received(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.stalled = None;
                if self.count(frame.data_ref().map_or(&[], |data| data)) > BUDGET_BYTES {
                    let refusal = crate::actors::refusal::Refusal::Overloaded("too many large requests at once");
                    return Poll::Ready(Some(Err(super::status::of_refusal(&refusal))));
                }
            }
            Poll::Ready(_) => self.stalled = None,
            Poll::Pending
                if self
                    .messages
                    .as_ref()
                    .is_some_and(|messages| messages.open_bytes() == 0) => {}
            Poll::Pending => {
                let stalled = self
                    .stalled
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(PROGRESS_WITHIN)));
                std::task::ready!(stalled.as_mut().poll(context));
                return Poll::Ready(Some(Err(super::status::stalled())));
            }
        }
        frame
    }
}

impl http_body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        if self.gathering {
            while let Some(frame) = std::task::ready!(self.poll_received(context)) {
                self.gathered.push_back(frame?);
            }
            self.gathering = false;
        }
        match self.gathered.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.poll_received(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.gathered.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
