//! The command line, as a person uses it.

mod common;

use common::*;
use pairdb_node::storage::fs::{FileSystem, RealFs};
use predicates::prelude::*;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn pairdb(args: &[&str]) -> assert_cmd::Command {
    assert_cmd::Command::from_std(binary(args))
}

/// A tree as an import meets it: sizes from nothing to the largest value, odd names, links.
fn plant(dir: &Path) {
    let mut state = 1_u64;
    for n in 0..300_u32 {
        let sub = dir.join(format!("d{}/e{}", n % 7, n % 3));
        fs::create_dir_all(&sub).unwrap();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let size = (state >> 33) as usize % (1 << (n % 18));
        let content: Vec<u8> = (0..size).map(|i| (state >> (i % 57)) as u8).collect();
        fs::write(sub.join(format!("file {n} ü.txt")), content).unwrap();
    }
    fs::write(dir.join("empty"), b"").unwrap();
    fs::write(dir.join("largest"), vec![7; 10 << 20]).unwrap();
    fs::write(dir.join("looks empty"), b"empty file\n").unwrap();
    std::os::unix::fs::symlink("empty", dir.join("link to a file")).unwrap();
    std::os::unix::fs::symlink("d1", dir.join("link to a directory")).unwrap();
}

fn assert_same_tree(left: &Path, right: &Path) {
    let status = std::process::Command::new("diff")
        .args(["-r"])
        .args([left, right])
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
}

#[test]
fn a_value_is_put_read_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Process::start(dir.path(), free_port(), &[]);
    let addr = node.addr.clone();
    let target = ["--addr", &addr, "--tenant", "t"];
    let run = |args: &[&str]| pairdb(&[args, &target].concat());
    run(&["put", "greeting", "hello"]).assert().success();
    run(&["get", "greeting"]).assert().success().stdout("hello");
    run(&["put", "piped"])
        .write_stdin(vec![0, 159, 146, 150])
        .assert()
        .success();
    run(&["get", "piped"])
        .assert()
        .success()
        .stdout(vec![0_u8, 159, 146, 150]);
    run(&["delete", "greeting"]).assert().success();
    run(&["get", "greeting"])
        .assert()
        .failure()
        .stderr(predicate::str::contains("not found"));
    run(&["put", "k", ""])
        .assert()
        .failure()
        .stderr(predicate::str::contains("1 to 10485760 bytes"));
    pairdb(&["get", "piped", "--addr", &addr, "--tenant", "other"])
        .assert()
        .failure();
    run(&["health"])
        .assert()
        .success()
        .stdout(predicate::str::starts_with("healthy"));
    assert_eq!(node.terminate(), Some(0));
    run(&["get", "piped"])
        .assert()
        .failure()
        .stderr(predicate::str::contains("is it running"));
}

#[test]
fn a_tree_survives_import_kill_and_export() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    plant(&tree);
    fs::write(dir.path().join("too large"), vec![1; (10 << 20) + 1]).unwrap();
    let port = free_port();
    let mut node = Process::start(dir.path(), port, &[("PAIRDB__MEM_TABLE__FLUSH_THRESHOLD", "1MiB")]);
    let addr = node.addr.clone();
    let import = |path: &Path| {
        let path = path.to_str().unwrap().to_owned();
        pairdb(&["import", &path, "--addr", &addr, "--tenant", "tree"])
    };
    // Half of it, then the node is killed and comes back; the import finds what is there.
    import(&tree.join("d1")).assert().success();
    let mut importing = binary(&["import", tree.to_str().unwrap(), "--addr", &addr, "--tenant", "tree"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(30));
    node.kill();
    let mut node = Process::start(dir.path(), port, &[]);
    assert!(
        importing.wait().unwrap().success(),
        "the import waits for the node and goes on"
    );
    import(&tree)
        .assert()
        .success()
        .stdout(predicate::str::starts_with("0 files stored").and(predicate::str::contains("already there")));
    let out = dir.path().join("out");
    let export = pairdb(&["export", out.to_str().unwrap(), "--addr", &addr, "--tenant", "tree"]).assert();
    export.success();
    // The first import stored d1's files under paths of their own.
    for entry in fs::read_dir(tree.join("d1")).unwrap() {
        let name = entry.unwrap().file_name();
        assert_same_tree(&tree.join("d1").join(&name), &out.join(&name));
        fs::remove_dir_all(out.join(&name)).unwrap();
    }
    assert_same_tree(&tree, &out);
    // What is too large is refused by name, and the rest is kept.
    let more = dir.path().join("more");
    fs::create_dir(&more).unwrap();
    fs::rename(dir.path().join("too large"), more.join("too large")).unwrap();
    fs::write(more.join("fits"), b"x").unwrap();
    import(&more)
        .assert()
        .failure()
        .stdout(predicate::str::contains("1 files stored"))
        .stderr(predicate::str::contains("too large").and(predicate::str::contains("10485761 bytes")));
    pairdb(&["get", "fits", "--addr", &addr, "--tenant", "tree"])
        .assert()
        .success()
        .stdout("x");
    assert_eq!(node.terminate(), Some(0));
}

