use super::*;
use proptest::prelude::*;

fn event(act: Act, begun: Moment, ended: Moment) -> Event {
    Event { act, begun, ended }
}

#[test]
fn a_value_is_read_until_it_is_replaced() {
    use Act::{Read, Tried, Wrote};
    let well = [
        event(Read(ABSENT), 1, 2),
        event(Wrote(1), 3, 6),
        event(Read(ABSENT), 4, 5),
        event(Read(1), 4, 7),
        event(Wrote(2), 8, 11),
        event(Wrote(3), 9, 10),
        event(Read(3), 12, 13),
        event(Tried(4), 14, 15),
        event(Read(3), 16, 17),
        event(Read(4), 20, 21),
    ];
    assert_eq!(check(&well), Ok(()));
    let with = |more: Event| check(&[&well[..], &[more]].concat());
    assert_eq!(with(event(Read(9), 30, 31)), Err(Violation::Invented(9)));
    assert_eq!(with(event(Read(3), 22, 23)), Err(Violation::Stale(4, 3)));
    assert_eq!(with(event(Read(1), 22, 23)), Err(Violation::Torn(1, 3)));
    assert_eq!(with(event(Read(ABSENT), 22, 23)), Err(Violation::Torn(ABSENT, 3)));
    assert_eq!(with(event(Read(4), 12, 13)), Err(Violation::FromTheFuture(4)));
    // Lost: it was acknowledged, and what was before it is read.
    assert_eq!(
        check(&[event(Wrote(1), 1, 2), event(Read(ABSENT), 3, 4)]),
        Err(Violation::Stale(1, ABSENT))
    );
}

/// Whether there is an order of the events that a register could have produced: tries all.
fn has_an_order(left: &mut Vec<Event>, value: u64) -> bool {
    if !left.iter().any(|event| !matches!(event.act, Act::Tried(_))) {
        return true;
    }
    // The next one began before all others that were answered ended.
    let first_end = |event: &Event| match event.act {
        Act::Tried(_) => Moment::MAX,
        _ => event.ended,
    };
    let bound = left.iter().map(first_end).min().unwrap();
    for place in 0..left.len() {
        let event = left[place];
        if event.begun > bound {
            continue;
        }
        let next = match event.act {
            Act::Read(read) if read != value => continue,
            Act::Read(_) => value,
            Act::Wrote(written) | Act::Tried(written) => written,
        };
        left.remove(place);
        let found = has_an_order(left, next);
        left.insert(place, event);
        if found {
            return true;
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn the_check_agrees_with_trying_all_orders(
        acts in prop::collection::vec((0..3_u8, 0..4_u64, 1..40_u64, 1..12_u64), 1..8)
    ) {
        let mut written = Vec::new();
        let mut events = Vec::new();
        // Odd moments begin and even ones end, and all differ, so that nothing happens at the same time.
        for (place, (kind, value, begun, length)) in acts.into_iter().enumerate() {
            let at = |moment: u64| moment * 64 + place as u64 * 2;
            let act = match kind {
                0 | 1 if value == ABSENT || written.contains(&value) => Act::Read(value),
                0 => Act::Wrote(value),
                1 => Act::Tried(value),
                _ => Act::Read(value),
            };
            if matches!(act, Act::Wrote(_) | Act::Tried(_)) {
                written.push(value);
            }
            events.push(event(act, at(begun), at(begun + length) + 1));
        }
        let expected = has_an_order(&mut events.clone(), ABSENT);
        prop_assert_eq!(check(&events).is_ok(), expected, "{:?}: {:?}", check(&events), events);
    }
}
