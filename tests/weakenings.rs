//! The list of weakenings keeps up with the source: what each replaces stands there, exactly once. (That a test notices each is
//! shown by `tests/weakenings/run.sh`, which takes hours.)

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
