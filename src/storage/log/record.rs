//! One record of the log: its encoding, and reading it back with nothing trusted.

use crate::storage::clock::VectorClock;
use crate::storage::codec::Reader;
use crate::storage::idempotency::Remembered;
use crate::storage::key::Key;
use crate::storage::limits::{
    MAX_CLOCK_ID_BYTES, MAX_IDEMPOTENCY_KEY_BYTES, MAX_JOINED_CLOCK_ENTRIES, MAX_KEY_BYTES, MAX_TENANT_BYTES,
    MAX_VALUE_BYTES,
};
use crate::storage::remembered;
use crate::storage::version::{Value, Version};
use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// Bytes before the payload: checksum, length, type, sequence number.
pub const RECORD_HEADER_BYTES: usize = 4 + 4 + 1 + 8;
/// Where in these the type stands.
pub(super) const RECORD_TYPE_AT: usize = 4 + 4;
/// Largest payload that a writer makes, and so that a reader believes: every value, key and clock within the limits.
pub const MAX_PAYLOAD_BYTES: usize = MAX_VALUE_BYTES
    + MAX_TENANT_BYTES
    + MAX_KEY_BYTES
    + MAX_IDEMPOTENCY_KEY_BYTES
    + MAX_JOINED_CLOCK_ENTRIES * (MAX_CLOCK_ID_BYTES + 16)
    + 64;
/// Bytes of a mark's payload.
const MARK_BYTES: usize = 8;

const TYPE_WRITE: u8 = 1;
const TYPE_REPAIR: u8 = 2;
const TYPE_DELETE: u8 = 3;
const TYPE_MARK: u8 = 16;
const TYPE_NOTE: u8 = 17;
/// Added to the type of a change that has a name.
const NAMED: u8 = 32;

/// What asked for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A client's write.
    Write,
    /// A coordinator's read repair.
    Repair,
    /// A client's delete.
    Delete,
}

impl Operation {
    fn tag(self) -> u8 {
        match self {
            Self::Write => TYPE_WRITE,
            Self::Repair => TYPE_REPAIR,
            Self::Delete => TYPE_DELETE,
        }
    }
}

/// A change as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What asked for it.
    pub operation: Operation,
    /// The key that it changes.
    pub key: Key,
    /// The version that it adds.
    pub version: Version,
    /// The idempotency key, if it has one.
    pub id: Option<CompactString>,
}

impl Change {
    /// The change with a value of its own, so that it does not keep the segment mapped that it was read from.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.version = self.version.detached();
        self
    }
}

/// The payload of a change; the order of the fields is the format.
#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    key: &'a str,
    #[serde(with = "serde_bytes")]
    value: &'a [u8],
    clock: VectorClock,
    timestamp_ms: u64,
}

/// The payload of a change that has a name.
#[derive(Serialize, Deserialize)]
struct NamedPayload<'a>(&'a str, #[serde(borrow)] Payload<'a>);

#[derive(Serialize)]
struct NamedPayloadRef<'a>(&'a str, PayloadRef<'a>);

#[derive(Serialize)]
struct PayloadRef<'a> {
    key: &'a str,
    #[serde(with = "serde_bytes")]
    value: &'a [u8],
    clock: &'a VectorClock,
    timestamp_ms: u64,
}

/// Appends the record of a change to `out`. `salt` is the log's, `id` the idempotency key.
///
/// # Errors
/// When the payload cannot be encoded, or is larger than a reader believes; `out` is then as it was.
pub fn encode_change(
    out: &mut Vec<u8>,
    salt: u32,
    operation: Operation,
    key: &Key,
    version: &Version,
    id: Option<&str>,
) -> Result<(), rmp_serde::encode::Error> {
    let payload = PayloadRef {
        key: key.as_str(),
        value: version.value.live().map_or(&[], |v| v),
        clock: &version.clock,
        timestamp_ms: version.timestamp_ms,
    };
    let tag = operation.tag() + if id.is_some() { NAMED } else { 0 };
    encode(out, salt, tag, version.seq, |out| {
        let start = out.len();
        match id {
            Some(id) => rmp_serde::encode::write(out, &NamedPayloadRef(id, payload))?,
            None => rmp_serde::encode::write(out, &payload)?,
        }
        let length = out.len() - start;
        if length > MAX_PAYLOAD_BYTES {
            return Err(rmp_serde::encode::Error::Syntax(format!(
                "the record would have {length} bytes; at most {MAX_PAYLOAD_BYTES} are allowed"
            )));
        }
        Ok(())
    })
}

/// Appends a note of what a write was answered that is in the log already. `seq` is that of the last change before it.
///
/// # Errors
/// When it cannot be encoded; `out` is then as it was.
pub fn encode_note(
    out: &mut Vec<u8>,
    salt: u32,
    seq: u64,
    answered: &Remembered,
) -> Result<(), rmp_serde::encode::Error> {
    encode(out, salt, TYPE_NOTE, seq, |out| remembered::encode(out, answered))
}

/// Appends a mark: `durable` bytes of the segment were durable when it was written.
pub fn encode_mark(out: &mut Vec<u8>, salt: u32, seq: u64, durable: u64) {
    let written: Result<(), std::convert::Infallible> = encode(out, salt, TYPE_MARK, seq, |out| {
        out.extend_from_slice(&durable.to_le_bytes());
        Ok(())
    });
    let Ok(()) = written;
}

