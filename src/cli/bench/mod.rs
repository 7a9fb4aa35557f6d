//! `bench`: a load generator, and an empty handler to compare with.
//!
//! Owns: the order of a run (load, rounds, report). Does not own: how load is made ([`workload`]) or what an empty
//! handler is ([`baseline`]).

mod baseline;
mod report;
mod workload;

pub(super) use baseline::{BaselineServerArgs, serve as serve_baseline};

use super::client::{Client, connect};
use super::{Access, Failure};
use clap::{Args, ValueEnum};
use report::{Measured, Report};
use std::process::ExitCode;
use std::time::Duration;

/// Slices into which a comparison is cut: node and baseline take turns, so that both meet the machine's moods.
const ROUNDS: u32 = 5;

#[derive(Debug, Clone, Args)]
pub(super) struct BenchArgs {
    /// Address of the node
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50052")]
    addr: String,
    #[command(flatten)]
    access: Access,
    /// Tenant whose keys are written and read
    #[arg(long, value_name = "NAME", default_value = "bench")]
    tenant: String,
    /// What to do; mixed is half reads, half writes
    #[arg(long, value_enum, default_value_t = Workload::Mixed)]
    workload: Workload,
    /// Number of keys
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of a value
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_485_760))]
    value_size: u64,
    /// Requests in flight
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    concurrency: u64,
    /// Operations in a request: with more than 1, each request is a batch, and has this latency for each of its operations
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    batch: u64,
    /// Connections that they share
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    channels: u64,
    /// How long to measure
    #[arg(long, value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How keys are chosen; zipfian has the exponent 0.99
    #[arg(long, value_enum, default_value_t = Distribution::Uniform)]
    distribution: Distribution,
    /// Requests a second to send, whatever the node's speed; without it each request follows the answer to one before
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Sends this part of what the node answered just before, when each request followed the answer to one before; in turns, so
    /// that it is a part of what the machine gives at the time
    #[arg(long, value_name = "SHARE", conflicts_with_all = ["rate", "baseline"], value_parser = share_of_peak)]
    of_peak: Option<f64>,
    /// Also measure an empty handler with the same messages, in turns with the node, and print the ratio
    #[arg(long)]
    baseline: bool,
    /// Print the result as one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    Write,
    Read,
    Mixed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Distribution {
    Uniform,
    Zipfian,
}

fn share_of_peak(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if share > 0.0 && share <= 1.0 {
        Ok(share)
    } else {
        Err("must be above 0 and at most 1".to_owned())
    }
}

pub(super) async fn run(args: BenchArgs) -> Result<ExitCode, Failure> {
    let node = connect_all(&args, &args.addr, &args.access).await?;
    if args.workload != Workload::Write {
        eprintln!("loading {} keys", args.keys);
        workload::load(&args, &node).await?;
    }
    let mut measured = Measured::new()?;
    let mut compared = None;
    let mut peak = None;
    if let Some(share) = args.of_peak {
        peak = Some(at_share_of_peak(&args, &node, share, &mut measured).await?);
    } else if args.baseline {
        let server = baseline::start(args.value_size).await?;
        let empty = connect_all(&args, server.addr(), &Access::default()).await?;
        let slice = args.duration / ROUNDS;
        // The first requests of a process are the slowest; neither side's count.
        workload::measure(&args, &empty, slice / 2).await?;
        workload::measure(&args, &node, slice / 2).await?;
        let mut total = Measured::new()?;
        for round in 1..=ROUNDS {
            eprintln!("round {round} of {ROUNDS}");
            total.add(workload::measure(&args, &empty, slice).await?)?;
            measured.add(workload::measure(&args, &node, slice).await?)?;
        }
        compared = Some(total);
    } else {
        measured.add(workload::measure(&args, &node, args.duration).await?)?;
    }
    let report = Report::new(&args, &measured, compared.as_ref(), peak.as_ref())?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures the peak and a share of it, in turns. Returns what the peak was.
async fn at_share_of_peak(
    args: &BenchArgs,
    node: &[Client],
    share: f64,
    measured: &mut Measured,
) -> Result<Measured, Failure> {
    let slice = args.duration / ROUNDS;
    // The first requests are the slowest.
    workload::measure(args, node, slice / 2).await?;
    let mut peaks = Measured::new()?;
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        let peak = workload::measure(args, node, slice).await?;
        let rate = share * peak.per_second() / args.batch as f64;
        peaks.add(peak)?;
        let at_rate = BenchArgs {
            rate: Some((rate as u64).max(1)),
            ..args.clone()
        };
        measured.add(workload::measure(&at_rate, node, slice).await?)?;
    }
    Ok(peaks)
}

async fn connect_all(args: &BenchArgs, addr: &str, access: &Access) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..args.channels {
        clients.push(connect(addr, access).await?);
    }
    Ok(clients)
}
