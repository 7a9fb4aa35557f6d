//! Whether the node's numbers make it worse than what it knows to be wrong (section 5.7 of the low-level design): more than
//! 90 % of processors, memory or a disk used is degraded, more than a tenth of the requests failed is unhealthy. Bounds of the
//! operator (`disk.*`) may find a disk too full before that, and not after it.
//!
//! A node is worse at once, and better only when a number was clearly lower for a while: one that goes to and fro around a
//! bound would otherwise be news to the whole cluster each time.
//!
//! Owns: those rules. Does not own: the numbers.

use crate::actors::health::Status;
use std::time::Duration;

/// How long a number must be lower before it counts as lower.
const CALM: Duration = Duration::from_secs(10);
/// Least requests of which a share says something.
const LEAST_REQUESTS: f64 = 30.0;
/// Least time over which a share of the processors does.
const LEAST_TIME: Duration = Duration::from_secs(10);

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numbers {
    /// Share of the processors that was used, 0 to 1.
    pub cpu: f64,
    /// Share of the memory that it may have, 0 to 1.
    pub memory: f64,
    /// Share of the fullest disk, 0 to 1.
    pub disk: f64,
    /// Requests so many, and the share of them that failed.
    pub requests: (f64, f64),
    /// The time that they are of.
    pub over: Duration,
}

#[derive(Debug)]
struct Rule {
    of: fn(&Numbers) -> f64,
    /// Above this the node is worse …
    most: f64,
    /// … until it is below that.
    calm: f64,
    status: Status,
    reason: &'static str,
}

const RULES: [Rule; 4] = [
    Rule {
        of: |numbers| if numbers.over < LEAST_TIME { 0.0 } else { numbers.cpu },
        most: 0.9,
        calm: 0.85,
        status: Status::Degraded,
        reason: "more than 90 % of the processors were used in the last minute",
    },
    Rule {
        of: |numbers| numbers.memory,
        most: 0.9,
        calm: 0.85,
        status: Status::Degraded,
        reason: "the node holds more than 90 % of the memory that it may have",
    },
    Rule {
        of: |numbers| numbers.disk,
        most: 0.9,
        calm: 0.85,
        status: Status::Degraded,
        reason: "more than 90 % of a disk is used",
    },
    Rule {
        of: |numbers| {
            let (requests, failed) = numbers.requests;
            if requests < LEAST_REQUESTS { 0.0 } else { failed }
        },
        most: 0.1,
        calm: 0.08,
        status: Status::Unhealthy,
        reason: "more than 10 % of the requests of the last minute were refused or failed",
    },
];

/// What of it holds.
#[derive(Debug, Default)]
pub struct Strain([State; RULES.len()]);

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Well,
    /// The number is, or was, too high: lower since then.
    Strained(Option<Duration>),
}

impl Strain {
    /// Judges the numbers of `now`.
    pub fn note(&mut self, now: Duration, numbers: &Numbers) {
        for (state, rule) in self.0.iter_mut().zip(&RULES) {
            let number = (rule.of)(numbers);
            *state = match *state {
                _ if number > rule.most => State::Strained(None),
                State::Strained(_) if number >= rule.calm => State::Strained(None),
                State::Strained(Some(since)) if now.saturating_sub(since) >= CALM => State::Well,
                State::Strained(since) => State::Strained(since.or(Some(now))),
                State::Well => State::Well,
            };
        }
    }

    /// How the node is for it, and why.
    #[must_use]
    pub fn reasons(&self) -> Vec<(Status, &'static str)> {
        let rules = self.0.iter().zip(&RULES);
        let holding = rules.filter(|(state, _)| matches!(state, State::Strained(_)));
        holding.map(|(_, rule)| (rule.status, rule.reason)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Numbers = Numbers {
        cpu: 0.9,
        memory: 0.9,
        disk: 0.9,
        requests: (1000.0, 0.1),
        over: Duration::from_secs(60),
    };

    fn status(numbers: Numbers) -> Option<Status> {
        let mut strain = Strain::default();
        strain.note(Duration::ZERO, &numbers);
        strain.reasons().into_iter().map(|(status, _)| status).max()
    }

    #[test]
    fn numbers_make_a_node_worse_from_where_the_design_says() {
        let short = Duration::from_secs(9);
        for (numbers, expected) in [
            (WELL, None),
            (Numbers { cpu: 0.91, ..WELL }, Some(Status::Degraded)),
            (
                Numbers {
                    cpu: 1.0,
                    over: short,
                    ..WELL
                },
                None,
            ),
            (Numbers { memory: 0.91, ..WELL }, Some(Status::Degraded)),
            (Numbers { disk: 0.91, ..WELL }, Some(Status::Degraded)),
            (
                Numbers {
                    requests: (30.0, 0.11),
                    ..WELL
                },
                Some(Status::Unhealthy),
            ),
            (
                Numbers {
                    requests: (29.0, 1.0),
                    ..WELL
                },
                None,
            ),
            (
                Numbers {
                    cpu: 1.0,
                    requests: (1000.0, 0.5),
                    ..WELL
                },
                Some(Status::Unhealthy),
            ),
        ] {
            assert_eq!(status(numbers), expected, "{numbers:?}");
        }
    }

    #[test]
    fn it_is_worse_at_once_and_better_after_a_while_of_calm() {
        let mut strain = Strain::default();
        let mut at = |seconds: u64, failed: f64| {
            let numbers = Numbers {
                requests: (1000.0, failed),
                ..WELL
            };
            strain.note(Duration::from_secs(seconds), &numbers);
            !strain.reasons().is_empty()
        };
        assert!(!at(0, 0.1) && at(1, 0.11));
        // Between the bounds, and below them for a moment.
        assert!(at(30, 0.09) && at(60, 0.09) && at(61, 0.07) && at(70, 0.07) && at(71, 0.08) && at(72, 0.07));
        assert!(at(81, 0.07) && !at(82, 0.07) && !at(83, 0.1) && at(84, 0.11));
    }
}
