//! Faults that are injected into single actors: what was asked for happens, at the point that was asked for, and the node
//! holds.

mod common;

use common::*;
use pairdb_node::actors::faults::{BEFORE_SAVE, DISK_IO, Fault, Faults, MESSAGE, SUPERVISOR};
use pairdb_node::actors::ranges::{KeyRange, RangeItem};
use pairdb_node::actors::write::NewWrite;
use pairdb_node::config::Config;
use pairdb_node::node::Node;
use pairdb_node::storage::key::Key;
use pairdb_node::storage::log::record::Operation;
use pairdb_node::storage::version::{MAX_SIBLINGS, Value, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest time that a call may take while an actor is broken: the node's own limits are longer.
const CALL_LIMIT: Duration = Duration::from_secs(5);

fn breakable(dir: &Path) -> Config {
    let mut config = config(dir);
    common::breakable(&mut config);
    config.supervisor.max_restarts = 10_000;
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(64);
    config.commit_log.segment_size = bytesize::ByteSize::kib(64);
    config.cache.max_size = bytesize::ByteSize::kib(64);
    config.gossip.enabled = true;
    config.gossip.bind_port = 0;
    config
}

fn faults(node: &Node) -> Arc<Faults> {
    Arc::clone(&node.requests().handles.faults)
}

/// Writes ascending numbers to keys of its own and reads them back, until it is stopped. Returns the last acknowledged and
/// the last tried number of each key.
async fn work(mut client: Client, name: String, stop: Arc<AtomicBool>) -> Vec<(u64, u64)> {
    let mut known = vec![(0_u64, 0_u64); 40];
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        for (index, (acknowledged, tried)) in known.iter_mut().enumerate() {
            let key = format!("{name}-{index}");
            let begun = Instant::now();
            *tried = number;
            let value = format!("{number:0>200}");
            match client
                .write(write(&key, value.as_bytes(), &[("w", number as i64)]))
                .await
            {
                Ok(_) => *acknowledged = number,
                Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status}"),
            }
            holds_number(&mut client, &key, (*acknowledged, *tried)).await;
            assert!(begun.elapsed() < CALL_LIMIT, "{key}: {:?}", begun.elapsed());
        }
    }
    known
}

