//! What a person asks of the numbers of a run: what does not hold is told, and the exit code follows.

use super::report::Report;
use clap::Args;
use std::time::Duration;

#[derive(Debug, Clone, Args)]
pub(super) struct Bounds {
    /// Fails when more than one kill in a hundred was followed by a longer time without a call that succeeds
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    p99_within: Option<Duration>,
    /// Fails when any kill was
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_within: Option<Duration>,
    /// Fails when fewer calls succeed a second
    #[arg(long, value_name = "N")]
    least_rate: Option<f64>,
    /// Fails when fewer actors were killed
    #[arg(long, value_name = "N")]
    least_kills: Option<u64>,
    /// With --compare: fails when the rate with faults is a smaller part of that without
    #[arg(long, value_name = "SHARE", requires = "compare")]
    least_ratio: Option<f64>,
    /// Fails when an actor that was there was never struck
    #[arg(long)]
    none_spared: bool,
}

impl Bounds {
    /// What does not hold.
    pub(super) fn missed(&self, report: &Report) -> Vec<String> {
        let ms = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1000.0);
        let most = [
            ("--p99-within", ms(self.p99_within), report.unavailable_p99_ms, " ms"),
            ("--max-within", ms(self.max_within), report.unavailable_max_ms, " ms"),
        ];
        let least = [
            ("--least-rate", self.least_rate, report.ops_per_s, " calls a second"),
            (
                "--least-kills",
                self.least_kills.map(|kills| kills as f64),
                report.kills as f64,
                " kills",
            ),
            ("--least-ratio", self.least_ratio, report.ratio.unwrap_or_default(), ""),
        ];
        let above = most
            .into_iter()
            .filter_map(|(name, bound, is, unit)| Some((name, bound.filter(|bound| is > *bound)?, is, unit)));
        let below = least
            .into_iter()
            .filter_map(|(name, bound, is, unit)| Some((name, bound.filter(|bound| is < *bound)?, is, unit)));
        let tell = |(name, bound, is, unit)| format!("{name} {bound}: it was {is:.3}{unit}");
        let spared = report.spared.iter().filter(|_actor| self.none_spared);
        let spared = spared.map(|actor| format!("--none-spared: {actor} was never struck"));
        above.chain(below).map(tell).chain(spared).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_held_against_its_bound() {
        let bounds = Bounds {
            p99_within: Some(Duration::from_millis(20)),
            max_within: Some(Duration::from_millis(250)),
            least_rate: Some(10_000.0),
            least_kills: Some(100),
            least_ratio: Some(0.95),
            none_spared: true,
        };
        let good = || Report {
            unavailable_p99_ms: 20.0,
            unavailable_max_ms: 250.0,
            ops_per_s: 10_000.0,
            kills: 100,
            ratio: Some(0.95),
            ..Report::default()
        };
        assert!(bounds.missed(&good()).is_empty());
        let spoilt = [
            (
                "--p99-within 20",
                Report {
                    unavailable_p99_ms: 20.1,
                    ..good()
                },
            ),
            (
                "--max-within 250",
                Report {
                    unavailable_max_ms: 251.0,
                    ..good()
                },
            ),
            (
                "--least-rate 10000",
                Report {
                    ops_per_s: 9_999.0,
                    ..good()
                },
            ),
            (
                "--none-spared: gossip",
                Report {
                    spared: ["gossip".to_owned()].into(),
                    ..good()
                },
            ),
            ("--least-kills 100", Report { kills: 99, ..good() }),
            (
                "--least-ratio 0.95",
                Report {
                    ratio: Some(0.94),
                    ..good()
                },
            ),
        ];
        for (name, mut report) in spoilt {
            let missed = bounds.missed(&report);
            assert!(missed.len() == 1 && missed[0].starts_with(name), "{missed:?}");
            report.missed = missed;
            assert!(!report.is_well() && report.text().contains(name), "{}", report.text());
        }
    }
}
