//! CacheActor: one shard of the read cache.
//!
//! A hit is answered at once. A miss is read from the published view off the mailbox, once for all who wait for the key,
//! and comes back as a message. A write that arrives while its key is being read is merged into what was read, so a fill
//! never pins an old value.
//!
//! A shard that did not hear of a write (see [`crate::actors::shard`]) holds what may be old, and forgets all of it; those who
//! wait for what is being read are answered from the view. It does not end over it: a slow one misses writes again and again.
//!
//! Owns: its part of the cache, without a lock. Does not own: the policy (see [`crate::storage::cache`]) or the view. It
//! comes back empty after a crash.

use crate::actors::Handles;
use crate::actors::admission::ReadPermit;
use crate::actors::answers::{Gathering, Port};
use crate::actors::mailbox::Envelope;
use crate::actors::refusal::Refusal;
use crate::actors::shard::{Heard, Missed};
use crate::actors::trail::{self, Detail, TraceContext, Trail};
use crate::actors::watched::Trailed;
use crate::storage::cache::{Cache, CacheOptions};
use crate::storage::error::Result as StorageResult;
use crate::storage::histogram::Histogram;
use crate::storage::key::Key;
use crate::storage::looked::Looked;
use crate::storage::version::{MAX_SIBLINGS, Version, Versions};
use crate::storage::view::ReadView;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Messages between two times that the cache is told of: few enough to keep up with any window, so many that reading the
/// clock costs nothing.
const TOLD_EVERY: u32 = 64;

/// Bytes of values that one load brings into memory, beside the value that goes beyond it: the keys of a batch are loaded
/// together.
pub const LOAD_BYTES: usize = 16 << 20;
/// Why a key of a batch is not loaded.
const TOO_MUCH_TOGETHER: Refusal =
    Refusal::Overloaded("the values of this batch are too large together; read this key again");

/// Who waits for a key.
pub type Reader = Port<Versions, ReadPermit>;

/// What CacheActor is told.
#[derive(Debug)]
pub enum CacheMessage {
    /// Read a key.
    Get {
        /// The key.
        key: Key,
        /// Who asks.
        reader: Reader,
        /// What [`crate::actors::shard::Shard::told`] was before this was sent.
        told: u64,
    },
    /// Read the keys of a batch, each for its place in it.
    GetBatch {
        /// Places and keys.
        keys: Vec<(usize, Key)>,
        /// What [`crate::actors::shard::Shard::told`] was before this was sent.
        told: u64,
        /// Where the answers go.
        gathering: Arc<Gathering<Versions, ReadPermit>>,
    },
    /// These versions were applied to the memtable.
    Written {
        /// The versions, in the order of their numbers.
        changes: Vec<(Key, Version)>,
        /// Up to which number this shard was told before.
        previous: u64,
        /// Up to which number it is told with this.
        last: u64,
    },
    /// Keys were read from the view.
    Loaded {
        /// What they have.
        found: Vec<Found>,
        /// How often the shard had been emptied when they were asked for.
        emptied: u64,
    },
}

impl Trailed for CacheMessage {
    fn context(&self) -> Option<TraceContext> {
        let trail = match self {
            Self::Get { reader, .. } => reader.trail(),
            Self::GetBatch { gathering, .. } => gathering.trail(),
            _ => None,
        };
        trail.map(|trail| trail.context)
    }
}

/// What the view has for a key.
#[derive(Debug)]
pub struct Found {
    /// The key.
    pub key: Key,
    /// What it has.
    pub versions: Result<Versions, Refusal>,
    /// Where it was looked for.
    pub looked: Looked,
    /// When the reading of all that were read together was asked for, when it began, and when it ended.
    pub times: (Instant, Instant, Instant),
}

impl Found {
    /// Notes on a trail that it was read.
    pub fn note(&self, trail: &Trail) {
        trail.hop_at("read", self.times, Detail::Read(self.looked));
    }
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
    /// Entries that had to leave, since the process started.
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

