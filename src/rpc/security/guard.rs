//! Lets no call in without a token, where there are tokens: before anything of it is received.
//!
//! Owns: the header, and what is open to everybody (`grpc.health.v1` and reflection, which tell nothing of anybody's data).
//! Does not own: what a call may do with its token (see [`super::Rights`]).

use super::Security;
use super::rights::unauthenticated;
use super::tokens::{Digest, Tokens};
use arc_swap::ArcSwapOption;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tonic::body::Body;
use tower::{Layer, Service};

/// Paths of what is open.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];
/// The only kind of credentials, in any case of letters.
const BEARER: &str = "bearer";

/// Whose tokens count.
#[derive(Debug, Clone, Copy)]
pub(in crate::rpc) enum Whom {
    /// Those of tenants.
    Tenants,
    /// Those of who administers the node.
    Admins,
}

/// Guards the calls of a server.
#[derive(Debug, Clone)]
pub(in crate::rpc) struct Guard {
    security: Arc<Security>,
    whom: Whom,
}

impl Guard {
    pub(in crate::rpc) fn new(security: &Arc<Security>, whom: Whom) -> Self {
        Self {
            security: Arc::clone(security),
            whom,
        }
    }

    fn tokens(&self) -> &ArcSwapOption<Tokens> {
        match self.whom {
            Whom::Tenants => self.security.tokens(),
            Whom::Admins => self.security.admins(),
        }
    }

    /// Lets a call in, which then has the digest of its token in place of the token. Says whether it did.
    fn admit(&self, request: &mut http::Request<Body>) -> bool {
        let tokens = self.tokens().load();
        let Some(tokens) = tokens.as_deref() else {
            return true;
        };
        if OPEN.iter().any(|open| request.uri().path().starts_with(open)) {
            return true;
        }
        let Some(digest) = shown(request.headers()).filter(|digest| tokens.knows(digest)) else {
            self.security.counts.unauthenticated.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        request.headers_mut().remove(AUTHORIZATION);
        request.extensions_mut().insert(digest);
        true
    }
}

fn shown(headers: &HeaderMap) -> Option<Digest> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (kind, token) = value.trim().split_once(' ')?;
    kind.eq_ignore_ascii_case(BEARER)
        .then(|| Digest::of(token.trim().as_bytes()))
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            guard: self.clone(),
        }
    }
}

/// A service that is called only by those who may.
#[derive(Debug, Clone)]
pub(in crate::rpc) struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
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

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if self.guard.admit(&mut request) {
            Box::pin(self.inner.call(request))
        } else {
            Box::pin(ready(Ok(unauthenticated().status().into_http())))
        }
    }
}
