//! The stream of operations: many in flight, each answered as soon as it is done.
//!
//! What bounds it is HTTP/2's own flow control: an operation is taken from the stream only when fewer than the most that
//! may be in flight are, and one stays in flight until its result is on its way to the client. A client that takes no
//! results is so sent no more, and soon cannot send either. What its results hold has a bound in bytes as well: one for which
//! there is no room waits without its value.
//!
//! Owns: that bound, and the end of a stream. Does not own: what an operation does.

use crate::actors::answer_room::{ConnectionRoom, HeldRoom};
use crate::actors::refusal::Refusal;
use crate::actors::trail::{self, Trail};
use crate::rpc::batch::result;
use crate::rpc::pb::operation::Operation;
use crate::rpc::security::{Digest, Rights};
use crate::rpc::sending::Handed;
use crate::rpc::service::StorageNode;
use crate::rpc::status::Failed;
use crate::rpc::trails::Limit;
use crate::rpc::{pb, status, trails};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status, Streaming};

/// Operations of one stream that are carried out at a time.
const IN_FLIGHT: usize = 256;
/// Results that wait to be sent.
const RESULTS_AHEAD: usize = 64;
/// Time between two looks whether the node is being stopped.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Results, with the room that they hold.
type Results = mpsc::Sender<(Result<pb::OperationResult, Status>, Option<HeldRoom>)>;

/// Carries out the operations of a stream until the client ends it, or goes away, or the node is being stopped.
pub(super) fn run(
    node: StorageNode,
    digest: Option<Digest>,
    room: Arc<ConnectionRoom>,
    request: Request<Streaming<pb::Operation>>,
) -> Response<BoxStream<pb::OperationResult>> {
    let (results, receiver) = mpsc::channel(RESULTS_AHEAD);
    let limit = Limit::of(request.metadata().as_ref(), Instant::now());
    let caller = (digest, trail::current(), limit);
    let operations = request.into_inner();
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        let end = take(&node, &room, operations, &places, &results, caller).await;
        // The results of all that were taken come first.
        let _all = places.acquire_many(IN_FLIGHT as u32).await;
        if let Some(status) = end {
            let _ = results.send((Err(status), None)).await;
        }
    });
    let handed = Handed::default();
    let hands = handed.clone();
    let results = ReceiverStream::new(receiver).map(move |(result, held)| {
        hands.add(held);
        result
    });
    let mut answer: Response<BoxStream<pb::OperationResult>> = Response::new(Box::pin(results));
    answer.extensions_mut().insert(handed);
    answer
}

/// Waits until the node is being stopped.
async fn stopping(node: &StorageNode) -> Refusal {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        if !node.requests.is_accepting() {
            return Refusal::ShuttingDown;
        }
    }
}

/// Takes operations as long as there are any. Returns the status with which the stream ends, if it is an error.
async fn take(
    node: &StorageNode,
    room: &Arc<ConnectionRoom>,
    mut operations: Streaming<pb::Operation>,
    places: &Arc<Semaphore>,
    results: &Results,
    (digest, trail, limit): (Option<Digest>, Option<Arc<Trail>>, Limit),
) -> Option<Status> {
    let mut stopping = std::pin::pin!(stopping(node));
    loop {
        let next = async {
            let place = Arc::clone(places).acquire_owned().await.ok()?;
            Some((place, operations.message().await))
        };
        let (place, operation) = tokio::select! {
            biased;
            next = next => next?,
            () = results.closed() => return None,
            refusal = &mut stopping => return Some(status::of_refusal(&refusal)),
        };
        let operation = match operation {
            Ok(Some(operation)) => operation,
            Ok(None) => return None,
            // Ours already: what was received was too much, or too slow.
            Err(error) if !error.details().is_empty() => return Some(error),
            Err(error) => return Some(status::of_decode_error(&error)),
        };
        let (node, room, results) = (node.clone(), Arc::clone(room), results.clone());
        let trail = trail.clone();
        tokio::spawn(async move {
            let is_read = matches!(operation.operation, Some(Operation::Read(_)));
            let named = trails::of_streamed(operation.operation.as_ref());
            let rights = Rights::by(&node.security, digest);
            let done = node.operation(rights, operation.operation, &room, results.closed());
            let code = |done: &(Result<_, Failed>, _)| done.0.as_ref().err().map_or(Code::Ok, Failed::code);
            let traces = &node.requests.handles.traces;
            let (outcome, held) = tokio::select! {
                done = trails::of_operation(traces, named, (trail.as_deref(), limit), done, code) => done,
                // It may wait for a client that is no longer there.
                () = results.closed(), if is_read => return,
            };
            // A client that has gone away is nobody's loss.
            let _ = results.send((Ok(result(operation.id, outcome)), held)).await;
            drop(place);
        });
    }
}
