//! Between the messages of the wire and the engine's types; everything is checked here, before anything is stored.

use crate::rpc::pb;
use crate::storage::clock::VectorClock;
use crate::storage::key::Key;
use crate::storage::limits::{self, LimitError};
use crate::storage::version::{Value, Version, Versions};
use bytes::Bytes;

/// Bytes of values that an answer with siblings holds at most, beside a winner that is larger by itself: a coordinator
/// receives 4 MiB, and must be able to read a key to supersede its siblings.
const SIBLING_VALUE_BYTES: usize = 3 << 20;

/// A clock as it arrived. None, or one without events, is no clock.
///
/// # Errors
/// When it is outside the limits.
pub fn clock_from_wire(clock: Option<pb::VectorClock>) -> Result<Option<VectorClock>, LimitError> {
    let entries = clock.unwrap_or_default().entries;
    limits::check_clock_len(entries.len())?;
    for entry in &entries {
        limits::check_clock_entry(&entry.coordinator_node_id, entry.logical_timestamp)?;
    }
    let clock: VectorClock = entries
        .iter()
        .map(|entry| {
            (
                entry.coordinator_node_id.as_str(),
                entry.logical_timestamp.unsigned_abs(),
            )
        })
        .collect();
    Ok((!clock.is_empty()).then_some(clock))
}

/// A clock for the wire. Counters beyond what the wire can hold are its largest.
#[must_use]
pub fn clock_to_wire(clock: &VectorClock) -> pb::VectorClock {
    pb::VectorClock {
        entries: clock
            .entries()
            .iter()
            .map(|entry| pb::VectorClockEntry {
                coordinator_node_id: entry.id.to_string(),
                logical_timestamp: i64::try_from(entry.counter).unwrap_or(i64::MAX),
            })
            .collect(),
    }
}

/// What a write's fields say, checked.
pub struct CheckedWrite {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// The clock, if there is one.
    pub clock: Option<VectorClock>,
}

/// Checks a write.
///
/// # Errors
/// The first limit that does not hold.
pub fn check_write(
    tenant: &str,
    key: &str,
    value: Vec<u8>,
    clock: Option<pb::VectorClock>,
) -> Result<CheckedWrite, LimitError> {
    let key = Key::new(tenant, key)?;
    limits::check_value(&value)?;
    Ok(CheckedWrite {
        key,
        value: Value::Live(Bytes::from(value)),
        clock: clock_from_wire(clock)?,
    })
}

/// The answer to a read of a key with a live winner; [`None`] when it has none.
#[must_use]
pub fn read_response(versions: &Versions) -> Option<pb::ReadResponse> {
    let value = versions.winner()?.value.live()?.to_vec();
    Some(pb::ReadResponse {
        success: true,
        value,
        vector_clock: Some(clock_to_wire(&versions.clock())),
        siblings: siblings(versions),
        ..pb::ReadResponse::default()
    })
}

/// The entry of a stream for a key that has something, if only a tombstone. The clock is the winner's own: a copy that is
/// written with it keeps out nothing that the winner does not supersede.
#[must_use]
pub fn key_value_entry(key: &Key, versions: &Versions) -> Option<pb::KeyValueEntry> {
    let winner = versions.winner()?;
    Some(pb::KeyValueEntry {
        tenant_id: key.tenant().to_owned(),
        key: key.key().to_owned(),
        value: winner.value.live().map(|value| value.to_vec()).unwrap_or_default(),
        vector_clock: Some(clock_to_wire(&winner.clock)),
        timestamp: i64::try_from(winner.timestamp_ms).unwrap_or(i64::MAX),
        is_tombstone: winner.value.live().is_none(),
        siblings: siblings(versions),
    })
}

/// All versions, when there are several; the winner's value stands elsewhere in the answer.
fn siblings(versions: &Versions) -> Vec<pb::Sibling> {
    let [winner, others @ ..] = versions.all() else {
        return Vec::new();
    };
    if others.is_empty() {
        return Vec::new();
    }
    let mut room = SIBLING_VALUE_BYTES.saturating_sub(winner.value.len());
    std::iter::once(sibling(winner, &mut 0))
        .chain(others.iter().map(|version| sibling(version, &mut room)))
        .collect()
}

/// A sibling with its value, as far as there is `room` for it, in bytes.
fn sibling(version: &Version, room: &mut usize) -> pb::Sibling {
    let live = version.value.live();
    let fits = live.filter(|value| value.len() <= *room);
    *room -= fits.map_or(0, |value| value.len());
    pb::Sibling {
        value: fits.map(|value| value.to_vec()).unwrap_or_default(),
        value_omitted: live.is_some() && fits.is_none(),
        vector_clock: Some(clock_to_wire(&version.clock)),
        timestamp: i64::try_from(version.timestamp_ms).unwrap_or(i64::MAX),
        is_tombstone: version.value.live().is_none(),
    }
}
