//! Peak memory stays within what the README states for the configuration.

mod common;

use common::*;

const MIB: u64 = 1 << 20;
/// The README's bound for everything but what the configuration sizes; the requests of this test are small.
const REST: u64 = 96 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn the_peak_stays_below_the_stated_bound() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [
        ("PAIRDB__MEM_TABLE__MAX_SIZE", "16MiB"),
        ("PAIRDB__MEM_TABLE__FLUSH_THRESHOLD", "14MiB"),
        ("PAIRDB__CACHE__MAX_SIZE", "32MiB"),
    ];
    let port = free_port();
    let mut node = Process::start(dir.path(), port, &environment);
    // Many times what memory may hold, small values and large ones, each read once so that the cache fills.
    let mut written = 0;
    for (size, count) in [(100_usize, 120_000_u32), (20_000, 12_000)] {
        let tasks: Vec<_> = (0..32)
            .map(|worker| {
                let mut client = client(&node.addr);
                tokio::spawn(async move {
                    for n in (worker..count).step_by(32) {
                        let key = format!("size{size}-key{n}");
                        while client
                            .write(write(&key, &vec![n as u8; size], &[("c", 1)]))
                            .await
                            .is_err()
                        {}
                        client.read(read(&key)).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        written += size as u64 * u64::from(count);
    }
    let bound = 2 * (2 * 16 * MIB + 32 * MIB) + 2 * MIB + REST;
    let peak = node.peak_memory();
    println!(
        "wrote {} MiB, peak {} MiB, bound {} MiB",
        written / MIB,
        peak / MIB,
        bound / MIB
    );
    assert!(written > bound, "too little was written to tell");
    assert!(peak < bound, "peak {peak}, bound {bound}");
    // A recovery holds no more than a running node.
    node.kill();
    let node = Process::start(dir.path(), port, &environment);
    let peak = node.peak_memory();
    println!("peak of the recovery {} MiB", peak / MIB);
    assert!(peak < bound, "peak of the recovery {peak}, bound {bound}");
}
