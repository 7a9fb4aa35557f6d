//! The gossip of real nodes, each at an address of its own on this machine: they find each other, see how each of them is,
//! and lose and find each other again. What a network does to packets is simulated in `tests/gossip_simulation`; where this machine
//! lets the tests make networks, one is cut as well.

mod common;
#[path = "common/script.rs"]
mod script;
#[path = "common/site.rs"]
mod site;

use base64::Engine;
use common::*;
use pairdb_node::actors::faults::{DISK_IO, Fault, Injection, MESSAGE};
use pairdb_node::actors::gossip::gossip_actor::GossipMessage;
use pairdb_node::actors::gossip::names::NameService;
use pairdb_node::actors::gossip::seen::{Life, Seen};
use pairdb_node::actors::gossip::wire::Refused;
use pairdb_node::actors::health::Status;
use pairdb_node::actors::vitals;
use pairdb_node::config::Config;
use pairdb_node::node::{Machine, Node, NodeError};
use pairdb_node::rpc::pb;
use pairdb_node::storage::fs::RealFs;
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};
use site::{ask, metrics};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two probes: short, and ten of them are still long for a machine that has much else to do.
const PROBE: Duration = Duration::from_millis(200);

/// A node `name` at 127.0.0.`place`, which calls at these seeds.
fn member(dir: &Path, name: &str, place: u8, seeds: &[SocketAddr]) -> Config {
    let mut config = config(&dir.join(name));
    config.server.node_id = name.to_owned();
    config.server.host = format!("127.0.0.{place}");
    config.metrics.enabled = true;
    config.metrics.port = 0;
    let gossip = &mut config.gossip;
    gossip.enabled = true;
    gossip.bind_port = 0;
    gossip.seed_nodes = seeds.iter().map(SocketAddr::to_string).collect();
    gossip.gossip_interval = PROBE;
    gossip.probe_interval = PROBE;
    gossip.probe_timeout = PROBE / 2;
    config
}

fn at(node: &Node) -> SocketAddr {
    node.gossip_address().unwrap()
}

/// Three nodes, the first the seed of the others.
async fn three(dir: &Path, change: impl Fn(&mut Config)) -> [Node; 3] {
    let changed = |mut config: Config| {
        change(&mut config);
        config
    };
    let first = start(&changed(member(dir, "n2", 2, &[]))).await;
    let seeds = [at(&first)];
    let second = start(&changed(member(dir, "n3", 3, &seeds))).await;
    let third = start(&changed(member(dir, "n4", 4, &seeds))).await;
    let all = [first, second, third];
    all_see(&all, 3).await;
    all
}

fn sees(node: &Node, other: &str) -> Option<Seen> {
    let members = node.health().gossip.as_ref().unwrap().members();
    members.iter().find(|seen| seen.identity.node_id == other).cloned()
}

fn life(node: &Node, other: &str) -> Option<Life> {
    node.health().gossip.as_ref().unwrap().life_of(other)
}

fn status(node: &Node, other: &str) -> Option<Status> {
    Some(sees(node, other)?.heard?.record.report.status)
}

/// Waits until each of them sees so many that are there, and has heard how each is.
async fn all_see(nodes: &[Node], count: usize) {
    eventually("all see all", async || {
        nodes.iter().all(|node| {
            let members = node.health().gossip.as_ref().unwrap().members();
            let there = members
                .iter()
                .filter(|seen| seen.life.is_there() && seen.heard.is_some());
            there.count() == count
        })
    })
    .await;
}

