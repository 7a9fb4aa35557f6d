//! The merge of versions is the join of a semilattice, and what follows from it.

use bytes::Bytes;
use pairdb_node::storage::clock::{Causality, VectorClock};
use pairdb_node::storage::codec::{decode_versions, encode_versions};
use pairdb_node::storage::version::{MAX_SIBLINGS, Value, Version, Versions};
use proptest::prelude::*;

fn clock() -> impl Strategy<Value = VectorClock> {
    proptest::collection::vec(("[abc]", 0_u64..4), 0..4).prop_map(|entries| entries.into_iter().collect())
}

fn version() -> impl Strategy<Value = Version> {
    let value = prop_oneof![
        Just(Value::Tombstone),
        proptest::collection::vec(0_u8..3, 1..3).prop_map(|bytes| Value::Live(Bytes::from(bytes))),
    ];
    (clock(), value, 0_u64..5, 0_u64..5).prop_map(|(clock, value, timestamp_ms, seq)| Version {
        clock,
        value,
        timestamp_ms,
        seq,
    })
}

fn versions() -> impl Strategy<Value = Versions> {
    proptest::collection::vec(version(), 0..6).prop_map(|all| all.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn merge_is_associative(a in versions(), b in versions(), c in versions()) {
        prop_assert_eq!(a.clone().merge(b.clone()).merge(c.clone()), a.merge(b.merge(c)));
    }

    #[test]
    fn merge_is_commutative(a in versions(), b in versions()) {
        prop_assert_eq!(a.clone().merge(b.clone()), b.merge(a));
    }

    #[test]
    fn merge_is_idempotent(a in versions(), b in versions()) {
        let merged = a.merge(b.clone());
        prop_assert_eq!(merged.clone().merge(merged.clone()), merged.clone());
        prop_assert_eq!(merged.clone().merge(b), merged);
    }

    #[test]
    fn merge_keeps_exactly_what_nothing_dominates(all in proptest::collection::vec(version(), 0..8)) {
        let merged: Versions = all.iter().cloned().collect();
        for version in &all {
            let dominated = all.iter().any(|other| version.clock.compare(&other.clock) == Causality::Before);
            let kept = merged.all().iter().any(|v| v.clock == version.clock && v.value == version.value);
            prop_assert_eq!(kept, !dominated);
        }
    }

    #[test]
    fn comparison_agrees_with_comparing_maps(a in clock(), b in clock()) {
        let counter = |clock: &VectorClock, id: &str| {
            clock.entries().iter().find(|e| e.id == id).map_or(0, |e| e.counter)
        };
        let ids = ["a", "b", "c"];
        let left = ids.iter().any(|id| counter(&a, id) > counter(&b, id));
        let right = ids.iter().any(|id| counter(&a, id) < counter(&b, id));
        let expected = match (left, right) {
            (false, false) => Causality::Equal,
            (false, true) => Causality::Before,
            (true, false) => Causality::After,
            (true, true) => Causality::Concurrent,
        };
        prop_assert_eq!(a.compare(&b), expected);
        let joined = a.join(&b);
        for id in ids {
            prop_assert_eq!(counter(&joined, id), counter(&a, id).max(counter(&b, id)));
        }
    }

    #[test]
    fn the_winner_does_not_depend_on_local_facts(all in proptest::collection::vec(version(), 1..6)) {
        let here: Versions = all.iter().cloned().collect();
        let there: Versions = all
            .iter()
            .rev()
            .map(|v| Version { timestamp_ms: v.timestamp_ms * 7 + 1, seq: 100 - v.seq, ..v.clone() })
            .collect();
        prop_assert_eq!(here.winner().map(|v| (&v.clock, &v.value)), there.winner().map(|v| (&v.clock, &v.value)));
    }

    #[test]
    fn a_live_sibling_wins_over_a_tombstone(all in versions()) {
        let any_live = all.all().iter().any(|v| v.value.live().is_some());
        prop_assert_eq!(all.winner().is_some_and(|v| v.value.live().is_some()), any_live);
    }

    #[test]
    fn the_bound_holds_and_loses_no_event(all in versions(), most in 1_usize..4) {
        let (bounded, merged_away) = all.clone().bounded(most);
        prop_assert!(bounded.all().len() <= most);
        prop_assert_eq!(bounded.all().len() + merged_away, all.all().len());
        let value = |versions: &Versions| versions.winner().map(|v| v.value.clone());
        prop_assert_eq!(value(&bounded), value(&all), "what a read returns does not change");
        // Unless all that was merged has one clock, what is left dominates what was merged away.
        prop_assert_eq!(bounded.clock(), all.clock());
        let newest = |versions: &Versions| versions.all().iter().map(|v| v.seq).max();
        prop_assert_eq!(newest(&bounded), newest(&all), "what is new is met by whoever asks for what is new");
        let is_live = |versions: &Versions| versions.winner().is_some_and(|v| v.value.live().is_some());
        prop_assert_eq!(is_live(&bounded), is_live(&all), "no tombstone takes a live value's place");
    }

    #[test]
    fn encoding_is_reversed_by_decoding(all in versions()) {
        prop_assume!(!all.is_empty());
        let mut encoded = Vec::new();
        encode_versions(&mut encoded, &all);
        prop_assert_eq!(decode_versions(&encoded, Bytes::copy_from_slice), Some(all));
        encoded.pop();
        prop_assert_eq!(decode_versions(&encoded, Bytes::copy_from_slice), None);
    }

    #[test]
    fn decoding_garbage_is_an_answer_not_a_panic(garbage in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode_versions(&garbage, Bytes::copy_from_slice);
    }
}

#[test]
fn siblings_beyond_the_bound_become_one_that_dominates_them() {
    let all: Versions = (0..=MAX_SIBLINGS as u64)
        .map(|n| Version {
            clock: [(format!("writer-{n:02}"), n + 1)].into_iter().collect(),
            value: Value::Live(Bytes::from(format!("value-{n}"))),
            timestamp_ms: n,
            seq: n,
        })
        .collect();
    assert_eq!(all.all().len(), MAX_SIBLINGS + 1);
    let (bounded, merged_away) = all.clone().bounded(MAX_SIBLINGS);
    assert_eq!((bounded.all().len(), merged_away), (MAX_SIBLINGS, 1));
    // Met again elsewhere, what was merged away stays away.
    assert_eq!(bounded.clone().merge(all), bounded);
}

#[test]
fn what_is_merged_away_takes_no_winners_place() {
    // Each has one event; together the others have more than the winner.
    let sibling = |n: u64, counter| Version {
        clock: [(format!("writer-{n:02}"), counter)].into_iter().collect(),
        value: Value::Live(Bytes::from(format!("value-{n}"))),
        timestamp_ms: n,
        seq: n,
    };
    let all: Versions = (0..4).map(|n| sibling(n, 5)).chain([sibling(9, 6)]).collect();
    let winner = all.winner().cloned().unwrap();
    assert_eq!(winner.value, Value::Live(Bytes::from("value-9")));
    let (bounded, _merged_away) = all.clone().bounded(3);
    assert_eq!(bounded.winner().map(|v| &v.value), Some(&winner.value));
    assert_eq!(bounded.clock(), all.clock());
    assert_eq!(bounded.clone().merge(all), bounded);
}
