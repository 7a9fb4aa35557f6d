//! How full the disks are, and what follows from it.
//!
//! Owns: the thresholds and the judgement. Does not own: measuring (see [`crate::storage::fs::FileSystem::space`]), or
//! refusing. Writes are slowed down smoothly between the throttle and the stop; what is left above the stop is for
//! deletes, for flushes and for compaction, which need room before they give any back.

use crate::storage::error::{Error, Result};
use crate::storage::fs::{FileSystem, Space};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time that a write is held up just before writes stop.
const LONGEST_DELAY: Duration = Duration::from_millis(50);

/// Shares of a file system, 0 to 1, each at least as large as the one before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpaceThresholds {
    /// From here on people are warned.
    pub warn: f64,
    /// From here on writes are slowed down.
    pub throttle: f64,
    /// From here on writes are refused; reads and deletes go on.
    pub stop: f64,
}

/// What the fullest file system asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpaceLevel {
    /// Nothing.
    Ample,
    /// Attention.
    Warn,
    /// Slower writes.
    Throttle,
    /// No writes but deletes.
    Stop,
}

impl SpaceThresholds {
    /// What a file system that is taken to the share `used` asks for.
    #[must_use]
    pub fn level(&self, used: f64) -> SpaceLevel {
        if used >= self.stop {
            SpaceLevel::Stop
        } else if used >= self.throttle {
            SpaceLevel::Throttle
        } else if used >= self.warn {
            SpaceLevel::Warn
        } else {
            SpaceLevel::Ample
        }
    }

    /// How long a write is to be held up; [`None`]: it is to be refused.
    #[must_use]
    pub fn write_delay(&self, used: f64) -> Option<Duration> {
        let over = (used - self.throttle) / (self.stop - self.throttle).max(f64::EPSILON);
        (used < self.stop).then(|| LONGEST_DELAY.mul_f64(over.clamp(0.0, 1.0).powi(2)))
    }
}

/// One file system that holds data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUse {
    /// The first of the node's directories on it.
    pub dir: PathBuf,
    /// How full it is.
    pub space: Space,
}

/// Measures every file system that holds one of `dirs`, each once, the fullest first.
///
/// # Errors
/// When one cannot be measured.
pub fn measure(fs: &dyn FileSystem, dirs: &[PathBuf]) -> Result<Vec<DiskUse>> {
    let mut disks: Vec<DiskUse> = Vec::new();
    for dir in dirs {
        let space = measure_one(fs, dir)?;
        if disks.iter().all(|disk| disk.space.filesystem != space.filesystem) {
            disks.push(DiskUse {
                dir: dir.clone(),
                space,
            });
        }
    }
    disks.sort_by(|a, b| b.space.used().total_cmp(&a.space.used()));
    Ok(disks)
}

fn measure_one(fs: &dyn FileSystem, dir: &Path) -> Result<Space> {
    fs.space(dir).map_err(|e| Error::io("measure the space of", dir, e))
}
