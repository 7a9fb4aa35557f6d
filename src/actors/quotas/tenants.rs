//! Which tenants have a quota, and what is known of each: those that the configuration names for good, and of the others
//! as many as have used something lately, up to a bound.
//!
//! Owns: that table, and its bound. Does not own: what a tenant may do (see [`super::tenant`]).

use super::tenant::{Quota, Tenant};
use crate::storage::key::hash64;
use compact_str::CompactString;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Parts of the table, each behind a lock of its own.
const SHARDS: usize = 16;
/// Most tenants in one part. All of them together hold less than 10 MiB, with the longest names.
const MOST_IN_SHARD: usize = 1024;
/// Tenants without a quota of their own that are told apart at a time; more share what one may use.
pub const MOST_OTHERS: usize = SHARDS * MOST_IN_SHARD;
/// Time between two looks for tenants that can be forgotten: however many new names come, most of them cost no look.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The tenants.
#[derive(Debug)]
pub struct Tenants {
    own: BTreeMap<String, Arc<Tenant>>,
    default: Quota,
    others: Arc<Vec<Mutex<Shard>>>,
}

#[derive(Debug)]
struct Shard {
    tenants: HashMap<CompactString, Arc<Tenant>>,
    /// Stands for all that have no place.
    rest: Arc<Tenant>,
    looked: Duration,
}

impl Tenants {
    /// Those that have a quota of their own, and what each of the others may use.
    #[must_use]
    pub fn new(own: BTreeMap<String, Quota>, default: Quota, now: Duration) -> Self {
        let own = own.into_iter();
        Self {
            own: own.map(|(name, quota)| (name, Tenant::new(quota, true, now))).collect(),
            default,
            others: shards(default, now),
        }
    }

    /// The table with other quotas. A tenant whose quota stays the same stays as it is.
    #[must_use]
    pub fn replaced(&self, own: BTreeMap<String, Quota>, default: Quota, now: Duration) -> Self {
        let tenant = |(name, quota): (String, Quota)| {
            let tenant = match self.own.get(&name) {
                Some(known) if known.quota == quota => Arc::clone(known),
                Some(known) => known.with(quota, now),
                None => Tenant::new(quota, true, now),
            };
            (name, tenant)
        };
        let others = match default == self.default {
            true => Arc::clone(&self.others),
            false => shards(default, now),
        };
        Self {
            own: own.into_iter().map(tenant).collect(),
            default,
            others,
        }
    }

    /// Whether any tenant has a quota.
    #[must_use]
    pub fn are_any(&self) -> bool {
        !self.own.is_empty() || self.default != Quota::default()
    }

    /// Those with a quota of their own.
    pub fn own(&self) -> impl Iterator<Item = (&str, &Arc<Tenant>)> {
        self.own.iter().map(|(name, tenant)| (name.as_str(), tenant))
    }

    /// Tenants without a quota of their own that are told apart now.
    #[must_use]
    pub fn others(&self) -> usize {
        self.others.iter().map(|shard| shard.lock().tenants.len()).sum()
    }

    /// The tenant of this name; [`None`] when it has no quota.
    #[must_use]
    pub fn get(&self, name: &str, now: Duration) -> Option<Arc<Tenant>> {
        if let Some(tenant) = self.own.get(name) {
            return Some(Arc::clone(tenant));
        }
        if self.default == Quota::default() {
            return None;
        }
        let number = hash64(name.as_bytes()) as usize % SHARDS;
        let mut shard = self.others.get(number)?.lock();
        if let Some(tenant) = shard.tenants.get(name) {
            return Some(Arc::clone(tenant));
        }
        if shard.tenants.len() >= MOST_IN_SHARD && now.saturating_sub(shard.looked) >= LOOK_EVERY {
            shard.looked = now;
            shard
                .tenants
                .retain(|_, tenant| Arc::strong_count(tenant) > 1 || !tenant.is_idle(now));
        }
        if shard.tenants.len() >= MOST_IN_SHARD {
            return Some(Arc::clone(&shard.rest));
        }
        let tenant = Tenant::new(self.default, false, now);
        shard.tenants.insert(name.into(), Arc::clone(&tenant));
        Some(tenant)
    }
}

fn shards(default: Quota, now: Duration) -> Arc<Vec<Mutex<Shard>>> {
    let shard = |_number| Shard {
        tenants: HashMap::new(),
        rest: Tenant::new(default, false, now),
        looked: now,
    };
    Arc::new((0..SHARDS).map(shard).map(Mutex::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants() -> Tenants {
        let quota = |operations_per_s| Quota {
            operations_per_s,
            ..Quota::default()
        };
        Tenants::new([("own".to_owned(), quota(7))].into(), quota(2), Duration::ZERO)
    }

    #[test]
    fn made_up_names_are_bounded_and_share_what_one_may_use() {
        let tenants = tenants();
        let now = Duration::ZERO;
        let mut passed = 0;
        for round in 0..3 {
            for n in 0..100_000 {
                let tenant = tenants.get(&format!("made-up-{n}"), now).expect("a quota");
                passed += usize::from(tenant.pass(0, now).is_ok());
            }
            assert_eq!(tenants.others(), MOST_OTHERS, "round {round}");
        }
        assert_eq!(passed, 2 * (MOST_OTHERS + SHARDS));
        // Nobody who has a quota of his own notices.
        let own = tenants.get("own", now).expect("a quota");
        assert_eq!((0..100).filter(|_| own.pass(0, now).is_ok()).count(), 7);
    }

    #[test]
    fn only_who_is_as_new_makes_room() {
        let tenants = tenants();
        let get = |name: &str, now| tenants.get(name, now).expect("a quota");
        for n in 0..100_000 {
            let _ = get(&format!("made-up-{n}"), Duration::ZERO).pass(0, Duration::ZERO);
        }
        let soon = Duration::from_millis(200);
        let rest = get("late", soon);
        assert!((0..SHARDS).any(|n| Arc::ptr_eq(&rest, &tenants.others[n].lock().rest)));
        let later = Duration::from_millis(900);
        let place = get("late", later);
        assert_eq!((0..9).filter(|_| place.pass(0, later).is_ok()).count(), 2);
        assert!(Arc::ptr_eq(&place, &get("late", later)), "it has a place of its own");
    }

    #[test]
    fn other_quotas_leave_alone_whose_quota_stays() {
        let tenants = tenants();
        let now = Duration::ZERO;
        let spend = |tenants: &Tenants, name: &str| {
            let tenant = tenants.get(name, now).expect("a quota");
            (0..100).filter(|_| tenant.pass(0, now).is_ok()).count()
        };
        assert_eq!((spend(&tenants, "own"), spend(&tenants, "other")), (7, 2));
        let counted = tenants.get("own", now).expect("a quota");
        counted.operations.store(5, std::sync::atomic::Ordering::Relaxed);
        let quota = |operations_per_s| Quota {
            operations_per_s,
            ..Quota::default()
        };
        // The same again: what was used stays used.
        let same = tenants.replaced([("own".to_owned(), quota(7))].into(), quota(2), now);
        assert_eq!((spend(&same, "own"), spend(&same, "other")), (0, 0));
        let others = same.replaced([("own".to_owned(), quota(9))].into(), quota(3), now);
        assert_eq!((spend(&others, "own"), spend(&others, "other")), (9, 3));
        let counted = others.get("own", now).expect("a quota");
        assert_eq!(counted.operations.load(std::sync::atomic::Ordering::Relaxed), 5);
        assert!(!others.replaced([].into(), Quota::default(), now).are_any());
    }
}
