//! Between the messages of the wire and the engine's types; everything is checked here, before anything is stored.

use crate::actors::write::{NewWrite, WriteOutcome};
use crate::rpc::pb;
use crate::rpc::status::Failed;
use crate::storage::clock::VectorClock;
use crate::storage::key::Key;
use crate::storage::limits::{self, LimitError};
use crate::storage::log::record::Operation;
use crate::storage::version::{Value, Version, Versions};
use bytes::Bytes;
use compact_str::CompactString;

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

/// Checks a write.
///
/// # Errors
/// The first limit that does not hold; so for the next two.
pub fn write_from_wire(request: pb::WriteRequest) -> Result<NewWrite, LimitError> {
    let key = Key::new(&request.tenant_id, &request.key)?;
    limits::check_value(&request.value)?;
    Ok(NewWrite {
        operation: Operation::Write,
        key,
        value: Value::Live(Bytes::from(request.value)),
        clock: clock_from_wire(request.vector_clock)?,
        id: id_from_wire(&request.idempotency_key)?,
        is_copy: request.is_copy,
    })
}

/// An idempotency key; the empty one is none.
fn id_from_wire(key: &str) -> Result<Option<CompactString>, LimitError> {
    limits::check_idempotency_key(key)?;
    Ok((!key.is_empty()).then(|| key.into()))
}

/// Checks a repair.
///
/// # Errors
/// As [`write_from_wire`].
pub fn repair_from_wire(request: pb::RepairRequest) -> Result<NewWrite, LimitError> {
    let key = Key::new(&request.tenant_id, &request.key)?;
    limits::check_value(&request.value)?;
    Ok(NewWrite {
        operation: Operation::Repair,
        key,
        value: Value::Live(Bytes::from(request.value)),
        clock: clock_from_wire(request.vector_clock)?,
        id: None,
        is_copy: false,
    })
}

/// Checks a delete.
///
/// # Errors
/// As [`write_from_wire`].
pub fn delete_from_wire(request: pb::DeleteRequest) -> Result<NewWrite, LimitError> {
    Ok(NewWrite {
        operation: Operation::Delete,
        key: Key::new(&request.tenant_id, &request.key)?,
        value: Value::Tombstone,
        clock: clock_from_wire(request.vector_clock)?,
        id: id_from_wire(&request.idempotency_key)?,
        is_copy: request.is_copy,
    })
}

/// The answer to a write.
#[must_use]
pub fn write_response(outcome: &WriteOutcome) -> pb::WriteResponse {
    pb::WriteResponse {
        success: true,
        updated_vector_clock: Some(clock_to_wire(&outcome.clock)),
        applied: outcome.applied,
        ..pb::WriteResponse::default()
    }
}

/// The answer to a repair.
#[must_use]
pub fn repair_response(outcome: &WriteOutcome) -> pb::RepairResponse {
    pb::RepairResponse {
        success: true,
        updated_vector_clock: Some(clock_to_wire(&outcome.clock)),
        applied: outcome.applied,
        ..pb::RepairResponse::default()
    }
}

/// The answer to a delete.
#[must_use]
pub fn delete_response(outcome: &WriteOutcome) -> pb::DeleteResponse {
    pb::DeleteResponse {
        success: true,
        updated_vector_clock: Some(clock_to_wire(&outcome.clock)),
        applied: outcome.applied,
        ..pb::DeleteResponse::default()
    }
}

/// Bytes that the answer to a read takes in memory, about: values, as far as they are sent, and clocks.
#[must_use]
pub fn read_response_bytes(versions: &Versions) -> usize {
    let winner = versions.winner().map_or(0, |winner| winner.value.len());
    let values = versions.all().iter().map(|version| version.value.len()).sum::<usize>();
    values.min(winner.max(SIBLING_VALUE_BYTES)) + versions.own_heap_bytes()
}

/// The answer to a read of a key with a live winner.
///
/// # Errors
/// That the key has none, with its clock.
pub fn read_response(versions: &Versions) -> Result<pb::ReadResponse, Failed> {
    let clock = clock_to_wire(&versions.clock());
    let Some(value) = versions.winner().and_then(|winner| winner.value.live()) else {
        return Err(Failed::not_found(clock));
    };
    Ok(pb::ReadResponse {
        success: true,
        value: value.to_vec(),
        vector_clock: Some(clock),
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

/// All versions of a key that has several, the winner first, without its value.
#[must_use]
pub fn siblings(versions: &Versions) -> Vec<pb::Sibling> {
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
