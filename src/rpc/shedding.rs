//! Refuses requests that the node is too busy for, before anything of them is received or decoded, and notes when the others
//! have been received.
//!
//! Owns: which calls are reads and writes, and the refusal of a whole call. Does not own: the judgement (see
//! [`crate::actors::overload`]).

use crate::actors::overload::{Arrival, Kind};
use crate::actors::requests::Requests;
use crate::rpc::{SERVICE, status};
use http_body::{Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// Lets the calls of a server in, or not.
#[derive(Clone)]
pub(super) struct Shedding(pub(super) Arc<Requests>);

impl<S> Layer<S> for Shedding {
    type Service = Shed<S>;

    fn layer(&self, inner: S) -> Shed<S> {
        Shed {
            inner,
            requests: Arc::clone(&self.0),
        }
    }
}

/// A service that is not called when there is too much to do.
#[derive(Clone)]
pub(super) struct Shed<S> {
    inner: S,
    requests: Arc<Requests>,
}

/// What a call asks for, by its path. Walks, health and administration have bounds of their own, and a stream's operations
/// are let in one by one.
fn kind(path: &str) -> Option<Kind> {
    match path.strip_prefix(SERVICE)? {
        "Read" | "BatchRead" => Some(Kind::Read),
        "Write" | "Repair" | "Delete" | "BatchWrite" | "BatchDelete" => Some(Kind::Write),
        _ => None,
    }
}

impl<S> Service<http::Request<Body>> for Shed<S>
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
        let Some(kind) = kind(request.uri().path()) else {
            return Box::pin(self.inner.call(request));
        };
        let under_way = match self.requests.enter_unreceived(kind) {
            Ok(under_way) => under_way,
            Err(refusal) => {
                let refused = status::of_refusal(&refusal).into_http();
                return Box::pin(std::future::ready(Ok(refused)));
            }
        };
        let arrival = under_way.arrival();
        let answer = self
            .inner
            .call(request.map(|body| Body::new(Watched { body, arrival })));
        Box::pin(async move {
            let answer = answer.await;
            // An error's status stands in the headers, a success's behind the message.
            let is_success = |answer: &S::Response| !answer.headers().contains_key("grpc-status");
            if answer.as_ref().is_ok_and(is_success) {
                under_way.answered();
            }
            answer
        })
    }
}

/// A body of which it is noted when all of it has been received.
struct Watched {
    body: Body,
    arrival: Arrival,
}

impl http_body::Body for Watched {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let is_last = matches!(&frame, Poll::Ready(None)) || (frame.is_ready() && self.body.is_end_stream());
        if is_last {
            self.arrival.received();
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