#[test]
fn an_export_never_leaves_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::start(dir.path(), free_port(), &[]);
    let target = ["--addr", &node.addr, "--tenant", "t"];
    for key in [
        "../outside",
        "/tmp/absolute-outside",
        "a/../../outside",
        "link/outside",
        "ok/inside",
        ".",
        "a//b",
    ] {
        pairdb(&[&["put", key, "x"][..], &target].concat()).assert().success();
    }
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    std::os::unix::fs::symlink(dir.path(), out.join("link")).unwrap();
    pairdb(&[&["export", out.to_str().unwrap()][..], &target].concat())
        .assert()
        .failure()
        .stdout(predicate::str::contains("1 files written").and(predicate::str::contains("6 keys passed over")));
    assert_eq!(fs::read(out.join("ok/inside")).unwrap(), b"x");
    assert!(!dir.path().join("outside").exists());
    assert!(!Path::new("/tmp/absolute-outside").exists());
}

#[test]
fn bench_prints_the_promised_fields() {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::start(dir.path(), free_port(), &[]);
    let bench = |workload: &str, args: &[&str]| {
        let load = [
            "--keys",
            "500",
            "--value-size",
            "50",
            "--concurrency",
            "16",
            "--channels",
            "2",
        ];
        let common = ["bench", "--addr", &node.addr, "--workload", workload, "--json"];
        let output = pairdb(&[&common[..], &load, args].concat()).assert().success();
        let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
        let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(report["errors"], 0, "{report}");
        for field in ["ops_per_s", "p50_us", "p95_us", "p99_us", "p999_us"] {
            assert!(report[field].as_f64().unwrap() > 0.0, "{workload}: {field} in {report}");
        }
        report
    };
    for workload in ["write", "read", "mixed"] {
        let args = ["--duration", "1s", "--distribution", "zipfian", "--baseline"];
        let report = bench(workload, &args);
        let number = |field: &str| report[field].as_f64().unwrap();
        let ratio = number("ops_per_s") / number("baseline_ops_per_s");
        assert!((ratio - number("ratio")).abs() < 1e-6, "{report}");
    }
    let report = bench("write", &["--duration", "1s", "--of-peak", "0.2"]);
    let share = report["ops_per_s"].as_f64().unwrap() / report["peak_ops_per_s"].as_f64().unwrap();
    // A busy machine may give less, and never more.
    assert!(share > 0.0 && share < 0.25, "{report}");
    for share in ["0", "1.5", "much"] {
        pairdb(&["bench", "--of-peak", share]).assert().failure();
    }
}

#[test]
fn one_process_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _node = Process::start(dir.path(), free_port(), &[]);
    let data = dir.path().join("data");
    pairdb(&["serve", "--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0"])
        .assert()
        .failure()
        .stderr(predicate::str::contains("in use by another process"));
}

/// Commands to a stopped node have its directory for a moment, and it may be started in that moment.
#[test]
fn a_node_waits_for_a_command_that_has_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let held = RealFs.lock_dir(&data).unwrap();
    let log = dir.path().join("node.log");
    let command = std::thread::spawn(move || {
        let begun = Instant::now();
        while !fs::read_to_string(&log).is_ok_and(|log| log.contains("waiting for the data directory")) {
            assert!(begun.elapsed() < PATIENCE, "the node does not say that it waits");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(held);
    });
    let node = Process::start(dir.path(), free_port(), &[]);
    command.join().unwrap();
    pairdb(&["put", "k", "v", "--addr", &node.addr]).assert().success();
}

