//! Makes the load.

use super::report::Measured;
use super::{BenchArgs, Distribution, Workload};
use crate::cli::Failure;
use crate::cli::client::{Client, explain};
use crate::rpc::pb;
use crate::rpc::pb::operation_result::Result as Outcome;
use crate::storage::time::{RealTime, Time};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use rand_distr::{Distribution as _, Zipf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::Status;

const ZIPF_EXPONENT: f64 = 0.99;

/// Counter of the generator's own clock, so that each write supersedes the one before, as a coordinator's does. Starts
/// at the time, because a later run must supersede an earlier one.
static CLOCK: AtomicU64 = AtomicU64::new(0);

fn clock() -> pb::VectorClock {
    pb::VectorClock {
        entries: vec![pb::VectorClockEntry {
            coordinator_node_id: "bench".to_owned(),
            logical_timestamp: CLOCK.fetch_add(1, Ordering::Relaxed) as i64,
        }],
    }
}

#[derive(Clone)]
struct Generator {
    args: Arc<BenchArgs>,
    zipf: Option<Zipf<f64>>,
    value: Vec<u8>,
    random: SmallRng,
}

impl Generator {
    fn new(args: &BenchArgs) -> Result<Self, Failure> {
        CLOCK.fetch_max(RealTime::default().now_ms() << 20, Ordering::Relaxed);
        let zipf = match args.distribution {
            Distribution::Uniform => None,
            Distribution::Zipfian => Some(Zipf::new(args.keys as f64, ZIPF_EXPONENT)?),
        };
        let mut random = SmallRng::seed_from_u64(1);
        let mut value = vec![0; usize::try_from(args.value_size)?];
        random.fill_bytes(&mut value);
        Ok(Self {
            args: Arc::new(args.clone()),
            zipf,
            value,
            random,
        })
    }

    fn worker(&self, number: u64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(number),
            ..self.clone()
        }
    }

    fn key(&mut self) -> u64 {
        match &self.zipf {
            None => self.random.random_range(0..self.args.keys),
            Some(zipf) => (zipf.sample(&mut self.random) as u64).saturating_sub(1),
        }
    }

    fn write(&self, key: u64) -> pb::WriteRequest {
        pb::WriteRequest {
            tenant_id: self.args.tenant.clone(),
            key: format!("key{key:012}"),
            value: self.value.clone(),
            vector_clock: Some(clock()),
            ..pb::WriteRequest::default()
        }
    }

    fn read(&self, key: u64) -> pb::ReadRequest {
        pb::ReadRequest {
            tenant_id: self.args.tenant.clone(),
            key: format!("key{key:012}"),
        }
    }

    /// Sends a request, and waits for its answer. Returns what each operation of a batch was answered; nothing, when there
    /// was but one, and it succeeded.
    async fn request(&mut self, client: &mut Client) -> Result<Vec<pb::OperationResult>, Status> {
        let is_write = match self.args.workload {
            Workload::Write => true,
            Workload::Read => false,
            Workload::Mixed => self.random.random(),
        };
        if self.args.batch == 1 {
            let key = self.key();
            return if is_write {
                client.write(self.write(key)).await.map(|_answer| Vec::new())
            } else {
                client.read(self.read(key)).await.map(|_answer| Vec::new())
            };
        }
        let keys: Vec<u64> = (0..self.args.batch).map(|_| self.key()).collect();
        let answer = if is_write {
            let operations = keys.into_iter().map(|key| self.write(key)).collect();
            client.batch_write(pb::BatchWriteRequest { operations }).await
        } else {
            let operations = keys.into_iter().map(|key| self.read(key)).collect();
            client.batch_read(pb::BatchReadRequest { operations }).await
        };
        answer.map(|answer| answer.into_inner().results)
    }
}

fn failures(results: &[pb::OperationResult]) -> Vec<&pb::Failure> {
    let failure = |result| match result {
        &pb::OperationResult {
            result: Some(Outcome::Failure(ref failure)),
            ..
        } => Some(failure),
        _ => None,
    };
    results.iter().filter_map(failure).collect()
}

/// Writes every key once and reads it, so that what is measured is neither the first write nor the first read of it.
pub(super) async fn load(args: &BenchArgs, clients: &[Client]) -> Result<(), Failure> {
    let generator = Generator::new(args)?;
    let next = Arc::new(AtomicU64::new(0));
    let mut workers: JoinSet<Result<(), Status>> = JoinSet::new();
    for (_, client) in (0..args.concurrency).zip(clients.iter().cycle()) {
        let (mut client, generator, next) = (client.clone(), generator.clone(), Arc::clone(&next));
        workers.spawn(async move {
            loop {
                let key = next.fetch_add(1, Ordering::Relaxed);
                if key >= generator.args.keys {
                    return Ok(());
                }
                client.write(generator.write(key)).await?;
                client.read(generator.read(key)).await?;
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done?.map_err(|status| explain(&status))?;
    }
    Ok(())
}

/// Makes load for `duration` and measures it.
pub(super) async fn measure(args: &BenchArgs, clients: &[Client], duration: Duration) -> Result<Measured, Failure> {
    let generator = Generator::new(args)?;
    let mut workers: JoinSet<Result<Measured, Failure>> = JoinSet::new();
    let begun = Instant::now();
    let end = begun + duration;
    // At a fixed rate each worker sends its share, the workers spread evenly over one interval.
    let interval = args
        .rate
        .map(|rate| Duration::from_secs_f64(args.concurrency as f64 / rate as f64));
    for (number, client) in (0..args.concurrency).zip(clients.iter().cycle()) {
        let (mut client, mut generator) = (client.clone(), generator.worker(number));
        let mut due = begun
            + interval
                .unwrap_or_default()
                .mul_f64(number as f64 / args.concurrency as f64);
        workers.spawn(async move {
            let mut measured = Measured::new()?;
            loop {
                let start = match interval {
                    None => Instant::now(),
                    Some(interval) => {
                        tokio::time::sleep_until(due.into()).await;
                        let start = due;
                        due += interval;
                        start
                    }
                };
                if Instant::now() >= end {
                    return Ok(measured);
                }
                match generator.request(&mut client).await {
                    Ok(results) => {
                        let failures = failures(&results);
                        measured.record(start.elapsed(), generator.args.batch - failures.len() as u64);
                        for failure in failures {
                            measured.fail(failure.code.into(), &failure.message);
                        }
                    }
                    Err(status) => measured.fail(status.code(), status.message()),
                }
            }
        });
    }
    let mut total = Measured::new()?;
    while let Some(done) = workers.join_next().await {
        total.merge(done??)?;
    }
    total.elapsed = begun.elapsed();
    Ok(total)
}
