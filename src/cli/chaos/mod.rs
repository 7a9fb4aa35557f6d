//! `chaos`: breaks a node's actors while clients use it, and judges whether it held.
//!
//! Owns: arguments and the rounds. Does not own: the load (`load`), the judgement (`history`, `settled`, `outages`, `bounds`), the
//! choice of faults (`schedule`), what a person sees meanwhile (`display`), or the report (`report`, `plot`).

mod bounds;
mod display;
pub mod history;
mod load;
mod outages;
mod plot;
mod report;
mod schedule;
mod settled;
mod target;

use super::client::{Client, Newcomers, connect, fault_service};
use super::{Access, Failure};
use bounds::Bounds;
use clap::Args;
use display::show;
use history::check;
use load::{Keys, Seen, Shared, read_all, round};
use outages::Outages;
use report::{Column, Report, columns};
use schedule::{Node, Schedule, generations, moments, restarts, targets};
use settled::Settled;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use target::{OwnNode, works};

/// Longest round: what is remembered of its keys is judged, and forgotten, at its end.
const ROUND: Duration = Duration::from_secs(5);
/// Before the end of a round without strikes: what the last one did is to be seen.
const CALM_END: Duration = Duration::from_millis(300);
/// Every so many rounds, keys are handed over to another node meanwhile: a stream costs what its copies cost.
const STREAM_EVERY: u64 = 4;
/// How long the last round, which ends with the process, has strikes.
const LAST_ROUND: Duration = Duration::from_secs(1);
/// Time in which everybody must run again after the last strike, and between two looks at whether they do.
const BACK_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Violations that are told in words.
const TOLD: usize = 20;

#[derive(Debug, Args)]
pub(super) struct ChaosArgs {
    /// Address of a node to break; without one, a node of its own is started, and another beside it to which it streams. In the
    /// end it is killed under load, and started again
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
    #[arg(long, value_name = "N", default_value_t = 16)]
    concurrency: u64,
    /// Calls a second at most: where the machine is full, what is measured is how long each waits for it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 4)]
    channels: usize,
    /// Keys used at a time: fewer make more calls meet
    #[arg(long, value_name = "N", default_value_t = 100)]
    keys: usize,
    /// Tenant whose keys are used
    #[arg(long, value_name = "NAME", default_value = "chaos")]
    tenant: String,
    /// Leaves every other round without faults, and compares the rates; nothing is streamed then
    #[arg(long)]
    compare: bool,
    #[command(flatten)]
    bounds: Bounds,
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

/// Calls that succeeded in some rounds, and how long those took.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    done: u64,
    by_newcomers: u64,
    seconds: f64,
}

impl Tally {
    fn add(&mut self, seen: &Seen, took: Duration) {
        self.done += seen.done();
        self.by_newcomers += seen.done_by_newcomers();
        self.seconds += took.as_secs_f64();
    }

    fn per_second(self) -> f64 {
        self.done as f64 / self.seconds.max(0.001)
    }
}

/// A run, and what it gathers.
struct Run {
    args: ChaosArgs,
    clients: Vec<Client>,
    newcomers: Newcomers,
    node: Node,
    schedule: Schedule,
    shared: Arc<Shared>,
    report: Report,
    columns: Vec<Column>,
    outages: Outages,
    /// The same of moments at which nobody was struck: what the machine itself does.
    calm: Outages,
    settled: Vec<Settled>,
    disturbed: Tally,
    undisturbed: Tally,
    rounds: u64,
}

/// Starts what is to be broken, breaks it for as long as is asked, and judges.
pub(super) async fn run(args: ChaosArgs) -> Result<ExitCode, Failure> {
    args.check()?;
    let mut own = match args.addr {
        Some(_) => None,
        None => Some(OwnNode::start().await?),
    };
    let (addr, admin_addr) = match &own {
        Some(own) => (own.addr(), own.admin_addr()),
        None => (
            args.addr.clone().unwrap_or_default(),
            args.admin_addr.clone().unwrap_or_default(),
        ),
    };
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
    let node = fault_service(&admin_addr, &admin_access).await?;
    let newcomers = Newcomers::new(&addr, &access)?;
    let mut run = Run::new(args, clients, newcomers, node)?;
    run.rounds(own.as_ref()).await?;
    if let Some(own) = &mut own {
        run.last_round(own).await?;
    }
    run.check_settled(connect(&addr, &access).await?).await;
    run.finish()
}

