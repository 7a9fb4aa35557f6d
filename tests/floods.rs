//! Floods of messages to actors that handle none: what waits is bounded, and the rest comes back.

mod common;

use common::*;
use pairdb_node::actors::faults::{Fault, MESSAGE};
use pairdb_node::actors::mailbox::{Bound, Envelope, Mailbox, Undelivered};
use pairdb_node::storage::key::Key;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// An actor that handles nothing until it may.
struct Stalled {
    gate: Arc<Semaphore>,
    handled: Arc<AtomicU64>,
}

impl Actor for Stalled {
    type Msg = Envelope<u64>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        _message: Self::Msg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        self.gate.acquire().await?.forget();
        self.handled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_against_a_stalled_actor_stays_within_the_bounds_of_its_mailbox() {
    const SENDERS: u64 = 8;
    const MESSAGES: u64 = 20_000;
    for (bound, bytes, most) in [
        (
            Bound {
                messages: 100,
                bytes: usize::MAX,
            },
            10,
            100,
        ),
        (
            Bound {
                messages: usize::MAX,
                bytes: 5000,
            },
            100,
            50,
        ),
    ] {
        let mailbox = Mailbox::new(bound);
        for is_killed in [false, true] {
            let (gate, handled) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
            let stalled = Stalled {
                gate: Arc::clone(&gate),
                handled: Arc::clone(&handled),
            };
            let (actor, task) = Actor::spawn(None, stalled, ()).await.unwrap();
            mailbox.publish(actor.clone());
            let (seen, delivered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let before = mailbox.stats().refused;
            let senders: Vec<_> = (0..SENDERS)
                .map(|_| {
                    let (mailbox, seen, delivered) = (mailbox.clone(), Arc::clone(&seen), Arc::clone(&delivered));
                    std::thread::spawn(move || {
                        for n in 0..MESSAGES {
                            match mailbox.send(n, bytes) {
                                Ok(()) => drop(delivered.fetch_add(1, Ordering::Relaxed)),
                                Err(Undelivered::Full(back)) => assert_eq!(back, n, "it comes back"),
                                Err(Undelivered::Down(_)) => panic!("it is there"),
                            }
                            seen.fetch_max(mailbox.stats().messages as u64, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            let delivered = delivered.load(Ordering::Relaxed);
            // Whoever finds it full has taken room for that moment.
            let seen = seen.load(Ordering::Relaxed);
            assert!((1..=most).contains(&delivered), "{delivered} of at most {most}");
            assert!(seen <= most + SENDERS, "{seen} waited, {most} may");
            assert!(delivered + SENDERS >= most, "{delivered} of {most} places were used");
            let stats = mailbox.stats();
            assert_eq!(stats.messages as u64, delivered);
            assert_eq!(stats.bytes as u64, delivered * bytes as u64);
            assert_eq!(stats.refused - before, SENDERS * MESSAGES - delivered);
            if is_killed {
                actor.kill();
                task.await.unwrap();
                drop(actor);
            } else {
                gate.add_permits(most as usize);
                eventually("all is handled", async || handled.load(Ordering::Relaxed) == delivered).await;
                actor.stop(None);
                task.await.unwrap();
            }
            eventually("the room is free again", async || {
                let stats = mailbox.stats();
                (stats.messages, stats.bytes) == (0, 0)
            })
            .await;
            assert!(matches!(mailbox.send(7, bytes), Err(Undelivered::Down(7))));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_writes_while_the_log_stalls_is_refused_and_held_within_its_bound() {
    const WRITES: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.mem_table.num_mem_tables = 2;
    config.mem_table.max_size = bytesize::ByteSize::mib(1);
    let node = start(&config).await;
    let handles = &node.requests().handles;
    handles
        .faults
        .inject(injection("wal", MESSAGE, Fault::Stall(Duration::from_secs(4))))
        .unwrap();
    let calls: Vec<_> = (0..WRITES)
        .map(|n| {
            let mut client = client(node.address());
            tokio::spawn(async move { client.write(write(&format!("k{n}"), &[7; 60_000], &[("a", 1)])).await })
        })
        .collect();
    let bound = 2 * (1 << 20);
    let mut most = 0;
    eventually("the stall is over", async || {
        most = most.max(handles.wal.stats().bytes);
        handles.faults.armed().is_empty() && handles.wal.stats().messages == 0
    })
    .await;
    let mut refused = 0;
    for call in calls {
        if let Err(status) = call.await.unwrap() {
            let is_known = [tonic::Code::ResourceExhausted, tonic::Code::Unavailable].contains(&status.code());
            assert!(is_known, "{status}");
            refused += 1;
        }
    }
    assert!((bound / 4..=bound).contains(&most), "{most} bytes waited, {bound} may");
    assert!(refused > 0 && refused < WRITES, "{refused} of {WRITES} were refused");
    eventually("nothing is held", async || {
        let stats = handles.wal.stats();
        (stats.messages, stats.bytes) == (0, 0)
    })
    .await;
    let mut client = client(node.address());
    client.write(write("after", b"v", &[("a", 1)])).await.unwrap();
    node.shutdown().await;
}

/// After a restart of the log a write without a clock is told to look again until the memtable has caught up, and has what it
/// lacks sent again: once, and not with each look.
#[tokio::test(flavor = "multi_thread")]
async fn a_memtable_that_stands_still_is_not_sent_the_same_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let handles = &node.requests().handles;
    let mut writer = client(node.address());
    writer.write(write("before", b"v", &[("a", 1)])).await.unwrap();
    let stall = Fault::Stall(Duration::from_secs(3));
    handles
        .faults
        .inject(injection("memtable", "mid-batch", stall))
        .unwrap();
    let stands_still = tokio::spawn(async move { writer.write(write("waits", b"v", &[("a", 1)])).await });
    eventually("the memtable stands still", async || handles.faults.armed().is_empty()).await;
    let generation = || {
        let of_log = node
            .tree()
            .children()
            .into_iter()
            .find(|child| child.name == "wal" && child.running);
        of_log.map(|log| log.generation)
    };
    let before = generation();
    assert!(node.tree().kill("wal"));
    eventually("the log is back", async || generation() > before).await;
    for n in 0..20 {
        let mut client = client(node.address());
        let looked = client.write(write(&format!("k{n}"), b"v", &[])).await;
        assert_eq!(looked.unwrap_err().code(), tonic::Code::Unavailable);
    }
    let waiting = handles.memtable.stats().messages;
    assert!(!stands_still.is_finished(), "the memtable went on too early");
    assert!((1..=3).contains(&waiting), "{waiting} messages wait for the memtable");
    stands_still.await.unwrap().unwrap();
    eventually("it takes writes without a clock", async || {
        let mut client = client(node.address());
        client.write(write("k", b"v", &[])).await.is_ok()
    })
    .await;
    node.shutdown().await;
}

/// A shard of the cache that is slow holds up no write, and no permit bounds what waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_writes_to_a_slow_shard_is_held_within_its_bound_and_empties_it_without_an_end() {
    const VALUE: usize = 256 << 10;
    const WRITERS: usize = 8;
    const ROUNDS: usize = 32;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // Were it to end each time, the node would.
    config.supervisor.max_restarts = 1;
    let node = start(&config).await;
    let handles = &node.requests().handles;
    let is_of_shard = |name: &String| handles.shard_of(&Key::new("tenant", name).unwrap()) == 0;
    let keys: Vec<String> = (0..)
        .map(|n| format!("k{n}"))
        .filter(is_of_shard)
        .take(WRITERS)
        .collect();
    let value = |round: usize| vec![round as u8; VALUE];
    let mut reader = client(node.address());
    for key in &keys {
        reader.write(write(key, b"old", &[("a", 1)])).await.unwrap();
        assert_eq!(reader.read(read(key)).await.unwrap().into_inner().value, b"old");
    }
    let mut slow = injection("cache-0", MESSAGE, Fault::Stall(Duration::from_millis(300)));
    slow.times = 0;
    handles.faults.inject(slow).unwrap();
    let mailbox = handles.caches[0].mailbox.clone();
    let (bound, is_over) = (mailbox.stats().bound.bytes, Arc::new(AtomicBool::new(false)));
    let (watched, until) = (mailbox.clone(), Arc::clone(&is_over));
    let watch = std::thread::spawn(move || {
        let mut most = 0;
        while !until.load(Ordering::Relaxed) {
            most = most.max(watched.stats().bytes);
            std::thread::yield_now();
        }
        most
    });
    let writers: Vec<_> = keys
        .iter()
        .map(|key| {
            let (mut client, key) = (client(node.address()), key.clone());
            tokio::spawn(async move {
                for round in 1..=ROUNDS {
                    let clock = [("a", 1 + round as i64)];
                    client.write(write(&key, &value(round), &clock)).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    let most = watch.join().unwrap();
    assert!(
        2 * bound <= WRITERS * ROUNDS * VALUE,
        "the flood is larger than the bound"
    );
    assert!((bound / 4..=bound).contains(&most), "{most} bytes waited, {bound} may");
    assert!(mailbox.stats().refused > 0, "it had room for all");
    handles.faults.clear(None);
    for key in &keys {
        let found = reader.read(read(key)).await.unwrap().into_inner().value;
        assert!(found == value(ROUNDS), "{key} is read as it was before");
    }
    eventually("nothing is held", async || mailbox.stats().bytes == 0).await;
    let restarts: u64 = node.tree().children().iter().map(|child| child.restarts()).sum();
    assert_eq!(restarts, 0, "a slow shard ended");
    node.shutdown().await;
}
