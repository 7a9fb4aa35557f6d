//! `chaos`: breaks a node's actors while clients use it, and judges whether it held.
//!
//! Owns: arguments, the rounds, and what a person sees meanwhile. Does not own: the load (`load`), the judgement
//! (`history`), the choice of faults (`schedule`), or the report (`report`, `plot`).

pub mod history;
mod load;
mod plot;
mod report;
mod schedule;
mod target;

use super::client::{Client, connect, fault_service};
use super::{Access, Failure};
use clap::Args;
use history::{Act, Event, check};
use indicatif::{ProgressBar, ProgressStyle};
use load::{Keys, Seen, Shared, read_all, round};
use report::{Column, Report, Unavailability, columns};
use schedule::{Schedule, Strike, targets};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use target::OwnNode;

/// Longest round: what is remembered of its keys is judged, and forgotten, at its end.
const ROUND: Duration = Duration::from_secs(5);
/// Violations that are told in words.
const TOLD: usize = 20;
/// Between two updates of the display.
const SHOW_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct ChaosArgs {
    /// Address of a node to break; without one, a node of its own is started, and in the end killed and started again
    #[arg(long, value_name = "URL", requires = "admin_addr")]
    addr: Option<String>,
    /// Address at which that node lets faults be injected
    #[arg(long, value_name = "URL", requires = "addr")]
    admin_addr: Option<String>,
    #[command(flatten)]
    access: Access,
    /// File with the token to show at --admin-addr, where the node asks for one (security.admin_tokens_file)
    #[arg(long, env = "PAIRDB_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// How long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Strikes a second
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    kills_per_second: f64,
    /// What chooses the faults and the calls
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Calls under way at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    concurrency: u64,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 4)]
    channels: usize,
    /// Keys used at a time: fewer make more calls meet
    #[arg(long, value_name = "N", default_value_t = 100)]
    keys: usize,
    /// Tenant whose keys are used
    #[arg(long, value_name = "NAME", default_value = "chaos")]
    tenant: String,
    /// Leaves every other round without faults, and compares the rates
    #[arg(long)]
    compare: bool,
    /// Writes a page with a plot
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Prints the report as one JSON object, on the last line
    #[arg(long)]
    json: bool,
}

impl ChaosArgs {
    fn check(&self) -> Result<(), Failure> {
        let rate = self.kills_per_second;
        if !(rate > 0.0 && rate <= 1000.0) {
            return Err(format!("--kills-per-second {rate}: must be above 0 and at most 1000").into());
        }
        for (name, value) in [
            ("--concurrency", self.concurrency),
            ("--channels", self.channels as u64),
            ("--keys", self.keys as u64),
        ] {
            if !(1..=100_000).contains(&value) {
                return Err(format!("{name} {value}: must be 1 to 100000").into());
            }
        }
        Ok(())
    }
}

/// What is known of a key when its round is over.
struct Settled {
    keys: Keys,
    /// The value that was read last, and those of writes whose outcome is unknown: one of them is there.
    possible: Vec<HashSet<u64>>,
}

/// What a run gathers.
struct Run {
    shared: Arc<Shared>,
    report: Report,
    columns: Vec<Column>,
    unavailability: Unavailability,
    /// The same after moments at which nobody was struck: what the machine itself does.
    calm: Unavailability,
    settled: Vec<Settled>,
    /// Operations and seconds of rounds with faults, and of those without.
    disturbed: (u64, f64),
    undisturbed: (u64, f64),
}

impl Run {
    fn wrong(&mut self, what: String) {
        self.report.violations += 1;
        if self.report.violated.len() < TOLD {
            self.report.violated.push(what);
        }
    }

    /// Judges a round, and keeps of it what the end needs.
    fn judge(&mut self, keys: Keys, mut seen: Seen, strikes: &[Strike], calm: &[Strike]) {
        seen.calls.sort_unstable_by_key(|call| call.begun);
        columns(&seen.calls, &mut self.columns);
        self.unavailability.add(&seen.calls, strikes);
        self.calm.add(&seen.calls, calm);
        self.report.hung += seen.hung;
        for what in std::mem::take(&mut seen.wrong) {
            self.wrong(what);
        }
        for (key, events) in seen.events.iter().enumerate() {
            if let Err(violation) = check(events) {
                self.wrong(format!("{}/{key}: {violation}", keys.prefix));
            }
        }
        let possible = seen.events.iter().map(|events| possible(events)).collect();
        self.settled.push(Settled { keys, possible });
    }
}