fn encode<E>(
    out: &mut Vec<u8>,
    salt: u32,
    tag: u8,
    seq: u64,
    payload: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.push(tag);
    out.extend_from_slice(&seq.to_le_bytes());
    if let Err(error) = payload(out) {
        out.truncate(start);
        return Err(error);
    }
    let length = (out.len() - start - RECORD_HEADER_BYTES) as u32;
    if let Some(field) = out.get_mut(start + 4..start + 8) {
        field.copy_from_slice(&length.to_le_bytes());
    }
    let checksum = crc32c::crc32c_append(salt, out.get(start + 4..).unwrap_or_default());
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&checksum.to_le_bytes());
    }
    Ok(())
}

/// A record whose checksum holds.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    tag: u8,
    /// Sequence number: of the change, or of the last change before a mark.
    pub seq: u64,
    payload: &'a [u8],
}

/// Why no record can be read at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// The file ends inside it.
    Incomplete,
    /// It is not what was written.
    Damaged,
}

impl<'a> RawRecord<'a> {
    /// Reads the record at the start of `bytes`.
    ///
    /// # Errors
    /// When there is none, or not all of it.
    pub fn read(bytes: &'a [u8], salt: u32) -> Result<Self, Unreadable> {
        Self::read_if(bytes, salt, |_, _| true)
    }

    /// Reads the record at the start of `bytes`, if its sequence number and whole length pass `believed`, which is asked
    /// before the checksum is computed.
    ///
    /// # Errors
    /// When there is none, or not all of it.
    pub fn read_if(bytes: &'a [u8], salt: u32, believed: impl FnOnce(u64, usize) -> bool) -> Result<Self, Unreadable> {
        let mut reader = Reader(bytes);
        let header = reader
            .u32()
            .zip(reader.u32())
            .zip(reader.u8())
            .zip(reader.u64())
            .ok_or(Unreadable::Incomplete)?;
        let (((checksum, length), tag), seq) = header;
        let length = length as usize;
        let known =
            matches!(tag & !NAMED, TYPE_WRITE | TYPE_REPAIR | TYPE_DELETE) || matches!(tag, TYPE_MARK | TYPE_NOTE);
        let sized = if tag == TYPE_MARK {
            length == MARK_BYTES
        } else {
            length <= MAX_PAYLOAD_BYTES
        };
        if !known || !sized || !believed(seq, RECORD_HEADER_BYTES + length) {
            return Err(Unreadable::Damaged);
        }
        let payload = reader.bytes(length).ok_or(Unreadable::Incomplete)?;
        let covered = bytes
            .get(4..RECORD_HEADER_BYTES + length)
            .ok_or(Unreadable::Incomplete)?;
        if crc32c::crc32c_append(salt, covered) != checksum {
            return Err(Unreadable::Damaged);
        }
        Ok(Self { tag, seq, payload })
    }

    /// Bytes of the whole record.
    #[must_use]
    pub fn bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.payload.len()
    }

    /// Bytes of the segment that were durable when this mark was written; [`None`] when it is not a mark.
    #[must_use]
    pub fn durable(&self) -> Option<u64> {
        (self.tag == TYPE_MARK).then(|| Reader(self.payload).u64()).flatten()
    }

    /// Whether it is a change, not a mark or a note.
    #[must_use]
    pub fn is_change(&self) -> bool {
        !matches!(self.tag, TYPE_MARK | TYPE_NOTE)
    }

    /// Whether it is a change that has a name.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.is_change() && self.tag & NAMED != 0
    }

    /// What a write was answered, if this is a note of it.
    ///
    /// # Errors
    /// As [`RawRecord::change`].
    pub fn note(&self) -> Result<Option<Remembered>, String> {
        (self.tag == TYPE_NOTE)
            .then(|| remembered::decode(self.payload))
            .transpose()
    }

    /// The change that it records. Its value is a slice of `content`, which this record was read from.
    ///
    /// # Errors
    /// What does not fit, when the payload does not decode. The checksum held, so another program wrote it.
    pub fn change(&self, content: &Bytes) -> Result<Change, String> {
        let operation = match self.tag & !NAMED {
            TYPE_WRITE => Operation::Write,
            TYPE_REPAIR => Operation::Repair,
            TYPE_DELETE => Operation::Delete,
            other => return Err(format!("record type {other} is not a change")),
        };
        let (id, payload) = if self.is_named() {
            let NamedPayload(id, payload) = rmp_serde::from_slice(self.payload).map_err(|e| e.to_string())?;
            (Some(id.into()), payload)
        } else {
            let payload: Payload<'_> = rmp_serde::from_slice(self.payload).map_err(|e| e.to_string())?;
            (None, payload)
        };
        let key = Key::from_stored(payload.key).ok_or("the key has no tenant")?;
        let value = match operation {
            Operation::Delete => Value::Tombstone,
            Operation::Write | Operation::Repair => Value::Live(content.slice_ref(payload.value)),
        };
        Ok(Change {
            operation,
            key,
            version: Version {
                clock: payload.clock,
                value,
                timestamp_ms: payload.timestamp_ms,
                seq: self.seq,
            },
            id,
        })
    }
}
