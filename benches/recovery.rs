//! How fast a log is recovered: `cargo bench --bench recovery -- [--mib N] [--value-size N] [DIR]`.
//!
//! Writes a log that no table has, then opens the directory and reports MB of log per second. DIR (default: the directory
//! for temporary files) says which disk.

use bytes::Bytes;
use pairdb_node::storage::fs::{FileSystem, RealFs};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::log::record::{Operation, encode_change};
use pairdb_node::storage::log::writer::EncodedBatch;
use pairdb_node::storage::recovery::{self, Options};
use pairdb_node::storage::version::{Value, Version};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: u64 = 1000;

fn write_log(fs: &Arc<dyn FileSystem>, dir: &Path, bytes: u64, value_size: usize) -> Result<(), Box<dyn Error>> {
    let mut log = recovery::open(fs, &Options::at(dir))?.log;
    let epoch = log.take_over();
    let value = Bytes::from(vec![7; value_size]);
    let (mut seq, mut state) = (0_u64, 1_u64);
    while log.stats().bytes < bytes {
        let mut batch = EncodedBatch::default();
        for _ in 0..BATCH {
            seq += 1;
            // A permutation of the numbers, so that keys come in no order and none comes twice.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let version = Version {
                clock: [("coordinator-1", seq)].into_iter().collect(),
                value: Value::Live(value.clone()),
                timestamp_ms: seq,
                seq,
            };
            let key = Key::new("bench", &format!("key{state:020}"))?;
            encode_change(&mut batch.bytes, log.salt(), Operation::Write, &key, &version, None)?;
        }
        batch.last_seq = seq;
        log.append(epoch, &batch, seq, 0)?;
    }
    log.close(epoch)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut mib, mut value_size, mut at) = (1024, 100, std::env::temp_dir());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--mib" => mib = args.next().ok_or("--mib needs a number")?.parse()?,
            "--value-size" => value_size = args.next().ok_or("--value-size needs a number")?.parse()?,
            dir => at = PathBuf::from(dir),
        }
    }
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let dir = tempfile::tempdir_in(&at)?;
    write_log(&fs, dir.path(), mib << 20, value_size)?;
    let begun = Instant::now();
    let report = recovery::open(&fs, &Options::at(dir.path()))?.report;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} records, {:.0} MB of log in {seconds:.2} s: {:.0} MB/s, {:.0} records/s, {} tables written",
        report.replayed,
        report.log_bytes as f64 / 1e6,
        report.log_bytes as f64 / 1e6 / seconds,
        report.replayed as f64 / seconds,
        report.flushes
    );
    Ok(())
}