impl Run {
    fn new(args: ChaosArgs, clients: Vec<Client>, newcomers: Newcomers, node: Node) -> Result<Self, Failure> {
        Ok(Self {
            schedule: Schedule::new(args.seed),
            shared: Shared::new(),
            report: Report::default(),
            columns: Vec::new(),
            outages: Outages::new()?,
            calm: Outages::new()?,
            settled: Vec::new(),
            disturbed: Tally::default(),
            undisturbed: Tally::default(),
            rounds: 0,
            args,
            clients,
            newcomers,
            node,
        })
    }

    /// One round after the other, until the time is over.
    async fn rounds(&mut self, own: Option<&OwnNode>) -> Result<(), Failure> {
        let before = generations(&targets(&mut self.node).await?);
        let works_before = works(&mut self.client()?).await?;
        let display = show(&self.shared, self.args.duration, self.node.clone(), before.clone());
        let end = Instant::now() + self.args.duration;
        while Instant::now() < end {
            let number = self.rounds;
            if self.args.compare && number % 2 == 1 {
                self.calm_round(end).await?;
            } else {
                let streams_to = own.filter(|_| !self.args.compare && number % STREAM_EVERY == 1);
                self.struck_round(end, streams_to).await?;
            }
        }
        display.finish_and_clear();
        self.expect_all_back().await?;
        self.report.restarts = restarts(&before, &targets(&mut self.node).await?);
        // The counts end with the process.
        let after = works(&mut self.client()?).await?;
        self.report.flushes = after.flushes.saturating_sub(works_before.flushes);
        self.report.compactions = after.compactions.saturating_sub(works_before.compactions);
        Ok(())
    }

