//! What was refused to those who may not ask, and when the certificate ends.
//!
//! Owns: the numbers. Does not own: who may do what (see `rpc::security`).

use std::sync::atomic::AtomicU64;

/// Refusals since the start, and what will have all be refused.
#[derive(Debug, Default)]
pub struct AccessCounts {
    /// Connections that ended in their TLS handshake: in plain text, or without a certificate that is trusted.
    pub handshakes: AtomicU64,
    /// Calls without a token, or with one that is not known.
    pub unauthenticated: AtomicU64,
    /// Calls and operations that their token does not allow.
    pub denied: AtomicU64,
    /// When the certificate in force is no longer good, in seconds since the Unix epoch; 0: there is none.
    pub certificate_expires: AtomicU64,
}