/// What need not happen in so short a time: actors that have a message now and then, of themselves alone.
fn may_be_quiet(actor: &str, point: &str, fault: Fault) -> bool {
    let (is_message, is_lost) = (point == MESSAGE, fault == Fault::Drop);
    match actor {
        // Nobody sends to them but their own tasks and timers, and what these send does not get lost.
        "disk" | "vitals" | "gossip" => is_message && is_lost,
        // They have messages when the node stops, when somebody asks, or in an hour.
        "gateway" | "streams" | "scrub" | "registration" => is_message || point == BEFORE_SAVE,
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_actor_holds_every_fault_at_every_point_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let config = breakable(dir.path());
    let node = start(&config).await;
    let faults = faults(&node);
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..6)
        .map(|n| tokio::spawn(work(client(node.address()), format!("worker{n}"), Arc::clone(&stop))))
        .collect();
    let kinds = [
        Fault::Panic,
        Fault::Kill,
        Fault::Error,
        Fault::Drop,
        Fault::Stall(Duration::from_millis(20)),
    ];
    let (mut tried, mut refused, mut expected) = (0, BTreeSet::new(), BTreeSet::new());
    for actor in faults.actors().iter().filter(|actor| *actor != DISK_IO) {
        // What is lost is a message; and what fails on the log's thread, and at an installation, is the disk.
        for point in Faults::points(actor) {
            if actor == SUPERVISOR || ![MESSAGE, "hand-off"].contains(&point) {
                expected.insert(format!("drop of {actor} at {point}"));
            }
            let of_disk = [
                "before-write",
                "before-sync",
                "after-sync",
                "before-install",
                "after-install",
            ];
            if of_disk.contains(&point) {
                expected.insert(format!("error of {actor} at {point}"));
            }
        }
        for (point, fault) in Faults::points(actor)
            .into_iter()
            .flat_map(|point| kinds.map(|kind| (point, kind)))
        {
            if faults.inject(injection(actor, point, fault)).is_err() {
                refused.insert(format!("{fault} of {actor} at {point}"));
                continue;
            }
            tried += 1;
            let is_quiet = may_be_quiet(actor, point, fault);
            let patience = if is_quiet { Duration::from_millis(50) } else { PATIENCE };
            let (begun, mut is_killed) = (Instant::now(), point != "start");
            while !faults.armed().is_empty() && begun.elapsed() < patience {
                // One that is just being started anew cannot be killed yet.
                is_killed = is_killed || faults.kill(actor);
                if actor == "gateway" {
                    // Somebody comes, whom it is to accept.
                    let mut newcomer = client(node.address());
                    let _ = tokio::time::timeout(CALL_LIMIT, newcomer.read(read("anything"))).await;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let has_happened = faults.clear(None) == 0;
            assert!(has_happened || is_quiet, "{fault} of {actor} at {point} did not happen");
        }
    }
    assert_eq!(
        refused, expected,
        "what cannot happen there is refused, and nothing else"
    );
    assert!(tried > 100, "{tried} faults");
    stop.store(true, Ordering::Relaxed);
    let mut known = Vec::new();
    for worker in workers {
        known.push(worker.await.unwrap());
    }
    let verify = async |node: &Node| {
        let mut client = client(node.address());
        for (worker, keys) in known.iter().enumerate() {
            for (index, bounds) in keys.iter().enumerate() {
                assert!(bounds.0 > 1, "worker {worker} got nothing done");
                let key = format!("worker{worker}-{index}");
                eventually("every key can be read", async || {
                    holds_number(&mut client, &key, *bounds).await
                })
                .await;
            }
        }
    };
    eventually("all actors run", async || {
        node.tree().children().iter().all(|child| child.running)
    })
    .await;
    verify(&node).await;
    node.shutdown().await;
    let node = start(&config).await;
    verify(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_latches_the_log_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&breakable(dir.path())).await;
    let mut client = client(node.address());
    client.write(write("before", b"v", &[("a", 1)])).await.unwrap();
    let faults = faults(&node);
    faults.inject(injection(DISK_IO, "sync-log", Fault::Error)).unwrap();
    let refused = client.write(write("during", b"v", &[("a", 1)])).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Internal, "{refused}");
    // Once, but what a disk lost once is lost.
    assert!(faults.armed().is_empty());
    let refused = client.write(write("after", b"v", &[("a", 1)])).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Internal, "{refused}");
    assert_eq!(client.read(read("before")).await.unwrap().into_inner().value, b"v");
    let (_, reasons) = node.health().status();
    assert!(reasons.iter().any(|reason| reason.contains("latched")), "{reasons:?}");
    node.shutdown().await;
}

/// Keys of the tests below, with what a walk over all of them finds.
fn walked(node: &Node) -> BTreeMap<String, Vec<u8>> {
    let range = KeyRange {
        tenant: "tenant".to_owned(),
        start: String::new(),
        end: String::new(),
    };
    let walk = node.requests().scan(range).unwrap();
    let value = |item: RangeItem| {
        let (key, versions) = item.unwrap();
        (
            key.key().to_owned(),
            versions.winner().unwrap().value.live().unwrap().to_vec(),
        )
    };
    walk.map(value).collect()
}

/// Found by the simulation: the writer of the memtable dies between applying and telling the caches, and is not back yet.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_walk_saw_no_later_read_takes_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&breakable(dir.path())).await;
    let mut client = client(node.address());
    client.write(write("a", b"old", &[("c", 1)])).await.unwrap();
    assert_eq!(client.read(read("a")).await.unwrap().into_inner().value, b"old");
    let faults = faults(&node);
    let stall = Fault::Stall(Duration::from_secs(1));
    faults.inject(injection("memtable", "start", stall)).unwrap();
    faults.inject(injection("memtable", "mid-batch", Fault::Kill)).unwrap();
    let new_write = |key: &str, value: &'static [u8]| NewWrite {
        operation: Operation::Write,
        key: Key::new("tenant", key).unwrap(),
        value: Value::Live(value.into()),
        clock: Some([("c", 2)].into_iter().collect()),
        id: None,
        is_copy: false,
    };
    let batch = vec![new_write("a", b"new"), new_write("b", b"new")];
    let answers = node.requests().write_batch(batch).await;
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    let seen = walked(&node);
    let then = client.read(read("a")).await.unwrap().into_inner().value;
    assert_eq!((seen["a"].as_slice(), then.as_slice()), (&b"new"[..], &b"new"[..]));
    node.shutdown().await;
}