    fn set_held(&self, cache: &Cache) {
        self.bytes.store(cache.bytes(), Ordering::Relaxed);
        self.entries.store(cache.len(), Ordering::Relaxed);
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
    /// The shard's name among the injections of faults.
    name: String,
    cache: Cache,
    /// Evictions of this cache that are counted.
    counted: u64,
    /// When the cache was made: its time counts from here.
    begun: Instant,
    /// Messages until the cache is told the time again.
    untold: u32,
    /// In order, so that those who wait learn in the same order each time when this ends.
    loading: BTreeMap<Key, Load>,
    heard: Heard,
    /// How often this generation was emptied.
    emptied: u64,
}

/// A key that is being read.
#[derive(Default)]
struct Load {
    waiting: Vec<Reader>,
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
        self.held.set_held(&cache);
        Ok(CacheState {
            name: format!("cache-{}", self.shard),
            cache,
            counted: 0,
            begun: Instant::now(),
            untold: TOLD_EVERY,
            loading: BTreeMap::new(),
            heard: Heard::default(),
            emptied: 0,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut CacheState,
    ) -> Result<(), ActorProcessingErr> {
        state.tell_time(&self.held);
        let times = (envelope.sent, envelope.begun);
        match envelope.message {
            CacheMessage::Get { key, reader, told } => {
                let heard = state.heard.all_up_to(told);
                self.empty_if_missed(heard, state);
                let note = |hit: bool, trail: Option<&Arc<Trail>>| note_asked(trail, times, 1, u32::from(hit));
                let misses: Vec<Key> = self.get(key, reader, state, note).into_iter().collect();
                self.load(&myself, misses, state.emptied);
                return Ok(());
            }
            CacheMessage::GetBatch { keys, told, gathering } => {
                let heard = state.heard.all_up_to(told);
                self.empty_if_missed(heard, state);
                let (asked, mut hits) = (keys.len(), 0);
                let get =
                    |(place, key)| self.get(key, gathering.port(place), state, |hit, _trail| hits += u32::from(hit));
                let misses: Vec<Key> = keys.into_iter().filter_map(get).collect();
                note_asked(gathering.trail(), times, asked, hits);
                self.load(&myself, misses, state.emptied);
                return Ok(());
            }
            CacheMessage::Written {
                changes,
                previous,
                last,
            } => {
                let heard = state.heard.hear(previous, last);
                self.empty_if_missed(heard, state);
                for (key, version) in changes {
                    let written = Versions::from(version);
                    if let Some(load) = state.loading.get_mut(&key) {
                        load.written = std::mem::take(&mut load.written).merge(written);
                    } else {
                        state.cache.merge(&key, written, MAX_SIBLINGS);
                    }
                }
            }
            // It may be older than what was missed since.
            CacheMessage::Loaded { emptied, .. } if emptied != state.emptied => return Ok(()),
            CacheMessage::Loaded { found, .. } => {
                let _on = self.handles.faults.pass(&state.name, "before-fill")?;
                let again: Vec<Key> = found
                    .into_iter()
                    .filter_map(|found| Self::loaded(found, state))
                    .collect();
                for key in again {
                    self.load(&myself, vec![key], state.emptied);
                }
            }
        }
        self.held.set_held(&state.cache);
        let evictions = state.cache.evictions();
        let more = evictions.saturating_sub(std::mem::replace(&mut state.counted, evictions));
        self.held.evictions.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }
}

impl CacheActor {
    /// Forgets all that may be older than a write that was missed. Whoever waits for what is being read loses its port, and
    /// is answered from the view.
    fn empty_if_missed(&self, heard: Result<(), Missed>, state: &mut CacheState) {
        if heard.is_ok() {
            return;
        }
        tracing::debug!(shard = state.name, "it missed writes, and is empty now");
        state.cache = Cache::new(self.options);
        state.counted = 0;
        self.held.set_held(&state.cache);
        state.begun = Instant::now();
        state.loading.clear();
        state.emptied += 1;
    }

    /// Answers a hit. Returns the key if it is to be loaded. `note` is told before the answer goes whether it is one.
    fn get(
        &self,
        key: Key,
        reader: Reader,
        state: &mut CacheState,
        note: impl FnOnce(bool, Option<&Arc<Trail>>),
    ) -> Option<Key> {
        if !reader.is_awaited() {
            reader.send(Err(Refusal::DeadlineExceeded));
            return None;
        }
        if let Some(versions) = state.cache.get(&key) {
            self.stats.hits.fetch_add(1, Ordering::Relaxed);
            note(true, reader.trail());
            reader.send(Ok(versions.clone()));
            return None;
        }
        self.stats.misses.fetch_add(1, Ordering::Relaxed);
        note(false, reader.trail());
        let first = !state.loading.contains_key(&key);
        let load = state.loading.entry(key.clone()).or_default();
        load.waiting.push(reader);
        first.then_some(key)
    }

