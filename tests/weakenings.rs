//! The list of weakenings keeps up with the source: what each replaces stands there, exactly once. (That a test notices each is
//! shown by `tests/weakenings/run.sh`, which takes hours; `tests/weakenings/results.txt` has what came of it.)

use std::process::Command;

#[test]
fn every_weakening_finds_its_text() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/weakenings/run.sh");
    let output = Command::new("bash").args([script, "--texts"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let problems = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{problems}");
    let found = said.lines().filter(|line| line.ends_with(" → found")).count();
    assert!(found > 100, "{said}");
}

/// Of the groups that prove what a node that is torn apart promises; the others are run where they are needed.
#[test]
fn what_came_of_the_weakenings_of_supervision_is_there() {
    let at = |name: &str| std::fs::read_to_string(format!("{}/tests/weakenings/{name}", env!("CARGO_MANIFEST_DIR")));
    let (list, results) = (at("list.sh").unwrap(), at("results.txt").unwrap());
    let mut results: Vec<&str> = results.lines().collect();
    let (mut group, mut of_supervision) = ("", 0);
    for line in list.lines() {
        if let Some(named) = line.strip_prefix("group") {
            group = named.trim();
        }
        let Some(weakening) = line.strip_prefix("weaken ").filter(|_| group == "supervision") else {
            continue;
        };
        let (name, test) = weakening.split_once(' ').unwrap();
        let test = test.split(' ').next().unwrap();
        let place = results.iter().position(|result| {
            let mut words = result.split_whitespace();
            let is_of_it = words.next() == Some(name);
            let said = words.collect::<Vec<_>>().join(" ");
            // With the names of the tests that failed, or that it went on for too long.
            let how = said.strip_prefix(&format!("caught by {test}"));
            is_of_it && how.is_some_and(|how| how.starts_with(": ") || how.starts_with(", which hangs"))
        });
        results.remove(
            place.unwrap_or_else(|| panic!("results.txt does not say that {test} caught {name}: run it with --record")),
        );
        of_supervision += 1;
    }
    assert!(of_supervision >= 15, "only {of_supervision}");
    let is_listed = |result: &&str| list.contains(&format!("weaken {} ", result.split(' ').next().unwrap()));
    assert!(
        results.iter().all(is_listed),
        "results of what is not in the list: {results:?}"
    );
}
