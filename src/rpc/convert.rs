//! Between the messages of the wire and the engine's types; everything is checked here, before anything is stored.

use crate::rpc::pb;
use crate::storage::clock::VectorClock;
use crate::storage::key::Key;
use crate::storage::limits::{self, LimitError};
use crate::storage::version::{Value, Version, Versions};
use bytes::Bytes;

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
    let siblings = match versions.all() {
        [_] => Vec::new(),
        all => all.iter().map(sibling).collect(),
    };
    Some(pb::ReadResponse {
        success: true,
        value,
        vector_clock: Some(clock_to_wire(&versions.clock())),
        siblings,
        ..pb::ReadResponse::default()
    })
}

fn sibling(version: &Version) -> pb::Sibling {
    pb::Sibling {
        value: version.value.live().map(|value| value.to_vec()).unwrap_or_default(),
        vector_clock: Some(clock_to_wire(&version.clock)),
        timestamp: i64::try_from(version.timestamp_ms).unwrap_or(i64::MAX),
        is_tombstone: version.value.live().is_none(),
    }
}
