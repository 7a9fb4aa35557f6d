//! A stream to another node, as everybody sees it: what it is, how far it is, and what it has done.
//!
//! Owns: the progress and the counts. It outlives the StreamActor that works on it. Does not own: the work (see
//! [`super::copying`] and [`super::work`]).

use crate::actors::address_book::NodeAddress;
use crate::actors::streaming::skipped::Skipped;
use crate::actors::streaming::tap::{Backlog, Tap};
use crate::actors::trail::TraceContext;
use crate::storage::key::Key;
use crate::storage::ring::HashRanges;
use crate::storage::stream_records::{Pass, Progress, Sent, StreamRecord};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::sync::Arc;

/// What is to be streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOrder {
    /// The id of the node that it goes to.
    pub target: String,
    /// Where that listens.
    pub address: NodeAddress,
    /// The keys, by their places.
    pub ranges: HashRanges,
}

/// What a stream is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamState {
    /// A pass sends what the target has not acknowledged.
    Copying,
    /// The passes are done, and what was written meanwhile is being forwarded.
    Streaming,
    /// The target is compared.
    Syncing,
    /// The target has everything, and gets what is written.
    Completed,
    /// The target has everything but what is damaged here, and gets what is written: what it lacks.
    Incomplete(String),
    /// It cannot go on: the reason.
    Failed(String),
}

impl StreamState {
    /// The word that the wire contract has for it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::Streaming => "streaming",
            Self::Syncing => "syncing",
            Self::Completed => "completed",
            // Whoever waits for "completed" must not wait for ever, nor take this for it.
            Self::Incomplete(_) | Self::Failed(_) => "failed",
        }
    }
}

/// What can be told of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStatus {
    /// The node that it goes to.
    pub target: String,
    /// Where that listens.
    pub address: NodeAddress,
    /// What it is doing.
    pub state: StreamState,
    /// What the target has acknowledged.
    pub sent: Sent,
    /// What waits to be forwarded.
    pub backlog: Backlog,
    /// Why it does not get on, while it does not.
    pub problem: Option<String>,
    /// What is not sent, since it is damaged here.
    pub skipped: Skipped,
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    order: StreamOrder,
    /// The live writes.
    pub(super) tap: Arc<Tap>,
    progress: Mutex<Progress>,
    sent: Mutex<Sent>,
    state: Mutex<StreamState>,
    problem: ArcSwapOption<String>,
    skipped: Mutex<Skipped>,
    /// The request that asked for it last, if that was in this process and its trace is kept.
    cause: Mutex<Option<TraceContext>>,
    /// Held by whoever works on it: an actor's successor waits until it has wholly ended.
    pub(super) worker: tokio::sync::Mutex<()>,
}

impl Stream {
    /// A stream that has come as far as `progress`.
    #[must_use]
    pub fn new(order: StreamOrder, tap: Arc<Tap>, progress: Progress, sent: Sent) -> Arc<Self> {
        Arc::new(Self {
            order,
            tap,
            progress: Mutex::new(progress),
            sent: Mutex::new(sent),
            state: Mutex::new(StreamState::Copying),
            problem: ArcSwapOption::empty(),
            skipped: Mutex::default(),
            cause: Mutex::default(),
            worker: tokio::sync::Mutex::default(),
        })
    }

    /// The request that asked for it last, if that was in this process and its trace is kept.
    #[must_use]
    pub fn cause(&self) -> Option<TraceContext> {
        *self.cause.lock()
    }

    pub(super) fn set_cause(&self, cause: Option<TraceContext>) {
        *self.cause.lock() = cause;
    }

