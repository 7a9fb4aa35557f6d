//! Copies keys to another node.
//!
//! Owns: how much is on its way at once, and trying again. Does not own: the walk (see [`crate::actors::ranges`]), or what
//! the target makes of a version: it merges, so that a copy never replaces what is newer there.

use crate::actors::batches::tenant_of;
use crate::actors::peers::{Peer, PeerError};
use crate::actors::ranges::{Entries, KeyRange, Pace};
use crate::actors::refusal::Refusal;
use crate::actors::requests::Requests;
use crate::actors::trail;
use crate::storage::key::Key;
use crate::storage::version::Versions;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

/// Most that is on its way at once, in KiB …
const ROOM_KIB: u32 = 16 << 10;
/// … and what a key takes of it at least, which bounds how many are: 32.
const LEAST_KIB: u32 = ROOM_KIB / 32;
/// Times that a version is sent before the copy is given up, with pauses that double.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Entries that are read at a time.
const READ_ENTRIES: usize = 100;

/// What is to be copied.
#[derive(Debug, Clone)]
pub struct Selection {
    /// These keys, as far as there is something of them, …
    pub keys: BTreeSet<Key>,
    /// … and this range, as it is when the copy begins.
    pub range: Option<KeyRange>,
    /// When the copy ends, complete or not.
    pub until: Option<Instant>,
}

/// Copies everything that the selected keys have to `peer`: values, tombstones and siblings, each with its clock. Returns
/// the number of keys when `peer` has acknowledged all of them.
///
/// # Errors
/// As [`Refusal`] says, [`Refusal::Overloaded`] when too many copies are under way. What was copied by then stays there, and
/// copying it again does no harm.
pub async fn replicate(requests: &Requests, peer: Arc<dyn Peer>, selection: Selection) -> Result<u64, Refusal> {
    let of_range = selection.range.as_ref().map(|range| range.tenant.as_str());
    trail::received(of_range.or_else(|| tenant_of(selection.keys.iter())));
    let _place = requests
        .peers
        .copies
        .try_acquire()
        .map_err(|_full| Refusal::Overloaded("too many copies are under way"))?;
    let mut copy = Copy {
        peer,
        room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
        within: requests.timeouts.write,
        sending: JoinSet::new(),
        copied: 0,
    };
    let limit = selection
        .until
        .map(|until| until.saturating_duration_since(Instant::now()));
    let all = copy.all(requests, selection);
    match limit {
        None => all.await,
        Some(limit) => tokio::time::timeout(limit, all)
            .await
            .unwrap_or(Err(Refusal::TimedOut(limit))),
    }
}

struct Copy {
    peer: Arc<dyn Peer>,
    room: Arc<Semaphore>,
    within: Duration,
    /// Ends with the copy.
    sending: JoinSet<Result<(), PeerError>>,
    copied: u64,
}

impl Copy {
    async fn all(&mut self, requests: &Requests, selection: Selection) -> Result<u64, Refusal> {
        let walk = selection
            .range
            .map(|range| requests.walk_unmetered(range))
            .transpose()?;
        for key in &selection.keys {
            let versions = requests.read_unmetered(key.clone()).await?;
            self.send(key.clone(), versions).await?;
        }
        if let Some(walk) = walk {
            let pace = Pace {
                entries: READ_ENTRIES,
                until: selection.until,
            };
            let mut entries = Entries::of(walk, pace);
            while let Some(entry) = entries.next().await {
                let (key, versions) = entry?;
                if !selection.keys.contains(&key) {
                    self.send(key, versions).await?;
                }
            }
        }
        while let Some(sent) = self.sending.join_next().await {
            self.sent(sent)?;
        }
        Ok(self.copied)
    }

    /// Sends all versions of a key, as soon as there is room.
    async fn send(&mut self, key: Key, versions: Versions) -> Result<(), Refusal> {
        if versions.is_empty() {
            return Ok(());
        }
        while let Some(sent) = self.sending.try_join_next() {
            self.sent(sent)?;
        }
        let kib = u32::try_from(versions.heap_bytes() >> 10).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(kib.clamp(LEAST_KIB, ROOM_KIB));
        let room = room.await.map_err(|closed| Refusal::Internal(closed.to_string()))?;
        let (peer, within) = (Arc::clone(&self.peer), self.within);
        self.sending.spawn(trail::taken_along(async move {
            let _room = room;
            put_all(peer.as_ref(), &key, &versions, within).await
        }));
        Ok(())
    }

    fn sent(&mut self, sent: Result<Result<(), PeerError>, JoinError>) -> Result<(), Refusal> {
        let copied = self.copied;
        match sent.map_err(|failed| PeerError::Refused(failed.to_string())) {
            Ok(Ok(())) => {
                self.copied += 1;
                Ok(())
            }
            Ok(Err(PeerError::Passing(why))) => Err(Refusal::PeerUnavailable(format!("{why} (after {copied} keys)"))),
            Ok(Err(PeerError::Refused(why))) | Err(PeerError::Refused(why) | PeerError::Passing(why)) => {
                Err(Refusal::Internal(format!("{why} (after {copied} keys)")))
            }
        }
    }
}

async fn put_all(peer: &dyn Peer, key: &Key, versions: &Versions, within: Duration) -> Result<(), PeerError> {
    for version in versions.all() {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let put = tokio::time::timeout(within, peer.put(key, version)).await;
            match put.unwrap_or_else(|_elapsed| Err(PeerError::Passing(format!("no answer within {within:?}")))) {
                Ok(()) => break,
                Err(PeerError::Passing(_)) if attempt < TRIES => tokio::time::sleep(pause).await,
                Err(error) => return Err(error),
            }
            pause *= 2;
        }
    }
    Ok(())
}