/// Begins a second version of a, as the writer of the memtable does in the middle of a batch: the caches were not told yet.
fn begin_to_apply(node: &Node) -> u64 {
    let published = &node.requests().handles.published;
    let seq = published.applied() + 1;
    let version = Version {
        clock: [("c", 2)].into_iter().collect(),
        value: Value::Live(b"new".as_slice().into()),
        timestamp_ms: 1,
        seq,
    };
    let key = Key::new("tenant", "a").unwrap();
    published.load().active.apply(&key, version, MAX_SIBLINGS);
    published.set_applied(seq);
    seq
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_does_not_run_ahead_of_the_caches() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&breakable(dir.path())).await;
    let mut client = client(node.address());
    client.write(write("a", b"old", &[("c", 1)])).await.unwrap();
    let seq = begin_to_apply(&node);
    let published = &node.requests().handles.published;
    assert_eq!(walked(&node)["a"], b"old");
    published.set_announced(seq);
    assert_eq!(walked(&node)["a"], b"new");
    node.shutdown().await;
}

/// A read that no cache can answer finds in the memtable what walks, and other reads, are not shown yet.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_read_saw_no_later_walk_takes_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&breakable(dir.path())).await;
    let mut client = client(node.address());
    client.write(write("a", b"old", &[("c", 1)])).await.unwrap();
    let seq = begin_to_apply(&node);
    let key = || Key::new("tenant", "a").unwrap();
    let requests = node.requests().clone();
    let mut alone = pin!(requests.read(key()));
    let mut together = pin!(requests.read_batch(vec![key()]));
    tokio::select! {
        read = &mut alone => panic!("answered ahead of walks, which see {:?}: {read:?}", walked(&node)["a"]),
        read = &mut together => panic!("answered ahead of walks, which see {:?}: {read:?}", walked(&node)["a"]),
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
    node.requests().handles.published.set_announced(seq);
    let both = [alone.await, together.await.pop().unwrap()];
    for read in both {
        assert_eq!(read.unwrap().winner().unwrap().seq, seq);
    }
    assert_eq!(walked(&node)["a"], b"new");
    node.shutdown().await;
}

/// A disk that hangs holds up the start of the log's writer, and of nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_comes_back_while_the_disk_hangs_has_reads_served() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&breakable(dir.path())).await;
    let mut client = client(node.address());
    client.write(write("a", b"v", &[("c", 1)])).await.unwrap();
    let faults = faults(&node);
    let child = |name: &str| {
        let children = node.tree().children();
        children.into_iter().find(|child| child.name == name).unwrap()
    };
    let generation = |name: &str| child(name).generation;
    let before = ["gateway", "wal"].map(generation);
    let hang = Fault::Stall(Duration::from_secs(15));
    faults.inject(injection("wal", "before-sync", hang)).unwrap();
    let mut other = client.clone();
    let stuck = tokio::spawn(async move { other.write(write("b", b"v", &[("c", 1)])).await });
    eventually("the disk hangs", async || !faults.happened().is_empty()).await;
    assert!(node.tree().kill(SUPERVISOR));
    eventually("a new gateway", async || generation("gateway") > before[0]).await;
    eventually("it serves", async || client.read(read("a")).await.is_ok()).await;
    let wal = child("wal");
    assert_eq!(
        (wal.generation, wal.running),
        (before[1], false),
        "it waits for the disk"
    );
    let _unknown = stuck.await.unwrap();
    eventually("writes go on", async || {
        client.write(write("c", b"v", &[("c", 1)])).await.is_ok()
    })
    .await;
    node.shutdown().await;
}

