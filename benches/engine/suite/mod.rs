//! The same workloads for several storage engines, side by side.
//!
//! Owns: the flags, and the order of runs: each workload goes through all engines in turn, round by round, so that what
//! else the machine does hits all of them. Each run is a child process of the same binary, so that memory and I/O are
//! the engine's own. Does not own: what a run does (see [`workloads`]), or how an engine is driven (see
//! [`engine::Driver`]).

pub mod engine;
pub mod fjall;
mod measure;
pub mod ours;
mod report;
mod workloads;

use clap::Parser;
use engine::{Driver, Result};
use report::{Run, Suite};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use workloads::{Figures, Sizes, WORKLOADS, Workload};

/// Compares storage engines on the same workloads.
#[derive(Parser)]
struct Args {
    /// Directory below which each run has a fresh one; says which disk is measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Keys in the set; values have 100 bytes
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    keys: u64,
    /// Rounds of each workload, of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Rounds of "overwrite", which takes as long as all the others together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    overwrite_rounds: u64,
    /// Seconds of each run of reads and scans
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of each run of synced writes
    #[arg(long, default_value_t = 10.0)]
    sync_seconds: f64,
    /// How many times its memory (write buffer and cache) an engine is given to overwrite
    #[arg(long, default_value_t = 10)]
    overwrite_times: u64,
    /// Write buffer of each engine, in MiB
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    write_buffer_mib: u64,
    /// Runs this workload alone; can be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Runs this engine alone; can be repeated
    #[arg(long, value_name = "NAME")]
    engine: Vec<String>,
    /// Writes all that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What a child process is to run
    #[arg(long, hide = true)]
    child: Option<String>,
    /// Cargo passes this to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one child process is to do.
#[derive(Serialize, Deserialize)]
struct Task {
    engine: String,
    /// Empty: fill the directory with the set that the workloads that only read share.
    workload: String,
    dir: PathBuf,
    sizes: Sizes,
}

/// Runs the suite, or one child of it. The first driver is the one that the others are compared with.
pub fn main(drivers: &[Driver]) -> ExitCode {
    let args = Args::parse();
    let done = match &args.child {
        Some(task) => child(drivers, task),
        None => parent(drivers, &args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn child(drivers: &[Driver], task: &str) -> Result<()> {
    let task: Task = serde_json::from_str(task)?;
    let driver = drivers
        .iter()
        .find(|driver| driver.name == task.engine)
        .ok_or("no such engine")?;
    if task.workload.is_empty() {
        return workloads::prepare(driver, &task.dir, &task.sizes);
    }
    let workload = WORKLOADS
        .iter()
        .find(|workload| workload.name == task.workload)
        .ok_or("no such workload")?;
    let figures = workloads::run(workload, driver, &task.dir, &task.sizes)?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn parent(drivers: &[Driver], args: &Args) -> Result<()> {
    let drivers: Vec<&Driver> = chosen(drivers, |driver| driver.name, &args.engine)?;
    let workloads: Vec<&Workload> = chosen(WORKLOADS, |workload| workload.name, &args.only)?;
    let sizes = Sizes {
        keys: args.keys,
        seconds: args.seconds,
        sync_seconds: args.sync_seconds,
        overwrite_times: args.overwrite_times,
        write_buffer: usize::try_from(args.write_buffer_mib << 20)?,
    };
    let root = tempfile::Builder::new().prefix("engines-").tempdir_in(&args.dir)?;
    let set = |driver: &Driver| root.path().join(format!("set-{}", driver.name));
    if workloads.iter().any(|workload| workload.reads_only()) {
        for driver in &drivers {
            eprintln!("{}: writing the set to read", driver.name);
            start(driver.name, "", &set(driver), &sizes)?;
        }
    }
    let mut runs = Vec::new();
    for workload in workloads {
        let rounds = if workload.is_overwrite() {
            args.overwrite_rounds
        } else {
            args.rounds
        };
        for round in 1..=rounds {
            for driver in &drivers {
                let dir = if workload.reads_only() {
                    set(driver)
                } else {
                    root.path().join("fresh")
                };
                let figures: Figures = serde_json::from_str(&start(driver.name, workload.name, &dir, &sizes)?)?;
                eprintln!(
                    "{} {round}/{rounds} {}: {:.0}/s",
                    workload.name,
                    driver.name,
                    figures.per_second()
                );
                runs.push(Run {
                    workload: workload.name,
                    engine: driver.name,
                    round,
                    figures,
                });
                if !workload.reads_only() {
                    std::fs::remove_dir_all(&dir)?;
                }
                // What this run left unwritten would be written during the next one's time.
                rustix::fs::sync();
            }
        }
    }
    let suite = Suite { sizes, runs };
    suite.print(&drivers);
    if let Some(file) = &args.json {
        serde_json::to_writer_pretty(std::fs::File::create(file)?, &suite)?;
    }
    suite.check_memory(&drivers)
}

/// Those of `all` that are named, or all when none is.
fn chosen<'a, T>(all: &'a [T], name: impl Fn(&T) -> &'static str, wanted: &[String]) -> Result<Vec<&'a T>> {
    if let Some(unknown) = wanted
        .iter()
        .find(|wanted| !all.iter().any(|one| name(one) == **wanted))
    {
        let names: Vec<_> = all.iter().map(&name).collect();
        return Err(format!("there is no {unknown:?}; there are: {}", names.join(", ")).into());
    }
    Ok(all
        .iter()
        .filter(|one| wanted.is_empty() || wanted.iter().any(|wanted| name(one) == wanted))
        .collect())
}

/// Runs one task in a child process and returns what it printed.
fn start(engine: &str, workload: &str, dir: &Path, sizes: &Sizes) -> Result<String> {
    let task = serde_json::to_string(&Task {
        engine: engine.to_owned(),
        workload: workload.to_owned(),
        dir: dir.to_owned(),
        sizes: *sizes,
    })?;
    let output = Command::new(std::env::current_exe()?)
        .args(["--child", &task])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{engine} failed in {workload:?}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
