//! Streams: ranges of keys that another node gets from this one, first what is there, then what is written.
//!
//! A stream copies what the node holds, forwards live writes from the moment at which the copy began, compares the target when
//! both have met, and goes on forwarding until it is stopped. It outlives the actors that work on it, and the process.
//!
//! Owns: the way of a request to the actors. Does not own: any work (see [`work`]), or where live writes come from
//! (MemtableActor feeds the [`tap`]s).

pub mod comparing;
pub mod copying;
pub mod pace;
pub mod registry;
pub mod skipped;
pub mod stream;
pub mod stream_actor;
pub mod streams_actor;
pub mod tap;
pub mod target;
pub mod work;

use crate::actors::mailbox::Mailbox;
use crate::actors::refusal::Refusal;
use crate::actors::reply::ask;
use registry::Streams;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream::{Stream, StreamOrder, StreamState, StreamStatus};
use streams_actor::StreamsMessage;

/// Longest time that an order may take: it waits for the disk.
const ORDERED_WITHIN: Duration = Duration::from_secs(10);
/// Longest time for which a stream that is stopped goes on, so that its target gets what was written until then.
const FORWARDED_WITHIN: Duration = Duration::from_secs(30);
/// The same, when that target does not answer.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Carries requests about streams to StreamsActor.
#[derive(Debug)]
pub struct Streaming {
    /// The streams.
    pub streams: Arc<Streams>,
    /// StreamsActor.
    pub mailbox: Mailbox<StreamsMessage>,
}

impl Streaming {
    /// Begins a stream, or adds ranges to one. When this returns, a restart changes nothing about it.
    ///
    /// # Errors
    /// When it cannot be made durable; [`Refusal::Overloaded`] with too many streams.
    pub async fn start(&self, order: StreamOrder) -> Result<String, Refusal> {
        ask("the streams", ORDERED_WITHIN, |reply| {
            self.mailbox.send_admitted(StreamsMessage::Start(order, reply)).is_ok()
        })
        .await
    }

    /// Ends a stream. One that was completed once first forwards what was written until now; it is ended even if its caller
    /// does not wait for that. One whose target does not answer is ended without: the second of what is returned says
    /// whether the target has everything.
    ///
    /// # Errors
    /// [`Refusal::PeerUnavailable`] when the target is too slow: the stream goes on. When its end cannot be made durable:
    /// it may then be there again after a restart.
    pub async fn stop(&self, target: String) -> Result<(String, bool), Refusal> {
        let (stream, mailbox) = (self.streams.get(&target), self.mailbox.clone());
        let stopping = tokio::spawn(async move {
            let skipped = stream.as_ref().map(|stream| stream.skipped()).unwrap_or_default();
            let was_completed = |stream: &Arc<Stream>| match stream.state() {
                StreamState::Failed(_) => false,
                StreamState::Incomplete(_) => true,
                _ => stream.progress().compared,
            };
            let mut left = None;
            if let Some(stream) = stream.filter(was_completed)
                && !settled(&stream).await
            {
                let status = stream.status();
                let Some(problem) = status.problem else {
                    let changes = status.backlog.changes;
                    return Err(Refusal::PeerUnavailable(format!(
                        "the stream to {target} goes on: {changes} changes wait to be forwarded, or more is to be copied; stop it again"
                    )));
                };
                let changes = status.backlog.changes;
                tracing::warn!(
                    target_node = target,
                    changes,
                    problem,
                    "a stream is stopped before all was forwarded"
                );
                left = Some(changes);
            }
            let said = ask("the streams", ORDERED_WITHIN, |reply| {
                mailbox.send_admitted(StreamsMessage::Stop(target, reply)).is_ok()
            });
            let said = said.await?;
            let is_whole = left.is_none() && skipped.is_empty();
            let left = left.map(|left| format!("; {left} changes were not acknowledged"));
            let skipped = (!skipped.is_empty()).then(|| format!("; {}", skipped.why()));
            let rest = left.unwrap_or_default() + &skipped.unwrap_or_default();
            Ok((said + &rest, is_whole))
        });
        stopping
            .await
            .unwrap_or_else(|panicked| Err(Refusal::Internal(format!("it failed: {panicked}"))))
    }

    /// What can be told of the stream to a node.
    #[must_use]
    pub fn status(&self, target: &str) -> Option<StreamStatus> {
        self.streams.get(target).map(|stream| stream.status())
    }

    /// What can be told of all streams.
    #[must_use]
    pub fn all(&self) -> Vec<StreamStatus> {
        self.streams.all().iter().map(|stream| stream.status()).collect()
    }

    /// What a person should do something about.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let streams = self.all().into_iter();
        let problem = |stream: StreamStatus| {
            let (target, state) = (&stream.target, stream.state.as_str());
            stream
                .problem
                .as_ref()
                .map(|why| format!("the stream to {target} does not get on ({state}): {why}"))
        };
        streams.filter_map(problem).collect()
    }

    /// Each stream in words, by a name of its own.
    #[must_use]
    pub fn words(&self, now_ms: u64) -> Vec<(String, String)> {
        let streams = self.all().into_iter();
        let words = |stream: StreamStatus| {
            let (sent, backlog) = (stream.sent, stream.backlog);
            let words = format!(
                "{}; {} keys copied, {} writes forwarded, {} waiting for {} ms",
                stream.state.as_str(),
                sent.keys_copied,
                sent.keys_streamed,
                backlog.changes,
                backlog.lag_ms(now_ms)
            );
            (format!("stream to {}", stream.target), words)
        };
        streams.map(words).collect()
    }

    /// The numbers of all streams together, by name.
    #[must_use]
    pub fn metrics(&self, now_ms: u64) -> [(&'static str, u64); 7] {
        let all = self.all();
        let sum = |number: fn(&StreamStatus) -> u64| all.iter().map(number).sum::<u64>();
        let lags = all.iter().map(|stream| stream.backlog.lag_ms(now_ms));
        [
            ("streams", all.len() as u64),
            (
                "streams_completed",
                sum(|stream| u64::from(stream.state == StreamState::Completed)),
            ),
            ("stream_keys_copied", sum(|stream| stream.sent.keys_copied)),
            ("stream_keys_forwarded", sum(|stream| stream.sent.keys_streamed)),
            ("stream_bytes_waiting", sum(|stream| stream.backlog.bytes)),
            ("stream_lag_ms", lags.max().unwrap_or(0)),
            ("stream_overflows", sum(|stream| stream.backlog.overflows)),
        ]
    }
}

/// Waits until the target has everything that was written by now.
async fn settled(stream: &Stream) -> bool {
    let begun = Instant::now();
    let has_time = || {
        let is_lost = stream.status().problem.is_some() && begun.elapsed() >= GIVEN_UP_AFTER;
        begun.elapsed() < FORWARDED_WITHIN && !is_lost
    };
    while has_time() {
        let drained = tokio::time::timeout(LOOK_EVERY, stream.tap.drained()).await;
        if drained == Ok(true) && matches!(stream.state(), StreamState::Completed | StreamState::Incomplete(_)) {
            return true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    false
}
