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
//! Owns: that order. Does not own: the passes (see [`super::copying`]), or what outlives this (see [`super::stream`]).

use crate::actors::peers::Peers;
use crate::actors::streaming::copying::{Passing, Work};
use crate::actors::streaming::stream::{Stream, StreamState};
use crate::actors::streaming::target::{Failed, Target};
use crate::storage::view::Published;
use std::sync::Arc;
use std::time::Duration;

/// Changes that are forwarded in one batch, and bytes of them.
const FORWARDED: usize = 500;
const FORWARDED_BYTES: usize = 1 << 20;

/// What a stream needs of its node.
#[derive(Clone)]
pub struct Source {
    /// What the node holds.
    pub published: Arc<Published>,
    /// The other nodes.
    pub peers: Peers,
    /// A call to one without an answer by then is made again.
    pub within: Duration,
}

/// Works on a stream until it cannot go on; says why.
pub async fn work(source: Source, stream: Arc<Stream>) -> Failed {
    let _alone = stream.worker.lock().await;
    let target = Target::new(Arc::clone(&stream), source.peers.clone(), source.within);
    let failed = tokio::select! {
        failed = keep_up(&source, &stream, &target) => failed,
        failed = forward(&stream, &target) => failed,
    };
    failed.err().unwrap_or_else(|| Failed("it ended".to_owned()))
}

/// Forwards what the tap holds, batch after batch.
async fn forward(stream: &Stream, target: &Target) -> Result<(), Failed> {
    loop {
        let taken = stream.tap.take(FORWARDED, FORWARDED_BYTES).await;
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
async fn keep_up(source: &Source, stream: &Arc<Stream>, target: &Arc<Target>) -> Result<(), Failed> {
    let passing = |work| Passing {
        stream,
        target,
        published: &source.published,
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
            passing(Work::Copy { since }).run(from).await?;
            continue;
        }
        stream.enter(StreamState::Streaming);
        if !stream.tap.drained().await || stream.progress().done_seq < stream.tap.acknowledged().0 {
            continue;
        }
        if !progress.compared && !is_compared {
            stream.enter(StreamState::Syncing);
            is_compared = passing(Work::Compare).run(stream.compare_from()).await?;
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

/// Has everything kept that is applied from now on.
async fn open_tap(source: &Source, stream: &Arc<Stream>) -> Result<(), Failed> {
    let (published, tap) = (Arc::clone(&source.published), Arc::clone(&stream.tap));
    let opening = tokio::task::spawn_blocking(move || {
        let _writer = published.writer();
        tap.open(published.applied());
    });
    opening.await.map_err(|panicked| Failed(panicked.to_string()))
}
