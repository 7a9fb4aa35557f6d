//! How long calls did not succeed after a strike.
//!
//! Owns: that measure. Does not own: the strikes (see [`super::schedule`]) or the calls (see [`super::load`]).

use super::history::Moment;
use super::load::{Call, End, NEWCOMER_EVERY};
use super::schedule::Strike;
use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;
use std::collections::BTreeMap;

/// Longest that is told apart from longer ones, in microseconds.
const HIGHEST_US: u64 = 600_000_000;

/// Of each strike, the longest time within which no write, no read, or no call of a newcomer succeeded, from the strike on until the
/// next fault. Of newcomers' it is what goes beyond the pause between two of them: connections that are there outlive whoever
/// accepts them, and would not miss him.
pub(super) struct Outages {
    /// In microseconds.
    pub(super) times: Histogram<u64>,
    /// The same, by who was struck: a strike at two counts for both.
    by_actor: BTreeMap<String, Histogram<u64>>,
    /// The longest, and the strike that it followed.
    longest: Option<(u64, Strike)>,
}

/// Those that followed the strikes at one actor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct OfActor {
    pub(super) strikes: u64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

impl Outages {
    pub(super) fn new() -> Result<Self, CreationError> {
        Ok(Self {
            times: Histogram::new_with_bounds(1, HIGHEST_US, 3)?,
            by_actor: BTreeMap::new(),
            longest: None,
        })
    }

    /// Those of each actor that was struck.
    pub(super) fn by_actor(&self) -> BTreeMap<String, OfActor> {
        let ms = |us: u64| us as f64 / 1000.0;
        let told = |(actor, times): (&String, &Histogram<u64>)| {
            let of_actor = OfActor {
                strikes: times.len(),
                p99_ms: ms(times.value_at_quantile(0.99)),
                max_ms: ms(times.max()),
            };
            (actor.clone(), of_actor)
        };
        self.by_actor.iter().map(told).collect()
    }

    /// Adds those of the strikes of a round, which come in their order. An outage that lasts to the end of the calls counts as
    /// long as it was seen.
    pub(super) fn add(&mut self, calls: &[Call], strikes: &[Strike]) {
        let end = calls.iter().map(|call| call.ended).max().unwrap_or_default();
        let pause = Moment::try_from(NEWCOMER_EVERY.as_nanos()).unwrap_or(Moment::MAX);
        let mut kinds = vec![
            (ended(calls, |call| call.is_write), 0),
            (ended(calls, |call| !call.is_write), 0),
        ];
        if calls.iter().any(|call| call.by_newcomer) {
            kinds.push((ended(calls, |call| call.by_newcomer), pause));
        }
        for strike in strikes {
            let within = (strike.moment, strike.until.min(end), end);
            let gaps = kinds
                .iter()
                .map(|(ended, pause)| longest_gap(ended, within).saturating_sub(*pause));
            let us = gaps.max().unwrap_or_default() / 1000;
            self.times.saturating_record(us.max(1));
            for actor in &strike.actors {
                let of_actor = self.by_actor.entry(actor.clone());
                let times = of_actor.or_insert_with(|| Histogram::new_from(&self.times));
                times.saturating_record(us.max(1));
            }
            if self.longest.as_ref().is_none_or(|(longest, _)| us > *longest) {
                self.longest = Some((us, strike.clone()));
            }
        }
    }

    /// What the longest followed, and when.
    pub(super) fn longest_after(&self) -> String {
        self.longest.as_ref().map_or_else(String::new, |(_, strike)| {
            let seconds = strike.moment as f64 / 1e9;
            format!("{} at {seconds:.1} s", strike.what())
        })
    }
}

/// When the calls of a kind that succeeded had ended, in order.
fn ended(calls: &[Call], is_of_kind: impl Fn(&Call) -> bool) -> Vec<Moment> {
    let done = calls.iter().filter(|call| is_of_kind(call) && call.end == End::Done);
    let mut ended: Vec<Moment> = done.map(|call| call.ended).collect();
    ended.sort_unstable();
    ended
}

