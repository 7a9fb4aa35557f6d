//! The whole node, simulated: one thread, a clock that stands until everybody waits, a disk in memory. Clients work while
//! actors fail, disks fail, the process dies and the power goes, all of it as one number says.
//!
//! What is judged: no acknowledged write is lost, no read is older than what was acknowledged or read before it, nothing is
//! read that was refused or never written, a write with a name counts once, each call is answered in time, nothing panics
//! that was not told to, and the node is well again after the last fault.
//!
//! ```text
//! cargo test --locked --test simulation                                            # the first seeds
//! PAIRDB_TEST_SEED=7 cargo test --locked --test simulation -- --nocapture          # one, with its whole trace
//! PAIRDB_TEST_SEEDS=10000 cargo test --locked --test simulation -- --nocapture     # the long form
//! ```

mod clients;
mod machine;
mod run;
mod trouble;
mod world;

use run::{Outcome, run};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Once;

/// Seeds of an ordinary run.
const SEEDS: u64 = 120;
/// Lines of the trace of a seed that fails.
const TAIL: usize = 80;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}: it must be a number")),
    )
}

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Panics of this thread, on which a whole run is, that nobody injected.
fn panics() -> u32 {
    PANICS.get()
}

/// Panics that are injected are not worth a word; others are counted.
fn be_quiet_about_injected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let what = panic.payload().downcast_ref::<String>();
            if !what.is_some_and(|what| what.starts_with("an injected panic")) {
                PANICS.set(PANICS.get() + 1);
                usual(panic);
            }
        }));
    });
}

/// Where two traces part, if they do.
fn parting(one: &[String], other: &[String]) -> Option<String> {
    let length = one.len().max(other.len());
    let at = (0..length).find(|at| one.get(*at) != other.get(*at))?;
    Some(format!("line {at}: {:?} and {:?}", one.get(at), other.get(at)))
}

fn expect_no_violation(seed: u64, outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    let tail = outcome.trace.len().saturating_sub(TAIL);
    for line in &outcome.trace[tail..] {
        println!("{line}");
    }
    let again = match parting(&outcome.trace, &run(seed).trace) {
        None => "a second run was the same to the last line".to_owned(),
        Some(where_) => format!("a second run was another: {where_}"),
    };
    panic!(
        "seed {seed}: {violation}\n{again}\nPAIRDB_TEST_SEED={seed} cargo test --locked --test simulation -- --nocapture"
    );
}

#[test]
fn a_seed_determines_everything_that_happens() {
    be_quiet_about_injected_panics();
    for seed in [1, 2, 3, 4] {
        let (one, other) = (run(seed), run(seed));
        assert_eq!(parting(&one.trace, &other.trace), None, "seed {seed}");
        assert!(one.trace.len() > 1000, "seed {seed}: {} lines", one.trace.len());
    }
    assert_ne!(parting(&run(1).trace, &run(2).trace), None);
}

#[test]
fn a_node_holds_whatever_fails() {
    be_quiet_about_injected_panics();
    if let Some(seed) = number("PAIRDB_TEST_SEED") {
        let outcome = run(seed);
        for line in &outcome.trace {
            println!("{line}");
        }
        return expect_no_violation(seed, &outcome);
    }
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let seeds = number("PAIRDB_TEST_SEEDS").unwrap_or(SEEDS);
    for seed in 1..=seeds {
        let outcome = run(seed);
        expect_no_violation(seed, &outcome);
        for (what, count) in outcome.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{seeds} seeds: {counts:?}");
    // Judged was something.
    let enough = |what: &str, each: u64| counts.get(what).is_some_and(|count| *count >= each * seeds);
    assert!(enough("written", 100) && enough("read", 200), "{counts:?}");
}
