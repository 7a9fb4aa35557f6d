//! What is worth compressing, for clients that take gzip.

use prost::Message;
use tonic::Response;

/// Smallest answer, in bytes, that is compressed: below, it costs more than it saves.
const WORTH_COMPRESSING: usize = 1024;

/// An answer, which is compressed if its client takes it so and it is large enough.
pub(super) fn answer<T: Message>(message: T) -> Response<T> {
    let small = message.encoded_len() < WORTH_COMPRESSING;
    let mut response = Response::new(message);
    if small {
        response.disable_compression();
    }
    response
}
