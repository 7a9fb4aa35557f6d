//! The limits of what a client may store, and the checks of them.
//!
//! Owns: the numbers of the wire contract (tenant, key, value, clock) and one check for each. Does not own: how a
//! refusal is reported (`rpc` turns a [`LimitError`] into a gRPC status).

/// Longest tenant id, in bytes.
pub const MAX_TENANT_BYTES: usize = 256;
/// Longest key, in bytes, without its tenant.
pub const MAX_KEY_BYTES: usize = 1024;
/// Largest value, in bytes (10 MiB).
pub const MAX_VALUE_BYTES: usize = 10 * 1024 * 1024;
/// Most entries in one vector clock, unless the key has more.
pub const MAX_CLOCK_ENTRIES: usize = 1000;
/// Most entries in a clock that supersedes what a key has. Siblings of up to 1000 entries each join to more, and nothing
/// may be left out of a clock: what it forgot would come back.
pub const MAX_JOINED_CLOCK_ENTRIES: usize = 8000;
/// Longest coordinator id in a vector clock entry, in bytes.
pub const MAX_CLOCK_ID_BYTES: usize = 128;

/// Longest idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 256;
/// Most operations in one batch: enough to make the cost of a call small, and so few that an actor is not held up for
/// long.
pub const MAX_BATCH_OPERATIONS: usize = 1000;

/// What is wrong with a request, in words that name the field, what it holds and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct LimitError {
    /// The field of the request, as the proto file names it.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

fn refuse(field: &'static str, problem: impl Into<String>) -> Result<(), LimitError> {
    Err(LimitError {
        field,
        problem: problem.into(),
    })
}

fn check_length(field: &'static str, length: usize, most: usize) -> Result<(), LimitError> {
    if length == 0 {
        return refuse(field, format!("is empty; it must have 1 to {most} bytes"));
    }
    if length > most {
        return refuse(field, format!("has {length} bytes; at most {most} are allowed"));
    }
    Ok(())
}

/// What is wrong with a request that lacks `field`.
#[must_use]
pub fn missing(field: &'static str) -> LimitError {
    LimitError {
        field,
        problem: "is missing".to_owned(),
    }
}

/// Checks the number of operations of a batch: 1 to 1000.
///
/// # Errors
/// States the number found and the number allowed.
pub fn check_batch(operations: usize) -> Result<(), LimitError> {
    if (1..=MAX_BATCH_OPERATIONS).contains(&operations) {
        return Ok(());
    }
    refuse(
        "operations",
        format!("has {operations}; it must have 1 to {MAX_BATCH_OPERATIONS}"),
    )
}

/// Checks a tenant id: 1 to 256 bytes, no ':' and no control character.
///
/// # Errors
/// Names the first rule that does not hold.
pub fn check_tenant(tenant: &str) -> Result<(), LimitError> {
    check_length("tenant_id", tenant.len(), MAX_TENANT_BYTES)?;
    if tenant.contains(':') {
        return refuse(
            "tenant_id",
            "contains ':', which separates tenant and key; leave it out",
        );
    }
    if tenant.chars().any(char::is_control) {
        return refuse("tenant_id", "contains a control character; use printable ones");
    }
    Ok(())
}

/// Checks a key: 1 to 1024 bytes, no control character but tab and newline.
///
/// # Errors
/// Names the first rule that does not hold.
pub fn check_key(key: &str) -> Result<(), LimitError> {
    check_length("key", key.len(), MAX_KEY_BYTES)?;
    if key.chars().any(|c| c.is_control() && c != '\t' && c != '\n') {
        return refuse("key", "contains a control character other than tab and newline");
    }
    Ok(())
}

/// Checks the size of a value: 1 byte to 10 MiB.
///
/// # Errors
/// States the size found and the sizes allowed.
pub fn check_value(value: &[u8]) -> Result<(), LimitError> {
    check_length("value", value.len(), MAX_VALUE_BYTES)
}

/// Checks an idempotency key: 256 bytes at most. None is the empty one.
///
/// # Errors
/// States the size found and the size allowed.
pub fn check_idempotency_key(key: &str) -> Result<(), LimitError> {
    if key.is_empty() {
        return Ok(());
    }
    check_length("idempotency_key", key.len(), MAX_IDEMPOTENCY_KEY_BYTES)
}

/// Checks the number of entries of a vector clock as it arrived, before any of it is copied. More than
/// [`MAX_CLOCK_ENTRIES`] are for whoever knows what the key has to refuse.
///
/// # Errors
/// States the number found and the number allowed.
pub fn check_clock_len(entries: usize) -> Result<(), LimitError> {
    if entries > MAX_JOINED_CLOCK_ENTRIES {
        return refuse(
            "vector_clock",
            format!(
                "has {entries} entries; at most {MAX_CLOCK_ENTRIES} are allowed, and {MAX_JOINED_CLOCK_ENTRIES} to supersede \
                 what a key has"
            ),
        );
    }
    Ok(())
}

/// Checks one entry of a vector clock: an id of 1 to 128 bytes without NUL, a timestamp of 0 or more.
///
/// # Errors
/// Names the first rule that does not hold.
pub fn check_clock_entry(id: &str, logical_timestamp: i64) -> Result<(), LimitError> {
    check_length("vector_clock.coordinator_node_id", id.len(), MAX_CLOCK_ID_BYTES)?;
    if id.contains('\0') {
        return refuse("vector_clock.coordinator_node_id", "contains a NUL byte");
    }
    if logical_timestamp < 0 {
        return refuse(
            "vector_clock.logical_timestamp",
            format!("is {logical_timestamp}; it must be 0 or more"),
        );
    }
    Ok(())
}
