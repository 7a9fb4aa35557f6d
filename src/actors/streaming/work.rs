//! The work on a stream: what is due next, and doing it.
//!
//! Everything that the target has acknowledged is told by one sequence number. While the tap is open and was opened at or
//! below that number, the target lacks nothing but what the tap holds. In any other case a pass is due: the tap is opened
//! first, then the view is walked, so that nothing falls between the two. A tap that closed (a slow target, an actor that
//! ended while it fed it) is opened again when the pass under way has ended, and the next pass sends what is newer than
//! the one before: so a restart, a cut network and a slow target are one and the same.
//!
//! What is damaged here is gone past, and remembered: such a stream does all that another does, but is not complete. It looks
//! again at what it went past when it is ordered again, and when the process starts anew.
//!
//! Owns: that order, and the points at which faults are injected into it. Does not own: the passes (see
//! [`super::copying`]), or what outlives this (see [`super::stream`]).

use crate::actors::faults::Faults;
use crate::actors::peers::Peers;
use crate::actors::streaming::copying::{Passing, Work};
use crate::actors::streaming::stream::{Stream, StreamState};
use crate::actors::streaming::target::{Failed, Target};
use crate::actors::trail::traces::Traces;
use crate::actors::trail::work::Work as Span;
use crate::storage::stream_records::Sent;
use crate::storage::view::Published;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Changes that are forwarded in one batch, and bytes of them.
const FORWARDED: usize = 500;
const FORWARDED_BYTES: usize = 1 << 20;

/// The points that the work passes beside those that every actor does: before it reads a part of what is to be copied or
/// compared, before it compares a batch, before it sends one, before it takes note that one was acknowledged, and before it
/// sends what was written meanwhile.
pub const POINTS: &[&str] = &[BEFORE_PAGE, BEFORE_COMPARE, BEFORE_BATCH, BEFORE_NOTE, BEFORE_FORWARD];
pub(super) const BEFORE_PAGE: &str = "before-page";
pub(super) const BEFORE_COMPARE: &str = "before-compare";
pub(super) const BEFORE_BATCH: &str = "before-batch";
pub(super) const BEFORE_NOTE: &str = "before-note";
const BEFORE_FORWARD: &str = "before-forward";

/// Where the work on one stream passes its points.
#[derive(Clone)]
pub struct Points {
    /// What is injected.
    pub faults: Arc<Faults>,
    /// The name of the actor that works on the stream.
    pub actor: Arc<str>,
}

impl Points {
    /// Passes one.
    ///
    /// # Errors
    /// [`Failed::Broken`], when that is injected.
    pub async fn pass(&self, point: &'static str) -> Result<(), Failed> {
        let passed = self.faults.pass_waiting(&self.actor, point, false).await;
        passed
            .map(drop)
            .map_err(|injected| Failed::Broken(injected.to_string()))
    }
}

/// What a stream needs of its node.
#[derive(Clone)]
pub struct Source {
    /// What the node holds.
    pub published: Arc<Published>,
    /// The other nodes.
    pub peers: Peers,
    /// A call to one without an answer by then is made again.
    pub within: Duration,
    /// What is injected.
    pub faults: Arc<Faults>,
    /// Where passes and calls are told of.
    pub traces: Arc<Traces>,
}

/// Works on a stream until it cannot go on; says why.
pub async fn work(source: Source, stream: Arc<Stream>, points: Points) -> Failed {
    let _alone = stream.worker.lock().await;
    let (peers, traces) = (source.peers.clone(), Arc::clone(&source.traces));
    let target = Target::new(Arc::clone(&stream), peers, traces, source.within);
    let failed = tokio::select! {
        failed = keep_up(&source, &stream, &target, &points) => failed,
        failed = forward(&stream, &target, &points) => failed,
    };
    failed.err().unwrap_or_else(|| Failed::Broken("it ended".to_owned()))
}