/// The values that a key may have after its history: the last one read, or one whose write may still take effect.
fn possible(events: &[Event]) -> HashSet<u64> {
    let mut read = HashSet::new();
    let mut last: Option<(u64, u64)> = None;
    for event in events {
        if let Act::Read(value) = event.act {
            read.insert(value);
            last = last.max(Some((event.begun, value)));
        }
    }
    let open = events.iter().filter_map(|event| match event.act {
        Act::Tried(value) if !read.contains(&value) => Some(value),
        _ => None,
    });
    open.chain(last.map(|(_, value)| value)).collect()
}

pub(super) async fn run(args: ChaosArgs) -> Result<ExitCode, Failure> {
    args.check()?;
    let mut own = match args.addr {
        Some(_) => None,
        None => Some(OwnNode::start().await?),
    };
    let addr = own
        .as_ref()
        .map_or_else(|| args.addr.clone().unwrap_or_default(), OwnNode::addr);
    let admin_addr = own
        .as_ref()
        .map_or_else(|| args.admin_addr.clone().unwrap_or_default(), OwnNode::admin_addr);
    // A node of its own lets everybody in.
    let access = own.as_ref().map_or_else(|| args.access.clone(), |_| Access::default());
    let admin_access = Access {
        token_file: args.admin_token_file.clone(),
        ..access.clone()
    };
    let mut clients = Vec::new();
    for _ in 0..args.channels {
        clients.push(connect(&addr, &access).await?);
    }
    let mut node = fault_service(&admin_addr, &admin_access).await?;
    let before = generations(&targets(&mut node).await?);
    let mut schedule = Schedule::new(args.seed, targets(&mut node).await?);
    let shared = Shared::new();
    let mut run = Run {
        shared: Arc::clone(&shared),
        report: Report::default(),
        columns: Vec::new(),
        unavailability: Unavailability::new()?,
        calm: Unavailability::new()?,
        settled: Vec::new(),
        disturbed: (0, 0.0),
        undisturbed: (0, 0.0),
    };
    let display = show(&shared, args.duration);
    // Another run on the same node is to find other keys.
    let name = format!("{}-{}", args.seed, std::process::id());
    let end = Instant::now() + args.duration;
    for number in 0_u64.. {
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        let until = (begun + ROUND).min(end);
        let keys = Keys {
            tenant: args.tenant.clone(),
            prefix: format!("{name}/{number}"),
            count: args.keys,
        };
        let with_faults = !args.compare || number % 2 == 0;
        let first = schedule.struck.strikes.len();
        let calm = if with_faults {
            Vec::new()
        } else {
            schedule::moments(args.kills_per_second, shared.now(), until - begun)
        };
        let calls = round(&clients, args.concurrency, &keys, &shared, args.seed ^ number, until);
        let mut seen = if with_faults {
            let strikes = schedule.run(&mut node, args.kills_per_second, &shared, until);
            let (seen, struck) = tokio::join!(calls, strikes);
            struck?;
            seen
        } else {
            calls.await
        };
        let operations = seen.calls.len() as u64;
        let (sum, seconds) = if with_faults {
            &mut run.disturbed
        } else {
            &mut run.undisturbed
        };
        *sum += operations;
        *seconds += begun.elapsed().as_secs_f64();
        let mut reader: Client = clients.first().cloned().ok_or("there is no connection")?;
        seen.add(read_all(&mut reader, &keys, &shared).await);
        let strikes = schedule.struck.strikes.get(first..).unwrap_or_default();
        run.judge(keys, seen, strikes, &calm);
    }
    display.finish_and_clear();
    let after = generations(&targets(&mut node).await?);
    if let Some(own) = &mut own {
        own.kill_and_start().await?;
        run.report.process_killed = true;
    }
    check_settled(&mut run, connect(&addr, &access).await?).await?;
    let report = finish(
        run.report,
        &args,
        &schedule,
        (&run.unavailability, &run.calm),
        (run.disturbed, run.undisturbed),
    );
    let report = Report {
        operations: run.shared.operations.load(Ordering::Relaxed),
        unavailable: run.shared.unavailable.load(Ordering::Relaxed),
        restarts: after
            .iter()
            .map(|(actor, count)| count - before.get(actor).unwrap_or(&0))
            .sum(),
        ..report
    };
    if let Some(file) = &args.plot {
        std::fs::write(file, plot::page(&report, &run.columns, &schedule.struck.strikes))
            .map_err(|error| format!("--plot {}: {error}", file.display()))?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.text());
    }
    Ok(if report.is_well() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How often each actor was started.
fn generations(targets: &[crate::rpc::admin_pb::Target]) -> HashMap<String, u64> {
    targets
        .iter()
        .map(|target| (target.actor.clone(), target.generation))
        .collect()
}

/// Reads everything again: each key must have what it may have.
async fn check_settled(run: &mut Run, mut reader: Client) -> Result<(), Failure> {
    for settled in std::mem::take(&mut run.settled) {
        let seen = read_all(&mut reader, &settled.keys, &run.shared).await;
        run.report.hung += seen.hung;
        for what in seen.wrong {
            run.wrong(what);
        }
        for (key, (events, possible)) in seen.events.iter().zip(&settled.possible).enumerate() {
            let Some(Act::Read(value)) = events.last().map(|event| event.act) else {
                continue;
            };
            if !possible.contains(&value) {
                run.wrong(format!(
                    "{}/{key}: in the end it has value {value}; it may have {possible:?}",
                    settled.keys.prefix
                ));
            }
        }
    }
    Ok(())
}

fn finish(
    report: Report,
    args: &ChaosArgs,
    schedule: &Schedule,
    (unavailability, calm): (&Unavailability, &Unavailability),
    (disturbed, undisturbed): ((u64, f64), (u64, f64)),
) -> Report {
    let per_second = |(operations, seconds): (u64, f64)| operations as f64 / seconds.max(0.001);
    let ms = |us: u64| us as f64 / 1000.0;
    let compared = (undisturbed.0 > 0).then(|| per_second(undisturbed));
    Report {
        seed: args.seed,
        seconds: disturbed.1 + undisturbed.1,
        ops_per_s: per_second(disturbed),
        undisturbed_ops_per_s: compared,
        ratio: compared.map(|rate| per_second(disturbed) / rate),
        kills: schedule.struck.kills,
        kills_by_actor: schedule.struck.by_actor.clone(),
        unavailable_p50_ms: ms(unavailability.times.value_at_quantile(0.5)),
        unavailable_p99_ms: ms(unavailability.times.value_at_quantile(0.99)),
        unavailable_max_ms: ms(unavailability.times.max()),
        unavailable_max_after: unavailability.longest_after(),
        undisturbed_p99_ms: compared.map(|_rate| ms(calm.times.value_at_quantile(0.99))),
        undisturbed_max_ms: compared.map(|_rate| ms(calm.times.max())),
        ..report
    }
}

/// What a person sees meanwhile, on standard error; nothing, where that is not a terminal.
fn show(shared: &Arc<Shared>, duration: Duration) -> ProgressBar {
    let bar = ProgressBar::new(duration.as_secs());
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {bar:30} {msg}") {
        bar.set_style(style);
    }
    let (shown, shared) = (bar.clone(), Arc::clone(shared));
    tokio::spawn(async move {
        let mut last = 0;
        while !shown.is_finished() {
            tokio::time::sleep(SHOW_EVERY).await;
            let operations = shared.operations.load(Ordering::Relaxed);
            let rate = (operations - last) as f64 / SHOW_EVERY.as_secs_f64();
            last = operations;
            let unavailable = shared.unavailable.load(Ordering::Relaxed);
            shown.set_position(shared.origin.elapsed().as_secs());
            shown.set_message(format!(
                "{rate:.0} calls/s, {operations} in all, {unavailable} unavailable"
            ));
        }
    });
    bar
}
