//! One tenant with a quota: what it has used, and whether it may go on.
//!
//! Owns: its buckets, and the last estimate of what it has in tables. Does not own: which tenants there are (see
//! [`super::tenants`]).

use super::bucket::Bucket;
use compact_str::CompactString;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::storage::key::Key;
use crate::storage::levels::TableSet;
use crate::storage::view::ReadView;

/// What a tenant may use; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Operations a second.
    pub operations_per_s: u64,
    /// Bytes a second of keys and values, written and read.
    pub bytes_per_s: u64,
    /// Bytes in memtables and tables.
    pub stored_bytes: u64,
}

/// One of the limits of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Quota::operations_per_s`]
    Operations,
    /// [`Quota::bytes_per_s`]
    Bytes,
    /// [`Quota::stored_bytes`]
    Stored,
}

/// A tenant.
#[derive(Debug)]
pub struct Tenant {
    /// What it may use.
    pub quota: Quota,
    /// Whether the quota is its own, and not everybody's.
    pub is_own: bool,
    /// Whether a walk of it is under way.
    pub walks: AtomicBool,
    /// Operations that it asked for.
    pub operations: Arc<AtomicU64>,
    /// Of these, those that were refused; both are of a tenant with a quota of its own, and go on when it gets another.
    pub refused: Arc<AtomicU64>,
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    operations: Option<Bucket>,
    bytes: Option<Bucket>,
    tables: InTables,
}

/// What a tenant had in a set of tables. The set is known again, but not kept.
#[derive(Debug, Default)]
struct InTables {
    name: CompactString,
    set: Weak<TableSet>,
    bytes: u64,
}

impl Tenant {
    /// A tenant that has used nothing lately.
    #[must_use]
    pub fn new(quota: Quota, is_own: bool, now: Duration) -> Arc<Self> {
        Self::counted(quota, is_own, now, Arc::default(), Arc::default())
    }

    /// The same tenant with another quota, of which it has used nothing.
    #[must_use]
    pub fn with(&self, quota: Quota, now: Duration) -> Arc<Self> {
        let (operations, refused) = (Arc::clone(&self.operations), Arc::clone(&self.refused));
        Self::counted(quota, self.is_own, now, operations, refused)
    }

    fn counted(
        quota: Quota,
        is_own: bool,
        now: Duration,
        operations: Arc<AtomicU64>,
        refused: Arc<AtomicU64>,
    ) -> Arc<Self> {
        Arc::new(Self {
            quota,
            is_own,
            walks: AtomicBool::new(false),
            operations,
            refused,
            used: Mutex::new(Used {
                operations: Bucket::new(quota.operations_per_s, now),
                bytes: Bucket::new(quota.bytes_per_s, now),
                tables: InTables::default(),
            }),
        })
    }

    /// Lets one operation pass that brings so many bytes along.
    ///
    /// # Errors
    /// The limit that is used up, and how long it takes until it no longer is.
    pub fn pass(&self, bytes: u64, now: Duration) -> Result<(), (Limit, Duration)> {
        let used = &mut *self.used.lock();
        if let Some(bucket) = &mut used.operations {
            bucket.check(now).map_err(|wait| (Limit::Operations, wait))?;
        }
        if let Some(bucket) = &mut used.bytes {
            bucket.check(now).map_err(|wait| (Limit::Bytes, wait))?;
            bucket.spend(bytes);
        }
        if let Some(bucket) = &mut used.operations {
            bucket.spend(1);
        }
        Ok(())
    }

    /// Counts bytes of an operation that was let pass.
    pub fn spend(&self, bytes: u64) {
        if let Some(bucket) = &mut self.used.lock().bytes {
            bucket.spend(bytes);
        }
    }

    /// How long it takes until there is a byte to spend.
    #[must_use]
    pub fn wait(&self, now: Duration) -> Duration {
        let mut used = self.used.lock();
        let checked = used.bytes.as_mut().map_or(Ok(()), |bucket| bucket.check(now));
        checked.err().unwrap_or_default()
    }

    /// Whether it is as if it were new: forgetting it changes nothing.
    pub fn is_idle(&self, now: Duration) -> bool {
        let mut used = self.used.lock();
        let Used { operations, bytes, .. } = &mut *used;
        let buckets = [operations, bytes];
        buckets.into_iter().flatten().all(|bucket| bucket.is_full(now))
    }

    /// What the tenant of this name has in memtables and tables, in bytes.
    ///
    /// Memtables count exactly, tables by their indexes: the first and the last block of a tenant in a table may also hold
    /// keys of its neighbours, and one of them is counted. A table that nobody can read any more does not count.
    #[must_use]
    pub fn stored_bytes(&self, name: &str, view: &ReadView) -> u64 {
        let mut used = self.used.lock();
        let known = &mut used.tables;
        if known.name != name || !std::ptr::eq(known.set.as_ptr(), Arc::as_ptr(&view.tables)) {
            let range = (Key::start_of(name, ""), Key::end_of(name));
            *known = InTables {
                name: name.into(),
                set: Arc::downgrade(&view.tables),
                bytes: view.tables.bytes_between(range.0.as_bytes(), range.1.as_bytes()),
            };
        }
        known.bytes + view.tenant_memory_bytes(name)
    }
}
