//! CacheActor: one shard of the read cache.
//!
//! A hit is answered at once. A miss is read from the published view off the mailbox, once for all who wait for the key,
//! and comes back as a message. A write that arrives while its key is being read is merged into what was read, so a fill
//! never pins an old value.
//!
//! Owns: its part of the cache, without a lock. Does not own: the policy (see [`crate::storage::cache`]) or the view. It
//! comes back empty after a crash.

use crate::actors::Handles;
use crate::actors::admission::ReadPermit;
use crate::actors::mailbox::{Envelope, Mailbox};
use crate::actors::refusal::Refusal;
use crate::actors::reply::Reply;
use crate::storage::cache::{Cache, CacheOptions};
use crate::storage::key::Key;
use crate::storage::version::{MAX_SIBLINGS, Version, Versions};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;
use tokio::sync::Semaphore;

/// Messages between two times that the cache is told of: few enough to keep up with any window, so many that reading the
/// clock costs nothing.
const TOLD_EVERY: u32 = 64;

/// What CacheActor is told.
#[derive(Debug)]
pub enum CacheMessage {
    /// Read a key.
    Get {
        /// The key.
        key: Key,
        /// Held until the answer.
        permit: ReadPermit,
        /// Where the answer goes.
        reply: Reply<Versions>,
    },
    /// These versions were applied to the memtable.
    Written(Vec<(Key, Version)>),
    /// Something was applied that this shard was not told of: start empty.
    Forget,
    /// A key was read from the view.
    Loaded {
        /// The key.
        key: Key,
        /// What it has.
        result: Result<Versions, Refusal>,
    },
}

/// Counts of all shards, which outlive the actors.
#[derive(Debug, Default)]
pub struct CacheStats {
    /// Reads answered from the cache.
    pub hits: AtomicU64,
    /// Reads that needed the view.
    pub misses: AtomicU64,
}

/// What one shard holds now.
#[derive(Debug, Default)]
pub struct ShardStats {
    /// Bytes.
    pub bytes: AtomicUsize,
    /// Entries.
    pub entries: AtomicUsize,
    /// Entries that had to leave, since the shard started.
    pub evictions: AtomicU64,
    /// The weight of recency, as the bits of its number.
    recency: AtomicU64,
}

impl ShardStats {
    /// The weight of recency as it is now, 0 to 1; that of frequency is the rest.
    #[must_use]
    pub fn recency(&self) -> f64 {
        f64::from_bits(self.recency.load(Ordering::Relaxed))
    }

    fn set_recency(&self, cache: &Cache) {
        let (_frequency, recency) = cache.weights();
        self.recency.store(recency.to_bits(), Ordering::Relaxed);
    }
}

/// The actor.
pub struct CacheActor {
    /// Which shard it is.
    pub shard: usize,
    /// How the shard is bounded.
    pub options: CacheOptions,
    /// Bounds the reads of tables that run at once, over all shards.
    pub loads: Arc<Semaphore>,
    /// Counts of all shards.
    pub stats: Arc<CacheStats>,
    /// What this shard holds.
    pub held: Arc<ShardStats>,
    /// Its neighbours.
    pub handles: Handles,
}

/// What it knows.
pub struct CacheState {
    cache: Cache,
    /// When this generation began: the cache's time counts from here.
    begun: Instant,
    /// Messages until the cache is told the time again.
    untold: u32,
    loading: HashMap<Key, Load>,
}

/// A key that is being read.
#[derive(Default)]
struct Load {
    waiting: Vec<(ReadPermit, Reply<Versions>)>,
    /// What was written to it meanwhile.
    written: Versions,
}

impl CacheState {
    fn tell_time(&mut self, held: &ShardStats) {
        self.untold -= 1;
        if self.untold == 0 {
            self.untold = TOLD_EVERY;
            self.cache.adapt(self.begun.elapsed());
            held.set_recency(&self.cache);
        }
    }
}

impl Actor for CacheActor {
    type Msg = Envelope<CacheMessage>;
    type State = CacheState;
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, (): ()) -> Result<CacheState, ActorProcessingErr> {
        let cache = Cache::new(self.options);
        self.held.set_recency(&cache);
        Ok(CacheState {
            cache,
            begun: Instant::now(),
            untold: TOLD_EVERY,
            loading: HashMap::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut CacheState,
    ) -> Result<(), ActorProcessingErr> {
        state.tell_time(&self.held);
        match envelope.message {
            CacheMessage::Get { key, permit, reply } => {
                if !reply.is_awaited() {
                    reply.send(Err(Refusal::DeadlineExceeded));
                    return Ok(());
                }
                if let Some(versions) = state.cache.get(&key) {
                    self.stats.hits.fetch_add(1, Ordering::Relaxed);
                    reply.send(Ok(versions.clone()));
                    return Ok(());
                }
                self.stats.misses.fetch_add(1, Ordering::Relaxed);
                let first = !state.loading.contains_key(&key);
                let load = state.loading.entry(key.clone()).or_default();
                load.waiting.push((permit, reply));
                if first {
                    self.load(&myself, key);
                }
                return Ok(());
            }
            CacheMessage::Written(changes) => {
                for (key, version) in changes {
                    let written = Versions::from(version);
                    if let Some(load) = state.loading.get_mut(&key) {
                        load.written = std::mem::take(&mut load.written).merge(written);
                    } else {
                        state.cache.merge(&key, written, MAX_SIBLINGS);
                    }
                }
            }
            // Its successor starts empty, and what is being read for this generation does not reach it.
            CacheMessage::Forget => return Err("it missed writes".into()),
            CacheMessage::Loaded { key, result } => {
                let load = state.loading.remove(&key).unwrap_or_default();
                let result = result.map(|read| read.merge(load.written).bounded(MAX_SIBLINGS).0);
                for (_permit, reply) in load.waiting {
                    reply.send(result.clone());
                }
                if let Ok(versions) = result {
                    state.cache.insert(key, versions);
                }
            }
        }
        self.held.bytes.store(state.cache.bytes(), Ordering::Relaxed);
        self.held.entries.store(state.cache.len(), Ordering::Relaxed);
        self.held.evictions.store(state.cache.evictions(), Ordering::Relaxed);
        Ok(())
    }
}

impl CacheActor {
    fn load(&self, myself: &ActorRef<Envelope<CacheMessage>>, key: Key) {
        let Some(mailbox): Option<Mailbox<CacheMessage>> = self.handles.caches.get(self.shard).cloned() else {
            return;
        };
        let (handles, loads, myself) = (self.handles.clone(), Arc::clone(&self.loads), myself.clone());
        tokio::spawn(async move {
            let result = read_view(&handles, &loads, key.clone()).await;
            // To this generation only: whoever waited for an earlier one has lost its port, and asks again.
            let _ = myself.send_message(mailbox.envelope(CacheMessage::Loaded { key, result }));
        });
    }
}

/// Reads a key from the published view, on a thread that may block, `loads` bounding how many do at once.
///
/// # Errors
/// [`Refusal::Corrupted`] when a table that may hold the key is damaged.
pub async fn read_view(handles: &Handles, loads: &Semaphore, key: Key) -> Result<Versions, Refusal> {
    let _permit = loads.acquire().await.map_err(|_closed| Refusal::ShuttingDown)?;
    let published = Arc::clone(&handles.published);
    tokio::task::spawn_blocking(move || published.load().get(&key))
        .await
        .map_err(|panicked| Refusal::Internal(format!("the read failed: {panicked}")))?
        .map_err(|error| Refusal::from(&error))
}
