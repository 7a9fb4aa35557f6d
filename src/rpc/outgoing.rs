//! The trace of a call to another node: what goes along in its headers, and how it ended.
//!
//! Owns: the headers. Does not own: whose trace it is (see [`crate::actors::trail::call`]).

use crate::actors::trail::call::Calling;
use crate::rpc::trails;
use tonic::{Code, Request, Response, Status};

/// The request of this call.
pub(super) fn request<T>(calling: &Calling, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let Some((parent, state)) = calling.headers() else {
        return request;
    };
    let headers = [("traceparent", Some(parent.as_str())), ("tracestate", state)];
    for (name, value) in headers {
        // What came in a header fits into one.
        if let Some(value) = value.and_then(|value| value.parse().ok()) {
            request.metadata_mut().insert(name, value);
        }
    }
    request
}

/// The answer to this call, of which it is noted that it has come.
pub(super) fn ended<T>(calling: Calling, answer: Result<Response<T>, Status>) -> Result<Response<T>, Status> {
    calling.end(trails::outcome(answer.as_ref().err().map_or(Code::Ok, Status::code)));
    answer
}