    /// Whoever was struck last must be there again, as those who were struck before.
    async fn expect_all_back(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let targets = targets(&mut self.node).await?;
            // Who has no parent is no actor, or is the supervisor, without whom the others do not come back.
            let down = targets
                .iter()
                .find(|target| !target.running && !target.parent.is_empty());
            let Some(down) = down else { return Ok(()) };
            if begun.elapsed() > BACK_WITHIN {
                self.wrong(format!(
                    "{} does not run {BACK_WITHIN:?} after the last strike",
                    down.actor
                ));
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The keys of the next round.
    fn next_keys(&mut self) -> Keys {
        let number = self.rounds;
        self.rounds += 1;
        Keys {
            tenant: self.args.tenant.clone(),
            // Another run on the same node is to find other keys.
            prefix: format!("{}-{}/{number}", self.args.seed, std::process::id()),
            count: self.args.keys,
        }
    }

    /// The load of a round, which remembers what it sees.
    fn load(&self, keys: &Keys, until: Instant) -> impl Future<Output = Seen> + use<> {
        let (clients, keys, shared) = (self.clients.clone(), keys.clone(), Arc::clone(&self.shared));
        let (workers, seed) = (self.args.concurrency, self.args.seed ^ self.rounds);
        let each = |rate: u32| Duration::from_secs_f64(workers as f64 / f64::from(rate));
        let pace = self.args.rate.map_or(Duration::ZERO, each);
        let newcomers = self.newcomers.clone();
        async move { round((&clients, &newcomers), (workers, pace), &keys, &shared, seed, until).await }
    }

    async fn struck_round(&mut self, end: Instant, streams_to: Option<&OwnNode>) -> Result<(), Failure> {
        let mut client = self.client()?;
        if let Some(own) = streams_to {
            own.start_stream(&mut client).await?;
        }
        let targets = targets(&mut self.node).await?;
        self.schedule.aim(targets);
        let (begun, keys) = (Instant::now(), self.next_keys());
        let until = (begun + ROUND).min(end);
        let first = self.schedule.struck.strikes.len();
        let calls = self.load(&keys, until);
        let rate = self.args.kills_per_second;
        let strikes = self
            .schedule
            .run(&mut self.node, rate, &self.shared, until - CALM_END.min(until - begun));
        let (mut seen, struck) = tokio::join!(calls, strikes);
        struck?;
        self.disturbed.add(&seen, begun.elapsed());
        seen.sort();
        let strikes = self.schedule.struck.strikes.get(first..).unwrap_or_default();
        self.outages.add(&seen.calls, strikes);
        self.judge(keys, seen).await?;
        if let Some(own) = streams_to {
            own.stop_stream(&mut client).await?;
        }
        Ok(())
    }

    async fn calm_round(&mut self, end: Instant) -> Result<(), Failure> {
        let (begun, keys) = (Instant::now(), self.next_keys());
        let until = (begun + ROUND).min(end);
        let moments = moments(self.args.kills_per_second, self.shared.now(), until - begun);
        let mut seen = self.load(&keys, until).await;
        self.undisturbed.add(&seen, begun.elapsed());
        seen.sort();
        self.calm.add(&seen.calls, &moments);
        self.judge(keys, seen).await
    }

    /// Kills the process in the middle of a round, and starts it again: what is read then belongs to that round's history.
    async fn last_round(&mut self, own: &mut OwnNode) -> Result<(), Failure> {
        let (begun, keys) = (Instant::now(), self.next_keys());
        let calls = self.load(&keys, begun + 2 * LAST_ROUND);
        let rate = self.args.kills_per_second;
        let shared = Arc::clone(&self.shared);
        let strikes = async {
            self.schedule
                .run(&mut self.node, rate, &shared, begun + LAST_ROUND)
                .await?;
            shared.is_killed.store(true, Ordering::Relaxed);
            own.kill().await
        };
        let (seen, killed) = tokio::join!(calls, strikes);
        killed?;
        own.start_again().await?;
        self.shared.is_killed.store(false, Ordering::Relaxed);
        self.report.process_killed = true;
        self.judge(keys, seen).await
    }

    fn client(&self) -> Result<Client, Failure> {
        Ok(self.clients.first().cloned().ok_or("there is no connection")?)
    }

    fn wrong(&mut self, what: String) {
        self.shared.violations.fetch_add(1, Ordering::Relaxed);
        self.report.violations += 1;
        if self.report.violated.len() < TOLD {
            self.report.violated.push(what);
        }
    }

    /// Reads what is there at the end of a round, judges the whole of it, and keeps of it what the end of the run needs.
    async fn judge(&mut self, keys: Keys, mut seen: Seen) -> Result<(), Failure> {
        seen.add(read_all(&mut self.client()?, &keys, &self.shared).await);
        columns(&seen.calls, &mut self.columns);
        let slowest = seen.calls.iter().map(|call| call.ended - call.begun).max();
        let slowest = slowest.unwrap_or_default() as f64 / 1e6;
        self.report.slowest_ms = self.report.slowest_ms.max(slowest);
        self.report.hung += seen.hung;
        for what in std::mem::take(&mut seen.wrong) {
            self.wrong(what);
        }
        for (key, events) in seen.events.iter().enumerate() {
            if let Err(violation) = check(events) {
                self.wrong(format!("{}/{key}: {violation}", keys.prefix));
            }
        }
        self.settled.push(Settled::new(keys, &seen.events));
        Ok(())
    }

    /// Reads everything again: each key must have what it may have.
    async fn check_settled(&mut self, mut reader: Client) {
        for settled in std::mem::take(&mut self.settled) {
            let seen = read_all(&mut reader, &settled.keys, &self.shared).await;
            self.report.hung += seen.hung;
            for what in seen.wrong.into_iter().chain(settled.check(&seen.events)) {
                self.wrong(what);
            }
        }
    }

    /// Tells what became of it.
    fn finish(self) -> Result<ExitCode, Failure> {
        let ms = |us: u64| us as f64 / 1000.0;
        let compared = (self.undisturbed.done > 0).then(|| self.undisturbed.per_second());
        let (struck, outages, calm) = (self.schedule.struck, self.outages, self.calm);
        let mut report = Report {
            seed: self.args.seed,
            seconds: self.disturbed.seconds + self.undisturbed.seconds,
            operations: self.disturbed.done + self.undisturbed.done,
            operations_by_newcomers: self.disturbed.by_newcomers + self.undisturbed.by_newcomers,
            ops_per_s: self.disturbed.per_second(),
            undisturbed_ops_per_s: compared,
            ratio: compared.map(|rate| self.disturbed.per_second() / rate),
            kills: struck.kills,
            kills_at_points: struck.at_points,
            pairs: struck.pairs.values().sum(),
            different_pairs: struck.pairs.len(),
            spared: struck.spared(),
            kills_by_actor: struck.kills_by_actor(),
            kills_by_point: struck.by_actor,
            unavailable: self.shared.unavailable.load(Ordering::Relaxed),
            unavailable_p50_ms: ms(outages.times.value_at_quantile(0.5)),
            unavailable_p99_ms: ms(outages.times.value_at_quantile(0.99)),
            unavailable_max_ms: ms(outages.times.max()),
            unavailable_max_after: outages.longest_after(),
            unavailable_by_actor: outages.by_actor(),
            undisturbed_p99_ms: compared.map(|_rate| ms(calm.times.value_at_quantile(0.99))),
            undisturbed_max_ms: compared.map(|_rate| ms(calm.times.max())),
            ..self.report
        };
        report.missed = self.args.bounds.missed(&report);
        if let Some(file) = &self.args.plot {
            std::fs::write(file, plot::page(&report, &self.columns, &struck.strikes))
                .map_err(|error| format!("--plot {}: {error}", file.display()))?;
        }
        if self.args.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            print!("{}", report.text());
        }
        Ok(report.exit_code())
    }
}
