//! Whether two nodes have the same of a key, told by one number.
//!
//! Owns: the digest of what a key has. It covers what every replica holds alike (clocks and values), and nothing that is local
//! (timestamps, sequence numbers). Does not own: the comparison.

use crate::storage::version::Versions;
use xxhash_rust::xxh3::Xxh3;

/// The digest of a set of versions (XXH3, 64 bit). Part of the protocol between nodes: it never changes.
#[must_use]
pub fn digest(versions: &Versions) -> u64 {
    let mut hasher = Xxh3::new();
    let length = |hasher: &mut Xxh3, length: usize| hasher.update(&(length as u64).to_le_bytes());
    // The order of the versions follows from their content.
    for version in versions.all() {
        length(&mut hasher, version.clock.entries().len());
        for entry in version.clock.entries() {
            length(&mut hasher, entry.id.len());
            hasher.update(entry.id.as_bytes());
            hasher.update(&entry.counter.to_le_bytes());
        }
        match version.value.live() {
            Some(value) => {
                hasher.update(&[1]);
                length(&mut hasher, value.len());
                hasher.update(value);
            }
            None => hasher.update(&[0]),
        }
    }
    hasher.digest()
}
