//! A Bloom filter over the keys of a table.
//!
//! Owns: its sizing, building and probing. Bits and probes follow from the wanted rate of false positives (Bloom 1970);
//! the probes are derived from one 64-bit hash by enhanced double hashing (Dillinger and Manolios 2004). Does not own:
//! the hash of a key (see [`crate::storage::key::Key::hash64`]) or where the filter lies.

/// Builds a filter for a known set of hashes: number of probes (one byte), then the bits.
#[must_use]
pub fn build(hashes: &[u64], false_positives: f64) -> Vec<u8> {
    let rate = false_positives.clamp(1e-6, 0.5);
    let ln2 = std::f64::consts::LN_2;
    let bits_per_key = -rate.ln() / (ln2 * ln2);
    // Probes beyond 30 buy nothing at the lowest rate that the config allows.
    let probes = (bits_per_key * ln2).round().clamp(1.0, 30.0) as u8;
    let bytes = ((hashes.len() as f64 * bits_per_key / 8.0).ceil() as usize).max(8);
    let mut filter = vec![0; bytes + 1];
    if let Some((head, bits)) = filter.split_first_mut() {
        *head = probes;
        for hash in hashes {
            for at in probe_positions(*hash, probes, bytes * 8) {
                if let Some(byte) = bits.get_mut(at / 8) {
                    *byte |= 1 << (at % 8);
                }
            }
        }
    }
    filter
}

/// Whether a key with this hash may be in the set. An empty filter excludes nothing.
#[must_use]
pub fn may_contain(filter: &[u8], hash: u64) -> bool {
    match filter.split_first() {
        Some((probes, bits)) if !bits.is_empty() => probe_positions(hash, *probes, bits.len() * 8)
            .all(|at| bits.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0)),
        _ => true,
    }
}

fn probe_positions(hash: u64, probes: u8, bits: usize) -> impl Iterator<Item = usize> {
    let mut step = hash.rotate_left(32) | 1;
    let mut at = hash;
    (0..u64::from(probes)).map(move |i| {
        let position = ((u128::from(at) * bits as u128) >> 64) as usize;
        at = at.wrapping_add(step);
        step = step.wrapping_add(i);
        position
    })
}
