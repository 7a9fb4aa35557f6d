//! Answers hold their room until their clients take them: while they wait, and while HTTP/2 waits with them.
//!
//! Owns: the way of the room with the answer, from the method that made it to the last of its bytes. Does not own: how much
//! there is (see [`crate::actors::answer_room`]).

use crate::actors::answer_room::{ConnectionRoom, HeldRoom};
use crate::actors::refusal::Refusal;
use crate::rpc::status::Failed;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::{Request, Response, Status};

/// An answer to a call of its own that is smaller, in bytes, holds no room: a connection has only so many calls at once.
const SMALL_BYTES: usize = 16 << 10;

/// Why an answer is refused for which there is no room.
pub(super) const NOT_TAKEN: &str = "answers wait to be taken, by this client or by others; take them, and ask again";

/// Room of messages that go into the next bytes of an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Handed(Arc<Mutex<Vec<HeldRoom>>>);

impl Handed {
    /// The message that holds this was handed over.
    pub(super) fn add(&self, held: Option<HeldRoom>) {
        if let Some(held) = held {
            self.0.lock().push(held);
        }
    }
}

/// The room of the connection that a request came on.
pub(super) fn room_of<T>(request: &Request<T>) -> Option<Arc<ConnectionRoom>> {
    request.extensions().get().cloned()
}

/// Holds room for the answer to a call of its own, if it is large.
///
/// # Errors
/// That there is none.
pub(super) fn hold(room: Option<Arc<ConnectionRoom>>, bytes: usize) -> Result<Option<HeldRoom>, Failed> {
    match room {
        Some(room) if bytes >= SMALL_BYTES => match room.try_hold(bytes) {
            Some(held) => Ok(Some(held)),
            None => Err(Failed::from(&Refusal::Overloaded(NOT_TAKEN))),
        },
        _ => Ok(None),
    }
}

/// The answer that holds this room.
pub(super) fn holding<T>(mut answer: Response<T>, held: Option<HeldRoom>) -> Response<T> {
    if held.is_some() {
        let handed = Handed::default();
        handed.add(held);
        answer.extensions_mut().insert(handed);
    }
    answer
}

/// Has the bytes of an answer hold what its messages held.
pub(super) fn carrying(mut response: http::Response<Body>) -> http::Response<Body> {
    match response.extensions_mut().remove::<Handed>() {
        Some(handed) => response.map(|body| Body::new(Carrying { body, handed })),
        None => response,
    }
}

struct Carrying {
    body: Body,
    handed: Handed,
}

/// Bytes on their way to a client.
struct OnTheWay {
    bytes: Bytes,
    _held: Vec<HeldRoom>,
}

impl AsRef<[u8]> for OnTheWay {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl http_body::Body for Carrying {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let handed = &self.handed;
        polled.map_ok(|frame| {
            frame.map_data(|bytes| {
                let held = std::mem::take(&mut *handed.0.lock());
                if held.is_empty() {
                    return bytes;
                }
                Bytes::from_owner(OnTheWay { bytes, _held: held })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