async fn stop(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_seen_from_all_sides_and_in_all_places() {
    let dir = tempfile::tempdir().unwrap();
    let [n2, n3, n4] = three(dir.path(), breakable).await;
    let all = [&n2, &n3, &n4];
    eventually("all are healthy", async || {
        all.iter().all(|node| {
            ["n2", "n3", "n4"]
                .iter()
                .all(|of| status(node, of) == Some(Status::Healthy))
        })
    })
    .await;
    let mut client3 = client(n3.address());
    for n in 0..50 {
        client3.write(write(&format!("k{n}"), b"v", &[("a", 1)])).await.unwrap();
    }
    // Numbers are measured, and travel.
    eventually("the others know what is asked of it", async || {
        let report = |node| sees(node, "n3").unwrap().heard.unwrap().record.report;
        [&n2, &n4].iter().all(|node| {
            let report = report(node);
            report.requests_per_s > 0.0 && report.disk > 0.0 && report.memory > 0.0 && report.cpu > 0.0
        })
    })
    .await;
    // A drain is seen, and its end.
    n3.requests().drain.begin().await.unwrap();
    eventually("the drain is known", async || {
        [&n2, &n4].iter().all(|node| {
            let heard = sees(node, "n3").unwrap().heard.unwrap();
            heard.record.report.is_draining && heard.record.report.status == Status::Degraded
        })
    })
    .await;
    // A latched log is worse.
    let faults = &n4.requests().handles.faults;
    faults.inject(injection(DISK_IO, "sync-log", Fault::Error)).unwrap();
    client(n4.address())
        .write(write("k", b"v", &[("a", 2)]))
        .await
        .unwrap_err();
    eventually("the latched log is known", async || {
        [&n2, &n3].iter().all(|node| {
            let heard = sees(node, "n4").unwrap().heard.unwrap();
            heard.record.report.is_latched && heard.record.report.status == Status::Unhealthy
        })
    })
    .await;
    // In the metrics, in /status and in HealthCheck of another node.
    let shown = metrics(&n2).await;
    assert_eq!(
        (shown["gossip_members_total"], shown["gossip_members_healthy"]),
        (3.0, 1.0)
    );
    assert_eq!(
        (shown["gossip_members_unhealthy"], shown["gossip_members_down"]),
        (1.0, 0.0)
    );
    assert!(shown["gossip_messages_total{type=\"sent\"}"] > 0.0);
    assert!(shown["gossip_messages_total{type=\"received\"}"] > 0.0);
    let body = status_of(&n2).await;
    assert_eq!(body["gossip_keys"], Value::from([""; 0].to_vec()), "there are none");
    let members = body["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    assert_eq!(
        (&members[0]["node_id"], &members[0]["is_self"]),
        (&"n2".into(), &true.into())
    );
    assert_eq!(
        members[0]["gossip_address"],
        at(&n2).to_string(),
        "the port that the system chose"
    );
    let told = |member: &Value| {
        (
            member["state"].clone(),
            member["status"].clone(),
            member["address"].clone(),
        )
    };
    let address3 = n3.address().to_string();
    assert_eq!(told(&members[1]), ("alive".into(), "degraded".into(), address3.into()));
    assert_eq!(
        (&members[1]["report"]["draining"], &members[2]["report"]["latched"]),
        (&true.into(), &true.into())
    );
    let printed = binary(&["status", "--data-dir", dir.path().join("n2/data").to_str().unwrap()])
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(
        printed.contains("Members") && printed.contains("degraded, draining"),
        "{printed}"
    );
    let health = client(n2.address())
        .health_check(pb::HealthCheckRequest {})
        .await
        .unwrap();
    let health = health.into_inner().metrics;
    assert_eq!(
        (&health["gossip_members"][..], &health["gossip_members_healthy"][..]),
        ("3", "1")
    );
    let told = ["n2", "n3", "n4"].map(|name| &health[&format!("member.{name}")][..]);
    assert_eq!(told, ["alive/healthy", "alive/degraded", "alive/unhealthy"]);
    stop([n2, n3, n4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_what_hits_and_that_a_disk_is_full_is_known_to_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let config = member(dir.path(), "n2", 2, &[]);
    let n2 = start(&config).await;
    let n3 = start(&member(dir.path(), "n3", 3, &[at(&n2)])).await;
    let all = [n2, n3];
    all_see(&all, 2).await;
    let heard = || sees(&all[1], "n2").unwrap().heard.unwrap().record.report;
    assert!(!heard().is_disk_full && heard().error_rate == 0.0 && heard().cache_hit_rate == 0.0);
    let mut client = client(all[0].address());
    client.write(write("k", b"v", &[("a", 1)])).await.unwrap();
    for _ in 0..300 {
        client.read(read("k")).await.unwrap();
    }
    let disk = &all[0].health().disk;
    eventually("its disk was seen", async || disk.used() > 0.0).await;
    let mut full = config.clone();
    let bound = disk.used() / 4.0;
    (full.disk.warn_usage, full.storage.max_disk_usage, full.disk.stop_usage) = (bound, bound * 2.0, bound * 3.0);
    all[0].reloader().reload(&full);
    // Fewer than a tenth of all: more would make it unhealthy.
    for _ in 0..20 {
        client.write(write("k", b"v", &[("a", 2)])).await.unwrap_err();
    }
    let is_near = |heard: f64, measured: f64| (heard - measured).abs() < 0.01;
    let mut measured = all[0].health().vitals.rates();
    let mut last = heard();
    eventually("the other knows it", async || {
        let (heard, now) = (heard(), all[0].health().vitals.rates());
        (measured, last) = (now, heard);
        heard.is_disk_full
            && heard.status == Status::Degraded
            && is_near(heard.error_rate.into(), now.errors)
            && is_near(heard.cache_hit_rate.into(), now.cache_hits)
            && is_near(heard.cpu.into(), now.cpu.min(1.0))
            && is_near(heard.memory.into(), vitals::memory().share())
            && is_near(heard.disk.into(), disk.used())
            && (f64::from(heard.requests_per_s) / now.requests - 1.0).abs() < 0.1
            && now.errors > 0.03
            && now.cache_hits > 0.5
    })
    .await;
    let shown = status_of(&all[1]).await;
    let members = shown["members"].as_array().unwrap();
    let shown = &members.iter().find(|member| member["node_id"] == "n2").unwrap()["report"];
    assert_eq!(shown["disk_full"], true);
    let number = |name: &str| shown[name].as_f64().unwrap();
    assert!(is_near(number("error_rate"), measured.errors), "{shown}");
    assert!(is_near(number("cache_hit_rate"), measured.cache_hits), "{shown}");
    assert!(is_near(number("memory"), last.memory.into()), "{shown}");
    assert!(is_near(number("disk"), last.disk.into()), "{shown}");
    let is_like = |shown: f64, heard: f32| (shown / f64::from(heard) - 1.0).abs() < 0.3;
    assert!(
        is_like(number("requests_per_s"), last.requests_per_s),
        "{shown} of {last:?}"
    );
    assert!(is_like(number("cpu"), last.cpu), "{shown} of {last:?}");
    all[0].reloader().reload(&config);
    eventually("and that it is not any more", async || !heard().is_disk_full).await;
    stop(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_leaves_is_known_to_have_left_and_keys_are_copied_to_whom_only_the_gossip_knows() {
    let dir = tempfile::tempdir().unwrap();
    let [n2, n3, n4] = three(dir.path(), |_| {}).await;
    client(n2.address()).write(write("k", b"v", &[("a", 1)])).await.unwrap();
    let order = pb::ReplicateRequest {
        tenant_id: "tenant".into(),
        target_node_id: "n4".into(),
        ..pb::ReplicateRequest::default()
    };
    let copied = client(n2.address()).replicate_data(order).await.unwrap().into_inner();
    assert_eq!(copied.keys_replicated, 1);
    let found = client(n4.address()).read(read("k")).await.unwrap().into_inner();
    assert_eq!(found.value, b"v");
    n4.shutdown().await;
    // At once: nobody had to find out.
    for node in [&n2, &n3] {
        eventually("it is known to have left", async || {
            life(node, "n4") == Some(Life::Left)
        })
        .await;
    }
    assert_eq!(metrics(&n2).await["gossip_members_total"], 2.0);
    stop([n2, n3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_actor_comes_back_in_a_later_life_and_knows_whom_it_knew() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three(dir.path(), |config| config.supervisor.max_restarts = 1000).await;
    let [n2, n3, n4] = &nodes;
    for fault in [None, Some(Fault::Panic), Some(Fault::Error)] {
        let before = sees(n3, "n3").unwrap().identity.incarnation;
        match fault {
            None => assert!(n3.tree().kill("gossip")),
            Some(fault) => {
                let faults = &n3.requests().handles.faults;
                faults.inject(injection("gossip", MESSAGE, fault)).unwrap();
            }
        }
        eventually("the others know the later life", async || {
            [n2, n4].iter().all(|node| {
                let seen = sees(node, "n3").unwrap();
                seen.identity.incarnation > before && seen.life == Life::Alive
            })
        })
        .await;
        let members = n3.health().gossip.as_ref().unwrap().members();
        assert_eq!(members.iter().filter(|seen| seen.heard.is_some()).count(), 3);
    }
    assert_eq!(
        at(n3),
        sees(n2, "n3").unwrap().identity.address,
        "the socket outlived it"
    );
    stop(nodes).await;
}

/// What a process is told so that it gossips as [`member`]s do.
fn environment(name: &str, place: u8, port: u16, seed: SocketAddr) -> Vec<(&'static str, String)> {
    vec![
        ("NODE_ID", name.to_owned()),
        ("PAIRDB__METRICS__ENABLED", "false".to_owned()),
        ("PAIRDB__GOSSIP__ENABLED", "true".to_owned()),
        ("PAIRDB__GOSSIP__BIND_HOST", format!("127.0.0.{place}")),
        ("PAIRDB__GOSSIP__BIND_PORT", port.to_string()),
        ("PAIRDB__GOSSIP__SEED_NODES", seed.to_string()),
        ("PAIRDB__GOSSIP__GOSSIP_INTERVAL", "200ms".to_owned()),
        ("PAIRDB__GOSSIP__PROBE_INTERVAL", "200ms".to_owned()),
        ("PAIRDB__GOSSIP__PROBE_TIMEOUT", "100ms".to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_is_dead_and_back_with_its_data_also_elsewhere_and_one_that_is_stopped_returns() {
    let dir = tempfile::tempdir().unwrap();
    let all = three(dir.path(), |_| {}).await;
    let (port, seed) = (free_port(), at(&all[0]));
    let start = |place: u8| {
        let environment = environment("n5", place, port, seed);
        let environment: Vec<_> = environment.iter().map(|(key, value)| (*key, value.as_str())).collect();
        Process::start_at(&dir.path().join("n5"), &format!("127.0.0.{place}:{port}"), &environment)
    };
    std::fs::create_dir_all(dir.path().join("n5")).unwrap();
    let mut process = start(5);
    all_see(&all, 4).await;
    client(&process.addr)
        .write(write("kept", b"v", &[("a", 1)]))
        .await
        .unwrap();
    let first = sees(&all[1], "n5").unwrap().identity;
    process.kill();
    eventually("its death is known", async || {
        all.iter().all(|node| life(node, "n5") == Some(Life::Down))
    })
    .await;
    let down = async || metrics(&all[0]).await["gossip_members_down"];
    eventually("it is counted", async || down().await == 1.0).await;
    // The same data at another address.
    let mut process = start(6);
    eventually("its later life is known, and where it is", async || {
        all.iter().all(|node| {
            let seen = sees(node, "n5").unwrap();
            let address = seen.heard.map(|heard| heard.record.address().to_string());
            seen.life == Life::Alive
                && seen.identity.incarnation > first.incarnation
                && seen.identity.address.to_string() == format!("127.0.0.6:{port}")
                && address == Some(process.addr.clone())
        })
    })
    .await;
    assert_eq!(
        client(&process.addr)
            .read(read("kept"))
            .await
            .unwrap()
            .into_inner()
            .value,
        b"v"
    );
    eventually("it is counted no more", async || down().await == 0.0).await;
    // One that does not answer, and does not know it.
    process.signal(Signal::STOP);
    eventually("it is taken for dead", async || {
        all.iter().all(|node| life(node, "n5") == Some(Life::Down))
    })
    .await;
    process.signal(Signal::CONT);
    eventually("it is back", async || {
        all.iter().all(|node| life(node, "n5") == Some(Life::Alive))
    })
    .await;
    assert_eq!(process.terminate(), Some(0));
    eventually("it left", async || {
        all.iter().all(|node| life(node, "n5") == Some(Life::Left))
    })
    .await;
    stop(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hears_nothing_is_dead_to_the_others_and_back_when_it_hears_again() {
    let dir = tempfile::tempdir().unwrap();
    let all = three(dir.path(), breakable).await;
    let faults = &all[2].requests().handles.faults;
    let deaf = Injection {
        times: 0,
        ..injection("gossip", MESSAGE, Fault::Drop)
    };
    let deaf = faults.inject(deaf).unwrap();
    eventually("both sides take each other for dead", async || {
        life(&all[0], "n4") == Some(Life::Down)
            && life(&all[1], "n4") == Some(Life::Down)
            && ["n2", "n3"]
                .iter()
                .all(|other| life(&all[2], other) == Some(Life::Down))
    })
    .await;
    let there = |node: &Node| node.health().gossip.as_ref().unwrap().counted().there;
    assert_eq!((there(&all[0]), there(&all[2])), (2, 1));
    assert_eq!(faults.clear(Some(deaf)), 1);
    all_see(&all, 3).await;
    stop(all).await;
}

fn refused(node: &Node) -> std::collections::BTreeMap<&'static str, u64> {
    let gossip = node.health().gossip.as_ref().unwrap();
    gossip
        .counts
        .refused()
        .map(|(why, count)| (why.as_str(), count))
        .collect()
}

/// Packets that change nothing: garbage, some of which looks like ours; and each of `real` as it is, and with a wrong tag.
fn flood(to: SocketAddr, real: Vec<Vec<u8>>, is_over: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.8:0").unwrap();
        let mut n = 0_usize;
        while !is_over.load(Ordering::Relaxed) {
            // A few thousand a second: more would leave a small machine nothing for the nodes.
            std::thread::sleep(Duration::from_millis(2));
            for _ in 0..8 {
                n += 1;
                let mut packet: Vec<u8> = (0..n % 1500).map(|at| (n * 31 + at * 7) as u8).collect();
                if n.is_multiple_of(2) {
                    packet.splice(0..packet.len().min(3), *b"PG\x01");
                }
                // What does not fit into the socket's queue is lost, as it is for all.
                let _ = socket.send_to(&packet, to);
                let mut packet = real[n % real.len()].clone();
                let _ = socket.send_to(&packet, to);
                // Behind the mark and the key's id.
                packet[7 + n % 16] ^= 1;
                let _ = socket.send_to(&packet, to);
            }
        }
    })
}

/// What arrives next, taken as somebody would who hears the network.
async fn overheard(ear: &UdpSocket) -> Vec<u8> {
    let ear = ear.try_clone().unwrap();
    let heard = tokio::task::spawn_blocking(move || {
        let mut buffer = [0; 2000];
        let (length, _) = ear.recv_from(&mut buffer).unwrap();
        buffer[..length].to_vec()
    });
    heard.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_garbage_floods_and_replays_are_counted_and_change_nothing() {
    // Long enough that a busy machine raises no suspicion by itself.
    let probe = Duration::from_millis(600);
    let slowly = |config: &mut Config| {
        (config.gossip.probe_interval, config.gossip.probe_timeout) = (probe, probe * 2 / 3);
    };
    let dir = tempfile::tempdir().unwrap();
    let all = three(dir.path(), slowly).await;
    let to = at(&all[0]);
    // A node of another cluster, which has the first as its seed.
    let mut other = member(dir.path(), "n9", 9, &[to]);
    other.gossip.cluster_name = "another".to_owned();
    let other = start(&other).await;
    // What a member really says, in an earlier life and in its present one.
    let ear = UdpSocket::bind("127.0.0.7:0").unwrap();
    ear.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut overheard_node = member(dir.path(), "n6", 6, &[ear.local_addr().unwrap(), to]);
    slowly(&mut overheard_node);
    let fourth = start(&overheard_node).await;
    let earlier = overheard(&ear).await;
    eventually("the fourth is a member", async || {
        life(&all[0], "n6") == Some(Life::Alive)
    })
    .await;
    fourth.shutdown().await;
    ear.set_nonblocking(true).unwrap();
    while ear.recv_from(&mut [0; 2000]).is_ok() {}
    ear.set_nonblocking(false).unwrap();
    let fourth = start(&overheard_node).await;
    let present = overheard(&ear).await;
    let incarnation = sees(&fourth, "n6").unwrap().identity.incarnation;
    eventually("its later life is known", async || {
        all.iter().all(|node| {
            let seen = sees(node, "n6").unwrap();
            seen.identity.incarnation == incarnation && seen.life == Life::Alive
        })
    })
    .await;
    let lives = |node: &Node| -> Vec<_> {
        let members = node.health().gossip.as_ref().unwrap().members();
        members.iter().map(|seen| (seen.identity.clone(), seen.life)).collect()
    };
    let before: Vec<_> = all.iter().map(lives).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let (flooding, begun) = (flood(to, vec![earlier, present], Arc::clone(&is_over)), Instant::now());
    let unchanged = || {
        let now: Vec<_> = all.iter().map(lives).collect();
        assert_eq!(now, before, "after {:?}", begun.elapsed());
    };
    let reasons = ["malformed", "unknown_key", "forged", "replayed", "superseded"];
    let counted_before = refused(&all[0]);
    eventually("all of the flood is counted", async || {
        unchanged();
        let counted = refused(&all[0]);
        reasons.iter().all(|why| counted[why] > counted_before[why] + 50)
    })
    .await;
    all[1].requests().drain.begin().await.unwrap();
    eventually("what is news arrives meanwhile", async || {
        unchanged();
        [&all[0], &all[2]].iter().all(|node| {
            let heard = sees(node, "n3").unwrap().heard.unwrap();
            heard.record.report.is_draining
        })
    })
    .await;
    eventually("the flood lasts for twenty probes", async || {
        unchanged();
        begun.elapsed() > 20 * probe
    })
    .await;
    // Past what it can take packets are refused, and it goes on with those that it took: they say nothing.
    let (requests, gossip) = (all[0].requests(), all[0].health().gossip.as_ref().unwrap());
    let stall = injection("gossip", MESSAGE, Fault::Stall(Duration::from_secs(2)));
    requests.handles.faults.inject(stall).unwrap();
    eventually("it stalls", async || requests.handles.faults.armed().is_empty()).await;
    while gossip.mailbox.send(GossipMessage::Received(Vec::new()), 0).is_ok() {}
    let reasons = ["full", "undecodable"];
    eventually("both are counted", async || {
        let counted = refused(&all[0]);
        reasons.iter().all(|why| counted[why] > counted_before[why])
    })
    .await;
    all_see(&all, 4).await;
    is_over.store(true, Ordering::Relaxed);
    flooding.join().unwrap();
    let shown = metrics(&all[0]).await;
    assert!(shown["gossip_refused_total{reason=\"forged\"}"] >= 50.0);
    assert_eq!(shown["gossip_members_total"], 4.0, "the stranger is none");
    assert!(life(&all[0], "n9").is_none() && life(&other, "n2").is_none());
    stop(all).await;
    stop([other, fourth]).await;
}

#[test]
fn every_reason_why_a_packet_is_refused_is_explained() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/observability/README.md")).unwrap();
    let (_, section) = text.split_once("### PairdbGossipRefused").unwrap();
    let (section, _) = section.split_once("###").unwrap();
    for why in Refused::ALL {
        assert!(section.contains(&format!("`{}`", why.as_str())), "{}", why.as_str());
    }
}

fn keys(path: &PathBuf, keys: &[u8]) {
    let line = |key: &u8| base64::engine::general_purpose::STANDARD.encode([*key; 32]);
    let lines: Vec<_> = keys.iter().map(line).collect();
    let aside = path.with_extension("new");
    std::fs::write(&aside, lines.join("\n")).unwrap();
    std::fs::rename(aside, path).unwrap();
}

/// What a node shows over HTTP.
async fn status_of(node: &Node) -> Value {
    let address = node.metrics_address().unwrap();
    let (_, body) = tokio::task::spawn_blocking(move || ask(address, "/status"))
        .await
        .unwrap();
    serde_json::from_str(&body).unwrap()
}

/// What stands in the status of the keys.
async fn said_of_keys(node: &Node) -> Vec<String> {
    let said = status_of(node).await;
    let ids = said["gossip_keys"].as_array().unwrap().iter();
    ids.map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// As the runbook has it: the first four bytes of the SHA-256 of a text and the key.
fn key_id(key: u8) -> String {
    let hash = Sha256::digest([&b"id of a gossip key"[..], &[key; 32]].concat());
    hash[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_changed_while_the_nodes_run_and_whoever_has_none_is_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(format!("{name}.keys"));
    for name in ["n2", "n3", "n4"] {
        keys(&file(name), &[1]);
    }
    let keyed = |config: &mut Config| config.gossip.key_file = Some(file(&config.server.node_id));
    let all = three(dir.path(), keyed).await;
    let before: Vec<_> = all
        .iter()
        .map(|node| sees(&all[0], &node.health().node_id).unwrap().identity)
        .collect();
    let gossip = |node: &Node| Arc::clone(node.health().gossip.as_ref().unwrap());
    for step in [&[1, 2][..], &[2, 1], &[2]] {
        for (node, name) in all.iter().zip(["n2", "n3", "n4"]) {
            let known = gossip(node).keys();
            keys(&file(name), step);
            eventually("the keys are read", async || !gossip(node).keys().are(&known)).await;
        }
        for node in &all {
            let ids: Vec<_> = step.iter().map(|key| key_id(*key)).collect();
            assert_eq!(
                said_of_keys(node).await,
                ids,
                "the status names them, the signing one first"
            );
        }
    }
    let after: Vec<_> = all
        .iter()
        .map(|node| sees(&all[0], &node.health().node_id).unwrap().identity)
        .collect();
    assert_eq!(before, after, "nobody was lost on the way");
    assert_eq!(all.iter().map(|node| refused(node)["unknown_key"]).sum::<u64>(), 0);
    // Who has the old key alone, or none, is not let in.
    let mut old = member(dir.path(), "n5", 5, &[at(&all[0])]);
    old.gossip.key_file = Some(file("old"));
    keys(&file("old"), &[1]);
    let old = start(&old).await;
    let none = start(&member(dir.path(), "n6", 6, &[at(&all[0])])).await;
    eventually("both are refused", async || refused(&all[0])["unknown_key"] >= 6).await;
    assert!(life(&all[0], "n5").is_none() && life(&all[0], "n6").is_none());
    // A file that is no good any more is told, and changes nothing.
    std::fs::write(file("n2"), "no key").unwrap();
    eventually("the bad file is told", async || {
        let (status, reasons) = all[0].health().status();
        status == Status::Degraded && reasons.iter().any(|reason| reason.contains("line 1 is no key"))
    })
    .await;
    keys(&file("n2"), &[2]);
    eventually("and the good one is", async || {
        all[0].health().status().0 == Status::Healthy
    })
    .await;
    all_see(&all, 3).await;
    stop(all).await;
    stop([old, none]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_comes_later_is_found_and_a_node_that_listens_everywhere_says_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut early = member(dir.path(), "n2", 2, &[]);
    early.gossip.seed_nodes = vec![format!("localhost:{port}")];
    let early = start(&early).await;
    eventually("it has called, and nobody answered", async || {
        metrics(&early).await["gossip_messages_total{type=\"sent\"}"] > 2.0
    })
    .await;
    assert_eq!(early.health().gossip.as_ref().unwrap().counted().there, 1);
    let mut late = member(dir.path(), "n1", 1, &[]);
    late.gossip.bind_host = Some("0.0.0.0".to_owned());
    late.gossip.bind_port = port;
    late.server.advertise_host = Some("localhost".to_owned());
    let alone = async |node: &Node| {
        let (_, reasons) = node.health().status();
        reasons.iter().any(|reason| reason.contains("alone since"))
    };
    eventually("it says that it is alone", async || alone(&early).await).await;
    let late = start(&late).await;
    let all = [early, late];
    all_see(&all, 2).await;
    eventually("it is not any more", async || !alone(&all[0]).await).await;
    let seen = sees(&all[0], "n1").unwrap();
    assert_eq!(seen.identity.address.to_string(), format!("127.0.0.1:{port}"));
    let address = seen.heard.unwrap().record.address();
    assert_eq!(
        (&address.host[..], address.port),
        ("localhost", all[1].address().port())
    );
    stop(all).await;
}

/// A name service that says what the test wants, of any name that is not an address already.
#[derive(Clone, Default)]
struct Says(Arc<Mutex<Option<SocketAddr>>>);

impl Says {
    fn set(&self, address: SocketAddr) {
        *self.0.lock() = Some(address);
    }

    async fn start(&self, config: &Config) -> Node {
        let said = Arc::clone(&self.0);
        let find = move |name: &str| {
            let at = name.parse().ok().or(*said.lock());
            at.map(|at| vec![at]).ok_or(std::io::ErrorKind::NotFound.into())
        };
        let machine = Machine {
            name_service: NameService::new(find),
            ..Machine::real(Arc::new(RealFs))
        };
        Node::start_on(config, machine).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_gets_an_address_or_another_one_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let says = Says::default();
    let mut config = member(dir.path(), "n2", 2, &[]);
    config.gossip.seed_nodes = vec!["seed.test:1".to_owned()];
    let node = says.start(&config).await;
    let there = || node.health().gossip.as_ref().unwrap().counted().there;
    let sent = async || metrics(&node).await["gossip_messages_total{type=\"sent\"}"];
    assert_eq!(sent().await, 0.0, "there is nobody to call");
    // Where the seed is, nobody is yet.
    let ear = UdpSocket::bind("127.0.0.7:0").unwrap();
    says.set(ear.local_addr().unwrap());
    eventually("it calls where the name is now", async || sent().await > 2.0).await;
    ear.set_read_timeout(Some(PATIENCE)).unwrap();
    overheard(&ear).await;
    assert_eq!(there(), 1);
    let seed = start(&member(dir.path(), "n3", 3, &[])).await;
    says.set(at(&seed));
    let all = [node, seed];
    all_see(&all, 2).await;
    stop(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_own_name_moves_is_known_at_its_new_address() {
    let dir = tempfile::tempdir().unwrap();
    let seed = start(&member(dir.path(), "n3", 3, &[])).await;
    let says = Says::default();
    let mut config = member(dir.path(), "n2", 2, &[at(&seed)]);
    config.gossip.bind_host = Some("0.0.0.0".to_owned());
    config.gossip.bind_port = free_port();
    config.server.advertise_host = Some("own.test".to_owned());
    let own = |place: u8| SocketAddr::from(([127, 0, 0, place], config.gossip.bind_port));
    let node = says.start(&config).await;
    eventually("it says that it does not know where it is", async || {
        let (_, reasons) = node.health().status();
        reasons.iter().any(|reason| reason.contains("own.test"))
    })
    .await;
    for place in [2, 4] {
        says.set(own(place));
        eventually("the other knows where it is", async || {
            sees(&seed, "n2").is_some_and(|seen| seen.identity.address == own(place) && seen.life == Life::Alive)
        })
        .await;
    }
    stop([node, seed]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_name_is_at_an_address_that_nobody_else_reaches_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = member(dir.path(), "n1", 1, &["192.0.2.1:7946".parse().unwrap()]);
    config.gossip.bind_host = Some("0.0.0.0".to_owned());
    config.server.advertise_host = Some("localhost".to_owned());
    let node = start(&config).await;
    eventually("it says so", async || {
        let (status, reasons) = node.health().status();
        status == Status::Degraded
            && reasons
                .iter()
                .any(|reason| reason.contains("only this machine reaches"))
    })
    .await;
    stop([node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_one_id_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let all = three(dir.path(), |_| {}).await;
    let mut twin = member(&dir.path().join("twin"), "n4", 5, &[at(&all[0]), at(&all[2])]);
    twin.server.node_id = "n4".to_owned();
    let twin = start(&twin).await;
    eventually("one of the two says so", async || {
        [&all[2], &twin].iter().any(|node| {
            let (_, reasons) = node.health().status();
            reasons
                .iter()
                .any(|reason| reason.contains("server.node_id = n4 must be unique"))
        })
    })
    .await;
    eventually("its packets are counted", async || {
        [&all[2], &twin].iter().any(|node| refused(node)["own_id"] > 0)
    })
    .await;
    stop(all).await;
    stop([twin]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_and_keys_that_cannot_be_read_are_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.2:0").unwrap();
    let mut config = member(dir.path(), "n2", 2, &[]);
    config.gossip.bind_port = taken.local_addr().unwrap().port();
    let refused = async |config: &Config| match Node::start(config, Arc::new(RealFs)).await {
        Err(error) => error,
        Ok(_) => panic!("it starts"),
    };
    let error = refused(&config).await;
    assert!(matches!(error, NodeError::Listen { .. }), "{error}");
    assert!(error.to_string().contains("UDP"), "{error}");
    config.gossip.bind_port = 0;
    config.gossip.key_file = Some(dir.path().join("missing"));
    let error = refused(&config).await.to_string();
    assert!(
        error.contains("gossip.key_file") && error.contains("missing"),
        "{error}"
    );
    // A check of the configuration says the same, and nothing without gossip.
    let check = |enabled: &str| {
        let mut check = binary(&["config", "check"]);
        check.env("PAIRDB__GOSSIP__ENABLED", enabled);
        check.env("PAIRDB__GOSSIP__KEY_FILE", dir.path().join("missing"));
        let checked = check.output().unwrap();
        (checked.status.code(), String::from_utf8(checked.stderr).unwrap())
    };
    let (code, told) = check("true");
    assert!(code == Some(1) && told.contains("gossip.key_file"), "{code:?} {told}");
    assert_eq!(check("false").0, Some(0));
    keys(&dir.path().join("missing"), &[1]);
    assert_eq!(check("true").0, Some(0));
    config.gossip.key_file = None;
    start(&config).await.shutdown().await;
}

#[test]
fn nodes_on_a_network_of_their_own_survive_its_cuts() {
    // In a namespace that ends with the command, and one with a name: what tests/namespaces needs.
    let name = format!("pdbtry{}", std::process::id());
    let probes = [
        "test $(id -u) = 0".to_owned(),
        "python3 --version".to_owned(),
        "unshare --net sh -c 'ip link add try0 type veth peer name try1 && ip link add try2 type bridge'".to_owned(),
        format!("ip netns add {name} && ip netns exec {name} true && ip netns delete {name}"),
    ];
    script::run_where(&probes, "tests/namespaces/run.sh");
}
