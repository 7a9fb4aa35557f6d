//! How often the read cache hits, beside two libraries: `cargo bench --bench cache_hits`.
//!
//! Replays the same traces against the cache, quick_cache and moka, each with room for a quarter of the keys, from empty.
//! The cache gets the bytes that its own account charges for so many entries, everything included; its weights start at
//! the defaults and adapt over the default window, at [`RATE`] requests a second of a trace's time. Fails when it is not
//! within [`MOST_BEHIND`] of the better library on every trace, not ahead of both in the mean, or not above
//! [`LEAST_AT_ZIPF`] at zipfian 0.99.

use bytes::Bytes;
use pairdb_node::storage::cache::{Cache, CacheOptions};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::version::{Value, Version, Versions};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_distr::Zipf;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keys of a trace, beside those that only a scan asks for.
const KEYS: u32 = 100_000;
/// Entries that each cache has room for.
const CAPACITY: usize = KEYS as usize / 4;
/// Requests of a trace, beside those of scans.
const REQUESTS: usize = 2_000_000;
/// Parts of a trace: a scan ends each, or the hot keys change.
const PARTS: usize = 10;
/// Requests a second of the trace's time.
const RATE: u64 = 1000;
/// Percentage points that a trace's hit ratio may be below the better library's.
const MOST_BEHIND: f64 = 1.0;
/// Hit ratio that zipfian 0.99 must exceed, in percent.
const LEAST_AT_ZIPF: f64 = 85.0;
/// Requests between two runs of moka's maintenance: it does nothing of it by itself before its buffers are full.
const MAINTAINED_EVERY: u64 = 64;
const ZIPF_99: &str = "zipfian 0.99";

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Trace {
    name: &'static str,
    requests: Vec<u32>,
}

/// What the traces are replayed against.
trait Replayed {
    /// Whether it knows the key; `now` counts the requests.
    fn hits(&mut self, key: &Key, now: u64) -> bool;
    fn insert(&mut self, key: &Key, versions: &Versions);
}

impl Replayed for Cache {
    fn hits(&mut self, key: &Key, now: u64) -> bool {
        if now.is_multiple_of(64) {
            self.adapt(Duration::from_millis(now * 1000 / RATE));
        }
        // The libraries answer with a copy, and so does the actor.
        self.get(key).cloned().is_some()
    }

    fn insert(&mut self, key: &Key, versions: &Versions) {
        Self::insert(self, key.clone(), versions.clone());
    }
}

impl Replayed for quick_cache::sync::Cache<Key, Versions> {
    fn hits(&mut self, key: &Key, _now: u64) -> bool {
        self.get(key).is_some()
    }

    fn insert(&mut self, key: &Key, versions: &Versions) {
        Self::insert(self, key.clone(), versions.clone());
    }
}

impl Replayed for moka::sync::Cache<Key, Versions> {
    fn hits(&mut self, key: &Key, now: u64) -> bool {
        if now.is_multiple_of(MAINTAINED_EVERY) {
            self.run_pending_tasks();
        }
        self.get(key).is_some()
    }

    fn insert(&mut self, key: &Key, versions: &Versions) {
        Self::insert(self, key.clone(), versions.clone());
    }
}

