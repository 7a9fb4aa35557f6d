//! What a process can learn of itself.
//!
//! Owns: the system's counters of this process's memory and I/O, bytes on disk, and latencies. Figures that the system
//! does not offer are [`None`].

use hdrhistogram::Histogram;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;
use walkdir::WalkDir;

const SAMPLE_EVERY: Duration = Duration::from_millis(20);
const LONGEST_NS: u64 = 600_000_000_000;
/// Few, because each of 64 threads has a histogram, which would show in the memory of the process.
const DIGITS: u8 = 2;

/// Latencies from 1 ns to 10 minutes.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("the bounds are constants that fit")
}

/// The number behind a name in a file of `/proc/self`.
fn own(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(Path::new("/proc/self").join(file)).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes that this process caused to be written to a disk: what it dirtied, whether or not it is written already. 0 on
/// a file system in memory.
pub fn written_bytes() -> Option<u64> {
    own("io", "write_bytes:")
}

/// The most memory that this process had resident, with the pages of files that it maps.
pub fn peak_resident() -> Option<u64> {
    own("status", "VmHWM:").map(|kib| kib << 10)
}

/// Bytes below a directory. Neither what is allocated ahead of the data nor holes in files count.
pub fn disk_bytes(dir: &Path) -> u64 {
    WalkDir::new(dir)
        .into_iter()
        // A file that is deleted meanwhile is not on disk.
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|metadata| metadata.is_file())
        .map(|metadata| metadata.len().min(metadata.blocks() * 512))
        .sum()
}

/// Watches the memory that this process has without the files that it maps, of which the system keeps no peak.
pub struct Watch {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    pub fn start() -> Self {
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = spawn({
            let (peak, stop) = (Arc::clone(&peak), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let now = own("status", "RssAnon:").map_or(0, |kib| kib << 10);
                    peak.fetch_max(now, Ordering::Relaxed);
                    sleep(SAMPLE_EVERY);
                }
            }
        });
        Self { peak, stop, thread }
    }

    /// The peak since the start.
    pub fn end(self) -> Option<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok()?;
        Some(self.peak.load(Ordering::Relaxed)).filter(|peak| *peak > 0)
    }
}
