//! The node that is broken: one that runs, or one of its own that is started for it, with another beside it.
//!
//! Owns: those processes and their directory. Does not own: what is done to its actors.

use crate::cli::Failure;
use crate::cli::client::{Client, explain};
use crate::rpc::pb;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tonic::Code;

/// Longest time until it answers, and until it does what it is asked between its actors' ends.
const WITHIN: Duration = Duration::from_secs(60);
/// Between two times that it is asked for the same.
const PAUSE: Duration = Duration::from_millis(10);
/// The ids of the node and of the one beside it.
const NODE: &str = "chaos";
const OTHER: &str = "chaos-other";

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    calls: u16,
    admin: u16,
    gossip: u16,
}

impl Ports {
    fn free() -> Result<Self, Failure> {
        let tcp = || TcpListener::bind("127.0.0.1:0")?.local_addr();
        Ok(Self {
            calls: tcp()?.port(),
            admin: tcp()?.port(),
            gossip: UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port(),
        })
    }
}

/// A node of its own, with all kinds of actors: it gossips with another, to which it can hand keys over, and looks for a
/// coordinator that there is none of. Both end, and their data go, when this is dropped.
pub(super) struct OwnNode {
    dir: PathBuf,
    ports: Ports,
    process: Child,
    other: Ports,
    _other: Child,
}

fn serve(dir: &Path, id: &str, ports: Ports, seed: u16) -> Result<Child, Failure> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join(format!("{id}.log")))?;
    let process = Command::new(std::env::current_exe()?)
        .arg("serve")
        .arg("--data-dir")
        .arg(dir.join(id))
        .args(["--listen", &format!("127.0.0.1:{}", ports.calls)])
        .env("NODE_ID", id)
        .env("PAIRDB__ADMIN__FAULT_INJECTION", "true")
        .env("PAIRDB__ADMIN__PORT", ports.admin.to_string())
        // So many ends in so short a time are wanted here.
        .env("PAIRDB__SUPERVISOR__MAX_RESTARTS", "100000")
        // So small that the log, the memtables, the tables and the cache are at work all the time, and ends meet them there.
        .env("PAIRDB__COMMIT_LOG__SEGMENT_SIZE", "4MiB")
        .env("PAIRDB__MEM_TABLE__FLUSH_THRESHOLD", "1MiB")
        .env("PAIRDB__COMPACTION__L0_TRIGGER", "2")
        .env("PAIRDB__CACHE__MAX_SIZE", "16KiB")
        .env("PAIRDB__LOGGING__LEVEL", "error")
        .env("PAIRDB__METRICS__ENABLED", "false")
        .env("PAIRDB__GOSSIP__ENABLED", "true")
        .env("PAIRDB__GOSSIP__BIND_PORT", ports.gossip.to_string())
        .env("PAIRDB__GOSSIP__SEED_NODES", format!("127.0.0.1:{seed}"))
        .env("PAIRDB__COORDINATOR__ENABLED", "true")
        // Nobody listens there.
        .env("PAIRDB__COORDINATOR__PORT", "1")
        .env("PAIRDB__COORDINATOR__TRIES", "1000000")
        .env("PAIRDB__COORDINATOR__INTERVAL", "1s")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    Ok(process)
}

impl OwnNode {
    pub(super) async fn start() -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("pairdb-chaos-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let (ports, other) = (Ports::free()?, Ports::free()?);
        let mut node = Self {
            process: serve(&dir, NODE, ports, other.gossip)?,
            _other: serve(&dir, OTHER, other, ports.gossip)?,
            dir,
            ports,
            other,
        };
        node.wait().await?;
        Ok(node)
    }

    pub(super) fn addr(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.calls)
    }

    pub(super) fn admin_addr(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.admin)
    }

    /// Kills the process as it stands.
    pub(super) async fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.process.kill().await?)
    }

    /// Starts it again.
    pub(super) async fn start_again(&mut self) -> Result<(), Failure> {
        self.process = serve(&self.dir, NODE, self.ports, self.other.gossip)?;
        self.wait().await
    }

    /// Has the node hand all keys over to the one beside it.
    pub(super) async fn start_stream(&self, client: &mut Client) -> Result<(), Failure> {
        let order = pb::StartStreamingRequest {
            source_node_id: NODE.to_owned(),
            target_node_id: OTHER.to_owned(),
            target_host: "127.0.0.1".to_owned(),
            target_port: self.other.calls.into(),
            key_ranges: vec![pb::StreamKeyRange {
                start_hash: 0,
                end_hash: 0,
            }],
        };
        until_taken(async || client.start_streaming(order.clone()).await.map(|_answer| ())).await
    }

    /// Has it end that.
    pub(super) async fn stop_stream(&self, client: &mut Client) -> Result<(), Failure> {
        let order = pb::StopStreamingRequest {
            source_node_id: NODE.to_owned(),
            target_node_id: OTHER.to_owned(),
        };
        until_taken(async || client.stop_streaming(order.clone()).await.map(|_answer| ())).await
    }

    /// Until it takes calls, and faults.
    async fn wait(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        for port in [self.ports.calls, self.ports.admin, self.other.calls] {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                if let Some(status) = self.process.try_wait()? {
                    let said = std::fs::read_to_string(self.dir.join(format!("{NODE}.log"))).unwrap_or_default();
                    return Err(format!("the node ended ({status}): {said}").into());
                }
                if begun.elapsed() > WITHIN {
                    return Err("the node does not answer".into());
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}

/// What a node has done since its start.
pub(super) struct Works {
    pub(super) flushes: u64,
    pub(super) compactions: u64,
}

/// Asks a node for what it has done.
pub(super) async fn works(client: &mut Client) -> Result<Works, Failure> {
    let answer = until_taken(async || client.health_check(pb::HealthCheckRequest {}).await).await?;
    let metrics = answer.into_inner().metrics;
    let number = |name: &str| {
        let told = metrics.get(name).and_then(|number| number.parse().ok());
        told.ok_or_else(|| format!("the node does not tell its {name}"))
    };
    Ok(Works {
        flushes: number("memtable_flushes")?,
        compactions: number("compaction_jobs_completed")?,
    })
}

/// Asks until it is taken: an actor that this concerns may just have ended.
async fn until_taken<T>(mut ask: impl AsyncFnMut() -> Result<T, tonic::Status>) -> Result<T, Failure> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(status) if status.code() == Code::Unavailable && begun.elapsed() < WITHIN => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(explain(&status)),
        }
    }
}

impl Drop for OwnNode {
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        // What is left of it is found in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
