//! What several test binaries share: nodes in this process, and nodes as processes.
#![allow(dead_code, reason = "each test binary uses a part")]

use pairdb_node::actors::faults::{Fault, Injection};
use pairdb_node::config::Config;
use pairdb_node::node::Node;
use pairdb_node::rpc::pb;
use pairdb_node::rpc::pb::storage_node_service_client::StorageNodeServiceClient;
use pairdb_node::storage::fs::{FileSystem, RealFs};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

pub type Client = StorageNodeServiceClient<Channel>;

/// How long a test waits for what must come: long, since it ends as soon as it came.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration for a node in `dir`, on a port that the system chooses.
pub fn config(dir: &Path) -> Config {
    let mut config = Config::default();
    config.server.port = 0;
    config.metrics.enabled = false;
    config.storage.data_dir = dir.join("data");
    // However slow the machine is on which the tests run.
    config.server.max_queue_delay = PATIENCE;
    // However full the disk is on which the tests run; above 90 % a node is degraded, and TMPDIR must name another.
    config.disk.warn_usage = 0.98;
    config.storage.max_disk_usage = 0.99;
    config.disk.stop_usage = 1.0;
    config
}

pub async fn start(config: &Config) -> Node {
    start_on(config, Arc::new(RealFs)).await
}

pub async fn start_on(config: &Config, fs: Arc<dyn FileSystem>) -> Node {
    Node::start(config, fs).await.expect("the node starts")
}

/// A client that connects when needed, and again after the node was away.
pub fn client(addr: impl std::fmt::Display) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    Client::new(endpoint.connect_lazy())
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX)
}

pub fn write(key: &str, value: &[u8], clock: &[(&str, i64)]) -> pb::WriteRequest {
    pb::WriteRequest {
        tenant_id: "tenant".to_owned(),
        key: key.to_owned(),
        value: value.to_vec(),
        vector_clock: wire_clock(clock),
        ..pb::WriteRequest::default()
    }
}

pub fn read(key: &str) -> pb::ReadRequest {
    pb::ReadRequest {
        tenant_id: "tenant".to_owned(),
        key: key.to_owned(),
    }
}

pub fn delete(key: &str, clock: &[(&str, i64)]) -> pb::DeleteRequest {
    pb::DeleteRequest {
        tenant_id: "tenant".to_owned(),
        key: key.to_owned(),
        vector_clock: wire_clock(clock),
        ..pb::DeleteRequest::default()
    }
}

pub fn wire_clock(clock: &[(&str, i64)]) -> Option<pb::VectorClock> {
    let entry = |(id, counter): &(&str, i64)| pb::VectorClockEntry {
        coordinator_node_id: (*id).to_owned(),
        logical_timestamp: *counter,
    };
    (!clock.is_empty()).then(|| pb::VectorClock {
        entries: clock.iter().map(entry).collect(),
    })
}

/// Lets faults be injected, also into what is below the node.
pub fn breakable(config: &mut Config) {
    config.admin.fault_injection = true;
    config.admin.port = 0;
}

/// What makes a fault happen once, at the next pass of a point.
pub fn injection(actor: &str, point: &str, fault: Fault) -> Injection {
    Injection {
        actor: actor.to_owned(),
        point: point.to_owned(),
        fault,
        after: 0,
        times: 1,
        one_in: 1,
        seed: 0,
    }
}

/// A key to which ascending numbers are written must hold none that is older than the last acknowledged, nor one that was never
/// tried. Says whether it was answered: it may be that it is not, while somebody is killed.
pub async fn holds_number(client: &mut Client, key: &str, (acknowledged, tried): (u64, u64)) -> bool {
    match client.read(read(key)).await {
        Ok(response) => {
            let value = String::from_utf8(response.into_inner().value).unwrap();
            let value: u64 = value.parse().unwrap();
            assert!(
                (acknowledged..=tried).contains(&value),
                "{key}: read {value}, tried {tried}, acknowledged {acknowledged}"
            );
        }
        Err(status) if status.code() == tonic::Code::NotFound => assert_eq!(acknowledged, 0, "{key} is lost"),
        Err(status) => {
            assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
            return false;
        }
    }
    true
}

/// Repeats `check` until it holds; fails the test when it does not within a minute.
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !check().await {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    // Below those that the system gives to connections, so that nobody has it when a node that was killed comes back.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 200) as u16 * 100;
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The node's binary with these arguments.
pub fn binary(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pairdb-node"));
    command.args(args);
    command
}

/// What a process holds in memory, without what it maps from files; [`None`] when it has ended.
fn anonymous_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// A node as a process of its own; killed when dropped.
pub struct Process {
    child: Child,
    pub addr: String,
    peak_memory: Arc<AtomicU64>,
}

impl Process {
    /// Starts a node on `port` with data in `dir`, and waits until it answers.
    pub fn start(dir: &Path, port: u16, environment: &[(&str, &str)]) -> Self {
        Self::start_at(dir, &format!("127.0.0.1:{port}"), environment)
    }

    /// As [`Process::start`], at any address of this machine.
    pub fn start_at(dir: &Path, addr: &str, environment: &[(&str, &str)]) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("node.log"))
            .unwrap();
        Self::start_logging_to(log.into(), dir, addr, environment)
    }

    /// As [`Process::start_at`], with its standard error elsewhere than in the file `node.log`.
    pub fn start_logging_to(log: Stdio, dir: &Path, addr: &str, environment: &[(&str, &str)]) -> Self {
        let (addr, data) = (addr.to_owned(), dir.join("data"));
        let child = binary(&["serve", "--data-dir", data.to_str().unwrap(), "--listen", &addr])
            .env("PAIRDB__DISK__WARN_USAGE", "0.98")
            .env("PAIRDB__STORAGE__MAX_DISK_USAGE", "0.99")
            .env("PAIRDB__SERVER__MAX_QUEUE_DELAY", "60s")
            .env("PAIRDB__DISK__STOP_USAGE", "1.0")
            .envs(environment.iter().copied())
            .stderr(log)
            .spawn()
            .unwrap();
        let peak_memory = Arc::new(AtomicU64::new(0));
        let (peak, pid) = (Arc::clone(&peak_memory), child.id());
        std::thread::spawn(move || {
            while let Some(bytes) = anonymous_memory(pid) {
                peak.fetch_max(bytes, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let mut process = Self {
            child,
            addr,
            peak_memory,
        };
        let begun = Instant::now();
        while std::net::TcpStream::connect(&process.addr).is_err() {
            let ended = process.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "the node ended: {}",
                std::fs::read_to_string(dir.join("node.log")).unwrap_or_default()
            );
            assert!(begun.elapsed() < PATIENCE, "the node does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        process
    }

    /// Stops it, as a machine that sleeps does, or has it go on.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The processor time that it has taken so far, to a hundredth of a second.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name, which may hold spaces: user and system time are the 12th and 13th.
        let (_, behind) = stat.rsplit_once(") ").unwrap();
        let ticks = behind
            .split(' ')
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap());
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// The most memory of its own, in bytes, that the process was seen to hold.
    pub fn peak_memory(&self) -> u64 {
        self.peak_memory.load(Ordering::Relaxed)
    }

    /// The exit code; [`None`] while it runs. A process that a signal ended has none, which fails the test.
    pub fn exit_code(&mut self) -> Option<i32> {
        let ended = self.child.try_wait().unwrap()?;
        Some(ended.code().expect("it ended by itself"))
    }

    /// Sends SIGTERM and waits for the end; returns the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
