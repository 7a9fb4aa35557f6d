//! The way of writes to the view and to a shard of the cache, and the ways of a read, while actors end and begin: a read that
//! begins after a write was answered sees it.

use crate::actors::address::ActorRef;
use crate::actors::cache::CacheMessage;
use crate::actors::mailbox::{Bound, Envelope, Undelivered};
use crate::actors::shard::{Heard, Shard};
use crate::storage::key::Key;
use crate::storage::published::Published;
use crate::storage::version::{MAX_SIBLINGS, Value, Version};
use crate::storage::view::ReadView;
use crate::{explore, fails};
use pairdb_node::storage::levels::TableSet;
use pairdb_node::storage::memtable::Memtable;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;
use std::fmt;
use std::sync::Arc;

/// Writes of a run.
const WRITES: u64 = 3;

type Actor = ActorRef<Envelope<CacheMessage>>;

/// The reply port of a read: what it found, as the number of the last write; [`None`] when it was dropped.
pub struct Reply(Arc<(Mutex<Option<Option<u64>>>, Condvar)>);

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reply port")
    }
}

impl Reply {
    fn new() -> (Self, Self) {
        let shared = Arc::new((Mutex::new(None), Condvar::new()));
        (Self(Arc::clone(&shared)), Self(shared))
    }

    fn send(self, found: u64) {
        self.set(Some(found));
    }

    fn set(&self, found: Option<u64>) {
        let mut answer = self.0.0.lock().unwrap();
        answer.get_or_insert(found);
        self.0.1.notify_all();
    }

    fn wait(self) -> Option<u64> {
        let mut answer = self.0.0.lock().unwrap();
        while answer.is_none() {
            answer = self.0.1.wait(answer).unwrap();
        }
        answer.flatten()
    }
}

/// Dropped without an answer it says so. The waiting end does, too, when nobody cares any more.
impl Drop for Reply {
    fn drop(&mut self) {
        // A model that has failed is being taken apart.
        if !std::thread::panicking() {
            self.set(None);
        }
    }
}

/// What is wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// The number is published before the memtable has the write.
    AppliedFirst,
    /// The caller is answered before the cache is told.
    AnsweredFirst,
    /// A question names no number.
    NotAsked,
    /// What was written while a key was read is forgotten.
    FillAfterInvalidation,
    /// A writer that ends in the middle does not pass over what it did not tell.
    NotPassedOver,
    /// What was being read for a shard when it was emptied is put into it.
    FillAfterEmptying,
}

struct Node {
    wrong: Wrong,
    published: Published,
    shard: Shard,
    key: Key,
    /// The last write that was answered.
    answered: AtomicU64,
    /// How often the shard found that it missed something.
    missed: AtomicUsize,
}

fn last_of(view: &ReadView, key: &Key) -> u64 {
    let versions = view.get_in_memory(key);
    versions.all().iter().map(|version| version.seq).max().unwrap_or(0)
}

impl Node {
    fn new(wrong: Wrong, messages: usize) -> Arc<Self> {
        let view = ReadView {
            active: Arc::new(Memtable::new(1)),
            sealed: Vec::new(),
            tables: Arc::new(TableSet::default()),
        };
        Arc::new(Self {
            wrong,
            published: Published::new(view, 0),
            shard: Shard::new(Bound {
                messages,
                bytes: 100_000,
            }),
            key: Key::new("t", "k").unwrap(),
            answered: AtomicU64::new(0),
            missed: AtomicUsize::new(0),
        })
    }

    fn version(seq: u64) -> Version {
        Version {
            clock: [("c", seq)].into_iter().collect(),
            value: Value::Live(vec![seq as u8].into()),
            timestamp_ms: seq,
            seq,
        }
    }

    /// One generation of MemtableActor, from its start on. `ends_at`: the write at which it ends, and after which step.
    fn write(&self, ends_at: Option<(u64, u32)>) {
        let published = &self.published;
        self.answered.fetch_max(published.applied(), Ordering::SeqCst);
        for seq in published.applied() + 1..=WRITES {
            let writer = published.writer();
            let has_ended = self.apply(seq, ends_at);
            // As a guard of the actor does, whatever ends the applying.
            if self.wrong != Wrong::NotPassedOver && published.announced() < published.applied() {
                self.shard.pass_over(published.applied());
                published.set_announced(published.applied());
            }
            drop(writer);
            if has_ended {
                return;
            }
            self.answered.fetch_max(seq, Ordering::SeqCst);
        }
    }

