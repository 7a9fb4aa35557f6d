//! `top` in a terminal of its own: it shows the node, follows keys, says that the node went away and comes back, and leaves the
//! terminal as it was.

mod common;

use common::*;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What `top` sends when it is done.
const LEFT: &str = "\x1b[?1049l";

/// A terminal with `top` in it.
struct Top {
    child: Child,
    /// What a person has: the keys, and what is on the screen.
    keys: File,
    seen: Arc<Mutex<String>>,
    /// What `top` has.
    terminal: OwnedFd,
}

impl Top {
    fn start(data: &Path, (columns, rows): (u16, u16)) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let terminal = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&terminal, size).unwrap();
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let child = binary(&["top", "--data-dir", data.to_str().unwrap(), "--interval", "100ms"])
            .env_remove("NO_COLOR")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let keys = File::from(person);
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut screen, all) = (keys.try_clone().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut part) {
                all.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..read]));
            }
        });
        Self {
            child,
            keys,
            seen,
            terminal,
        }
    }

    fn press(&mut self, keys: &str) {
        // What is on the screen from here on answers to the keys.
        self.seen.lock().unwrap().clear();
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn until(&self, what: &str) {
        let begun = Instant::now();
        while !self.seen.lock().unwrap().contains(what) {
            let seen = self.seen.lock().unwrap().clone();
            assert!(begun.elapsed() < PATIENCE, "no {what:?} on the screen: {seen:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// Whether keys are shown and come line by line, as a shell has it.
    fn is_as_before(&self) -> bool {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Waits for the end. Returns the exit code.
    fn end(mut self) -> Option<i32> {
        let code = self.child.wait().unwrap().code();
        self.until(LEFT);
        assert!(self.is_as_before(), "the terminal is left in another mode");
        code
    }
}

#[test]
fn it_follows_the_node_and_the_keys() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Process::start(
        dir.path(),
        free_port(),
        &[("NODE_ID", "node-on-top"), ("PAIRDB__METRICS__ENABLED", "false")],
    );
    let mut top = Top::start(&dir.path().join("data"), (80, 24));
    top.until("node-on-top");
    top.until("\x1b[32mhealthy");
    top.until("memtable");
    assert!(!top.is_as_before(), "keys come one by one");
    top.until("by tree\x1b[0m");
    // It ends at the edge, where what is cleared behind it would take its last character.
    top.forget();
    top.until("\x1b[0m\x1b[H");
    top.press("s");
    top.until("by restarts");
    top.press("S");
    top.until("by tree");
    // A window that was made smaller has fewer actors, and they can be scrolled.
    let size = Winsize {
        ws_row: 16,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&top.terminal, size).unwrap();
    top.until("actors 1 to 3 of");
    top.press("\x1b[B");
    top.until("actors 2 to 4 of");

    node.kill();
    top.forget();
    top.until("no answer");
    top.until("s old: ");
    top.forget();
    drop(node);
    let _node = Process::start(
        dir.path(),
        free_port(),
        &[("NODE_ID", "node-that-is-back"), ("PAIRDB__METRICS__ENABLED", "false")],
    );
    top.until("node-that-is-back");
    top.press("q");
    assert_eq!(top.end(), Some(0));
}

#[test]
fn however_it_ends_the_terminal_is_as_before() {
    let dir = tempfile::tempdir().unwrap();
    // Without a node it waits for one, and says where.
    let mut top = Top::start(dir.path(), (80, 24));
    top.until("admin.sock");
    top.press("\x03");
    assert_eq!(top.end(), Some(0), "Ctrl-C");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let top = Top::start(dir.path(), (80, 24));
        top.until("admin.sock");
        kill_process(Pid::from_child(&top.child), signal).unwrap();
        assert_eq!(top.end(), Some(0), "{signal:?}");
    }
}

#[test]
fn without_a_terminal_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let output = binary(&["top", "--data-dir", dir.path().to_str().unwrap()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(
        said.contains("needs a terminal") && said.contains("pairdb-node status"),
        "{said}"
    );
    let wrong = binary(&["top", "--interval", "1ms"]).output().unwrap();
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(!wrong.status.success() && said.contains("at least 100ms"), "{said}");
}
