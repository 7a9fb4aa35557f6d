//! Runbooks as the tests read them: the blocks of a document, and a machine on which they run.

use crate::common::{PATIENCE, free_port};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time for one block.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(120);

/// Stands in for systemd on a machine without: does to the node of the test what the unit in deploy/systemd does.
const SYSTEMCTL: &str = r#"#!/bin/sh
set -eu
[ "$2" = pairdb-node ] || { echo "no unit $2" >&2; exit 5; }
pid=$(cat "$MACHINE/pid" 2>/dev/null || true)
runs() { [ -n "$pid" ] && [ -e "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; }
stop() {
    if runs; then kill -TERM "$pid"; fi
    while runs; do sleep 0.05; done
}
start() {
    pairdb-node config check --config "$CONFIG"
    pairdb-node serve --config "$CONFIG" </dev/null >>"$MACHINE/node.log" 2>&1 &
    echo $! >"$MACHINE/pid"
}
case $1 in
    start) start ;;
    stop) stop ;;
    restart) stop && start ;;
    reload) pairdb-node config check --config "$CONFIG" && kill -HUP "$pid" ;;
    *) echo "no command $1" >&2 && exit 64 ;;
esac
"#;

/// A block between fences.
#[derive(Debug, PartialEq)]
pub struct Block {
    /// What follows the opening fence.
    pub kind: String,
    pub text: String,
    /// Its first line in the document.
    pub line: usize,
}

/// The blocks of a document, in their order.
pub fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    for (number, line) in document.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(kind)) => {
                let block = Block {
                    kind: kind.trim().to_owned(),
                    text: String::new(),
                    line: number + 2,
                };
                open = Some((indent, block));
            }
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(_, block)| block)),
            (Some((indent, block)), None) => {
                block.text += line.get(*indent..).unwrap_or_default();
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    blocks
}

/// What of `expected` is not in `output` at its place. "…" stands for anything, blanks for any blanks.
pub fn missing(expected: &str, output: &str) -> Option<String> {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let output = plain(output);
    let mut rest = output.as_str();
    for line in expected.lines() {
        for piece in line.split('…').map(plain).filter(|piece| !piece.is_empty()) {
            match rest.split_once(&piece) {
                Some((_, behind)) => rest = behind,
                None => return Some(piece),
            }
        }
    }
    None
}

/// A directory that is a machine to the commands of a runbook: a node with its configuration, its data, and tools.
pub struct Machine {
    dir: tempfile::TempDir,
    pub port: u16,
    pub admin_port: u16,
    aside_port: u16,
    environment: Vec<(String, String)>,
}

impl Machine {
    /// A machine whose node does not run yet.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machine = Self {
            port: free_port(),
            admin_port: free_port(),
            aside_port: free_port(),
            environment: Vec::new(),
            dir,
        };
        for name in ["bin", "new", "secrets", "backups", "work"] {
            fs::create_dir(machine.at(name)).unwrap();
        }
        for name in ["bin/pairdb-node", "new/pairdb-node"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pairdb-node"), machine.at(name)).unwrap();
        }
        let systemctl = machine.at("bin/systemctl");
        fs::write(&systemctl, SYSTEMCTL).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        machine.configure("0.98", "0.99", "1.0", "");
        machine
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Writes the node's configuration, with these bounds of the disk, and what is added to it.
    pub fn configure(&self, warn: &str, throttle: &str, stop: &str, more: &str) {
        let config = format!(
            "[server]\nnode_id = \"storage-node-1\"\nport = {}\nmax_queue_delay = \"60s\"\n\n\
             [storage]\ndata_dir = {:?}\nmax_disk_usage = {throttle}\n\n\
             [disk]\nwarn_usage = {warn}\nstop_usage = {stop}\n\n\
             [compaction]\nworkers = 2\nthrottle = 50\n\n[metrics]\nenabled = false\n\n\
             [admin]\nport = {}\n{more}\n",
            self.port,
            self.at("data"),
            self.admin_port
        );
        fs::write(self.at("config.toml"), config).unwrap();
    }

    /// Sets a variable for all blocks.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    fn command(&self, script: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-eu", "-c", script])
            .current_dir(self.at("work"))
            .env("PATH", format!("{}:{path}", self.at("bin").display()))
            .env("MACHINE", self.dir.path())
            .env("CONFIG", self.at("config.toml"))
            .env("DATA", self.at("data"))
            .env("ADDR", format!("http://127.0.0.1:{}", self.port))
            .env("ASIDE", format!("127.0.0.1:{}", self.aside_port))
            .env("BACKUPS", self.at("backups"))
            .env("SECRETS", self.at("secrets"))
            .env("BIN", self.at("bin"))
            .env("NEW", self.at("new"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a script; returns its exit code and what it printed.
    pub fn run(&self, script: &str) -> (Option<i32>, String) {
        let printed = self.at("printed");
        let to = fs::File::create(&printed).unwrap();
        let mut command = self.command(script);
        command.stdout(to.try_clone().unwrap()).stderr(to);
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            if begun.elapsed() > BLOCK_TIMEOUT {
                child.kill().unwrap();
                child.wait().unwrap();
                let text = fs::read_to_string(&printed).unwrap();
                panic!("not done within {BLOCK_TIMEOUT:?}:\n{script}\n{text}\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        (code, String::from_utf8_lossy(&fs::read(&printed).unwrap()).into_owned())
    }

    /// Runs a script that must succeed.
    pub fn prepare(&self, script: &str) -> String {
        let (code, output) = self.run(script);
        assert_eq!(code, Some(0), "{script}\n{output}\n{}", self.log());
        output
    }

    /// Repeats a script until it succeeds.
    pub fn prepare_until(&self, script: &str) {
        let begun = Instant::now();
        loop {
            let (code, output) = self.run(script);
            if code == Some(0) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{script}\n{output}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts the node, and has it hold what the runbooks read.
    pub fn start(&self) {
        self.prepare("systemctl start pairdb-node");
        self.prepare_until("pairdb-node health --addr \"$ADDR\"");
        for (key, value) in [("kept", "still readable"), ("old", "to be deleted")] {
            self.prepare(&format!(
                "pairdb-node put {key} '{value}' --addr \"$ADDR\" --tenant runbook"
            ));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.at("node.log")).unwrap_or_default()
    }

    /// Runs the blocks of a runbook in their order.
    pub fn follow(&self, document: &Path) {
        let name = document.file_name().unwrap().to_string_lossy();
        let text = fs::read_to_string(document).unwrap();
        let mut output = None;
        let mut ran = 0;
        for block in blocks(&text) {
            let place = format!("{name}, line {}", block.line);
            let expected = match block.kind.as_str() {
                "sh run" => 0,
                "sh fails" => 1,
                "text" => {
                    let output: &String = output
                        .as_ref()
                        .unwrap_or_else(|| panic!("{place}: no block before it ran"));
                    if let Some(piece) = missing(&block.text, output) {
                        panic!("{place}: {piece:?} is not where it should be in\n{output}");
                    }
                    continue;
                }
                _ => {
                    output = None;
                    continue;
                }
            };
            let (code, printed) = self.run(&block.text);
            assert_eq!(
                code,
                Some(expected),
                "{place}:\n{}{printed}\n{}",
                block.text,
                self.log()
            );
            output = Some(printed);
            ran += 1;
        }
        assert!(ran > 0, "{name}: no block ran");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let Ok(pid) = fs::read_to_string(self.at("pid")) else {
            return;
        };
        if let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
