//! What a stream cannot send, since it is damaged here.
//!
//! Owns: the count, the words, and from where it is to be looked at again. Does not own: going past it (see
//! [`crate::storage::scan`]), or what a stream is that lacks something (see [`super::work`]).

use crate::storage::lost::Lost;
use crate::storage::stream_records::{Pass, Progress};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Places that are told apart; more count as so many.
const MOST_PLACES: usize = 10_000;

/// Places in tables that could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// The first key that each may hold, by file and byte.
    places: BTreeMap<(PathBuf, u64), String>,
    /// The first that was met.
    first: Option<Lost>,
    /// What the target lacks of them may be as old as this sequence number; [`None`]: it was compared, so that to compare again
    /// suffices.
    since: Option<u64>,
}

impl Skipped {
    /// None yet, in a pass that sends what is above `since`.
    #[must_use]
    pub fn in_copy(since: u64) -> Self {
        Self {
            since: Some(since),
            ..Self::default()
        }
    }

    /// Whether all could be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many places there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// The first of them: the file, the place, the keys, the damage.
    #[must_use]
    pub fn first(&self) -> String {
        self.first.as_ref().map(Lost::to_string).unwrap_or_default()
    }

    /// Takes note of a place. Says whether it is new.
    pub fn add(&mut self, lost: &Lost) -> bool {
        if self.places.is_empty() {
            self.first = Some(lost.clone());
        }
        let place = (lost.file.clone(), lost.offset);
        self.places.len() < MOST_PLACES && self.places.insert(place, lost.first_key.clone()).is_none()
    }

    /// Takes note of what another pass met.
    pub fn join(&mut self, other: Self) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = other;
            return;
        }
        self.places.extend(other.places);
        self.since = match (self.since, other.since) {
            (Some(since), Some(others)) => Some(since.min(others)),
            (since, others) => since.or(others),
        };
    }

    /// Takes progress back to where the first of them may begin, for whoever goes on from it.
    pub fn take_back(&self, progress: &mut Progress) {
        let Some(from) = self.places.values().min() else {
            return;
        };
        progress.compared = false;
        progress.compare_from.clone_from(from);
        if let Some(since) = self.since {
            let passed = progress.pass.take();
            let (seq, at) = match passed {
                Some(Pass { seq, from: at }) => (seq, at.min(from.clone())),
                None => (progress.done_seq, from.clone()),
            };
            progress.pass = Some(Pass { seq, from: at });
            progress.done_seq = progress.done_seq.min(since);
        }
    }

    /// Why the stream is not complete, for a person. Names no keys: it is shown over HTTP as well, where anybody may ask.
    #[must_use]
    pub fn why(&self) -> String {
        let place = |lost: &Lost| format!("{} at byte {}: {}", lost.file.display(), lost.offset, lost.cause);
        format!(
            "all else was sent, and what is written is; not what {} damaged places in tables held, the first in {}. Restore it, or \
             have the keys repaired from another replica (GetStreamStatus names them); then start this stream again",
            self.count(),
            self.first.as_ref().map(place).unwrap_or_default()
        )
    }
}
