//! What a node gets done when it is asked for five times what it can do:
//! `cargo bench --bench overload -- [--batch N] [--rounds N] [--factor F] [--without-shedding]`.
//!
//! Node and generator have half of the processors each. In turns, 128 calls are kept under way (the peak), and calls are sent
//! at five times that rate, at most 4096 at a time, each of a client that waits for half a second. What is answered by then
//! counts. The median of the ratios must be 0.85 or more; otherwise the exit code is 1.
//!
//! A call is a batch of writes (100, unless told otherwise): no generator that has as many processors as the node can send
//! five times as many single writes as the node can answer.

mod load;

use load::{Client, Failure, LATE, Node, Outcome, clock, keep_busy, median, offer, start, within, write};
use pairdb_node::rpc::pb;
use pairdb_node::rpc::pb::operation_result::Result as OperationOutcome;
use std::process::ExitCode;
use std::time::Duration;
use tonic::Code;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 20_000;
const CONNECTIONS: usize = 8;
const AT_PEAK: usize = 128;
const MOST_UNDER_WAY: usize = 4096;
const DEADLINE: Duration = LATE;
const PEAK_TIME: Duration = Duration::from_secs(3);
const OVERLOAD_TIME: Duration = Duration::from_secs(5);
const LEAST_RATIO: f64 = 0.85;

#[derive(Clone, Copy)]
struct Call {
    batch: u64,
}

impl Call {
    /// Sends one call. Returns how many of its operations succeeded; of a single one that fails, why.
    async fn send(self, mut client: Client, number: u64) -> Result<u64, Code> {
        let key = |n: u64| format!("key{:08}", (number.wrapping_mul(7919) + n * 31) % KEYS);
        let write = |n: u64| pb::WriteRequest {
            vector_clock: clock(),
            ..write(&key(n), &[7; 100], &[])
        };
        if self.batch == 1 {
            let answer = client.write(within(DEADLINE, write(0))).await;
            return answer.map(|_| 1).map_err(|status| status.code());
        }
        let operations = (0..self.batch).map(write).collect();
        let batch = within(DEADLINE, pb::BatchWriteRequest { operations });
        let answer = client.batch_write(batch).await.map_err(|status| status.code())?;
        let results = &answer.get_ref().results;
        let failure = |result: &pb::OperationResult| matches!(result.result, Some(OperationOutcome::Failure(_)));
        Ok((results.len() - results.iter().filter(|result| failure(result)).count()) as u64)
    }
}

fn tell(name: &str, outcome: &Outcome) {
    println!(
        "  {name:<9} {:>9.0} operations/s in time, p99 {:>6.1} ms, generator {:>3.0} % busy; failed: {:?}, not sent: {}",
        outcome.per_second(),
        outcome.p99_ms(),
        outcome.own_cpu * 100.0,
        outcome.failed,
        outcome.unsent
    );
}

async fn measure(node: &Node, call: Call, rounds: u32, factor: f64) -> Result<f64, Failure> {
    let clients = node.clients(CONNECTIONS).await?;
    let send = move |client, number| call.send(client, number);
    for n in 0..KEYS / 100 {
        let fill = Call { batch: 100 };
        fill.send(clients[0].clone(), n * 100)
            .await
            .map_err(|code| format!("{code:?}"))?;
    }
    keep_busy(&clients, AT_PEAK, PEAK_TIME / 3, send).await?;
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        let peak = keep_busy(&clients, AT_PEAK, PEAK_TIME, send).await?;
        tell("peak", &peak);
        let rate = factor * peak.per_second() / call.batch as f64;
        let overload = offer(&clients, rate, OVERLOAD_TIME, MOST_UNDER_WAY, send).await?;
        tell("overload", &overload);
        ratios.push(overload.per_second() / peak.per_second());
    }
    Ok(median(ratios))
}

fn main() -> Result<ExitCode, Failure> {
    let (mut batch, mut rounds, mut factor, mut without) = (100, 3, 5.0, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--batch" => batch = args.next().ok_or("--batch needs a number")?.parse()?,
            "--rounds" => rounds = args.next().ok_or("--rounds needs a number")?.parse()?,
            "--factor" => factor = args.next().ok_or("--factor needs a number")?.parse()?,
            "--without-shedding" => without = true,
            other => {
                return Err(
                    format!("{other}: there are --batch N, --rounds N, --factor F and --without-shedding").into(),
                );
            }
        }
    }
    let delay = if without { "0s" } else { "100ms" };
    let node = start(&[("PAIRDB__SERVER__MAX_QUEUE_DELAY", delay)])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ratio = runtime.block_on(measure(&node, Call { batch }, rounds, factor))?;
    println!("goodput at {factor} times the peak's load: {ratio:.2} of the peak (median; at least {LEAST_RATIO})");
    Ok(if ratio >= LEAST_RATIO {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