#[test]
fn mistakes_are_told_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::start(dir.path(), free_port(), &[]);
    let data = dir.path().join("other");
    let serve = |listen: &str| pairdb(&["serve", "--data-dir", data.to_str().unwrap(), "--listen", listen]);
    serve(&node.addr)
        .assert()
        .failure()
        .stderr(predicate::str::contains("cannot listen on"));
    serve("nonsense")
        .assert()
        .failure()
        .stderr(predicate::str::contains("must be host:port"));
    pairdb(&["serve", "--config", "/nonexistent.toml"])
        .assert()
        .failure()
        .stderr(predicate::str::contains("nonexistent.toml"));
    pairdb(&["import", "/nonexistent", "--addr", &node.addr])
        .assert()
        .failure()
        .stderr(predicate::str::contains("is not a directory"));
    pairdb(&["get", "k", "--addr", "not a url"])
        .assert()
        .failure()
        .stderr(predicate::str::contains("--addr"));
    for command in ["serve", "put", "get", "delete", "health", "import", "export", "bench"] {
        pairdb(&[command, "--help"])
            .assert()
            .success()
            .stdout(predicate::str::contains("Usage: pairdb-node"));
        pairdb(&["--help"])
            .assert()
            .success()
            .stdout(predicate::str::contains(command));
    }
}

#[test]
fn a_stop_flushes_and_the_next_start_replays_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut node = Process::start(dir.path(), port, &[]);
    pairdb(&["put", "k", "v", "--addr", &node.addr]).assert().success();
    assert_eq!(node.terminate(), Some(0));
    let tables = fs::read_dir(dir.path().join("data/sstables")).unwrap();
    assert!(
        tables
            .into_iter()
            .any(|f| f.unwrap().file_name().to_str().unwrap().ends_with(".sst"))
    );
    let node = Process::start(dir.path(), port, &[]);
    pairdb(&["get", "k", "--addr", &node.addr])
        .assert()
        .success()
        .stdout("v");
    let log = fs::read_to_string(dir.path().join("node.log")).unwrap();
    assert_eq!(log.matches("replayed=0").count(), 2, "{log}");
}

#[test]
fn a_running_node_is_backed_up_and_a_node_of_the_backup_has_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let port = free_port();
    let mut node = Process::start(dir.path(), port, &[]);
    let url = format!("http://{}", node.addr);
    let put = |key: &str, value: &str| {
        assert_cmd::Command::from(binary(&["put", "--addr", &url, key, value]))
            .assert()
            .success();
    };
    put("a", "first");
    let backup = || {
        let args = ["backup", "--to", &at("backups"), "--data-dir", &at("data")];
        assert_cmd::Command::from(binary(&args)).assert().success();
    };
    backup();
    put("b", "second");
    backup();
    put("c", "too late");
    node.kill();
    // A node that does not run is backed up as well.
    backup();
    assert_eq!(std::fs::read_dir(at("backups")).unwrap().count(), 3);
    let mut names: Vec<_> = std::fs::read_dir(at("backups"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for (backup, found) in names
        .iter()
        .zip([[true, false, false], [true, true, false], [true, true, true]])
    {
        let home = dir.path().join(format!("of-{backup}"));
        std::fs::create_dir(&home).unwrap();
        let data = home.join("data").to_str().unwrap().to_owned();
        let args = [
            "restore",
            "--from",
            &at("backups"),
            "--name",
            backup,
            "--data-dir",
            &data,
        ];
        assert_cmd::Command::from(binary(&args)).assert().success();
        // Over what is there nothing is restored.
        assert_cmd::Command::from(binary(&args))
            .assert()
            .failure()
            .stderr(predicates::str::contains("there is data already"));
        let node = Process::start(&home, free_port(), &[]);
        let url = format!("http://{}", node.addr);
        for (key, found) in ["a", "b", "c"].into_iter().zip(found) {
            let get = assert_cmd::Command::from(binary(&["get", "--addr", &url, key]))
                .output()
                .unwrap();
            assert_eq!(get.status.success(), found, "{key} in {backup}");
        }
    }
}