/// Of a child whose start outlives its supervisor and one that the next supervisor starts, the later one counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_outlives_its_supervisor_takes_nothing_from_its_successor() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&breakable(dir.path())).await;
    let mut client = client(node.address());
    client.write(write("a", b"v", &[("c", 1)])).await.unwrap();
    let faults = faults(&node);
    let late = Duration::from_secs(1);
    faults.inject(injection("wal", "start", Fault::Stall(late))).unwrap();
    assert!(node.tree().kill("wal"));
    eventually("its start is late", async || !faults.happened().is_empty()).await;
    let since = Instant::now();
    assert!(node.tree().kill(SUPERVISOR));
    let mut number = 1;
    let mut written = async || {
        number += 1;
        client.write(write("a", b"v", &[("c", number)])).await.is_ok()
    };
    eventually("the late start is over", async || {
        written().await;
        since.elapsed() > 2 * late
    })
    .await;
    eventually("writes go on", written).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_missed_a_write_never_answers_with_what_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&breakable(dir.path())).await;
    let mut client = client(node.address());
    let faults = faults(&node);
    let shards: Vec<String> = faults
        .actors()
        .into_iter()
        .filter(|a| a.starts_with("cache-"))
        .collect();
    // How many of the messages armed for are sent before they are taken back differs from run to run, so the rounds go on
    // until enough were lost.
    let mut misses = 0;
    for round in 1..=1_000_i64 {
        if misses >= 50 {
            break;
        }
        let key = format!("k{}", round % 10);
        let old = format!("old {round}");
        client
            .write(write(&key, old.as_bytes(), &[("a", 2 * round)]))
            .await
            .unwrap();
        assert_eq!(
            client.read(read(&key)).await.unwrap().into_inner().value,
            old.as_bytes()
        );
        // The next message to a shard is to be that of the write. Of two writes in turn, the message of the first or of the
        // second is lost; that the shard hears of the other is no comfort.
        for shard in &shards {
            let mut lost = injection(shard, MESSAGE, Fault::Drop);
            lost.after = u64::from(round % 2 == 0);
            faults.inject(lost).unwrap();
        }
        client
            .write(write(&key, b"new", &[("a", 2 * round + 1)]))
            .await
            .unwrap();
        client.write(write("other", b"v", &[("a", 2 * round)])).await.unwrap();
        misses += shards.len() - faults.clear(None);
        let found = client.read(read(&key)).await.unwrap().into_inner().value;
        assert_eq!(
            found, b"new",
            "round {round}: a write was missed, and what was before it was read"
        );
    }
    assert!(misses >= 50, "only {misses} messages were lost");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_makes_no_progress_is_reported_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = breakable(dir.path());
    config.supervisor.stuck_after = Duration::from_millis(300);
    let node = start(&config).await;
    let faults = faults(&node);
    faults
        .inject(injection("memtable", MESSAGE, Fault::Stall(Duration::from_secs(60))))
        .unwrap();
    let mut client = client(node.address());
    let (mut writer, begun) = (client.clone(), Instant::now());
    let refused = tokio::spawn(async move { writer.write(write("k", b"v", &[("a", 1)])).await.unwrap_err() });
    eventually("health tells of it", async || {
        let (_, reasons) = node.health().status();
        reasons
            .iter()
            .any(|reason| reason.contains("memtable makes no progress"))
    })
    .await;
    let refused = refused.await.unwrap();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    assert!(begun.elapsed() < CALL_LIMIT, "{:?}", begun.elapsed());
    eventually("it is there again", async || {
        client.write(write("k", b"w", &[("a", 2)])).await.is_ok()
    })
    .await;
    let ends = node.tree().ends();
    let of_memtable: Vec<_> = ends.iter().filter(|end| end.name == "memtable").collect();
    assert_eq!(of_memtable.len(), 1, "{ends:?}");
    assert!(of_memtable[0].reason.contains("makes no progress"), "{ends:?}");
    // Whoever waits for messages makes progress.
    let restarts = |node: &Node| -> u64 { node.tree().children().iter().map(|child| child.restarts()).sum() };
    let before = restarts(&node);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(restarts(&node), before);
    node.shutdown().await;
}