    /// Applies a write and tells the shard. Says whether the actor ended in the middle.
    fn apply(&self, seq: u64, ends_at: Option<(u64, u32)>) -> bool {
        let ends_after = |step| ends_at == Some((seq, step));
        let published = &self.published;
        let view = published.load();
        if self.wrong == Wrong::AppliedFirst {
            published.set_applied(seq);
        }
        thread::yield_now();
        view.active.apply(&self.key, Self::version(seq), MAX_SIBLINGS);
        if ends_after(0) {
            return true;
        }
        published.set_applied(seq);
        if seq == 2 {
            published.update(|view| view.rotated(2));
        }
        if ends_after(1) {
            return true;
        }
        if self.wrong == Wrong::AnsweredFirst {
            self.answered.fetch_max(seq, Ordering::SeqCst);
        }
        self.shard
            .tell(vec![(self.key.clone(), Self::version(seq))], published.applied());
        if ends_after(2) {
            return true;
        }
        published.set_announced(published.applied());
        false
    }

    /// One generation of CacheActor.
    fn cache(self: &Arc<Self>, actor: &Actor) {
        let (mut heard, mut cached) = (Heard::default(), None::<u64>);
        let mut loading: Option<(Vec<Reply>, u64)> = None;
        let mut emptied = 0;
        while let Some(envelope) = actor.next() {
            let missed = match &envelope.message {
                CacheMessage::Get { told, .. } => heard.all_up_to(*told),
                CacheMessage::Written { previous, last, .. } => heard.hear(*previous, *last),
                CacheMessage::Loaded(..) => Ok(()),
            };
            if missed.is_err() {
                self.missed.fetch_add(1, Ordering::SeqCst);
                (cached, loading) = (None, None);
                emptied += 1;
            }
            match envelope.message {
                CacheMessage::Get { reply, .. } => match (cached, &mut loading) {
                    (Some(found), _) => reply.send(found),
                    (None, Some((waiting, _))) => waiting.push(reply),
                    (None, None) => {
                        loading = Some((vec![reply], 0));
                        let (node, actor) = (Arc::clone(self), actor.clone());
                        thread::spawn(move || {
                            let found = last_of(&node.published.load(), &node.key);
                            // Nothing says that what was read first comes first.
                            thread::yield_now();
                            let loaded = node.shard.mailbox.envelope(CacheMessage::Loaded(found, emptied));
                            let _ = actor.send_message(loaded);
                        });
                    }
                },
                CacheMessage::Written { changes, .. } => {
                    let written = changes.iter().map(|(_, version)| version.seq).max().unwrap_or(0);
                    match (&mut cached, &mut loading) {
                        (Some(found), _) => *found = written.max(*found),
                        (None, Some((_, meanwhile))) if self.wrong != Wrong::FillAfterInvalidation => {
                            *meanwhile = written.max(*meanwhile);
                        }
                        _ => {}
                    }
                }
                CacheMessage::Loaded(_, of) if of != emptied && self.wrong != Wrong::FillAfterEmptying => {}
                CacheMessage::Loaded(read, _) => {
                    if let Some((waiting, meanwhile)) = loading.take() {
                        let found = read.max(meanwhile);
                        waiting.into_iter().for_each(|reply| reply.send(found));
                        cached = Some(found);
                    }
                }
            }
        }
    }

    /// As [`pairdb_node::actors::requests::Requests::read`] goes about it.
    fn read(&self) -> u64 {
        let (reply, answer) = Reply::new();
        let told = match self.wrong {
            Wrong::NotAsked => 0,
            _ => self.shard.told(),
        };
        let lost = match self.shard.mailbox.send(CacheMessage::Get { reply, told }, 1) {
            Ok(()) => match answer.wait() {
                Some(found) => return found,
                None => None,
            },
            Err(Undelivered::Down(message) | Undelivered::Full(message)) => Some(message),
        };
        let found = last_of(&self.published.load(), &self.key);
        drop(lost);
        found
    }
}

