//! The RPCs over a range of a tenant's keys: Scan, StreamKeys and GetKeyRange.
//!
//! Owns: their wire, and how much of a range goes into one answer. Does not own: the walk (see [`crate::actors::ranges`]).

use crate::actors::deadline;
use crate::actors::ranges::{Entries, KeyRange, Pace, RangeItem};
use crate::actors::refusal::Refusal;
use crate::actors::requests::Requests;
use crate::rpc::convert::{clock_to_wire, key_value_entry, siblings};
use crate::rpc::security::Rights;
use crate::rpc::service::Answer;
use crate::rpc::status::Failed;
use crate::rpc::{compression, pb, status};
use crate::storage::key::Key;
use crate::storage::limits;
use crate::storage::version::Versions;
use tokio_stream::StreamExt;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

/// Entries of a stream that are read at a time, unless the client says otherwise.
const BATCH: usize = 100;
const MAX_BATCH: usize = 1000;
/// Keys of a page, unless the client says otherwise.
const PAGE_KEYS: usize = 1000;
const MAX_PAGE_KEYS: usize = 10_000;
/// Bytes of keys after which a page is full: a client receives 4 MiB.
const PAGE_BYTES: usize = 1 << 20;
/// Keys that a call looks at for a page: where nearly all are deleted, it would else take its time without an answer.
const PAGE_LOOKS: usize = 100_000;

pub(super) fn scan(
    requests: &Requests,
    rights: Rights<'_>,
    request: Request<pb::ScanRequest>,
) -> Answer<BoxStream<pb::ScanEntry>> {
    let pace = Pace {
        entries: BATCH,
        until: deadline::current().map(Into::into),
    };
    let request = request.into_inner();
    let range = key_range(request.tenant_id, request.key_range_start, request.key_range_end)?;
    rights.to_tenant(&range.tenant).map_err(Failed::status)?;
    stream(requests, range, pace, scan_entry)
}

pub(super) fn stream_keys(
    requests: &Requests,
    rights: Rights<'_>,
    request: Request<pb::StreamKeysRequest>,
) -> Answer<BoxStream<pb::KeyValueEntry>> {
    let pace = Pace {
        entries: asked_for(request.get_ref().batch_size, BATCH, MAX_BATCH),
        until: deadline::current().map(Into::into),
    };
    let request = request.into_inner();
    let range = key_range(request.tenant_id, request.key_range_start, request.key_range_end)?;
    rights.to_tenant(&range.tenant).map_err(Failed::status)?;
    stream(requests, range, pace, key_value_entry)
}

pub(super) async fn get_key_range(
    requests: &Requests,
    rights: Rights<'_>,
    request: pb::KeyRangeRequest,
) -> Answer<pb::KeyRangeResponse> {
    let most = asked_for(request.max_keys, PAGE_KEYS, MAX_PAGE_KEYS);
    let range = key_range(request.tenant_id, request.key_range_start, request.key_range_end)?;
    rights.to_tenant(&range.tenant).map_err(Failed::status)?;
    let page = requests.look(range, move |entries| page(entries, most)).await;
    page.map(compression::answer)
        .map_err(|refusal| status::of_refusal(&refusal))
}

/// A range that a client names.
pub(super) fn key_range(tenant: String, start: String, end: String) -> Result<KeyRange, Status> {
    limits::check_tenant(&tenant).map_err(|error| status::of_limit(&error))?;
    Ok(KeyRange { tenant, start, end })
}

/// A number that a client may leave to the node, or ask too much of.
fn asked_for(number: i32, default: usize, most: usize) -> usize {
    match usize::try_from(number) {
        Ok(0) | Err(_) => default,
        Ok(number) => number.min(most),
    }
}

fn stream<T: Send + 'static>(
    requests: &Requests,
    range: KeyRange,
    pace: Pace,
    encode: fn(&Key, &Versions) -> Option<T>,
) -> Answer<BoxStream<T>> {
    let walk = requests.scan(range).map_err(|refusal| status::of_refusal(&refusal))?;
    let entries = Entries::of(walk, pace).filter_map(move |item| match item {
        Ok((key, versions)) => encode(&key, &versions).map(Ok),
        Err(refusal) => Some(Err(status::of_refusal(&refusal))),
    });
    Ok(Response::new(Box::pin(entries)))
}

fn scan_entry(key: &Key, versions: &Versions) -> Option<pb::ScanEntry> {
    let value = versions.winner()?.value.live()?;
    Some(pb::ScanEntry {
        key: key.key().to_owned(),
        value: value.to_vec(),
        vector_clock: Some(clock_to_wire(&versions.clock())),
        siblings: siblings(versions),
    })
}

/// The first keys with a value. Damage behind some of them is left to the page that begins there.
fn page(entries: &mut dyn Iterator<Item = RangeItem>, most: usize) -> Result<pb::KeyRangeResponse, Refusal> {
    let mut page = pb::KeyRangeResponse::default();
    let mut bytes = 0;
    for (looked_at, entry) in entries.enumerate() {
        let (key, versions) = match (entry, page.keys.last()) {
            (Ok(entry), _) => entry,
            (Err(refusal), None) => return Err(refusal),
            (Err(_damage), Some(last)) => {
                page.next_key = format!("{last}\0");
                page.has_more = true;
                break;
            }
        };
        let is_live = versions.winner().is_some_and(|winner| winner.value.live().is_some());
        let is_full = is_live && (page.keys.len() >= most || bytes >= PAGE_BYTES);
        if is_full || looked_at >= PAGE_LOOKS {
            page.next_key = key.key().to_owned();
            page.has_more = true;
            break;
        }
        if is_live {
            bytes += key.key().len();
            page.keys.push(key.key().to_owned());
        }
    }
    Ok(page)
}