/// A thread cannot be ended from outside, so it is told of, until it gets on.
#[tokio::test(flavor = "multi_thread")]
async fn work_of_a_thread_that_stands_still_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = breakable(dir.path());
    config.supervisor.stuck_after = Duration::from_millis(300);
    config.compaction.l0_trigger = 2;
    let node = start(&config).await;
    let faults = faults(&node);
    let mut client = client(node.address());
    // What is written to a table is so by a flush first; when tables of L0 are merged, that of the merge comes next.
    let cases = [
        ("sync-log", "pairdb-log"),
        ("sync-table", "pairdb-flush"),
        ("sync-table", "pairdb-compact"),
    ];
    for (point, thread) in cases {
        let stands_still = async || {
            let (_, reasons) = node.health().status();
            reasons
                .iter()
                .any(|reason| reason.contains(&format!("{thread} stands still")))
        };
        let is_there = Arc::new(AtomicBool::new(false));
        let (mut writer, stop) = (client.clone(), Arc::clone(&is_there));
        let writing = tokio::spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let key = format!("{thread}-{}", number % 100);
                // Refused ones are no matter here: a memtable may be full meanwhile.
                let _ = writer.write(write(&key, &[7; 1000], &[("a", number)])).await;
            }
        });
        // Again and again: which thread meets the point next is up to them.
        eventually(thread, async || {
            if faults.armed().is_empty() {
                faults
                    .inject(injection(DISK_IO, point, Fault::Stall(Duration::from_millis(1500))))
                    .unwrap();
            }
            stands_still().await
        })
        .await;
        is_there.store(true, Ordering::Relaxed);
        faults.clear(None);
        writing.await.unwrap();
        eventually("it gets on", async || !stands_still().await).await;
    }
    eventually("writes go on", async || {
        client.write(write("k", b"w", &[("a", 2)])).await.is_ok()
    })
    .await;
    let restarts: u64 = node.tree().children().iter().map(|child| child.restarts()).sum();
    assert_eq!(restarts, 0, "an actor was ended for what a thread is at");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_injects_and_clears() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&breakable(dir.path())).await;
    let addr = node.fault_address().unwrap().to_string();
    let run = |args: &[&str]| {
        let output = binary(&["fault", "--admin-addr", &addr]).args(args).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.success(), said)
    };
    let (well, said) = run(&["list"]);
    assert!(
        well && said.contains("memtable") && said.contains("mid-batch"),
        "{said}"
    );
    assert!(said.contains(SUPERVISOR) && said.contains("sync-log"), "{said}");
    assert!(
        said.starts_with(SUPERVISOR) && said.contains("\n  wal ") && said.contains("\ndisk-io "),
        "it is a tree: {said}"
    );
    assert!(
        said.contains("before-install after-install") && said.contains("before-accept"),
        "{said}"
    );
    let (well, said) = run(&["inject", "wal", "panic", "--point", "before-sync", "--after", "1000"]);
    assert!(well && said.contains("injection 1 is armed"), "{said}");
    assert!(run(&["list"]).1.contains("armed 1: panic of wal at before-sync"));
    assert!(run(&["clear"]).1.contains("1 cleared"));
    let (well, said) = run(&["inject", "gateway", "kill"]);
    assert!(well && said.contains("killed"), "{said}");
    eventually("it runs again", async || {
        let children = node.tree().children();
        children
            .iter()
            .any(|child| child.name == "gateway" && child.running && child.generation == 2)
    })
    .await;
    let (well, said) = run(&["inject", "wall", "kill"]);
    assert!(
        !well && said.contains("there is no \"wall\"") && said.contains("memtable"),
        "{said}"
    );
    let (well, said) = run(&["inject", "wal", "panic", "--point", "nowhere"]);
    assert!(!well && said.contains("before-sync"), "{said}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_leave_nobody_can_inject() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    assert_eq!(node.fault_address(), None);
    node.shutdown().await;
}
