//! What the benches of load share: a node with processors of its own, and calls at a rate.
#![allow(dead_code, reason = "each bench uses a part")]

#[path = "../../tests/common/mod.rs"]
mod common;

pub use common::{Client, client, write};
use common::{Process, free_port};
use hdrhistogram::Histogram;
use pairdb_node::rpc::pb;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tonic::{Code, Request};

pub type Failure = Box<dyn Error + Send + Sync>;

/// Longest latency that is told apart, in microseconds.
const HIGHEST_US: u64 = 60_000_000;
/// Time between two looks which calls are due.
const TICK: Duration = Duration::from_millis(1);
/// An answer that took longer came too late.
pub const LATE: Duration = Duration::from_millis(500);

/// A running node in a directory of its own.
pub struct Node {
    pub process: Process,
    _dir: tempfile::TempDir,
}

/// The processors of nodes, and those of this process.
#[derive(Clone, Copy)]
struct Halves {
    node: CpuSet,
    own: CpuSet,
}

/// Halves what this process may use as it begins: once a node has been started, it has its own half alone.
fn halves() -> Result<Halves, Failure> {
    static HALVES: OnceLock<Halves> = OnceLock::new();
    if let Some(halves) = HALVES.get() {
        return Ok(*halves);
    }
    let all = sched_getaffinity(None)?;
    let mut numbers = (0..CpuSet::MAX_CPU).filter(|number| all.is_set(*number));
    let (mut node, mut own) = (CpuSet::new(), CpuSet::new());
    for number in numbers.by_ref().take(all.count() as usize / 2) {
        node.set(number);
    }
    numbers.for_each(|number| own.set(number));
    Ok(*HALVES.get_or_init(|| Halves { node, own }))
}

/// Starts a node on the first half of the processors, and keeps the other half for this process: so what the generator of
/// the load does takes nothing from the node. With one processor both share it.
pub fn start(environment: &[(&str, &str)]) -> Result<Node, Failure> {
    start_on(&halves()?.node, environment)
}

/// Starts a node on the processors of this process: one that stands for another machine, and takes nothing from the node
/// under measurement.
pub fn start_elsewhere(environment: &[(&str, &str)]) -> Result<Node, Failure> {
    start_on(&halves()?.own, environment)
}

fn start_on(processors: &CpuSet, environment: &[(&str, &str)]) -> Result<Node, Failure> {
    let dir = tempfile::tempdir()?;
    if processors.count() > 0 {
        sched_setaffinity(None, processors)?;
    }
    // Inherited.
    let process = Process::start(dir.path(), free_port(), environment);
    sched_setaffinity(None, &halves()?.own)?;
    Ok(Node { process, _dir: dir })
}

impl Node {
    /// Clients with a connection each.
    pub async fn clients(&self, connections: usize) -> Result<Vec<Client>, Failure> {
        let mut clients = Vec::new();
        for _ in 0..connections {
            let mut client = client(&self.process.addr);
            client.health_check(pb::HealthCheckRequest::default()).await?;
            clients.push(client);
        }
        Ok(clients)
    }
}

/// A clock that supersedes all that were handed out before, also by an earlier run.
pub fn clock() -> Option<pb::VectorClock> {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_micros() as i64);
    LAST.fetch_max(now, Ordering::Relaxed);
    let entries = vec![pb::VectorClockEntry {
        coordinator_node_id: "bench".to_owned(),
        logical_timestamp: LAST.fetch_add(1, Ordering::Relaxed),
    }];
    Some(pb::VectorClock { entries })
}

/// A request whose client waits for so long.
pub fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// What became of the calls.
pub struct Outcome {
    /// Operations that succeeded.
    pub operations: u64,
    /// Latencies of the calls that did, in microseconds.
    pub latencies: Histogram<u64>,
    /// Calls that did not, by status.
    pub failed: BTreeMap<String, u64>,
    /// Calls that were due, and not sent, because too many were under way.
    pub unsent: u64,
    /// How long calls were sent.
    pub time: Duration,
    /// Share of one processor that this process took meanwhile: near 1, the generator is what is measured.
    pub own_cpu: f64,
}

