//! The node that a stream goes to, for whoever sends: it takes what it is given in the end, or says that it never will.
//!
//! Owns: trying again, for as long as it takes, and reaching the node anew. Does not own: the wire.

use crate::actors::peers::{Peer, PeerError, Peers};
use crate::actors::streaming::pace::Pace;
use crate::actors::streaming::stream::Stream;
use crate::actors::streaming::tap::Change;
use crate::actors::trail;
use crate::actors::trail::traces::Traces;
use crate::actors::trail::work::Work;
use crate::storage::key::Key;
use parking_lot::Mutex;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// First pause after a failure; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Most versions of one call.
const CALL_VERSIONS: usize = 500;

/// Why the work on a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// The stream cannot go on.
    ForGood(String),
    /// The work broke; somebody else goes on with it.
    Broken(String),
}

/// The target of a stream.
pub struct Target {
    stream: Arc<Stream>,
    peers: Peers,
    traces: Arc<Traces>,
    /// A call without an answer by then is made again.
    within: Duration,
    pace: Pace,
    peer: Mutex<Option<Arc<dyn Peer>>>,
}

impl Target {
    /// The target of `stream`.
    #[must_use]
    pub fn new(stream: Arc<Stream>, peers: Peers, traces: Arc<Traces>, within: Duration) -> Arc<Self> {
        Arc::new(Self {
            stream,
            peers,
            traces,
            within,
            pace: Pace::new(within),
            peer: Mutex::new(None),
        })
    }

    /// How many bytes a batch should have.
    #[must_use]
    pub fn batch_bytes(&self) -> usize {
        self.pace.call_bytes()
    }

    /// Gives it versions, in order; returns when it has acknowledged all of them.
    ///
    /// # Errors
    /// When it will never take them.
    pub async fn put(&self, mut changes: Vec<Change>) -> Result<(), Failed> {
        let mut pause = FIRST_PAUSE;
        while !changes.is_empty() {
            let (call, bytes) = first_call(&changes, self.pace.call_bytes());
            let (count, before) = (call.len(), changes.len());
            let answers = self
                .call(
                    ("stream put", count, bytes),
                    |peer| peer.put_batch(call),
                    |answers| answers.iter().all(Result::is_ok),
                )
                .await?;
            let mut passing = None;
            match answers {
                Ok(answers) => {
                    // For those behind the first call there is no answer yet.
                    let mut answers = answers.into_iter().take(count);
                    let mut refused: Option<String> = None;
                    changes.retain(|(key, _)| match answers.next() {
                        Some(Ok(())) => false,
                        Some(Err(PeerError::Refused(why))) => {
                            if refused.is_none() {
                                // Here alone: a stream's problem is shown over HTTP, which names no keys.
                                tracing::error!(key = key.as_str(), why, "the target will not take a key");
                                refused = Some(why);
                            }
                            true
                        }
                        Some(Err(PeerError::Passing(why))) => {
                            passing = Some(why);
                            true
                        }
                        None => true,
                    });
                    if let Some(why) = refused {
                        return Err(Failed::ForGood(why));
                    }
                }
                Err(why) => passing = Some(why),
            }
            if before - changes.len() == count {
                self.stream.set_problem(None);
                pause = FIRST_PAUSE;
            } else {
                self.wait(passing, &mut pause).await;
            }
        }
        Ok(())
    }

    /// Which of these keys the target has otherwise, by their places; [`None`]: it cannot tell.
    ///
    /// # Errors
    /// As [`Target::put`].
    pub async fn compare(&self, digests: &[(Key, u64)]) -> Result<Option<Vec<usize>>, Failed> {
        let bytes = digests
            .iter()
            .map(|(key, _)| key.as_bytes().len() + size_of::<u64>())
            .sum();
        let mut pause = FIRST_PAUSE;
        loop {
            let what = ("stream ask", digests.len(), bytes);
            match self.call(what, |peer| peer.compare(digests), Result::is_ok).await? {
                Ok(Ok(differing)) => {
                    self.stream.set_problem(None);
                    return Ok(differing);
                }
                Ok(Err(PeerError::Refused(why))) => return Err(Failed::ForGood(why)),
                Ok(Err(PeerError::Passing(why))) | Err(why) => self.wait(Some(why), &mut pause).await,
            }
        }
    }

    /// Makes one call about so many keys, of so many bytes, when there is room for it, for as long as one may take. A target that
    /// does not answer is reached anew for the next. Each is the beginning of a trace: a stream has no end.
    async fn call<T, F>(
        &self,
        (name, keys, bytes): (&'static str, usize, usize),
        call: impl FnOnce(&dyn Peer) -> F,
        is_acknowledged: impl FnOnce(&T) -> bool,
    ) -> Result<Result<T, String>, Failed>
    where
        F: Future<Output = T>,
    {
        let queued = Instant::now();
        let room = self.pace.room(bytes).await;
        let peer = self.peer()?;
        let span = Work {
            context: self.traces.root(),
            ..Work::begin(name, Some(queued), self.stream.cause())
        };
        let span = span
            .with("pairdb.stream.target", self.stream.order().target.clone())
            .with("pairdb.stream.keys", keys)
            .with("pairdb.stream.bytes", bytes);
        let call = trail::as_work(span.context, async { call(peer.as_ref()).await });
        match tokio::time::timeout(self.within, call).await {
            Ok(answer) => {
                // Why it did not take all may name a key, and stays on this node.
                let mut error = Some("the target did not take all of it".to_owned());
                if is_acknowledged(&answer) {
                    room.acknowledged();
                    error = None;
                }
                self.traces.work(span.end(error));
                Ok(Ok(answer))
            }
            Err(_elapsed) => {
                room.unanswered();
                self.traces
                    .work(span.end(Some("the target did not answer in time".to_owned())));
                *self.peer.lock() = None;
                Ok(Err(format!("no answer within {:?}", self.within)))
            }
        }
    }

    fn peer(&self) -> Result<Arc<dyn Peer>, Failed> {
        let mut peer = self.peer.lock();
        if let Some(peer) = peer.as_ref() {
            return Ok(Arc::clone(peer));
        }
        let order = self.stream.order();
        // Somebody may know better by now.
        let address = self
            .peers
            .book
            .get(&order.target)
            .unwrap_or_else(|| order.address.clone());
        match self.peers.dial.dial(&address) {
            Ok(dialed) => Ok(Arc::clone(peer.insert(dialed))),
            Err(PeerError::Passing(why) | PeerError::Refused(why)) => Err(Failed::ForGood(why)),
        }
    }

    async fn wait(&self, why: Option<String>, pause: &mut Duration) {
        let why = why.unwrap_or_else(|| "it did not answer for everything that it was sent".to_owned());
        self.stream.set_problem(Some(why));
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        // Where it is may have changed.
        *self.peer.lock() = None;
    }
}

/// Those of these changes that the first call has, at least one, and their bytes.
fn first_call(changes: &[Change], most: usize) -> (&[Change], usize) {
    let (mut count, mut bytes) = (0, 0);
    for (key, version) in changes.iter().take(CALL_VERSIONS) {
        let size = key.as_bytes().len() + version.value.len() + version.clock.heap_bytes();
        if count > 0 && bytes + size > most {
            break;
        }
        count += 1;
        bytes += size;
    }
    (changes.get(..count).unwrap_or(changes), bytes)
}
