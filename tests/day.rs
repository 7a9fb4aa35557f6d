//! A day of a cluster, from nothing: three nodes as processes come up and find each other, clients write all the while, one node is
//! killed and comes back, one is added, one is drained and removed, a backup is restored into a fresh node; and in the end
//! everything that was acknowledged is there.

mod common;
#[path = "common/coordinator.rs"]
mod coordinator;
#[path = "common/streaming.rs"]
mod streaming;

use common::*;
use coordinator::*;
use pairdb_node::storage::key::Key;
use pairdb_node::storage::ring;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use streaming::*;
use tokio::sync::RwLock;
use tokio::task::JoinHandle;
use tonic::Code;

/// How a node is started: its variables, and where it listens.
#[derive(Clone)]
struct Start {
    variables: BTreeMap<String, String>,
    listen: SocketAddr,
}

/// What the README says of three nodes: how they are started, and what is asked of them; with free ports in the place of those
/// that it names.
fn three_nodes_of_the_readme() -> [String; 2] {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Three nodes\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let mut ports = BTreeMap::new();
    let mut here = |block: &str| {
        let (block, _) = block.split_once("```").unwrap();
        let mut here = String::new();
        for part in block.split_inclusive(|c: char| !c.is_ascii_digit()) {
            let number = part.trim_end_matches(|c: char| !c.is_ascii_digit());
            let mut port = || ports.entry(number.to_owned()).or_insert_with(free_port).to_string();
            match number.len() {
                5 => here += &part.replace(number, &port()),
                _ => here += part,
            }
        }
        here
    };
    let blocks: Vec<_> = section.split("```sh\n").skip(1).map(&mut here).collect();
    blocks.try_into().expect("the README has two blocks of three nodes")
}

/// How the README starts three nodes.
fn three_by_the_readme() -> [Start; 3] {
    let [here, _] = three_nodes_of_the_readme();
    let variables = |words: &[&str]| -> BTreeMap<String, String> {
        let pairs = words.iter().map(|word| word.split_once('=').unwrap());
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let mut of_all = BTreeMap::new();
    let mut starts = Vec::new();
    for line in here.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.split(|word| *word == "pairdb-node").collect::<Vec<_>>()[..] {
            [own, ["serve", "--data-dir", _, "--listen", listen, "&"]] => {
                let mut variables = variables(own);
                variables.extend(of_all.clone());
                let listen = listen.parse().unwrap();
                starts.push(Start { variables, listen });
            }
            [["export", exported @ ..]] => of_all = variables(exported),
            [["unset", ..]] => {}
            _ => panic!("this test knows no such line of the README: {line}"),
        }
    }
    starts.try_into().map_err(|_| "the README starts three nodes").unwrap()
}

/// A node as a process, as a person would start it.
struct Host {
    id: String,
    dir: PathBuf,
    start: Start,
    process: Option<Process>,
}

impl Host {
    fn start(dir: &Path, start: Start) -> Self {
        let id = start.variables["NODE_ID"].clone();
        let dir = dir.join(&id);
        std::fs::create_dir_all(&dir).unwrap();
        let mut host = Self {
            id,
            dir,
            start,
            process: None,
        };
        host.begin();
        host
    }

    /// How another node is started beside this one.
    fn beside(&self, id: &str) -> Start {
        let mut start = self.start.clone();
        for (name, value) in [
            ("NODE_ID", id.to_owned()),
            ("PAIRDB__GOSSIP__BIND_PORT", free_port().to_string()),
            ("PAIRDB__METRICS__PORT", free_port().to_string()),
        ] {
            let before = start.variables.insert(name.to_owned(), value);
            assert!(before.is_some(), "the README does not say {name}");
        }
        start.listen.set_port(free_port());
        start
    }

