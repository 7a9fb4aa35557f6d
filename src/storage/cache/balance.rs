//! The balance between recency and frequency, found by trying.
//!
//! Miniature caches (Waldspurger, Saemundsson, Ahmad and Park 2017) see one key in [`SAMPLED`], chosen by hash, and have
//! as small a part of the bytes. Each runs the cache's own policy with another share of the window and remembers hashes
//! alone. The cache takes the share of the one that had the most hits.
//!
//! Owns: the miniatures, their hits, and the choice. Does not own: the policy (see
//! [`crate::storage::cache::segments`]) or time.

use crate::storage::cache::segments::{Identity, Segments};
use crate::storage::cache::sketch::{Sketch, mix};
use std::time::Duration;

/// One key of so many is seen.
const SAMPLED: u64 = 16;
/// Shares of the window that are tried.
const SHARES: [f64; 6] = [0.0, 0.02, 0.1, 0.3, 0.6, 1.0];
/// Decisions in an adaptive window.
const DECISIONS: u32 = 8;

/// A key's hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hashed(u64);

impl Identity for Hashed {
    fn hash64(&self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
struct Miniature {
    segments: Segments<Hashed, ()>,
    /// Hits, those of a window ago counting less than half.
    hits: f64,
}

/// The miniatures and what they showed.
#[derive(Debug)]
pub struct Balance {
    miniatures: Vec<Miniature>,
    period: Duration,
    decide_at: Duration,
    uses: f64,
}

impl Balance {
    pub fn new(max_bytes: usize, window: Duration) -> Self {
        let max_bytes = max_bytes / SAMPLED as usize;
        Self {
            miniatures: SHARES
                .map(|share| Miniature {
                    segments: Segments::new(max_bytes, share),
                    hits: 0.0,
                })
                .into(),
            period: window / DECISIONS,
            decide_at: Duration::ZERO,
            uses: 0.0,
        }
    }

    pub fn bytes(&self) -> usize {
        self.miniatures
            .iter()
            .map(|m| m.segments.len() * Segments::<Hashed, ()>::ENTRY_BYTES)
            .sum()
    }

    fn sees(hash: u64) -> bool {
        mix(!hash) % SAMPLED == 0
    }

    /// A key was asked for. `bytes` when the cache held it: what it costs.
    pub fn used(&mut self, hash: u64, bytes: Option<usize>, sketch: &Sketch) {
        if !Self::sees(hash) {
            return;
        }
        self.uses += 1.0;
        for miniature in &mut self.miniatures {
            if miniature.segments.get(&Hashed(hash)).is_some() {
                miniature.hits += 1.0;
            } else if let Some(bytes) = bytes {
                miniature.segments.insert(Hashed(hash), (), bytes, sketch);
            }
        }
    }

    /// A key was loaded.
    pub fn loaded(&mut self, hash: u64, bytes: usize, sketch: &Sketch) {
        if !Self::sees(hash) {
            return;
        }
        for miniature in &mut self.miniatures {
            if !miniature.segments.contains(&Hashed(hash)) {
                miniature.segments.insert(Hashed(hash), (), bytes, sketch);
            }
        }
    }

    pub fn decide(&mut self, now: Duration, share: f64) -> Option<f64> {
        if now < self.decide_at {
            return None;
        }
        let first = self.decide_at.is_zero();
        self.decide_at = now + self.period;
        if first {
            return None;
        }
        let best = self.miniatures.iter().max_by(|a, b| a.hits.total_cmp(&b.hits))?;
        let current = self.miniatures.iter().min_by(|a, b| {
            (a.segments.share() - share)
                .abs()
                .total_cmp(&(b.segments.share() - share).abs())
        })?;
        let better = best.hits > current.hits + 0.001 * self.uses;
        let choice = better.then(|| best.segments.share());
        let keep = 1.0 - 1.0 / f64::from(DECISIONS);
        self.uses *= keep;
        for miniature in &mut self.miniatures {
            miniature.hits *= keep;
        }
        choice
    }
}