    /// Answers those who wait for a key. Returns it if it is to be loaded again: there was no room for it in the load of
    /// a batch, and others wait for it too.
    fn loaded(found: Found, state: &mut CacheState) -> Option<Key> {
        let load = state.loading.remove(&found.key)?;
        trail::each(load.waiting.iter().filter_map(Reader::trail), |trail| found.note(trail));
        let (key, result) = (found.key, found.versions);
        let is_left_out = result.as_ref().is_err_and(|refusal| *refusal == TOO_MUCH_TOGETHER);
        let (told, waiting): (Vec<_>, Vec<_>) = load
            .waiting
            .into_iter()
            .partition(|reader| !is_left_out || reader.is_of_batch());
        let result = result.map(|read| read.merge(load.written).bounded(MAX_SIBLINGS).0);
        for reader in told {
            reader.send(result.clone());
        }
        if !waiting.is_empty() {
            let load = Load {
                waiting,
                written: Versions::default(),
            };
            state.loading.insert(key.clone(), load);
            return Some(key);
        }
        if let Ok(versions) = result {
            state.cache.insert(key, versions);
        }
        None
    }

    /// Has keys read from the view, together, for a shard that was emptied so often.
    fn load(&self, myself: &ActorRef<Envelope<CacheMessage>>, keys: Vec<Key>, emptied: u64) {
        if keys.is_empty() {
            return;
        }
        let Some(mailbox) = self.handles.caches.get(self.shard).map(|shard| shard.mailbox.clone()) else {
            return;
        };
        let (handles, loads, myself) = (self.handles.clone(), Arc::clone(&self.loads), myself.clone());
        tokio::spawn(async move {
            let found = read_view(&handles, &loads, keys).await;
            let loaded = CacheMessage::Loaded { found, emptied };
            // To this generation only: whoever waited for an earlier one has lost its port, and asks again.
            let _ = myself.send_message(mailbox.envelope(loaded));
        });
    }
}

/// Notes on a trail how many keys this shard was asked for, and had.
fn note_asked(trail: Option<&Arc<Trail>>, times: (Instant, Instant), asked: usize, hits: u32) {
    if let Some(trail) = trail {
        let misses = u32::try_from(asked).unwrap_or(u32::MAX).saturating_sub(hits);
        trail.hop("cache", times, Detail::Cache { hits, misses });
    }
}

fn read_tables(view: &ReadView, key: &Key, times: &Histogram, looked: &mut Looked) -> StorageResult<Versions> {
    let begun = Instant::now();
    let found = view.tables.get_noting(key, looked);
    if view.tables.all().next().is_some() {
        times.observe(begun.elapsed());
    }
    found
}

/// Reads keys from the published view, on a thread that may block, `loads` bounding how many do at once. What does not fit
/// in [`LOAD_BYTES`] is refused.
pub async fn read_view(handles: &Handles, loads: &Semaphore, keys: Vec<Key>) -> Vec<Found> {
    let queued = Instant::now();
    let refused = |keys: &[Key], refusal: Refusal| {
        let now = Instant::now();
        let of_key = |key: &Key| Found {
            key: key.clone(),
            versions: Err(refusal.clone()),
            looked: Looked::default(),
            times: (queued, now, now),
        };
        keys.iter().map(of_key).collect()
    };
    let Ok(_permit) = loads.acquire().await else {
        return refused(&keys, Refusal::ShuttingDown);
    };
    let published = Arc::clone(&handles.published);
    let keys = Arc::new(keys);
    let to_read = Arc::clone(&keys);
    let read = handles.threads.run(move || {
        let (view, begun) = (published.load(), Instant::now());
        let mut bytes = 0;
        let mut read = |key: &Key, looked: &mut Looked| {
            if bytes > LOAD_BYTES {
                return Err(TOO_MUCH_TOGETHER);
            }
            let below = read_tables(&view, key, &published.reads, looked);
            let result = below.map(|below| view.get_noting(below, key, looked));
            let result = result.map_err(|error| Refusal::from(&error));
            bytes += result.as_ref().map_or(0, Versions::heap_bytes);
            result
        };
        let mut found = Vec::with_capacity(to_read.len());
        for key in to_read.iter() {
            let mut looked = Looked::default();
            found.push(Found {
                key: key.clone(),
                versions: read(key, &mut looked),
                looked,
                times: (queued, begun, begun),
            });
        }
        let ended = Instant::now();
        found.iter_mut().for_each(|found| found.times.2 = ended);
        found
    });
    read.await
        .unwrap_or_else(|panicked| refused(&keys, Refusal::Internal(format!("the read failed: {panicked}"))))
}
