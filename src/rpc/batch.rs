//! Batches: many operations in one call.
//!
//! Owns: their translation, and that an operation which is outside a limit, or not allowed, fails alone. Does not own: carrying them out
//! (see [`crate::actors::batches`]).

use crate::actors::answer_room::{ConnectionRoom, HeldRoom};
use crate::actors::cache::LOAD_BYTES;
use crate::actors::refusal::Refusal;
use crate::actors::requests::Requests;
use crate::actors::write::{NewWrite, WriteOutcome};
use crate::rpc::convert::{
    delete_from_wire, delete_response, read_response, read_response_bytes, write_from_wire, write_response,
};
use crate::rpc::pb;
use crate::rpc::pb::operation_result::Result as Outcome;
use crate::rpc::security::Rights;
use crate::rpc::sending::hold;
use crate::rpc::status::Failed;
use crate::rpc::trails;
use crate::storage::key::Key;
use crate::storage::limits::{self, LimitError, MAX_VALUE_BYTES};
use crate::storage::version::Versions;
use std::sync::Arc;

/// Carries out a batch of writes.
///
/// # Errors
/// When the number of operations is outside its limit; so for the next two.
pub(super) async fn write(
    requests: &Requests,
    rights: Rights<'_>,
    batch: pb::BatchWriteRequest,
) -> Result<pb::BatchResponse, Failed> {
    let writes = checked(batch.operations, |request| allowed(rights, write_from_wire(request)))?;
    let written = |outcome: &WriteOutcome| Outcome::Write(write_response(outcome));
    Ok(put(requests, writes, written).await)
}

/// Carries out a batch of deletes.
///
/// # Errors
/// As [`write`].
pub(super) async fn delete(
    requests: &Requests,
    rights: Rights<'_>,
    batch: pb::BatchDeleteRequest,
) -> Result<pb::BatchResponse, Failed> {
    let deletes = checked(batch.operations, |request| allowed(rights, delete_from_wire(request)))?;
    let deleted = |outcome: &WriteOutcome| Outcome::Delete(delete_response(outcome));
    Ok(put(requests, deletes, deleted).await)
}

/// Carries out a batch of reads. The answer holds the room that is returned.
///
/// # Errors
/// As [`write`], and when the client is to take other answers first.
pub(super) async fn read(
    requests: &Requests,
    rights: Rights<'_>,
    room: Option<Arc<ConnectionRoom>>,
    batch: pb::BatchReadRequest,
) -> Result<(pb::BatchResponse, Option<HeldRoom>), Failed> {
    let reads = checked(batch.operations, |request: pb::ReadRequest| {
        let key = Key::new(&request.tenant_id, &request.key).map_err(|error| Failed::from(&error))?;
        rights.to_tenant(key.tenant())?;
        Ok(key)
    })?;
    let (keys, refused) = sort_out(reads);
    let results = requests.read_batch(keys).await;
    let sizes = results.iter().flatten().map(read_response_bytes);
    let held = hold(room, sizes.sum::<usize>().min(LOAD_BYTES + MAX_VALUE_BYTES))?;
    let mut bytes = 0;
    let outcomes = results.into_iter().map(|result| {
        let versions = result.map_err(|refusal| Failed::from(&refusal))?;
        found(&versions, &mut bytes).map(Outcome::Read)
    });
    Ok((response(refused, outcomes), held))
}

/// The answer to a read, as long as the answers before it leave room.
fn found(versions: &Versions, bytes: &mut usize) -> Result<pb::ReadResponse, Failed> {
    let before = *bytes;
    *bytes += versions.all().iter().map(|version| version.value.len()).sum::<usize>();
    if before > 0 && *bytes > LOAD_BYTES {
        *bytes = before;
        let full = Refusal::Overloaded("the answer to this batch is full; read this key again");
        return Err(Failed::from(&full));
    }
    read_response(versions)
}

/// A write that is within its limits, and allowed to whom it comes from.
fn allowed(rights: Rights<'_>, write: Result<NewWrite, LimitError>) -> Result<NewWrite, Failed> {
    let write = write.map_err(|error| Failed::from(&error))?;
    rights.to_write(&write)?;
    Ok(write)
}

async fn put(
    requests: &Requests,
    writes: Vec<Result<NewWrite, Failed>>,
    written: impl Fn(&WriteOutcome) -> Outcome,
) -> pb::BatchResponse {
    let (writes, refused) = sort_out(writes);
    let outcomes = requests
        .write_batch(writes)
        .await
        .into_iter()
        .map(|outcome| match outcome {
            Ok(outcome) => Ok(written(&outcome)),
            Err(refusal) => Err(Failed::from(&refusal)),
        });
    response(refused, outcomes)
}

/// Checks the number of operations, and each by itself.
fn checked<R, T>(
    operations: Vec<R>,
    check: impl FnMut(R) -> Result<T, Failed>,
) -> Result<Vec<Result<T, Failed>>, Failed> {
    limits::check_batch(operations.len()).map_err(|error| Failed::from(&error))?;
    Ok(operations.into_iter().map(check).collect())
}

/// Parts what is to be carried out from what was refused. The refusals keep the places: [`None`] is an operation that is
/// carried out.
fn sort_out<T>(checked: Vec<Result<T, Failed>>) -> (Vec<T>, Vec<Option<Failed>>) {
    let mut accepted = Vec::with_capacity(checked.len());
    let refused = checked
        .into_iter()
        .map(|operation| operation.map(|operation| accepted.push(operation)).err())
        .collect();
    (accepted, refused)
}

/// Puts the results where their operations were.
fn response(
    refused: Vec<Option<Failed>>,
    mut outcomes: impl Iterator<Item = Result<Outcome, Failed>>,
) -> pb::BatchResponse {
    let lost = || {
        Err(Failed::from(&Refusal::Internal(
            "the operation has no result".to_owned(),
        )))
    };
    let mut worst: Option<usize> = None;
    let mut result = |refused: Option<Failed>| {
        let outcome = match refused {
            Some(failed) => Err(failed),
            None => outcomes.next().unwrap_or_else(lost),
        };
        if let Err(failed) = &outcome {
            worst = worst.max(trails::severity(failed.code()));
        }
        result(0, outcome)
    };
    let results = refused.into_iter().map(&mut result).collect();
    // The call is answered with OK.
    trails::failed_in_part(worst);
    pb::BatchResponse { results }
}

/// One result, of a batch or of a stream.
pub(super) fn result(id: u64, outcome: Result<Outcome, Failed>) -> pb::OperationResult {
    pb::OperationResult {
        id,
        result: Some(outcome.unwrap_or_else(|failed| Outcome::Failure(failed.result()))),
    }
}