/// A supervisor of the shard: plays it, generation after generation, until it is closed. A killed generation ends as it stands.
fn keep_cache(
    node: &Arc<Node>,
    kills: usize,
) -> (
    thread::JoinHandle<()>,
    Arc<Mutex<Option<Actor>>>,
    thread::JoinHandle<()>,
) {
    let current = Arc::new(Mutex::new(None::<Actor>));
    let (played, seat) = (Arc::clone(node), Arc::clone(&current));
    let first = Actor::new();
    *seat.lock().unwrap() = Some(first.clone());
    node.shard.mailbox.publish(first.clone());
    let keeper = thread::spawn(move || {
        let mut actor = first;
        loop {
            played.cache(&actor);
            actor.kill();
            // The ports of what was lost answer.
            drop(actor.take_lost());
            let mut seat = seat.lock().unwrap();
            if seat.is_none() {
                return;
            }
            actor = Actor::new();
            *seat = Some(actor.clone());
            drop(seat);
            played.shard.mailbox.publish(actor.clone());
        }
    });
    let victim = Arc::clone(&current);
    let killer = thread::spawn(move || {
        for _ in 0..kills {
            thread::yield_now();
            let actor = victim.lock().unwrap().clone();
            if let Some(actor) = actor {
                actor.kill();
            }
        }
    });
    (keeper, current, killer)
}

/// Messages that have room in a mailbox that is never full, and in one that has room for no more than one write.
const ROOMY: usize = 100;
const NARROW: usize = 2;

/// Writes, while others read, the shard, whose mailbox has room for so many `messages`, is killed so often, and the writer ends
/// once if `writer_ends`.
fn run(wrong: Wrong, messages: usize, kills: usize, writer_ends: bool) -> Arc<Node> {
    let node = Node::new(wrong, messages);
    let (keeper, seat, killer) = keep_cache(&node, kills);
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let node = Arc::clone(&node);
            thread::spawn(move || {
                for _ in 0..3 {
                    let answered = node.answered.load(Ordering::SeqCst);
                    let applied = node.published.applied();
                    let in_view = last_of(&node.published.load(), &node.key);
                    assert!(in_view >= applied, "{applied} was applied, the view has {in_view}");
                    let found = node.read();
                    assert!(found >= answered, "{answered} was answered, {found} was read");
                }
            })
        })
        .collect();
    let writing = {
        let node = Arc::clone(&node);
        thread::spawn(move || {
            let mut random = thread_rng();
            if writer_ends {
                node.write(Some((random.gen_range(1..=WRITES), random.gen_range(0..3))));
            }
            node.write(None);
        })
    };
    // Who flushes and compacts changes its own part of the view, beside the writer, who seals.
    let installing = {
        let node = Arc::clone(&node);
        thread::spawn(move || {
            for _ in 0..2 {
                node.published.update(|view| {
                    thread::yield_now();
                    ReadView {
                        active: Arc::clone(&view.active),
                        sealed: view.sealed.clone(),
                        tables: Arc::new(TableSet::default()),
                    }
                });
            }
        })
    };
    writing.join().unwrap();
    installing.join().unwrap();
    killer.join().unwrap();
    for reader in readers {
        reader.join().unwrap();
    }
    assert_eq!(node.read(), WRITES, "everything was written");
    let last = seat.lock().unwrap().take();
    if let Some(actor) = last {
        actor.kill();
    }
    keeper.join().unwrap();
    assert_eq!(node.published.announced(), WRITES);
    node
}

#[test]
fn a_read_sees_what_was_answered_before_it_whoever_ends_meanwhile() {
    explore(|| drop(run(Wrong::Nothing, ROOMY, 2, true)));
}

#[test]
fn a_read_sees_what_was_answered_before_it_although_the_shard_has_no_room_for_writes() {
    explore(|| drop(run(Wrong::Nothing, NARROW, 1, true)));
}

#[test]
fn a_shard_that_misses_nothing_is_not_emptied() {
    explore(|| {
        let node = run(Wrong::Nothing, ROOMY, 0, false);
        assert_eq!(node.missed.load(Ordering::SeqCst), 0, "it was emptied without a reason");
    });
}

#[test]
fn the_model_finds_what_is_wrong() {
    for (wrong, messages, kills, writer_ends) in [
        (Wrong::AppliedFirst, ROOMY, 0, false),
        (Wrong::AnsweredFirst, ROOMY, 0, false),
        (Wrong::FillAfterInvalidation, ROOMY, 0, false),
        (Wrong::NotPassedOver, ROOMY, 0, true),
        (Wrong::NotAsked, ROOMY, 0, true),
        (Wrong::FillAfterEmptying, ROOMY, 0, true),
    ] {
        assert!(
            fails(move || drop(run(wrong, messages, kills, writer_ends))),
            "{wrong:?} was not found"
        );
    }
}
