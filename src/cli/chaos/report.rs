//! What a run showed: as text, as JSON, and as a page with a plot.
//!
//! Owns: the numbers and their form. Does not own: the verdict on a history (see [`super::history`]).

use super::history::Moment;
use super::load::{Call, End};
use super::outages::OfActor;
use super::schedule::AS_IT_STOOD;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::ExitCode;

/// One column of the plot, in nanoseconds.
pub(super) const COLUMN: Moment = 100_000_000;

/// Actors whose ends were followed by the longest times without a call that succeeds, so many of which the text tells.
const WORST: usize = 3;

/// The last line of a run with `--json`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) seconds: f64,
    /// Calls that succeeded.
    pub(super) operations: u64,
    /// Of them, those for which a connection was made anew.
    pub(super) operations_by_newcomers: u64,
    pub(super) ops_per_s: f64,
    /// Of the rounds without faults, if there were any.
    pub(super) undisturbed_ops_per_s: Option<f64>,
    /// The rate with faults over the rate without.
    pub(super) ratio: Option<f64>,
    pub(super) kills: u64,
    /// Of them, those that were broken at a point of their work.
    pub(super) kills_at_points: u64,
    /// Strikes that killed two actors at once.
    pub(super) pairs: u64,
    /// How many different pairs those were.
    pub(super) different_pairs: usize,
    pub(super) kills_by_actor: BTreeMap<String, u64>,
    /// The same, by the points of the actor's work at which it was broken, or "as it stood".
    pub(super) kills_by_point: BTreeMap<String, BTreeMap<String, u64>>,
    /// What the node did under these strikes: memtables that became tables, and jobs of compaction that were completed.
    pub(super) flushes: u64,
    pub(super) compactions: u64,
    /// Actors that were there, and never struck.
    pub(super) spared: BTreeSet<String>,
    pub(super) restarts: u64,
    pub(super) unavailable: u64,
    pub(super) unavailable_p50_ms: f64,
    pub(super) unavailable_p99_ms: f64,
    pub(super) unavailable_max_ms: f64,
    /// What the longest followed, and when.
    pub(super) unavailable_max_after: String,
    /// The same measure, of the strikes at each actor.
    pub(super) unavailable_by_actor: BTreeMap<String, OfActor>,
    /// The same measure, of moments of the rounds without faults: what the machine does by itself.
    pub(super) undisturbed_p99_ms: Option<f64>,
    pub(super) undisturbed_max_ms: Option<f64>,
    /// Longest time that a call took.
    pub(super) slowest_ms: f64,
    pub(super) hung: u64,
    pub(super) violations: u64,
    /// The first of them, in words.
    pub(super) violated: Vec<String>,
    /// What was asked of the numbers by options, and does not hold.
    pub(super) missed: Vec<String>,
    /// Whether the node was killed under load and started again in the end, and what it had was checked.
    pub(super) process_killed: bool,
}

impl Report {
    pub(super) fn is_well(&self) -> bool {
        self.violations == 0 && self.hung == 0 && self.missed.is_empty()
    }

