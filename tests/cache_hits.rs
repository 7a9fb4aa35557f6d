//! How often the read cache hits, at least: a bounded form of the benchmark `cache_hits`.

use bytes::Bytes;
use pairdb_node::storage::cache::{Cache, CacheOptions};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::version::{Value, Version, Versions};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_distr::Zipf;
use std::time::Duration;

const KEYS: u32 = 100_000;
const CAPACITY: usize = KEYS as usize / 4;
const ADAPTIVE: Duration = Duration::from_secs(300);

/// A cache that is asked a thousand times a second.
struct Replay {
    cache: Cache,
    names: Vec<Key>,
    value: Versions,
    now: u64,
}

impl Replay {
    /// With room for [`CAPACITY`] entries, by its own account.
    fn new(frequency_weight: f64, adaptive_window: Duration) -> Self {
        let options = |max_bytes| CacheOptions {
            max_bytes,
            frequency_weight,
            recency_weight: 1.0 - frequency_weight,
            adaptive_window,
        };
        let mut replay = Self {
            cache: Cache::new(options(CAPACITY * 400)),
            names: (0..2 * KEYS)
                .map(|n| Key::new("t", &format!("key{n:09}")).unwrap())
                .collect(),
            value: Versions::from(Version {
                clock: [("c", 1)].into_iter().collect(),
                value: Value::Live(Bytes::from(vec![7; 100])),
                timestamp_ms: 1,
                seq: 1,
            }),
            now: 0,
        };
        replay.percent(0..KEYS);
        let entry_bytes = replay.cache.bytes() / replay.cache.len();
        replay.cache = Cache::new(options(CAPACITY * entry_bytes));
        replay.now = 0;
        replay
    }

    /// Hit ratio of these requests.
    fn percent(&mut self, requests: impl IntoIterator<Item = u32>) -> f64 {
        let (mut hits, mut asked) = (0.0, 0.0);
        for request in requests {
            let key = &self.names[request as usize];
            asked += 1.0;
            if self.cache.get(key).is_some() {
                hits += 1.0;
            } else {
                self.cache.insert(key.clone(), self.value.clone());
            }
            self.now += 1;
            self.cache.adapt(Duration::from_millis(self.now));
        }
        hits * 100.0 / asked
    }
}

fn zipfian(seed: u64, requests: usize) -> Vec<u32> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut keys: Vec<u32> = (0..KEYS).collect();
    keys.shuffle(&mut random);
    let ranks = Zipf::new(f64::from(KEYS), 0.99).unwrap();
    (0..requests).map(|_| keys[random.sample(ranks) as usize - 1]).collect()
}

fn uniform(seed: u64, keys: std::ops::Range<u32>, requests: usize) -> Vec<u32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..requests).map(|_| random.random_range(keys.clone())).collect()
}

#[test]
fn a_quarter_of_the_keys_answers_85_percent_of_zipfian_requests() {
    let mut replay = Replay::new(0.5, ADAPTIVE);
    let requests = zipfian(1, 1_000_000);
    let (filling, filled) = requests.split_at(500_000);
    replay.percent(filling.iter().copied());
    let percent = replay.percent(filled.iter().copied());
    assert!(percent > 85.0, "{percent} percent");
    assert!(replay.cache.len() <= CAPACITY * 101 / 100, "{}", replay.cache.len());
}

#[test]
fn a_scan_of_cold_keys_does_not_flush_it() {
    let mut replay = Replay::new(0.5, ADAPTIVE);
    let requests = zipfian(2, 700_000);
    let (before, after) = requests.split_at(600_000);
    replay.percent(before[..500_000].iter().copied());
    let undisturbed = replay.percent(before[500_000..].iter().copied());
    replay.percent(KEYS..2 * KEYS);
    let scanned = replay.percent(after.iter().copied());
    assert!(scanned > undisturbed - 1.0, "{undisturbed}, then {scanned} percent");
}

#[test]
fn a_loop_larger_than_the_cache_is_held_in_part() {
    let mut replay = Replay::new(0.5, ADAPTIVE);
    replay.percent((0..KEYS).cycle().take(600_000));
    let percent = replay.percent(0..KEYS);
    assert!(percent > 20.0, "{percent} of 25 percent that are possible");
}

#[test]
fn a_hot_set_that_moves_is_found_again() {
    let mut replay = Replay::new(0.5, ADAPTIVE);
    for part in 0..4 {
        let hot = part * KEYS / 5..(part + 1) * KEYS / 5;
        replay.percent(uniform(u64::from(part), hot.clone(), 150_000));
        let percent = replay.percent(uniform(100 + u64::from(part), hot, 50_000));
        assert!(percent > 95.0, "part {part}: {percent} percent");
    }
}

#[test]
fn the_weights_follow_what_is_asked_for_and_come_back() {
    let mut replay = Replay::new(0.5, ADAPTIVE);
    assert_eq!(replay.cache.weights(), (0.5, 0.5));
    replay.percent((0..KEYS).cycle().take(500_000));
    let (frequency, _) = replay.cache.weights();
    assert!(frequency > 0.9, "a loop wants frequency: {frequency}");
    for part in 0..5 {
        replay.percent(uniform(
            u64::from(part),
            part * KEYS / 5..(part + 1) * KEYS / 5,
            100_000,
        ));
    }
    let (_, recency) = replay.cache.weights();
    assert!(recency > 0.15, "hot sets that move want recency: {recency}");
}

#[test]
fn with_no_window_the_weights_stay_as_set() {
    for weight in [0.0, 0.3, 1.0] {
        let mut replay = Replay::new(weight, Duration::ZERO);
        replay.percent((0..KEYS).cycle().take(300_000));
        let (frequency, recency) = replay.cache.weights();
        assert!((frequency - weight).abs() < 1e-9 && (recency - 1.0 + weight).abs() < 1e-9);
    }
}
