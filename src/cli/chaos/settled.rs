//! What is known of keys when their round is over, and whether what they have in the end agrees with it.
//!
//! Owns: that judgement. Does not own: that of a round (see [`super::history`]), or the reads (see [`super::load`]).

use super::history::{Act, Event};
use super::load::Keys;
use std::collections::HashSet;

/// The keys of a round that is over.
pub(super) struct Settled {
    pub(super) keys: Keys,
    /// Of each, the value that was read last, and those of writes whose outcome is unknown: one of them is there.
    possible: Vec<HashSet<u64>>,
}

impl Settled {
    /// After these histories of the keys.
    pub(super) fn new(keys: Keys, histories: &[Vec<Event>]) -> Self {
        let possible = histories.iter().map(|events| possible(events)).collect();
        Self { keys, possible }
    }

    /// What is wrong with what was read in the end, in words.
    pub(super) fn check(&self, read: &[Vec<Event>]) -> Vec<String> {
        let mut wrong = Vec::new();
        for (key, (events, possible)) in read.iter().zip(&self.possible).enumerate() {
            let Some(Act::Read(value)) = events.last().map(|event| event.act) else {
                continue;
            };
            if !possible.contains(&value) {
                let prefix = &self.keys.prefix;
                wrong.push(format!(
                    "{prefix}/{key}: in the end it has value {value}; it may have {possible:?}"
                ));
            }
        }
        wrong
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

#[cfg(test)]
mod tests {
    use super::super::history::{ABSENT, Violation, check};
    use super::*;

    fn event(act: Act, begun: u64, ended: u64) -> Event {
        Event { act, begun, ended }
    }

    /// What is wrong when a key with this history has `value` in the end.
    fn wrong(history: &[Event], value: u64) -> Vec<String> {
        let keys = Keys {
            tenant: "chaos".to_owned(),
            prefix: "1-1/0".to_owned(),
            count: 1,
        };
        let settled = Settled::new(keys, &[history.to_vec()]);
        settled.check(&[vec![event(Act::Read(value), 100, 101)]])
    }

    #[test]
    fn an_acknowledged_write_that_is_lost_in_the_end_is_a_violation() {
        // Each round ends with a read, so the last write that was acknowledged is read, or one that followed it.
        let history = [
            event(Act::Wrote(1), 1, 2),
            event(Act::Wrote(2), 3, 4),
            event(Act::Read(2), 5, 6),
        ];
        assert!(wrong(&history, 2).is_empty());
        for lost_to in [1, ABSENT] {
            let said = wrong(&history, lost_to);
            let expected = format!("1-1/0/0: in the end it has value {lost_to}; it may have {{2}}");
            assert_eq!(said, [expected]);
        }
    }

    #[test]
    fn an_acknowledged_write_that_the_round_itself_loses_is_a_violation() {
        let history = [
            event(Act::Wrote(1), 1, 2),
            event(Act::Wrote(2), 3, 4),
            event(Act::Read(1), 5, 6),
        ];
        assert_eq!(check(&history), Err(Violation::Stale(2, 1)));
    }

    #[test]
    fn a_stale_read_is_a_violation() {
        let history = [
            event(Act::Wrote(1), 1, 2),
            event(Act::Wrote(2), 3, 4),
            event(Act::Read(2), 5, 6),
            event(Act::Read(1), 7, 8),
        ];
        assert_eq!(check(&history[..3]), Ok(()));
        assert_eq!(check(&history), Err(Violation::Torn(1, 2)));
    }

    #[test]
    fn what_a_write_without_an_answer_did_is_unknown_until_it_is_read() {
        let open = [
            event(Act::Wrote(1), 1, 2),
            event(Act::Tried(2), 3, 4),
            event(Act::Read(1), 5, 6),
        ];
        assert!(wrong(&open, 1).is_empty() && wrong(&open, 2).is_empty());
        let replaced = [
            &open[..],
            &[
                event(Act::Read(2), 7, 8),
                event(Act::Wrote(3), 9, 10),
                event(Act::Read(3), 11, 12),
            ],
        ]
        .concat();
        assert!(wrong(&replaced, 3).is_empty());
        assert!(wrong(&replaced, 2).len() == 1 && wrong(&replaced, 1).len() == 1);
    }
}