/// The longest time between two of these moments that begins between `from` and `to`; the last ends at `end`.
fn longest_gap(moments: &[Moment], (from, to, end): (Moment, Moment, Moment)) -> u64 {
    let later = moments.partition_point(|moment| *moment < from);
    let (mut before, mut longest) = (from, 0);
    for moment in moments.get(later..).unwrap_or_default().iter().copied().chain([end]) {
        longest = longest.max(moment.saturating_sub(before));
        before = moment;
        if moment >= to {
            break;
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(is_write: bool, ended: Moment, end: End) -> Call {
        Call {
            is_write,
            begun: ended.saturating_sub(500_000),
            ended,
            end,
            by_newcomer: false,
        }
    }

    fn strike(moment: Moment, until: Moment) -> Strike {
        Strike {
            moment,
            until,
            actors: vec![format!("wal {moment}")],
            point: None,
        }
    }

    /// A write and a read end each millisecond, but for writes while `down`.
    fn calls(down: std::ops::Range<u64>) -> Vec<Call> {
        let end = |ms| {
            if down.contains(&ms) {
                End::Unavailable
            } else {
                End::Done
            }
        };
        let both = |ms| {
            [
                call(true, ms * 1_000_000, end(ms)),
                call(false, ms * 1_000_000, End::Done),
            ]
        };
        (0..=100).flat_map(both).collect()
    }

    fn longest(calls: &[Call], strikes: &[Strike]) -> (u64, String) {
        let mut outages = Outages::new().unwrap();
        outages.add(calls, strikes);
        (outages.times.max(), outages.longest_after())
    }

    #[test]
    fn an_outage_counts_though_calls_succeeded_between_it_and_the_strike() {
        // The strike takes three milliseconds to arrive; what was under way succeeds meanwhile.
        let (us, after) = longest(
            &calls(13..33),
            &[strike(10_000_000, 60_000_000), strike(60_000_000, Moment::MAX)],
        );
        assert!((20_900..=21_100).contains(&us), "{us}");
        assert_eq!(after, "wal 10000000 at 0.0 s");
    }

    #[test]
    fn a_strike_at_two_counts_for_both() {
        let mut outages = Outages::new().unwrap();
        let both = Strike {
            actors: vec!["wal".to_owned(), "scrub".to_owned()],
            ..strike(10_000_000, 60_000_000)
        };
        let one = Strike {
            actors: vec!["scrub".to_owned()],
            ..strike(60_000_000, Moment::MAX)
        };
        outages.add(&calls(13..33), &[both, one]);
        let by_actor = outages.by_actor();
        assert_eq!((by_actor["wal"].strikes, by_actor["scrub"].strikes), (1, 2));
        for of_actor in by_actor.values() {
            assert!((20.9..=21.1).contains(&of_actor.max_ms), "{of_actor:?}");
        }
        assert_eq!(by_actor.len(), 2);
    }

    #[test]
    fn an_outage_that_outlives_the_next_strike_counts_whole() {
        let (us, _) = longest(
            &calls(13..53),
            &[strike(10_000_000, 20_000_000), strike(20_000_000, Moment::MAX)],
        );
        assert!((40_900..=41_100).contains(&us), "{us}");
    }

    #[test]
    fn an_outage_without_an_end_counts_up_to_the_end() {
        let (us, _) = longest(&calls(13..1000), &[strike(10_000_000, Moment::MAX)]);
        assert!((87_900..=88_100).contains(&us), "{us}");
        let (us, _) = longest(&calls(0..1000), &[strike(10_000_000, Moment::MAX)]);
        assert!((89_900..=90_100).contains(&us), "{us}");
    }

    /// Those who are connected do not notice that nobody accepts connections.
    #[test]
    fn an_outage_for_newcomers_alone_counts() {
        let newcomer = |ms: u64| Call {
            by_newcomer: true,
            ..call(ms.is_multiple_of(2), ms * 1_000_000, End::Done)
        };
        let came = (0..=100).step_by(10).filter(|ms| !(20..70).contains(ms));
        let calls: Vec<Call> = calls(0..0).into_iter().chain(came.map(newcomer)).collect();
        let (us, _) = longest(&calls, &[strike(15_000_000, Moment::MAX)]);
        assert!((44_900..=45_100).contains(&us), "{us}");
        let (us, _) = longest(&calls, &[strike(75_000_000, Moment::MAX)]);
        assert!((990..=1010).contains(&us), "{us}");
    }

    #[test]
    fn what_another_fault_does_is_not_counted() {
        let (us, _) = longest(&calls(33..53), &[strike(10_000_000, 30_000_000)]);
        assert!((990..=1010).contains(&us), "{us}");
    }

    #[test]
    fn without_an_outage_it_is_the_time_from_call_to_call() {
        let (us, _) = longest(
            &calls(0..0),
            &[strike(10_000_000, 50_000_000), strike(50_000_000, Moment::MAX)],
        );
        assert!((990..=1010).contains(&us), "{us}");
    }
}
