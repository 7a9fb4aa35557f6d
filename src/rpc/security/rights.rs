//! What a call may do.
//!
//! Asked anew for each operation, also of a stream or a batch: so a token that is taken back counts no more from the moment on
//! at which its file was read. A walk over a range that has begun goes on to its end.
//!
//! Owns: the answer, and the words of a refusal. Does not own: tokens.

use super::Security;
use super::tokens::{Digest, Tokens};
use crate::actors::write::NewWrite;
use crate::rpc::status::Failed;
use std::sync::atomic::Ordering;
use tonic::Request;

/// Of one call, or of its operations.
#[derive(Clone, Copy)]
pub(in crate::rpc) struct Rights<'a> {
    security: &'a Security,
    digest: Option<Digest>,
}

/// Why a call is not let in.
const UNKNOWN: &str = "this needs a token that the node knows, in the header \"authorization: Bearer TOKEN\"";

impl<'a> Rights<'a> {
    /// Of a call that the guard let in.
    pub(in crate::rpc) fn of<T>(security: &'a Security, request: &Request<T>) -> Self {
        Self::by(security, Self::digest(request))
    }

    /// By the token that was shown, if there was one.
    pub(in crate::rpc) fn by(security: &'a Security, digest: Option<Digest>) -> Self {
        Self { security, digest }
    }

    /// What was shown.
    pub(in crate::rpc) fn digest<T>(request: &Request<T>) -> Option<Digest> {
        request.extensions().get().copied()
    }

    /// To what a tenant has.
    ///
    /// # Errors
    /// That the token is not this tenant's, or is none any more; so for the next two.
    pub(in crate::rpc) fn to_tenant(self, tenant: &str) -> Result<(), Failed> {
        let is_of = |tokens: &Tokens, digest: &Digest| tokens.is_of(digest, tenant);
        self.check(is_of, || format!("this token is not one of tenant {tenant:?}"))
    }

    /// To what concerns all tenants, or the node itself.
    pub(in crate::rpc) fn to_all(self) -> Result<(), Failed> {
        let why = || "this needs a token that stands for all tenants (*)".to_owned();
        self.check(Tokens::is_of_all, why)
    }

    /// To a write. To say that it is a copy from another node is not for a tenant: no quota holds it up.
    pub(in crate::rpc) fn to_write(self, write: &NewWrite) -> Result<(), Failed> {
        self.to_tenant(write.key.tenant())?;
        if write.is_copy {
            return self.to_all();
        }
        Ok(())
    }

    fn check(&self, allows: impl Fn(&Tokens, &Digest) -> bool, why: impl Fn() -> String) -> Result<(), Failed> {
        let tokens = self.security.tokens().load();
        let Some(tokens) = tokens.as_deref() else {
            return Ok(());
        };
        let counts = &self.security.counts;
        match self.digest.filter(|digest| tokens.knows(digest)) {
            Some(digest) if allows(tokens, &digest) => Ok(()),
            Some(_) => {
                counts.denied.fetch_add(1, Ordering::Relaxed);
                Err(Failed::denied(why()))
            }
            None => {
                counts.unauthenticated.fetch_add(1, Ordering::Relaxed);
                Err(unauthenticated())
            }
        }
    }
}

/// Of a call without a token that is known.
pub(super) fn unauthenticated() -> Failed {
    Failed::unauthenticated(UNKNOWN)
}