    fn begin(&mut self) {
        // So that a day is short.
        let quick = [
            ("PAIRDB__MEM_TABLE__FLUSH_THRESHOLD", "256KiB"),
            ("PAIRDB__GOSSIP__GOSSIP_INTERVAL", "200ms"),
            ("PAIRDB__GOSSIP__PROBE_INTERVAL", "200ms"),
            ("PAIRDB__GOSSIP__PROBE_TIMEOUT", "100ms"),
        ];
        let variables = self.start.variables.iter();
        let variables = variables.map(|(name, value)| (name.as_str(), value.as_str()));
        let environment: Vec<_> = variables.chain(quick).collect();
        let listen = self.address().to_string();
        self.process = Some(Process::start_at(&self.dir, &listen, &environment));
    }

    fn address(&self) -> SocketAddr {
        self.start.listen
    }

    fn client(&self) -> Client {
        client(self.address())
    }

    fn data(&self) -> String {
        self.dir.join("data").to_str().unwrap().to_owned()
    }

    /// How the other nodes are, as this one sees it.
    fn members(&self) -> BTreeMap<String, String> {
        let status: Value = serde_json::from_str(&run(&["status", "--json", "--data-dir", &self.data()])).unwrap();
        let members = status["members"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        members
            .map(|member| (text(&member["node_id"]), text(&member["state"])))
            .collect()
    }
}

/// Runs a command of the node's, which must succeed; what it printed.
fn run(args: &[&str]) -> String {
    let output = binary(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until each of `hosts` sees all of them alive, and `gone` in that state.
async fn all_see(hosts: &[&Host], gone: Option<(&str, &str)>) {
    eventually("the nodes see each other", async || {
        hosts.iter().all(|host| {
            let members = host.members();
            let is = |id: &str, state: &str| members.get(id).is_some_and(|seen| seen == state);
            hosts.iter().all(|other| is(&other.id, "alive")) && gone.is_none_or(|(id, state)| is(id, state))
        })
    })
    .await;
}

/// Clients that write, each to the node that has the key.
struct Load {
    addresses: Addresses,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    writers: Vec<JoinHandle<BTreeMap<String, i64>>>,
}

impl Load {
    /// The numbers that are written begin with `first`.
    fn begin(addresses: Addresses, first: i64) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = |writer| {
            let (addresses, stop, written) = (Arc::clone(&addresses), Arc::clone(&stop), Arc::clone(&written));
            tokio::spawn(write_on((writer, first), addresses, stop, written, NODES_DIE))
        };
        Self {
            writers: (0..WRITERS).map(writer).collect(),
            addresses,
            stop,
            written,
        }
    }

    /// Waits until so many more writes are acknowledged.
    async fn goes_on(&self, more: u64) {
        let so_far = || self.written.load(Ordering::Relaxed);
        let enough = so_far() + more;
        eventually("clients write on", async || so_far() >= enough).await;
    }

    /// Has nodes hand over what changes hands, while clients write.
    async fn hand_over(&self, hosts: &[&Host], next: Ring) {
        let moves = self.addresses.read().await.0.moves(&next);
        let host = |id: &str| *hosts.iter().find(|host| host.id == id).unwrap();
        for ((old, new), ranges) in &moves {
            start_stream(&host(old).client(), new, host(new).address(), ranges).await;
        }
        for (old, new) in moves.keys() {
            completed(&host(old).client(), new).await;
        }
        self.addresses.write().await.0 = next;
        for (old, new) in moves.keys() {
            let said = stop_stream(&host(old).client(), new).await;
            assert!(!said.contains("not acknowledged"), "{said}");
        }
    }

    /// Ends it; the last that was acknowledged of each key.
    async fn end(self) -> BTreeMap<String, i64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut acknowledged = BTreeMap::new();
        for writer in self.writers {
            acknowledged.extend(writer.await.unwrap());
        }
        acknowledged
    }
}

#[test]
fn three_nodes_are_started_asked_and_stopped_as_the_readme_says() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pairdb-node"), bin.join("pairdb-node")).unwrap();
    let [start, ask] = three_nodes_of_the_readme();
    let script = format!(
        "trap 'kill $(jobs -p)' EXIT\n{start}\n\
         until pairdb-node status --data-dir three/a | grep -cE '^ +[abc] .* alive ' | grep -x 3; do sleep 0.2; done\n\
         set -e\n{ask}\nwait\ntrap - EXIT\necho all have stopped\n"
    );
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let ran = std::process::Command::new("timeout")
        .args(["120", "bash", "-c", &script])
        .current_dir(dir.path())
        .env("PATH", path)
        .stderr(log)
        .output()
        .unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(ran.status.success(), "{said}\n{log}");
    assert!(said.contains("hello") && said.contains("Members"), "{said}\n{log}");
    assert!(said.ends_with("all have stopped\n"), "{said}\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_lives_through_a_day_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [a, mut b, c] = three_by_the_readme().map(|start| Host::start(dir.path(), start));
    all_see(&[&a, &b, &c], None).await;

    assert_eq!([&a, &b, &c].map(|host| host.id.as_str()), ["a", "b", "c"]);
    let ring = Ring::default().with("a").with("b").with("c");
    let listening = [&a, &b, &c].map(|host| (host.id.clone(), host.address()));
    let addresses: Addresses = Arc::new(RwLock::new((ring.clone(), listening.into())));
    let load = Load::begin(Arc::clone(&addresses), 1);
    load.goes_on(1500).await;

    // One dies, and comes back.
    b.process.take().unwrap().kill();
    all_see(&[&a, &c], Some(("b", "down"))).await;
    b.begin();
    all_see(&[&a, &b, &c], None).await;
    load.goes_on(1500).await;

    // One is added.
    let d = Host::start(dir.path(), c.beside("d"));
    all_see(&[&a, &b, &c, &d], None).await;
    addresses.write().await.1.insert("d".to_owned(), d.address());
    let grown = ring.with("d");
    load.hand_over(&[&a, &b, &c, &d], grown.clone()).await;
    load.goes_on(1500).await;

    // One is drained, and removed.
    let shrunk = grown.without("a");
    load.hand_over(&[&a, &b, &c, &d], shrunk.clone()).await;
    let said = run(&["drain", "--data-dir", &a.data()]);
    assert!(said.contains("drained"), "{said}");
    let refused = a.client().write(write("late", b"v", &[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let mut a = a;
    assert_eq!(a.process.take().unwrap().terminate(), Some(0));
    all_see(&[&b, &c, &d], Some(("a", "left"))).await;
    load.goes_on(1500).await;
    let before = load.end().await;
    assert_eq!(before.len() as i64, WRITERS as i64 * KEYS_PER_WRITER);

    // All of a node goes into a backup while it is written to, and that into a fresh node.
    let latest = before.values().max().unwrap();
    let load = Load::begin(Arc::clone(&addresses), latest + 1);
    load.goes_on(200).await;
    let backups = dir.path().join("backups");
    let backups = backups.to_str().unwrap();
    run(&["backup", "--to", backups, "--data-dir", &c.data()]);
    load.goes_on(200).await;
    let fresh = dir.path().join("fresh");
    let data = fresh.join("data");
    run(&["restore", "--from", backups, "--data-dir", data.to_str().unwrap()]);
    let restored = Process::start(&fresh, free_port(), &[]);
    let of_c = before.iter().filter(|(key, _)| {
        let place = ring::place(&Key::new("tenant", key).unwrap());
        shrunk.owner(place) == "c"
    });
    let of_c: BTreeMap<String, i64> = of_c.map(|(key, number)| (key.clone(), *number)).collect();
    assert!(of_c.len() > 50, "{}", of_c.len());
    let alone = Ring::default().with("c");
    let listening = [("c".to_owned(), restored.addr.parse().unwrap())];
    check(&Arc::new(RwLock::new((alone, listening.into()))), &of_c).await;

    // And at its end all data are there, and whole.
    let mut acknowledged = before;
    acknowledged.extend(load.end().await);
    let owners = check(&addresses, &acknowledged).await;
    assert_eq!(owners.keys().collect::<Vec<_>>(), ["b", "c", "d"], "{owners:?}");
    for host in [&b, &c, &d] {
        let said = run(&["verify", "--data-dir", &host.data()]);
        assert!(said.contains("no damage"), "{said}");
    }
}