impl Outcome {
    fn new(time: Duration) -> Result<Self, Failure> {
        Ok(Self {
            operations: 0,
            latencies: Histogram::new_with_bounds(1, HIGHEST_US, 3)?,
            failed: BTreeMap::new(),
            unsent: 0,
            time,
            own_cpu: 0.0,
        })
    }

    fn add(&mut self, (latency, result): Ended) {
        match result {
            Ok(_) if latency > LATE => *self.failed.entry("late".to_owned()).or_default() += 1,
            Ok(operations) => {
                self.operations += operations;
                let us = u64::try_from(latency.as_micros()).unwrap_or(HIGHEST_US);
                self.latencies.saturating_record(us.max(1));
            }
            Err(code) => *self.failed.entry(format!("{code:?}")).or_default() += 1,
        }
    }

    /// Operations a second that succeeded.
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.time.as_secs_f64()
    }

    pub fn p99_ms(&self) -> f64 {
        self.latencies.value_at_quantile(0.99) as f64 / 1000.0
    }
}

/// Processor time that this process has taken.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

type Ended = (Duration, Result<u64, Code>);

/// Sends calls at `rate` a second, whatever becomes of them, but at most `most` at a time; what else is due is left out.
pub async fn offer<F>(
    clients: &[Client],
    rate: f64,
    time: Duration,
    most: usize,
    call: impl Fn(Client, u64) -> F,
) -> Result<Outcome, Failure>
where
    F: Future<Output = Result<u64, Code>> + Send + 'static,
{
    let mut outcome = Outcome::new(time)?;
    let cpu = cpu_time();
    let places = Arc::new(Semaphore::new(most));
    let (sender, mut ended) = mpsc::unbounded_channel();
    let mut ticks = tokio::time::interval(TICK);
    let (begun, mut sent) = (Instant::now(), 0_u64);
    while begun.elapsed() < time {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * rate) as u64;
        while sent < due {
            sent += 1;
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                outcome.unsent += 1;
                continue;
            };
            let client = clients[sent as usize % clients.len()].clone();
            let (work, sender) = (call(client, sent), sender.clone());
            tokio::spawn(async move {
                let start = Instant::now();
                let result = work.await;
                let _ = sender.send((start.elapsed(), result));
                drop(place);
            });
        }
        while let Ok(end) = ended.try_recv() {
            outcome.add(end);
        }
    }
    outcome.own_cpu = (cpu_time() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    drop(sender);
    while let Some(end) = ended.recv().await {
        outcome.add(end);
    }
    Ok(outcome)
}

/// Keeps so many calls under way.
pub async fn keep_busy<F>(
    clients: &[Client],
    under_way: usize,
    time: Duration,
    call: impl Fn(Client, u64) -> F + Clone + Send + 'static,
) -> Result<Outcome, Failure>
where
    F: Future<Output = Result<u64, Code>> + Send + 'static,
{
    let mut outcome = Outcome::new(time)?;
    let cpu = cpu_time();
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for (number, client) in (0..under_way as u64).zip(clients.iter().cycle()) {
        let (client, call) = (client.clone(), call.clone());
        workers.spawn(async move {
            let mut ends: Vec<Ended> = Vec::new();
            let mut n = number << 32;
            while begun.elapsed() < time {
                let start = Instant::now();
                n += 1;
                let result = call(client.clone(), n).await;
                ends.push((start.elapsed(), result));
            }
            ends
        });
    }
    while let Some(ends) = workers.join_next().await {
        ends?.into_iter().for_each(|end| outcome.add(end));
    }
    outcome.own_cpu = (cpu_time() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    Ok(outcome)
}

pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
