//! Honours the deadline that a client sends along (the header `grpc-timeout`).
//!
//! A request whose deadline has passed is not begun; one that runs is given up, and what it has not done yet is not done
//! (the actors ask [`crate::actors::deadline`]). Owns: the header, and the end of the wait. Does not own: what is given up.

use crate::actors::deadline;
use crate::rpc::status;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tonic::body::Body;
use tower::{Layer, Service};

/// Most digits that the protocol allows.
const MAX_DIGITS: usize = 8;

/// Gives the requests of a server their deadlines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines;

impl<S> Layer<S> for Deadlines {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited(inner)
    }
}

/// A service whose requests have deadlines.
#[derive(Debug, Clone)]
pub(super) struct Limited<S>(S);

impl<S> Service<http::Request<Body>> for Limited<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let deadline = timeout(request.headers()).and_then(|timeout| Instant::now().checked_add(timeout));
        let answer = self.0.call(request);
        let Some(deadline) = deadline else {
            return Box::pin(answer);
        };
        Box::pin(async move {
            if deadline::has_passed(Some(deadline)) {
                return Ok(status::deadline_passed().into_http());
            }
            tokio::time::timeout_at(deadline.into(), deadline::until(deadline, answer))
                .await
                .unwrap_or_else(|_elapsed| Ok(status::deadline_passed().into_http()))
        })
    }
}

/// The time that a client gives. A header that is not as the protocol has it is passed over, as gRPC servers do.
pub(super) fn timeout(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MAX_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse::<u64>().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}
