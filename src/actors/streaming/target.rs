//! The node that a stream goes to, for whoever sends: it takes what it is given in the end, or says that it never will.
//!
//! Owns: trying again, for as long as it takes, and reaching the node anew. Does not own: the wire.

use crate::actors::peers::{Peer, PeerError, Peers};
use crate::actors::streaming::stream::Stream;
use crate::actors::streaming::tap::Change;
use crate::storage::key::Key;
use parking_lot::Mutex;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// First pause after a failure; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Bytes and versions of one call.
const CALL_BYTES: usize = 1 << 20;
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
    /// A call without an answer by then is made again.
    within: Duration,
    peer: Mutex<Option<Arc<dyn Peer>>>,
}

impl Target {
    /// The target of `stream`.
    #[must_use]
    pub fn new(stream: Arc<Stream>, peers: Peers, within: Duration) -> Arc<Self> {
        Arc::new(Self {
            stream,
            peers,
            within,
            peer: Mutex::new(None),
        })
    }

    /// Gives it versions; returns when it has acknowledged all of them.
    ///
    /// # Errors
    /// When it will never take them.
    pub async fn put(&self, changes: Vec<Change>) -> Result<(), Failed> {
        let mut rest = changes.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut call, mut bytes) = (Vec::new(), 0);
            while let Some((key, version)) = rest.next_if(|(key, version)| {
                let size = key.as_bytes().len() + version.value.len() + version.clock.heap_bytes();
                bytes += size;
                call.is_empty() || (bytes <= CALL_BYTES && call.len() < CALL_VERSIONS)
            }) {
                call.push((key, version));
            }
            self.put_call(call).await?;
        }
        Ok(())
    }

    async fn put_call(&self, mut changes: Vec<Change>) -> Result<(), Failed> {
        let mut pause = FIRST_PAUSE;
        loop {
            let answers = self.call(|peer| peer.put_batch(&changes)).await?;
            let mut passing = None;
            match answers {
                Ok(answers) => {
                    let mut answers = answers.into_iter();
                    let mut refused = None;
                    changes.retain(|(key, _)| match answers.next() {
                        Some(Ok(())) => false,
                        Some(Err(PeerError::Refused(why))) => {
                            refused.get_or_insert_with(|| format!("{:?}: {why}", key.as_str()));
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
            if changes.is_empty() {
                self.stream.set_problem(None);
                return Ok(());
            }
            self.wait(passing, &mut pause).await;
        }
    }

    /// Which of these keys the target has otherwise, by their places; [`None`]: it cannot tell.
    ///
    /// # Errors
    /// As [`Target::put`].
    pub async fn compare(&self, digests: &[(Key, u64)]) -> Result<Option<Vec<usize>>, Failed> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.call(|peer| peer.compare(digests)).await? {
                Ok(Ok(differing)) => {
                    self.stream.set_problem(None);
                    return Ok(differing);
                }
                Ok(Err(PeerError::Refused(why))) => return Err(Failed::ForGood(why)),
                Ok(Err(PeerError::Passing(why))) | Err(why) => self.wait(Some(why), &mut pause).await,
            }
        }
    }

    /// Makes one call, for as long as one may take. A target that does not answer is reached anew for the next.
    async fn call<T, F>(&self, call: impl FnOnce(&dyn Peer) -> F) -> Result<Result<T, String>, Failed>
    where
        F: Future<Output = T>,
    {
        let peer = self.peer()?;
        match tokio::time::timeout(self.within, call(peer.as_ref())).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(_elapsed) => {
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
