//! The short form of `pairdb-node chaos`: every kind of actor dies again and again under load, and the node holds.

mod common;

use common::binary;

#[test]
fn a_node_whose_actors_die_all_the_time_holds() {
    let dir = tempfile::tempdir().unwrap();
    let plot = dir.path().join("plot.html");
    let seconds = 20.0;
    let output = binary(&[
        "chaos",
        "--kills-per-second",
        "20",
        "--keys",
        "50",
        "--json",
        "--duration",
    ])
    .arg(format!("{seconds}s"))
    .arg("--plot")
    .arg(&plot)
    .output()
    .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let report: serde_json::Value = serde_json::from_str(said.lines().next().unwrap_or_default()).expect(&said);
    let number = |name: &str| report[name].as_f64().unwrap_or_else(|| panic!("{name}: {said}"));
    assert!(output.status.success(), "{said}");
    assert_eq!((number("violations"), number("hung")), (0.0, 0.0), "{said}");
    assert_eq!(report["process_killed"], true, "{said}");
    // Some strikes wait for a point that is not passed in time.
    assert!(number("kills") >= 10.0 * seconds, "{said}");
    assert!(number("restarts") >= number("kills") / 2.0, "{said}");
    assert!(number("operations") >= 500.0 * seconds, "{said}");
    assert!(number("pairs") > 0.0 && number("kills_at_points") > 0.0, "{said}");
    assert!(number("slowest_ms") > 0.0, "{said}");
    // Nobody is shut out for good, neither those who are connected nor those who come.
    assert!(number("unavailable_max_ms") < 5_000.0, "{said}");
    assert!(number("operations_by_newcomers") >= 20.0 * seconds, "{said}");
    // They were struck at work, and not while there was nothing to do.
    assert!(number("flushes") > 0.0 && number("compactions") > 0.0, "{said}");
    // What strikes in twenty seconds reaches each of these; a short run may spare another.
    let killed = report["kills_by_actor"].as_object().unwrap();
    for actor in [
        "supervisor",
        "wal",
        "memtable",
        "cache-0",
        "flush",
        "compaction",
        "gateway",
        "streams",
        "stream-chaos-other",
        "gossip",
        "registration",
        "disk",
        "scrub",
        "vitals",
    ] {
        assert!(killed.contains_key(actor), "{actor} was not there to be killed: {said}");
    }
    for actor in ["wal", "memtable", "supervisor"] {
        assert!(killed[actor].as_u64() >= Some(1), "{actor} was never struck: {said}");
        assert!(
            report["unavailable_by_actor"][actor]["max_ms"].is_f64(),
            "{actor}: {said}"
        );
    }
    let spared = report["spared"].as_array().unwrap();
    assert!(spared.len() <= 1, "{said}");
    let page = std::fs::read_to_string(plot).unwrap();
    assert!(
        page.contains("The node held") && page.matches("<polyline").count() == 3,
        "{page}"
    );
    assert!(!page.contains("http"), "it needs nothing from elsewhere");
}

/// A script goes by the exit code.
#[test]
fn a_number_that_misses_its_bound_fails_the_run() {
    let output = binary(&[
        "chaos",
        "--duration",
        "1s",
        "--json",
        "--rate",
        "300",
        "--least-rate",
        "1e12",
    ])
    .output();
    let output = output.unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let report: serde_json::Value = serde_json::from_str(said.lines().next().unwrap_or_default()).expect(&said);
    assert_eq!(output.status.code(), Some(1), "{said}");
    // So many a second were asked for, and a hundred are newcomers'.
    let rate = report["ops_per_s"].as_f64().unwrap();
    assert!((20.0..600.0).contains(&rate), "{said}");
    assert_eq!(
        (&report["violations"], &report["hung"]),
        (&0.into(), &0.into()),
        "{said}"
    );
    let missed = report["missed"][0].as_str().unwrap();
    assert!(missed.starts_with("--least-rate 1000000000000: it was "), "{said}");
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    for (args, said) in [
        (&["chaos", "--kills-per-second", "0"][..], "--kills-per-second 0"),
        (&["chaos", "--keys", "0"], "--keys 0"),
        (&["chaos", "--addr", "http://127.0.0.1:1"], "--admin-addr"),
        (&["chaos", "--least-ratio", "0.95"], "--compare"),
    ] {
        let output = binary(args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(said), "{error}");
    }
}
