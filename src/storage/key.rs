//! The key under which the engine stores: `{tenant_id}:{key}`.
//!
//! Owns: the composition and its ordering (bytewise, so a tenant's keys are contiguous and in key order). Does not own:
//! the limits (see [`crate::storage::limits`]).

use crate::storage::limits::{self, LimitError};
use compact_str::CompactString;

/// A tenant's key. Short ones (up to 24 bytes with the tenant) are held in place, without an allocation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(CompactString);

impl Key {
    /// Composes and checks a key.
    ///
    /// # Errors
    /// When tenant or key is outside the limits.
    pub fn new(tenant: &str, key: &str) -> Result<Self, LimitError> {
        limits::check_tenant(tenant)?;
        limits::check_key(key)?;
        let mut composed = CompactString::with_capacity(tenant.len() + 1 + key.len());
        composed.push_str(tenant);
        composed.push(':');
        composed.push_str(key);
        Ok(Self(composed))
    }

    /// The key as a file of ours holds it; [`None`] when it has no tenant, which nothing of ours writes.
    #[must_use]
    pub fn from_stored(stored: &str) -> Option<Self> {
        stored.contains(':').then(|| Self(CompactString::new(stored)))
    }

    /// Where a scan of a tenant's keys begins: at `key`, or before all of them when it is empty. Needs no limit: nothing
    /// is stored under it.
    #[must_use]
    pub fn start_of(tenant: &str, key: &str) -> Self {
        Self(CompactString::from(format!("{tenant}:{key}")))
    }

    /// Behind all of a tenant's keys, and before those of any other.
    #[must_use]
    pub fn end_of(tenant: &str) -> Self {
        // The character that follows the ':' between tenant and key.
        Self(CompactString::from(format!("{tenant};")))
    }

    /// What sorts before every key.
    #[must_use]
    pub fn least() -> Self {
        Self(CompactString::const_new(""))
    }

    /// The least key above this one.
    #[must_use]
    pub fn successor(&self) -> Self {
        let mut next = self.0.clone();
        next.push('\0');
        Self(next)
    }

    /// The whole, `{tenant_id}:{key}`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The tenant's part.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.0.split_once(':').map_or("", |(tenant, _)| tenant)
    }

    /// The tenant's own key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, key)| key)
    }

    /// Hash of the whole, by [`hash64`].
    #[must_use]
    pub fn hash64(&self) -> u64 {
        hash64(self.as_bytes())
    }

    /// Bytes on the heap beside the struct itself.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        if self.0.is_heap_allocated() {
            self.0.capacity()
        } else {
            0
        }
    }
}

/// Hash of a whole key (XXH3, 64 bit): shard choice and bloom filters share it.
#[must_use]
pub fn hash64(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}