    /// What it is.
    #[must_use]
    pub fn order(&self) -> &StreamOrder {
        &self.order
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> StreamState {
        let state = self.state.lock().clone();
        match state {
            // It is about to begin a pass.
            StreamState::Streaming | StreamState::Syncing | StreamState::Completed | StreamState::Incomplete(_)
                if !self.tap.is_open() =>
            {
                StreamState::Copying
            }
            state => state,
        }
    }

    pub(super) fn enter(&self, state: StreamState) {
        let mut current = self.state.lock();
        if *current != state {
            let (target, word) = (&self.order.target, state.as_str());
            match &state {
                StreamState::Failed(why) => tracing::error!(target_node = target, why, "a stream failed"),
                StreamState::Incomplete(why) => tracing::error!(target_node = target, why, "a stream lacks something"),
                _ => tracing::info!(target_node = target, state = word, "a stream goes on"),
            }
            *current = state;
        }
    }

    /// It cannot go on.
    pub(super) fn fail(&self, why: String) {
        self.enter(StreamState::Failed(why));
        // Nobody takes from it any more.
        self.tap.close();
    }

    /// Says why it does not get on, or that it does.
    pub(super) fn set_problem(&self, problem: Option<String>) {
        if problem.is_none() && self.problem.load().is_none() {
            return;
        }
        if let (Some(why), None) = (&problem, self.problem.load().as_ref()) {
            tracing::warn!(
                target_node = self.order.target,
                why,
                "a stream does not get on; trying again"
            );
        }
        self.problem.store(problem.map(Arc::new));
    }

    /// Everything that can be told of it.
    #[must_use]
    pub fn status(&self) -> StreamStatus {
        let state = self.state();
        let problem = match &state {
            StreamState::Failed(why) | StreamState::Incomplete(why) => Some(why.clone()),
            _ => self.problem.load().as_ref().map(|why| why.as_ref().clone()),
        };
        StreamStatus {
            target: self.order.target.clone(),
            address: self.order.address.clone(),
            state,
            sent: *self.sent.lock(),
            backlog: self.tap.backlog(),
            problem,
            skipped: self.skipped(),
        }
    }

    /// What is to outlive the process. Whoever goes on from there looks again at what was skipped.
    #[must_use]
    pub fn record(&self) -> StreamRecord {
        let mut progress = self.progress();
        self.skipped.lock().take_back(&mut progress);
        let sent = *self.sent.lock();
        StreamRecord {
            target: self.order.target.clone(),
            host: self.order.address.host.clone(),
            port: self.order.address.port,
            ranges: self.order.ranges.clone(),
            progress,
            sent,
        }
    }

    /// How far it is, with what was forwarded.
    pub(super) fn progress(&self) -> Progress {
        let mut progress = self.progress.lock();
        let (base, through) = self.tap.acknowledged();
        if progress.done_seq >= base {
            progress.done_seq = progress.done_seq.max(through);
        }
        progress.clone()
    }

    /// Begins a pass, unless one was begun. The first that it has to visit, and the number above which it sends.
    pub(super) fn begin_pass(&self, seq: u64) -> (Key, u64) {
        let mut progress = self.progress.lock();
        let done = progress.done_seq;
        let pass = progress.pass.get_or_insert_with(|| Pass {
            seq,
            from: String::new(),
        });
        (key_of(&pass.from), done)
    }

    /// The pass has come to this key; [`None`]: to its end.
    pub(super) fn passed(&self, next: Option<&Key>) {
        let mut progress = self.progress.lock();
        match next {
            Some(next) => {
                if let Some(pass) = &mut progress.pass {
                    next.as_str().clone_into(&mut pass.from);
                }
            }
            None => {
                let passed = progress.pass.take().map_or(0, |pass| pass.seq);
                progress.done_seq = progress.done_seq.max(passed);
            }
        }
    }

    /// Where the comparison goes on.
    pub(super) fn compare_from(&self) -> Key {
        key_of(&self.progress.lock().compare_from)
    }

    /// The comparison has come to this key; [`None`]: to its end.
    pub(super) fn compared(&self, next: Option<&Key>) {
        let mut progress = self.progress.lock();
        match next {
            Some(next) => next.as_str().clone_into(&mut progress.compare_from),
            None => {
                progress.compared = true;
                progress.compare_from.clear();
            }
        }
    }

    /// What is not sent, since it is damaged here.
    #[must_use]
    pub fn skipped(&self) -> Skipped {
        self.skipped.lock().clone()
    }

    /// A pass went past something damaged: this.
    pub(super) fn skip(&self, skipped: Skipped) {
        self.skipped.lock().join(skipped);
    }

    /// A comparison of everything went past nothing but this.
    pub(super) fn compared_but(&self, skipped: Skipped) {
        *self.skipped.lock() = skipped;
    }

    /// Counts what the target has acknowledged.
    pub(super) fn count(&self, change: impl FnOnce(&mut Sent)) {
        change(&mut self.sent.lock());
    }
}

/// Of a key as a record holds it.
fn key_of(stored: &str) -> Key {
    Key::from_stored(stored).unwrap_or_else(Key::least)
}
