//! What the runs measured, as tables and as JSON.
//!
//! Owns: which of several rounds is told (the one with the median throughput, but the longest stall of all), and the
//! form.

use super::engine::{Driver, Result};
use super::workloads::{Figures, Latency, Sizes, WORKLOADS, Workload};
use serde::Serialize;

/// Most memory that the first engine may take, as a multiple of what it was given.
const MOST_MEMORY: f64 = 1.2;

/// One run of one workload on one engine.
#[derive(Serialize)]
pub struct Run {
    pub workload: &'static str,
    pub engine: &'static str,
    pub round: u64,
    #[serde(flatten)]
    pub figures: Figures,
}

/// All that was measured.
#[derive(Serialize)]
pub struct Suite {
    pub sizes: Sizes,
    pub runs: Vec<Run>,
}

impl Suite {
    /// The figures of the median round.
    fn median(&self, workload: &Workload, driver: &Driver) -> Option<Figures> {
        let mut rounds: Vec<&Figures> = self
            .runs
            .iter()
            .filter(|run| run.workload == workload.name && run.engine == driver.name)
            .map(|run| &run.figures)
            .collect();
        rounds.sort_by(|a, b| a.per_second().total_cmp(&b.per_second()));
        let mut median = (*rounds.get(rounds.len().checked_sub(1)? / 2)?).clone();
        if let Some(latency) = &mut median.latency {
            let stalls = rounds.iter().filter_map(|figures| figures.latency);
            latency.max = stalls.map(|latency| latency.max).fold(latency.max, f64::max);
        }
        Some(median)
    }

    /// Prints the comparison, and then what it cost each engine.
    pub fn print(&self, drivers: &[&Driver]) {
        let sizes = &self.sizes;
        println!(
            "\n{} keys of 16 bytes, values of 100 bytes, write buffers of {} MiB",
            sizes.keys,
            sizes.write_buffer >> 20
        );
        println!("compression: LZ4; operations a second, median of the rounds");
        print!("{:<14} {:<8}", "workload", "counts");
        for driver in drivers {
            print!(" {:>11}", driver.name);
        }
        match drivers {
            [first, _, ..] => println!("  {}/best other", first.name),
            _ => println!(),
        }
        for workload in WORKLOADS {
            let medians: Vec<_> = drivers.iter().map(|driver| self.median(workload, driver)).collect();
            if medians.iter().all(Option::is_none) {
                continue;
            }
            print!("{:<14} {:<8}", workload.name, workload.unit);
            let rates: Vec<f64> = medians.iter().flatten().map(Figures::per_second).collect();
            for rate in &rates {
                print!(" {rate:>11.0}");
            }
            match rates.split_first() {
                Some((first, others)) if !others.is_empty() => {
                    print!("  {:>10.2}", first / others.iter().copied().fold(0.0, f64::max));
                }
                _ => {}
            }
            println!("  {}", workload.about);
        }
        self.print_costs(drivers);
    }

    /// Checks that the first engine kept to the memory that it was given, and a fifth more.
    ///
    /// # Errors
    /// Where it did not.
    pub fn check_memory(&self, drivers: &[&Driver]) -> Result<()> {
        let ours = |run: &&Run| drivers.first().is_some_and(|first| run.engine == first.name);
        for run in self.runs.iter().filter(ours) {
            if let Some(times) = run.figures.of_given().filter(|times| *times > MOST_MEMORY) {
                return Err(format!("{} took {times:.2} times its memory in {}", run.engine, run.workload).into());
            }
        }
        Ok(())
    }

    fn print_costs(&self, drivers: &[&Driver]) {
        println!(
            "\nlatency of one put in µs (max: of all rounds), bytes written and kept, memory in MiB (anon: no mapped files; \
             given: anon as a multiple of two write buffers, the cache and 1 MiB a thread)"
        );
        println!(
            "{:<14} {:<8} {:>8} {:>8} {:>8} {:>10} {:>9} {:>9} {:>8} {:>9} {:>9} {:>6}",
            "workload",
            "engine",
            "p50",
            "p99",
            "p99.9",
            "max",
            "write amp",
            "space amp",
            "settle s",
            "peak RSS",
            "peak anon",
            "given"
        );
        for workload in WORKLOADS {
            for driver in drivers {
                let Some(figures) = self.median(workload, driver) else {
                    continue;
                };
                let latency = |of: fn(&Latency) -> f64| number(figures.latency.as_ref().map(of), 1);
                let cost = figures.cost;
                let mib = |bytes: Option<u64>| number(bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)), 0);
                println!(
                    "{:<14} {:<8} {:>8} {:>8} {:>8} {:>10} {:>9} {:>9} {:>8} {:>9} {:>9} {:>6}",
                    workload.name,
                    driver.name,
                    latency(|latency| latency.p50),
                    latency(|latency| latency.p99),
                    latency(|latency| latency.p999),
                    latency(|latency| latency.max),
                    number(cost.and_then(|c| Some(c.written_bytes? as f64 / c.put_bytes as f64)), 2),
                    number(cost.map(|c| c.disk_bytes as f64 / c.set_bytes as f64), 2),
                    number(cost.map(|c| c.settle_seconds), 1),
                    mib(figures.peak_resident),
                    mib(figures.peak_anonymous),
                    number(figures.of_given(), 2),
                );
            }
        }
    }
}

/// A number, or a dash where there is none.
fn number(number: Option<f64>, digits: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
}
