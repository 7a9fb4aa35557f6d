//! Scripts of this repository that need more than cargo gives: they run where that is there.

use std::path::Path;
use std::process::{Command, Output};

/// What `script`, a path in the repository, printed: it must have ended well. [`None`], with a line that says why, where one of
/// the commands of shell in `probes` does not.
pub fn run_where(probes: &[String], script: &str) -> Option<String> {
    for probe in probes {
        let tried = Command::new("sh").args(["-c", probe]).output().unwrap();
        if !tried.status.success() {
            println!("not run: {probe}: {}", said(&tried));
            return None;
        }
    }
    let ran = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .env("NODE", env!("CARGO_BIN_EXE_pairdb-node"))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{script}: {}", said(&ran));
    Some(said(&ran))
}

fn said(output: &Output) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}
