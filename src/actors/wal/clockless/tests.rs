use super::*;
use crate::storage::clock::Causality;

fn key(name: &str) -> Key {
    Key::new("t", name).unwrap()
}

#[test]
fn a_later_write_dominates_an_earlier_one_that_it_could_not_see() {
    let mut clocks = ClocklessWrites::new("n".into(), 10);
    let foreign: VectorClock = [("c", 3)].into_iter().collect();
    let first = clocks.assign(&key("k"), &foreign, 10, 11).unwrap();
    let second = clocks.assign(&key("k"), &VectorClock::default(), 10, 12).unwrap();
    assert_eq!(second.compare(&first), Causality::After);
}

#[test]
fn a_view_older_than_what_is_remembered_is_sent_back() {
    let mut clocks = ClocklessWrites::new("n".into(), 10);
    assert_eq!(
        clocks.assign(&key("k"), &VectorClock::default(), 9, 11),
        Err(NoClock::Stale)
    );
    for seq in 11..11 + 3 * GENERATION as u64 {
        let name = format!("k{seq}");
        assert!(
            clocks
                .assign(&key(&name), &VectorClock::default(), seq - 1, seq)
                .is_ok()
        );
    }
    let next = 11 + 3 * GENERATION as u64;
    let late = clocks.assign(&key("k11"), &VectorClock::default(), 10, next);
    assert_eq!(late, Err(NoClock::Stale));
    assert!(clocks.young.len() + clocks.old.len() <= 2 * GENERATION);
}

#[test]
fn a_clock_never_grows_beyond_what_a_clock_may_have() {
    let mut clocks = ClocklessWrites::new("n".into(), 10);
    let full: VectorClock = (0..MAX_JOINED_CLOCK_ENTRIES).map(|n| (format!("c{n}"), 1)).collect();
    let refused = clocks.assign(&key("k"), &full, 10, 11);
    assert_eq!(refused, Err(NoClock::TooManyEntries(MAX_JOINED_CLOCK_ENTRIES + 1)));
}
