//! Quotas: what each tenant may use, so that none takes what the others need.
//!
//! Asked for each operation before anything is done for it. Operations a second: one token each. Bytes a second: keys and
//! values; what is written counts before, what is read afterwards, since nobody knows how much it will be. So an operation
//! passes as long as there is a byte left, and the next ones wait until what was spent ahead has come in. A walk over a
//! range counts as one operation, and everything that it reads; it is slowed down, not ended, and a tenant with a limit of
//! bytes has one at a time. Stored bytes: writes are refused, deletes pass.
//!
//! Owns: the answer, and the words of a refusal. Does not own: what the node as a whole can take (see
//! [`crate::actors::admission`]), or copies to and from other nodes, which are not the tenant's own doing.

mod bucket;
mod tenant;
mod tenants;

pub use bucket::{BURST, Bucket};
pub use tenant::{Limit, Quota, Tenant};
pub use tenants::{MOST_OTHERS, Tenants};

use crate::actors::refusal::Refusal;
use crate::actors::write::NewWrite;
use crate::storage::clock::VectorClock;
use crate::storage::key::Key;
use crate::storage::log::record::Operation;
use crate::storage::memtable;
use crate::storage::time::Time;
use crate::storage::version::Versions;
use crate::storage::view::Published;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When to try again where only deletes, flushes and compaction make room.
const RETRY_STORED: Duration = Duration::from_secs(10);

/// Asks whether a tenant may go on.
#[derive(Debug)]
pub struct Quotas {
    tenants: ArcSwap<Tenants>,
    published: Arc<Published>,
    time: Arc<dyn Time>,
    /// Operations of tenants without a quota of their own.
    others: AtomicU64,
    /// Of these, those that were refused.
    others_refused: AtomicU64,
    /// Of all tenants.
    refused: AtomicU64,
}

/// Under this name the tenants without a quota of their own are summed up. No tenant can be called so.
pub const OTHERS: &str = ":other";

/// What a tenant with a quota of its own uses, or what all others do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its name.
    pub tenant: String,
    /// Bytes that it has in memtables and tables.
    pub stored_bytes: u64,
    /// Bytes that it may have there; 0: no limit.
    pub most_stored_bytes: u64,
    /// Operations that it asked for so far.
    pub operations: u64,
    /// Of these, those that were refused by its quota.
    pub refused: u64,
}

/// A walk of a tenant over a range, while it lasts.
#[derive(Debug)]
pub struct WalkMeter {
    tenant: Arc<Tenant>,
    time: Arc<dyn Time>,
    /// Whether the tenant may have no other meanwhile.
    is_only: bool,
}

impl Drop for WalkMeter {
    fn drop(&mut self) {
        if self.is_only {
            self.tenant.walks.store(false, Ordering::Release);
        }
    }
}

impl WalkMeter {
    /// Counts what was read. Returns how long to wait before more is.
    #[must_use]
    pub fn spend(&self, bytes: usize) -> Duration {
        self.tenant.spend(bytes as u64);
        self.tenant.wait(self.time.elapsed())
    }
}