fn random(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// Requests by Zipf's law; which keys are the popular ones follows from the seed as well.
fn zipfian(exponent: f64, seed: u64, requests: usize) -> Outcome<Vec<u32>> {
    let mut random = random(seed);
    let mut keys: Vec<u32> = (0..KEYS).collect();
    keys.shuffle(&mut random);
    let ranks = Zipf::new(f64::from(KEYS), exponent)?;
    Ok((0..requests).map(|_| keys[random.sample(ranks) as usize - 1]).collect())
}

/// Zipfian 0.99 with a scan after each part. Scan by scan asks for `cold` keys further on, or for the same ones.
fn with_scans(cold: u32) -> Outcome<Vec<u32>> {
    let mut requests = Vec::new();
    for (number, part) in (0..).zip(zipfian(0.99, 3, REQUESTS)?.chunks(REQUESTS / PARTS)) {
        let first = cold * (number + 1);
        requests.extend_from_slice(part);
        requests.extend(first..first + KEYS);
    }
    Ok(requests)
}

/// Nine requests of ten are for a fifth of the keys, each as often; each part has another fifth.
fn shifting_hot_set() -> Vec<u32> {
    let mut random = random(4);
    let mut keys: Vec<u32> = (0..KEYS).collect();
    let mut requests = Vec::new();
    for _ in 0..PARTS {
        keys.shuffle(&mut random);
        for _ in 0..REQUESTS / PARTS {
            let among = if random.random_bool(0.9) { KEYS / 5 } else { KEYS };
            requests.push(keys[random.random_range(0..among) as usize]);
        }
    }
    requests
}

/// The newest key is asked for most, older ones less by Zipf's law; each ten requests there is a new one.
fn newest_first() -> Outcome<Vec<u32>> {
    let mut random = random(5);
    let ages = Zipf::new(f64::from(KEYS), 0.8)?;
    Ok((0..REQUESTS)
        .map(|request| (request / 10) as u32 + KEYS - random.sample(ages) as u32)
        .collect())
}

fn traces() -> Outcome<Vec<Trace>> {
    let shifting_zipfian: Outcome<Vec<Vec<u32>>> = (0..PARTS as u64)
        .map(|part| zipfian(0.99, 100 + part, REQUESTS / PARTS))
        .collect();
    let looped = |keys: u32| (0..keys).cycle().take(REQUESTS).collect();
    Ok([
        ("zipfian 0.8", zipfian(0.8, 1, REQUESTS)?),
        (ZIPF_99, zipfian(0.99, 2, REQUESTS)?),
        ("loop, 4 times the cache", looped(KEYS)),
        ("loop, 1.2 times the cache", looped(KEYS * 3 / 10)),
        ("zipfian 0.99, scans of all keys", with_scans(0)?),
        ("zipfian 0.99, scans of cold keys", with_scans(KEYS)?),
        ("shifting hot set", shifting_hot_set()),
        ("shifting zipfian 0.99", shifting_zipfian?.concat()),
        ("newest keys first", newest_first()?),
    ]
    .map(|(name, requests)| Trace { name, requests })
    .into())
}

/// Options with the bytes that the cache charges for [`CAPACITY`] entries: found by filling it, from a first guess. Zipfian
/// requests fill it with the most entries for its bytes, so no trace has more.
fn options_for(keys: &[Key], versions: &Versions) -> Outcome<CacheOptions> {
    let filling = Trace {
        name: "filling",
        requests: zipfian(0.8, 1, REQUESTS / PARTS)?,
    };
    let mut options = CacheOptions {
        max_bytes: CAPACITY * 400,
        frequency_weight: 0.5,
        recency_weight: 0.5,
        adaptive_window: Duration::from_secs(300),
    };
    for _ in 0..4 {
        let mut cache = Cache::new(options);
        replay(&mut cache, &filling, keys, versions);
        options.max_bytes = cache.bytes() * CAPACITY / cache.len();
    }
    Ok(options)
}

/// Hit ratio in percent, and nanoseconds for each request.
fn replay(cache: &mut dyn Replayed, trace: &Trace, keys: &[Key], versions: &Versions) -> (f64, f64) {
    let begun = Instant::now();
    let mut hits = 0_u64;
    for (now, &request) in (0..).zip(&trace.requests) {
        let key = &keys[request as usize];
        if cache.hits(key, now) {
            hits += 1;
        } else {
            cache.insert(key, versions);
        }
    }
    let requests = trace.requests.len() as f64;
    (
        hits as f64 * 100.0 / requests,
        begun.elapsed().as_nanos() as f64 / requests,
    )
}

/// Nanoseconds of a hit: what the end of the trace asks for and the cache holds, asked for again.
fn hit_time(cache: &mut dyn Replayed, trace: &Trace, keys: &[Key]) -> f64 {
    let last = trace.requests.iter().rev().take(REQUESTS / PARTS);
    let held: Vec<&Key> = last
        .map(|&request| &keys[request as usize])
        .filter(|key| cache.hits(key, 1))
        .collect();
    let begun = Instant::now();
    let hits = held.iter().filter(|key| cache.hits(key, 1)).count();
    assert_eq!(hits, held.len());
    begun.elapsed().as_nanos() as f64 / hits as f64
}

fn main() -> Outcome<ExitCode> {
    let traces = traces()?;
    let highest = traces.iter().flat_map(|trace| &trace.requests).max().copied();
    let keys: Vec<Key> = (0..=highest.unwrap_or(0))
        .map(|number| Key::new("bench", &format!("key{number:09}")))
        .collect::<Result<_, _>>()?;
    let versions = Versions::from(Version {
        clock: [("coordinator-1", 1)].into_iter().collect(),
        value: Value::Live(Bytes::from(vec![7; 100])),
        timestamp_ms: 1,
        seq: 1,
    });
    let options = options_for(&keys, &versions)?;
    println!(
        "{KEYS} keys, {REQUESTS} requests and scans, room for {CAPACITY} entries; the cache has {} bytes, {} an entry\n",
        options.max_bytes,
        options.max_bytes / CAPACITY
    );
    println!(
        "{:<33}{:>8}{:>13}{:>8}{:>14}{:>9}   weights at the end",
        "hit ratio in percent", "cache", "quick_cache", "moka", "to the better", "entries"
    );
    let (mut ratios, mut times, mut hit_times, mut failures) = ([0.0; 3], [0.0; 3], [0.0; 3], Vec::new());
    for trace in &traces {
        let mut cache = Cache::new(options);
        let mut quick = quick_cache::sync::Cache::new(CAPACITY);
        let mut moka = moka::sync::Cache::new(CAPACITY as u64);
        let mut ratio = [0.0; 3];
        let all: [&mut dyn Replayed; 3] = [&mut cache, &mut quick, &mut moka];
        for (n, replayed) in all.into_iter().enumerate() {
            let (hits, time) = replay(replayed, trace, &keys, &versions);
            ratio[n] = hits;
            ratios[n] += hits / traces.len() as f64;
            times[n] += time / traces.len() as f64;
            if trace.name == ZIPF_99 {
                hit_times[n] = hit_time(replayed, trace, &keys);
            }
        }
        let lead = ratio[0] - ratio[1].max(ratio[2]);
        let (frequency, recency) = cache.weights();
        println!(
            "{:<33}{:>8.2}{:>13.2}{:>8.2}{lead:>+14.2}{:>9}   {frequency:.2} {recency:.2}",
            trace.name,
            ratio[0],
            ratio[1],
            ratio[2],
            cache.len()
        );
        if lead < -MOST_BEHIND {
            failures.push(format!("{}: {:.2} behind the better library", trace.name, -lead));
        }
        if trace.name == ZIPF_99 && ratio[0] <= LEAST_AT_ZIPF {
            failures.push(format!("{}: not above {LEAST_AT_ZIPF} percent", trace.name));
        }
    }
    let lead = ratios[0] - ratios[1].max(ratios[2]);
    println!(
        "{:<33}{:>8.2}{:>13.2}{:>8.2}{lead:>+14.2}\n",
        "mean", ratios[0], ratios[1], ratios[2]
    );
    for (what, ns) in [
        ("ns a request, mean of all", times),
        ("ns a hit, zipfian 0.99", hit_times),
    ] {
        println!("{what:<33}{:>8.0}{:>13.0}{:>8.0}", ns[0], ns[1], ns[2]);
    }
    if lead <= 0.0 {
        failures.push("the mean is not ahead of both libraries".to_owned());
    }
    for failure in &failures {
        eprintln!("FAILED: {failure}");
    }
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