/// Forwards what the tap holds, batch after batch.
async fn forward(stream: &Stream, target: &Target, points: &Points) -> Result<(), Failed> {
    loop {
        let taken = stream.tap.take(FORWARDED, FORWARDED_BYTES).await;
        points.pass(BEFORE_FORWARD).await?;
        target.put(taken.changes.clone()).await?;
        stream.count(|sent| {
            for (key, version) in &taken.changes {
                sent.keys_streamed += 1;
                sent.bytes_streamed += (key.as_bytes().len() + version.value.len()) as u64;
            }
        });
        stream.tap.acknowledge(&taken);
    }
}

/// Does what is due, one thing after the other.
async fn keep_up(source: &Source, stream: &Arc<Stream>, target: &Arc<Target>, points: &Points) -> Result<(), Failed> {
    let passing = |work| Passing {
        stream,
        target,
        published: &source.published,
        points,
        work,
    };
    let mut is_compared = false;
    loop {
        let progress = stream.progress();
        if progress.pass.is_none() && !stream.tap.is_open() {
            stream.enter(StreamState::Copying);
            open_tap(source, stream).await?;
            continue;
        }
        if progress.pass.is_some() || progress.done_seq < stream.tap.acknowledged().0 {
            stream.enter(StreamState::Copying);
            let (from, since) = stream.begin_pass(source.published.applied());
            let pass = passing(Work::Copy { since });
            traced("stream copy", source, stream, pass.run(from)).await?;
            continue;
        }
        stream.enter(StreamState::Streaming);
        if !stream.tap.drained().await || stream.progress().done_seq < stream.tap.acknowledged().0 {
            continue;
        }
        if !progress.compared && !is_compared {
            stream.enter(StreamState::Syncing);
            let pass = passing(Work::Compare);
            is_compared = traced("stream compare", source, stream, pass.run(stream.compare_from())).await?;
            continue;
        }
        let skipped = stream.skipped();
        stream.enter(if skipped.is_empty() {
            StreamState::Completed
        } else {
            StreamState::Incomplete(skipped.why())
        });
        stream.tap.closed().await;
    }
}

/// A pass that has a trace of its own. One that ends with its actor has none; the actor's restart has.
async fn traced<T>(
    name: &'static str,
    source: &Source,
    stream: &Stream,
    pass: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    let before = stream.status().sent;
    let span = Span::begin(name, None, stream.cause()).with("pairdb.stream.target", stream.order().target.clone());
    let result = pass.await;
    let sent = stream.status().sent;
    let span = span
        .with("pairdb.stream.keys", keys(&sent).saturating_sub(keys(&before)))
        .with(
            "pairdb.stream.bytes",
            sent.bytes_copied.saturating_sub(before.bytes_copied),
        );
    let error = result.as_ref().err().map(|failed| kind(failed).to_owned());
    source.traces.work(span.end(error));
    result
}

/// Keys that passes have sent: a copy and a compare count apart, and never run at once.
fn keys(sent: &Sent) -> u64 {
    sent.keys_copied + sent.keys_resent
}

/// Why a pass ended, for its span. The reason itself may name a key, and stays on this node.
fn kind(failed: &Failed) -> &'static str {
    match failed {
        Failed::ForGood(_) => "the stream cannot go on; its status says why",
        Failed::Broken(_) => "the work broke",
    }
}

/// Has everything kept that is applied from now on.
async fn open_tap(source: &Source, stream: &Arc<Stream>) -> Result<(), Failed> {
    let (published, tap) = (Arc::clone(&source.published), Arc::clone(&stream.tap));
    let opening = tokio::task::spawn_blocking(move || {
        let _writer = published.writer();
        tap.open(published.applied());
    });
    opening.await.map_err(|panicked| Failed::Broken(panicked.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_span_of_a_pass_has_no_key_and_counts_what_a_compare_has_sent() {
        let why = "\"acme:secret-key\": refused".to_owned();
        for failed in [Failed::ForGood(why.clone()), Failed::Broken(why)] {
            assert!(!kind(&failed).contains("secret"), "{failed:?}");
        }
        let sent = Sent {
            keys_copied: 5,
            keys_resent: 3,
            ..Sent::default()
        };
        assert_eq!(keys(&sent), 8);
    }
}
