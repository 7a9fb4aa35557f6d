//! Hit ratios
use bytes::Bytes;
use pairdb_node::storage::cache::{Cache, CacheOptions};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::version::{Value, Version, Versions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::Zipf;
use std::time::{Duration, Instant};

const KEYS: u32 = 100_000;
const REQUESTS: usize = 2_000_000;

struct Trace {
    name: &'static str,
    keys: Vec<u32>,
}

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

fn permutation(seed: u64) -> Vec<u32> {
    use rand::seq::SliceRandom;
    let mut all: Vec<u32> = (0..KEYS).collect();
    all.shuffle(&mut rng(seed));
    all
}

fn zipf(s: f64, seed: u64, n: usize) -> Vec<u32> {
    let p = permutation(seed);
    let d = Zipf::new(f64::from(KEYS), s).unwrap();
    let mut r = rng(seed + 1000);
    (0..n).map(|_| p[r.sample(d) as usize - 1]).collect()
}

fn traces() -> Vec<Trace> {
    let mut all = vec![
        Trace {
            name: "zipf 0.8",
            keys: zipf(0.8, 1, REQUESTS),
        },
        Trace {
            name: "zipf 0.99",
            keys: zipf(0.99, 2, REQUESTS),
        },
        Trace {
            name: "loop over all",
            keys: (0..KEYS).cycle().take(REQUESTS).collect(),
        },
        Trace {
            name: "loop 1.2x",
            keys: (0..KEYS * 3 / 10).cycle().take(REQUESTS).collect(),
        },
    ];
    let mut scans = Vec::new();
    for chunk in zipf(0.99, 3, REQUESTS).chunks(200_000) {
        scans.extend_from_slice(chunk);
        scans.extend(0..KEYS);
    }
    all.push(Trace {
        name: "zipf 0.99 + scans",
        keys: scans,
    });
    let mut cold = Vec::new();
    let mut next = KEYS;
    for chunk in zipf(0.99, 3, REQUESTS).chunks(200_000) {
        cold.extend_from_slice(chunk);
        cold.extend(next..next + KEYS);
        next += KEYS;
    }
    all.push(Trace {
        name: "zipf 0.99 + cold",
        keys: cold,
    });
    // hot set: 90 % of requests to 20 % of keys, moves every 200k
    let mut shift = Vec::new();
    let mut r = rng(4);
    for phase in 0..10 {
        let p = permutation(100 + phase);
        for _ in 0..REQUESTS / 10 {
            let hot = r.random_bool(0.9);
            let n = if hot {
                r.random_range(0..KEYS / 5)
            } else {
                r.random_range(0..KEYS)
            };
            shift.push(p[n as usize]);
        }
    }
    all.push(Trace {
        name: "shifting hot set",
        keys: shift,
    });
    let mut shift = Vec::new();
    for phase in 0..10 {
        shift.extend(zipf(0.99, 200 + phase, REQUESTS / 10));
    }
    all.push(Trace {
        name: "shifting zipf",
        keys: shift,
    });
    // Recency: distance from now is zipf
    let d = Zipf::new(f64::from(KEYS), 0.8).unwrap();
    let mut r = rng(5);
    all.push(Trace {
        name: "drifting",
        keys: (0..REQUESTS)
            .map(|i| (i as u32 / 10 + KEYS) - r.sample(d) as u32)
            .collect(),
    });
    all
}

fn key(n: u32) -> Key {
    Key::new("t", &format!("key{n:09}")).unwrap()
}

fn versions() -> Versions {
    Version {
        clock: [("c", 1)].into_iter().collect(),
        value: Value::Live(Bytes::from(vec![1; 100])),
        timestamp_ms: 1,
        seq: 1,
    }
    .into()
}

fn main() {
    let n = (KEYS / 4) as usize;
    let value = versions();
    let mut options = CacheOptions {
        max_bytes: usize::MAX,
        frequency_weight: 0.5,
        recency_weight: 0.5,
        adaptive_window: Duration::ZERO,
    };
    let mut full = Cache::new(options);
    for i in 0..n {
        full.insert(key(i as u32), value.clone());
    }
    options.max_bytes = full.bytes();
    options.adaptive_window = Duration::from_secs(300);
    let only = std::env::var("ONLY").ok();
    let shares = std::env::var("SHARE").ok();
    if let Some(s) = &shares {
        options.recency_weight = s.parse().unwrap();
        options.frequency_weight = 1.0 - options.recency_weight;
        options.adaptive_window = Duration::ZERO;
    }
    let mut sum = [0.0; 3];
    let mut count = 0.0;
    let most = 1_200_000;
    let names: Vec<Key> = (0..most).map(key).collect();
    println!(
        "{:20} {:>7} {:>7} {:>7} {:>7}   ns",
        "", "ours", "quick", "moka", "diff"
    );
    for trace in traces() {
        if only.as_ref().is_some_and(|o| !trace.name.contains(o.as_str())) {
            continue;
        }
        let mut hits = [0_u64; 3];
        let mut ns = [0.0; 3];
        let total = trace.keys.len() as f64;
        let begun = Instant::now();
        let mut cache = Cache::new(options);
        for (i, &k) in trace.keys.iter().enumerate() {
            let key = &names[k as usize];
            if cache.get(key).cloned().is_some() {
                hits[0] += 1;
            } else {
                cache.insert(key.clone(), value.clone());
            }
            if i % 100 == 0 {
                cache.adapt(Duration::from_millis(i as u64));
            }
        }
        ns[0] = begun.elapsed().as_nanos() as f64 / total;
        let held = cache.len();
        if shares.is_none() {
            let begun = Instant::now();
            let quick = quick_cache::sync::Cache::<Key, Versions>::new(n);
            for &k in &trace.keys {
                let key = &names[k as usize];
                if quick.get(key).is_some() {
                    hits[1] += 1;
                } else {
                    quick.insert(key.clone(), value.clone());
                }
            }
            ns[1] = begun.elapsed().as_nanos() as f64 / total;
            let begun = Instant::now();
            let moka = moka::sync::Cache::<Key, Versions>::new(n as u64);
            for (i, &k) in trace.keys.iter().enumerate() {
                let key = &names[k as usize];
                if moka.get(key).is_some() {
                    hits[2] += 1;
                } else {
                    moka.insert(key.clone(), value.clone());
                }
                if i % 64 == 0 {
                    moka.run_pending_tasks();
                }
            }
            ns[2] = begun.elapsed().as_nanos() as f64 / total;
        }
        let r = hits.map(|h| h as f64 * 100.0 / total);
        for i in 0..3 {
            sum[i] += r[i];
        }
        count += 1.0;
        println!(
            "{:20} {:7.2} {:7.2} {:7.2} {:7.2}   {:.0} {:.0} {:.0} held {held} weights {:?}",
            trace.name,
            r[0],
            r[1],
            r[2],
            r[0] - r[1].max(r[2]),
            ns[0],
            ns[1],
            ns[2],
            cache.weights()
        );
    }
    println!(
        "{:20} {:7.2} {:7.2} {:7.2}",
        "mean",
        sum[0] / count,
        sum[1] / count,
        sum[2] / count
    );
}
