//! The policy of the read cache against a model of what it must never do.

use bytes::Bytes;
use pairdb_node::storage::cache::{Cache, CacheOptions};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::version::{MAX_SIBLINGS, Value, Version, Versions};
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::Duration;

const MAX_BYTES: usize = 20_000;

fn key(n: u16) -> Key {
    Key::new("t", &format!("key{n}")).unwrap()
}

fn versions(counter: u64, size: usize) -> Versions {
    Version {
        clock: [("c", counter)].into_iter().collect(),
        value: Value::Live(Bytes::from(vec![1; size])),
        timestamp_ms: counter,
        seq: counter,
    }
    .into()
}

fn cache(frequency_weight: f64, recency_weight: f64) -> Cache {
    adaptive(frequency_weight, recency_weight, Duration::ZERO)
}

fn adaptive(frequency_weight: f64, recency_weight: f64, adaptive_window: Duration) -> Cache {
    Cache::new(CacheOptions {
        max_bytes: MAX_BYTES,
        frequency_weight,
        recency_weight,
        adaptive_window,
    })
}

#[derive(Debug, Clone)]
enum Step {
    Get(u16),
    Insert(u16, usize),
    Merge(u16, usize),
    Remove(u16),
    Adapt(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u16..60).prop_map(Step::Get),
        3 => (0_u16..60, 1_usize..2000).prop_map(|(k, n)| Step::Insert(k, n)),
        2 => (0_u16..60, 1_usize..30_000).prop_map(|(k, n)| Step::Merge(k, n)),
        1 => (0_u16..60).prop_map(Step::Remove),
        1 => (0_u64..20).prop_map(Step::Adapt),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn it_never_answers_wrong_nor_holds_more_than_it_may(
        steps in proptest::collection::vec(step(), 1..300),
        frequency_weight in 0.0..1.0,
        adaptive_window in prop_oneof![Just(0_u64), Just(40)].prop_map(Duration::from_secs),
    ) {
        let mut cache = adaptive(frequency_weight, 1.0 - frequency_weight, adaptive_window);
        let mut now = Duration::ZERO;
        let mut model: HashMap<u16, Versions> = HashMap::new();
        for (counter, step) in (1..).zip(steps) {
            match step {
                Step::Get(n) => {
                    if let Some(found) = cache.get(&key(n)) {
                        prop_assert_eq!(Some(found), model.get(&n));
                    }
                }
                Step::Insert(n, size) => {
                    let new = versions(counter, size);
                    cache.insert(key(n), new.clone());
                    model.insert(n, new);
                }
                Step::Merge(n, size) => {
                    let new = versions(counter, size);
                    if cache.merge(&key(n), new.clone(), MAX_SIBLINGS) {
                        model.insert(n, new);
                    }
                }
                Step::Adapt(seconds) => {
                    now += Duration::from_secs(seconds);
                    cache.adapt(now);
                }
                Step::Remove(n) => {
                    cache.remove(&key(n));
                    prop_assert!(cache.get(&key(n)).is_none());
                }
            }
            prop_assert!(cache.bytes() <= MAX_BYTES, "{} bytes", cache.bytes());
            let (frequency, recency) = cache.weights();
            prop_assert!((0.0..=1.0).contains(&recency) && (frequency + recency - 1.0).abs() < 1e-9);
        }
        for n in 0..60 {
            cache.remove(&key(n));
        }
        prop_assert!(cache.is_empty());
        prop_assert_eq!(cache.bytes(), 0, "something is charged for nothing");
    }
}

#[test]
fn what_is_used_again_survives_a_scan() {
    let mut cache = cache(0.5, 0.5);
    for n in 0..5 {
        cache.insert(key(n), versions(1, 500));
        assert!(cache.get(&key(n)).is_some());
    }
    for n in 100..1000 {
        cache.insert(key(n), versions(1, 500));
    }
    assert!((0..5).all(|n| cache.get(&key(n)).is_some()));
    assert!(cache.evictions() > 800);
}

#[test]
fn with_all_weight_on_frequency_a_scan_moves_hardly_anything() {
    let mut cache = cache(1.0, 0.0);
    for n in 0..100 {
        cache.get(&key(n));
        cache.insert(key(n), versions(1, 500));
    }
    let held: Vec<u16> = (0..100).filter(|&n| cache.get(&key(n)).is_some()).collect();
    assert!(held.len() > 10);
    for n in 1000..1300 {
        assert!(cache.get(&key(n)).is_none());
        cache.insert(key(n), versions(1, 500));
    }
    let still = held.iter().filter(|&&n| cache.get(&key(n)).is_some()).count();
    // A count may be too high by chance in so small a cache.
    assert!(still * 10 >= held.len() * 9, "{still} of {}", held.len());
}

#[test]
fn with_all_weight_on_recency_it_is_a_plain_lru() {
    let mut cache = cache(0.0, 1.0);
    for n in 0..5 {
        cache.insert(key(n), versions(1, 500));
        assert!(cache.get(&key(n)).is_some());
    }
    for n in 100..200 {
        cache.insert(key(n), versions(1, 500));
    }
    assert!((0..5).all(|n| cache.get(&key(n)).is_none()));
}

#[test]
fn an_entry_larger_than_its_share_of_the_cache_is_not_kept() {
    let mut cache = cache(0.5, 0.5);
    cache.insert(key(1), versions(1, 100));
    for size in [MAX_BYTES, MAX_BYTES / 8] {
        cache.insert(key(2), versions(1, size));
        assert!(cache.get(&key(2)).is_none());
    }
    assert!(cache.get(&key(1)).is_some());
}