impl Quotas {
    /// Quotas by tenant, and that of everybody else; `published` says what they have stored.
    #[must_use]
    pub fn new(
        own: BTreeMap<String, Quota>,
        default: Quota,
        published: Arc<Published>,
        time: Arc<dyn Time>,
    ) -> Arc<Self> {
        Arc::new(Self {
            tenants: ArcSwap::from_pointee(Tenants::new(own, default, time.elapsed())),
            published,
            time,
            others: AtomicU64::new(0),
            others_refused: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Whether any tenant has a quota.
    #[must_use]
    pub fn are_any(&self) -> bool {
        self.tenants.load().are_any()
    }

    /// Puts other quotas in place of those that there are. A tenant whose quota stays has used what it has used; all keep
    /// their counts.
    pub fn replace(&self, own: BTreeMap<String, Quota>, default: Quota) {
        let replaced = self.tenants.load().replaced(own, default, self.time.elapsed());
        self.tenants.store(Arc::new(replaced));
    }

    /// Lets a write pass; `before` bytes of the tenant's writes that were sent together with it have passed already, and are
    /// not stored yet. Returns the bytes that it will take, where they are limited. A copy from another node passes in any
    /// case: what its tenant may do was asked there, and one tenant must not hold up a stream of all of them.
    ///
    /// # Errors
    /// [`Refusal::QuotaExceeded`]; so for all that follow.
    pub fn admit_write(&self, write: &NewWrite, before: u64) -> Result<u64, Refusal> {
        let name = write.key.tenant();
        let tenant = match write.is_copy {
            true => self.get(name),
            false => self.asked(name),
        };
        let Some(tenant) = tenant else {
            return Ok(0);
        };
        let none = VectorClock::default();
        let clock = write.clock.as_ref().unwrap_or(&none);
        let takes = memtable::charge(&write.key, &write.value, clock) as u64;
        let most = tenant.quota.stored_bytes;
        let counts = if most > 0 { takes } else { 0 };
        if write.is_copy {
            return Ok(counts);
        }
        if most > 0 && write.operation != Operation::Delete {
            let has = tenant.stored_bytes(name, &self.published.peek());
            if has.saturating_add(before).saturating_add(takes) > most {
                let why = format!("it has {has} bytes, and only deletes are accepted until there is room");
                return Err(self.refuse(&tenant, name, Limit::Stored, RETRY_STORED, &why));
            }
        }
        self.pass(&tenant, name, write.key.as_bytes().len() + write.value.len())?;
        Ok(counts)
    }

    /// Lets a read pass.
    ///
    /// # Errors
    /// As [`Quotas::admit_write`].
    pub fn admit_read(&self, key: &Key) -> Result<(), Refusal> {
        match self.asked(key.tenant()) {
            Some(tenant) => self.pass(&tenant, key.tenant(), key.as_bytes().len()),
            None => Ok(()),
        }
    }

    /// Counts what a read that was let pass has found.
    pub fn found(&self, key: &Key, versions: &Versions) {
        if let Some(tenant) = self.get(key.tenant()) {
            let values = versions.all().iter().map(|version| version.value.len() as u64);
            tenant.spend(values.sum());
        }
    }

    /// Lets a walk pass that takes its time; [`None`] when the tenant has no quota.
    ///
    /// # Errors
    /// As [`Quotas::admit_write`], and when the tenant has a limit of bytes and another walk under way.
    pub fn admit_walk(&self, name: &str) -> Result<Option<WalkMeter>, Refusal> {
        let Some(tenant) = self.asked(name) else {
            return Ok(None);
        };
        let is_only = tenant.quota.bytes_per_s > 0;
        if is_only && tenant.walks.swap(true, Ordering::AcqRel) {
            let why = "a scan is under way, and another would make neither of them faster";
            return Err(self.refuse(&tenant, name, Limit::Bytes, BURST, why));
        }
        let meter = WalkMeter {
            tenant,
            time: Arc::clone(&self.time),
            is_only,
        };
        self.pass(&meter.tenant, name, 0)?;
        Ok(Some(meter))
    }

    /// Lets a look at a range pass that ends soon by itself; [`None`] when the tenant has no quota.
    ///
    /// # Errors
    /// As [`Quotas::admit_write`].
    pub fn admit_look(&self, name: &str) -> Result<Option<Arc<Tenant>>, Refusal> {
        let tenant = self.asked(name);
        if let Some(tenant) = &tenant {
            self.pass(tenant, name, 0)?;
        }
        Ok(tenant)
    }

    /// Operations refused so far, of all tenants.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// What the tenants with a quota of their own use.
    #[must_use]
    pub fn usage(&self) -> Vec<Usage> {
        let view = self.published.load();
        let usage = |(name, tenant): (&str, &Arc<Tenant>)| Usage {
            tenant: name.to_owned(),
            stored_bytes: tenant.stored_bytes(name, &view),
            most_stored_bytes: tenant.quota.stored_bytes,
            operations: tenant.operations.load(Ordering::Relaxed),
            refused: tenant.refused.load(Ordering::Relaxed),
        };
        self.tenants.load().own().map(usage).collect()
    }

    /// What all others use together, beside `own`, which is [`Quotas::usage`]. They have no limit together.
    #[must_use]
    pub fn usage_of_others(&self, own: &[Usage]) -> Usage {
        let view = self.published.load();
        let tables: u64 = view.tables.all().map(|table| table.size()).sum();
        let of_own: u64 = own.iter().map(|usage| usage.stored_bytes).sum();
        Usage {
            tenant: OTHERS.to_owned(),
            stored_bytes: (tables + view.memtable_bytes() as u64).saturating_sub(of_own),
            most_stored_bytes: 0,
            operations: self.others.load(Ordering::Relaxed),
            refused: self.others_refused.load(Ordering::Relaxed),
        }
    }

    /// The table of tenants.
    #[must_use]
    pub fn tenants(&self) -> Arc<Tenants> {
        self.tenants.load_full()
    }

    /// The tenant that asks for an operation, which is counted; [`None`] when it has no quota.
    fn asked(&self, name: &str) -> Option<Arc<Tenant>> {
        let tenant = self.get(name);
        let count = match &tenant {
            Some(tenant) if tenant.is_own => &tenant.operations,
            _ => &self.others,
        };
        count.fetch_add(1, Ordering::Relaxed);
        tenant
    }

    fn get(&self, name: &str) -> Option<Arc<Tenant>> {
        let tenants = self.tenants.load();
        if tenants.are_any() {
            tenants.get(name, self.time.elapsed())
        } else {
            None
        }
    }

    fn pass(&self, tenant: &Tenant, name: &str, bytes: usize) -> Result<(), Refusal> {
        tenant
            .pass(bytes as u64, self.time.elapsed())
            .map_err(|(limit, wait)| self.refuse(tenant, name, limit, wait, "it is used up"))
    }

    fn refuse(&self, tenant: &Tenant, name: &str, limit: Limit, retry: Duration, why: &str) -> Refusal {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let of_whom = match tenant.is_own {
            true => &tenant.refused,
            false => &self.others_refused,
        };
        of_whom.fetch_add(1, Ordering::Relaxed);
        let (key, value) = match limit {
            Limit::Operations => ("operations_per_s", tenant.quota.operations_per_s),
            Limit::Bytes => ("bytes_per_s", tenant.quota.bytes_per_s),
            Limit::Stored => ("stored_bytes", tenant.quota.stored_bytes),
        };
        let of = if tenant.is_own { "own quota" } else { "default quota" };
        let after = humantime::format_duration(Duration::from_millis(retry.as_millis() as u64 + 1));
        Refusal::QuotaExceeded {
            why: format!("tenant {name:?} is over its {of} {key} = {value}: {why}; try again in {after}"),
            retry,
            is_of_space: limit == Limit::Stored,
        }
    }
}