    /// What a script goes by.
    pub(super) fn exit_code(&self) -> ExitCode {
        if self.is_well() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{} operations in {:.1} s, {:.0} a second, {} of them over connections of their own\n{} kills ({} at points, {} pairs, {} of them different), {} restarts of actors{}\n",
            self.operations,
            self.seconds,
            self.ops_per_s,
            self.operations_by_newcomers,
            self.kills,
            self.kills_at_points,
            self.pairs,
            self.different_pairs,
            self.restarts,
            if self.process_killed {
                "; the process killed and started again"
            } else {
                ""
            },
        );
        for (actor, kills) in &self.kills_by_actor {
            let points = self.kills_by_point.get(actor).into_iter().flatten();
            let points = points.filter(|(point, _)| *point != AS_IT_STOOD);
            let points: Vec<String> = points.map(|(point, kills)| format!("{kills} {point}")).collect();
            let line = format!("  {actor:<20}{kills:<8}{}", points.join(", "));
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let _ = writeln!(text, "{} flushes, {} compactions", self.flushes, self.compactions);
        if let (Some(rate), Some(ratio)) = (self.undisturbed_ops_per_s, self.ratio) {
            let _ = writeln!(text, "without faults {rate:.0} a second: {ratio:.3} of it with them");
        }
        if let (Some(p99), Some(max)) = (self.undisturbed_p99_ms, self.undisturbed_max_ms) {
            let _ = writeln!(
                text,
                "without faults, of as many moments: p99 {p99:.1} ms, max {max:.1} ms"
            );
        }
        let _ = writeln!(
            text,
            "{} calls answered UNAVAILABLE; longest time without a call that succeeds, after each kill: median {:.1} ms, p99 {:.1} ms, max {:.1} ms{}",
            self.unavailable,
            self.unavailable_p50_ms,
            self.unavailable_p99_ms,
            self.unavailable_max_ms,
            if self.unavailable_max_after.is_empty() {
                String::new()
            } else {
                format!(" ({})", self.unavailable_max_after)
            },
        );
        let mut worst: Vec<_> = self.unavailable_by_actor.iter().collect();
        worst.sort_by(|(_, one), (_, other)| other.max_ms.total_cmp(&one.max_ms));
        for (actor, OfActor { p99_ms, max_ms, .. }) in worst.into_iter().take(WORST) {
            let _ = writeln!(text, "  after {actor:<20}p99 {p99_ms:.1} ms, max {max_ms:.1} ms");
        }
        let _ = writeln!(
            text,
            "{} violations, {} calls without an answer; the slowest took {:.0} ms",
            self.violations, self.hung, self.slowest_ms
        );
        for violation in self.violated.iter().chain(&self.missed) {
            let _ = writeln!(text, "  {violation}");
        }
        text
    }
}

/// A tenth of a second of the run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Column {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) p99_us: u64,
}

/// Adds calls to the columns that they ended in.
pub(super) fn columns(calls: &[Call], columns: &mut Vec<Column>) {
    let mut latencies: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for call in calls {
        let place = usize::try_from(call.ended / COLUMN).unwrap_or(usize::MAX);
        if columns.len() <= place {
            columns.resize(place + 1, Column::default());
        }
        if let Some(column) = columns.get_mut(place) {
            match call.end {
                End::Done => column.done += 1,
                End::Unavailable | End::Refused => column.failed += 1,
            }
        }
        latencies
            .entry(place)
            .or_default()
            .push((call.ended - call.begun) / 1000);
    }
    for (place, mut latencies) in latencies {
        latencies.sort_unstable();
        let p99 = latencies.get(latencies.len().saturating_sub(1) * 99 / 100).copied();
        if let (Some(column), Some(p99)) = (columns.get_mut(place), p99) {
            column.p99_us = p99.max(column.p99_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_of_the_three_actors_whose_ends_were_felt_most() {
        let of_actor = |(actor, max_ms): (&str, f64)| {
            let told = OfActor {
                strikes: 2,
                p99_ms: 1.0,
                max_ms,
            };
            (actor.to_owned(), told)
        };
        let felt = [("wal", 20.0), ("memtable", 12.0), ("scrub", 1.5), ("supervisor", 31.5)];
        let report = Report {
            unavailable_by_actor: felt.map(of_actor).into(),
            ..Report::default()
        };
        let text = report.text();
        let told: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  after ")).collect();
        let starts = ["supervisor", "wal", "memtable"];
        assert!(
            told.len() == 3 && told.iter().zip(starts).all(|(line, actor)| line.starts_with(actor)),
            "{text}"
        );
        assert!(told[0].ends_with("p99 1.0 ms, max 31.5 ms"), "{text}");
    }

    #[test]
    fn any_violation_or_call_without_an_answer_or_bound_that_is_missed_fails_the_run() {
        assert_eq!(Report::default().exit_code(), ExitCode::SUCCESS);
        let spoilt = [
            Report {
                violations: 1,
                ..Report::default()
            },
            Report {
                hung: 1,
                ..Report::default()
            },
            Report {
                missed: vec!["--least-kills 1: it was 0.000 kills".to_owned()],
                ..Report::default()
            },
        ];
        for report in spoilt {
            assert!(!report.is_well(), "{report:?}");
            assert_eq!(report.exit_code(), ExitCode::FAILURE, "{report:?}");
        }
    }
}
