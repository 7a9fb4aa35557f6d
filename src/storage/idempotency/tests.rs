use super::*;

fn name(id: &str) -> WriteName {
    WriteName {
        key: Key::new("t", "k").unwrap(),
        id: id.into(),
    }
}

fn outcome(counter: u64) -> WriteOutcome {
    WriteOutcome {
        clock: [("c", counter)].into_iter().collect(),
        applied: false,
    }
}

fn answered(recent: &mut Recent<u32>, id: &str, now_ms: u64) -> Option<WriteOutcome> {
    match recent.find(&name(id), now_ms) {
        Known::Answered(outcome) => Some(outcome.clone()),
        Known::New | Known::UnderWay(_) => None,
    }
}

#[test]
fn who_joins_gets_the_answer_and_later_ones_do_for_the_window() {
    let mut recent = Recent::new(100, 1 << 20);
    assert!(matches!(recent.find(&name("a"), 5), Known::New));
    recent.begin(name("a"), 1, 5, VectorClock::default());
    match recent.find(&name("a"), 1000) {
        Known::UnderWay(waiting) => waiting.push(7),
        other => panic!("however long it takes: {other:?}"),
    }
    let (remembered, waiting) = recent.answer(&name("a"), 1, outcome(3)).unwrap();
    assert_eq!((remembered.outcome, waiting), (outcome(3), vec![7]));
    assert!(recent.answer(&name("a"), 1, outcome(4)).is_none(), "answered before");
    assert_eq!(answered(&mut recent, "a", 104), Some(outcome(3)));
    assert_eq!(answered(&mut recent, "b", 104), None);
    assert!(matches!(recent.find(&name("a"), 105), Known::New));
    assert_eq!((recent.bytes, recent.order.len()), (0, 0));
}

#[test]
fn what_did_not_come_to_be_is_forgotten() {
    let mut recent = Recent::new(100, 1 << 20);
    recent.begin(name("a"), 1, 0, VectorClock::default());
    if let Known::UnderWay(waiting) = recent.find(&name("a"), 0) {
        waiting.push(7);
    }
    assert!(recent.fail(&name("a"), 2).is_empty(), "another write");
    assert_eq!(recent.fail(&name("a"), 1), [7]);
    for seq in 2..6 {
        recent.begin(name(&seq.to_string()), seq, 0, VectorClock::default());
    }
    recent.answer(&name("5"), 5, outcome(5)).unwrap();
    recent.forget_above(3);
    let left: Vec<u64> = recent.remembered().iter().map(|write| write.seq).collect();
    assert_eq!(left, [2, 3, 5]);
}

#[test]
fn memory_is_bounded_and_the_oldest_go_first() {
    let mut recent: Recent<u32> = Recent::new(u64::MAX, 10_000);
    for seq in 1..1000 {
        let name = name(&format!("{seq:030}"));
        assert!(matches!(recent.find(&name, 0), Known::New));
        recent.begin(name.clone(), seq, 0, VectorClock::default());
        recent.answer(&name, seq, outcome(seq)).unwrap();
    }
    recent.expire(0);
    assert!(recent.bytes <= 10_000, "{} bytes", recent.bytes);
    let left: Vec<u64> = recent.remembered().iter().map(|write| write.seq).collect();
    assert!(left.len() > 10 && left.last() == Some(&999), "{left:?}");
    assert!(left.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    // The account is that of what is there.
    for write in recent.remembered() {
        recent.remove(&write.name);
    }
    assert_eq!(recent.bytes, 0);
}

#[test]
fn a_known_answer_takes_the_place_of_a_plain_one_and_not_the_reverse() {
    let mut recent: Recent<u32> = Recent::new(100, 1 << 20);
    let found = |seq, counter| Remembered {
        name: name("a"),
        seq,
        timestamp_ms: 0,
        outcome: outcome(counter),
    };
    recent.recover(found(1, 1), false);
    recent.recover(found(1, 2), true);
    recent.recover(found(1, 3), false);
    assert_eq!(answered(&mut recent, "a", 0), Some(outcome(2)));
    // The name was used again, after the window.
    recent.recover(found(9, 4), false);
    assert_eq!(answered(&mut recent, "a", 0), Some(outcome(4)));
    assert_eq!(recent.remembered().len(), 1);
}

#[test]
fn without_a_window_nothing_is_remembered() {
    let mut recent: Recent<u32> = Recent::new(0, 1 << 20);
    recent.begin(name("a"), 1, 5, VectorClock::default());
    assert!(matches!(recent.find(&name("a"), 5), Known::New));
    assert!(recent.remembered().is_empty());
}
