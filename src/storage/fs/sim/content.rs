//! The bytes of one file of a simulated disk.
//!
//! Owns: what programs see, what is durable, the changes between the two, and what a crash makes of them. Does not own:
//! the file's names.

use super::chance::{Chance, Pick};
use bytes::Bytes;

/// The unit that a disk writes whole.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, data: Bytes },
    Cut { len: usize },
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { at, data } => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(place) = bytes.get_mut(*at..end) {
                    place.copy_from_slice(data);
                }
            }
            Self::Cut { len } => bytes.truncate(*len),
        }
    }

    /// The file's length after it.
    fn length(&self, before: usize) -> usize {
        match self {
            Self::Write { at, data } => before.max(at + data.len()),
            Self::Cut { len } => before.min(*len),
        }
    }

    fn touches(&self, start: usize) -> bool {
        match self {
            Self::Write { at, data } => *at < start + SECTOR_BYTES && start < at + data.len(),
            Self::Cut { len } => *len < start + SECTOR_BYTES,
        }
    }

    /// What it makes of the sector that begins at `start`.
    fn apply_to_sector(&self, start: usize, sector: &mut [u8]) {
        match self {
            Self::Write { at, data } => {
                let from = at.saturating_sub(start);
                let skipped = start.saturating_sub(*at);
                let places = sector.iter_mut().skip(from);
                places
                    .zip(data.iter().skip(skipped))
                    .for_each(|(place, byte)| *place = *byte);
            }
            Self::Cut { len } => sector
                .iter_mut()
                .skip(len.saturating_sub(start))
                .for_each(|byte| *byte = 0),
        }
    }
}

/// A file's bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Changes since the last sync; `durable` with these applied is `live`.
    pending: Vec<Change>,
    /// The last sync failed, and nothing changed since: the next is told that there is nothing to do.
    taken_for_clean: bool,
}

impl Content {
    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    pub(super) fn write(&mut self, at: usize, data: &[u8]) {
        if !data.is_empty() {
            let data = Bytes::copy_from_slice(data);
            self.change(Change::Write { at, data });
        }
    }

    pub(super) fn cut(&mut self, len: usize) {
        if len < self.live.len() {
            self.change(Change::Cut { len });
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(change);
        self.taken_for_clean = false;
    }

    /// A sync of it failed.
    pub(super) fn fail_to_sync(&mut self) {
        self.taken_for_clean = true;
    }

    pub(super) fn sync(&mut self) {
        if self.taken_for_clean {
            return;
        }
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    pub(super) fn replace(&mut self, bytes: Vec<u8>) {
        self.pending.clear();
        self.durable.clone_from(&bytes);
        self.live = bytes;
    }

    /// Flips the bits of `mask` at `at`, in what is seen and in what is durable.
    pub(super) fn flip(&mut self, at: usize, mask: u8) {
        for bytes in [&mut self.live, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
    }

    /// Loses all that was not synced, but for the first `torn` bytes of what was appended.
    pub(super) fn crash_torn(&mut self, torn: usize) {
        let appended = self.live.strip_prefix(self.durable.as_slice()).unwrap_or_default();
        let kept = appended.get(..torn).unwrap_or(appended).to_vec();
        self.durable.extend_from_slice(&kept);
        self.settle();
    }

    pub(super) fn crash_whole(&mut self) {
        self.taken_for_clean = false;
        self.sync();
        self.settle();
    }

    /// Leaves each sector as it was at some moment since the last sync, each independently, and the length likewise.
    pub(super) fn crash_by_chance(&mut self, chance: &mut Chance, sectors: Pick, length: Pick) {
        let mut lengths = vec![self.durable.len()];
        for change in &self.pending {
            let before = lengths.last().copied().unwrap_or_default();
            lengths.push(change.length(before));
        }
        let longest = lengths.iter().copied().max().unwrap_or_default();
        let length = lengths.get(chance.pick(length, lengths.len())).copied();
        let mut kept = vec![0; longest.next_multiple_of(SECTOR_BYTES)];
        if let Some(place) = kept.get_mut(..self.durable.len()) {
            place.copy_from_slice(&self.durable);
        }
        for (number, sector) in kept.chunks_exact_mut(SECTOR_BYTES).enumerate() {
            let start = number * SECTOR_BYTES;
            let touching: Vec<&Change> = self.pending.iter().filter(|c| c.touches(start)).collect();
            if touching.is_empty() {
                continue;
            }
            let survive = chance.pick(sectors, touching.len() + 1);
            for change in touching.into_iter().take(survive) {
                change.apply_to_sector(start, sector);
            }
        }
        kept.truncate(length.unwrap_or_default());
        self.durable = kept;
        self.settle();
    }

    fn settle(&mut self) {
        self.pending.clear();
        self.taken_for_clean = false;
        self.live.clone_from(&self.durable);
    }
}
