//! A changed configuration on a running node: what takes effect, what says that it does not, and what is refused.

mod common;
#[path = "common/secure.rs"]
mod secure;

use common::*;
use pairdb_node::actors::address_book::NodeAddress;
use pairdb_node::actors::reloads::{Change, Outcome};
use pairdb_node::config::{Config, Quota};
use pairdb_node::node::Node;
use pairdb_node::storage::compaction::throttle::Throttle;
use pairdb_node::storage::time::{ManualTime, Time};
use secure::{line, put};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

fn keys(outcomes: &[Outcome], change: &Change) -> Vec<String> {
    let alike = outcomes.iter().filter(|outcome| outcome.change == *change);
    alike.map(|outcome| outcome.key.clone()).collect()
}

fn reload(node: &Node, config: &Config) -> Vec<Outcome> {
    let outcomes = node.reloader().reload(config);
    assert_eq!(node.health().reloads.last().unwrap().outcomes, outcomes, "it is shown");
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_change_does_and_what_cannot_says_so_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let before = config(dir.path());
    let node = start(&before).await;
    let mut client = client(node.address());
    client.write(write("k", b"v", &[])).await.unwrap();
    assert!(node.reloader().reload(&before).is_empty());
    let mut now = before.clone();
    let quota = Quota {
        operations_per_s: 1,
        ..Quota::default()
    };
    now.tenants.quota.insert("tenant".into(), quota);
    now.compaction.throttle = 7;
    now.disk.scrub_throttle = 3;
    (now.disk.warn_usage, now.storage.max_disk_usage, now.disk.stop_usage) = (0.1, 0.2, 1.0);
    now.tracing.sample_ratio = 1.0;
    now.tracing.slow_request = Duration::ZERO;
    now.cluster.nodes.insert("other".into(), "10.0.0.2:1".into());
    now.server.read_timeout = Duration::from_secs(77);
    now.cache.max_size = bytesize::ByteSize::b((1 << 30) + 1);
    now.security.check_interval = Duration::from_secs(3);
    let rates = node.reloader().rates();
    let outcomes = reload(&node, &now);
    let expected = [
        "tenants.quota.tenant.bytes_per_s",
        "tenants.quota.tenant.operations_per_s",
        "tenants.quota.tenant.stored_bytes",
        "compaction.throttle",
        "disk.scrub_throttle",
        "disk.warn_usage",
        "storage.max_disk_usage",
        "tracing.sample_ratio",
        "tracing.slow_request",
        "cluster.nodes.other",
        "security.check_interval",
    ];
    assert_eq!(keys(&outcomes, &Change::Applied), expected);
    let restart = ["cache.max_size", "server.read_timeout"];
    assert_eq!(keys(&outcomes, &Change::NeedsRestart), restart);
    assert_eq!(outcomes.len(), expected.len() + restart.len());
    // They have taken effect.
    assert_eq!(node.reloader().rates(), (7_000_000, 3_000_000));
    let mut refused = Ok(());
    for _ in 0..20 {
        refused = client.read(read("k")).await.map(drop);
        if refused.is_err() {
            break;
        }
    }
    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(node.health().disk.thresholds().warn, 0.1);
    let address = NodeAddress::parse("10.0.0.2:1");
    assert_eq!(node.requests().peers.book.get("other"), address);
    let traces = &node.requests().handles.traces;
    assert!(
        !traces.are_on(),
        "no request is slow any more, and there is no collector"
    );
    // The same again: what needs a restart still does.
    let again = reload(&node, &now);
    assert_eq!(keys(&again, &Change::NeedsRestart), restart);
    assert_eq!(again.len(), restart.len());
    // And back.
    let back = reload(&node, &before);
    assert_eq!(keys(&back, &Change::Applied), expected);
    assert_eq!(back.len(), expected.len());
    assert_eq!(node.requests().peers.book.get("other"), None);
    assert_eq!(node.reloader().rates(), rates);
    assert!(traces.are_on());
    for _ in 0..20 {
        client.read(read("k")).await.unwrap();
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_of_the_disk_hold_for_what_was_seen_already() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.disk.check_interval = Duration::from_secs(3600);
    let node = start(&config).await;
    eventually("the disk was seen", async || !node.health().disk.disks().is_empty()).await;
    let used = node.health().disk.disks()[0].space.used();
    assert!(node.health().disk.write_delay().is_some());
    let mut full = config.clone();
    (full.disk.warn_usage, full.storage.max_disk_usage, full.disk.stop_usage) = (used / 4.0, used / 3.0, used / 2.0);
    assert!(used > 0.0, "a disk without a byte on it");
    reload(&node, &full);
    let refused = client(node.address()).write(write("k", b"v", &[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("disk.stop_usage"), "{refused}");
    reload(&node, &config);
    client(node.address()).write(write("k", b"v", &[])).await.unwrap();
    node.shutdown().await;
}

#[test]
fn another_pace_holds_from_the_next_look_on() {
    let time = ManualTime::default();
    let throttle = Throttle::new(Arc::new(time.clone()), 1_000);
    let took = |bytes| {
        let begun = time.elapsed();
        throttle.draw(bytes, || Some(1.0));
        time.elapsed() - begun
    };
    assert!(took(1_000) > Duration::from_millis(800));
    throttle.set_rate(1_000_000);
    assert!(took(100_000) < Duration::from_millis(200));
    throttle.set_rate(0);
    assert_eq!(took(u64::MAX / 2), Duration::ZERO);
}

/// Another value of the same kind.
fn other(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Bool(now) => json!(!now),
        Value::Number(number) => match number.as_u64() {
            Some(whole) => json!(whole + 1),
            None => json!(number.as_f64().unwrap() / 2.0),
        },
        Value::String(text) => match text.as_str() {
            "info" => json!("warn"),
            "console" => json!("json"),
            "lz4" => json!("none"),
            text if text.ends_with("iB") => json!(format!("1{text}")),
            "0s" => json!("1s"),
            "0B" => json!("1B"),
            text => match humantime::parse_duration(text) {
                Ok(time) => json!(humantime::format_duration(time * 2).to_string()),
                Err(_) => json!(format!("{text}x")),
            },
        },
        Value::Null => json!("/nowhere/at/all"),
        Value::Array(_) => json!(["other:1"]),
        Value::Object(_) => return None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_changes_without_a_word_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let node = start(&config).await;
    let all = serde_json::to_value(&config).unwrap();
    let mut applied = BTreeSet::new();
    let mut tried = 0;
    for (section, keys) in all.as_object().unwrap() {
        for (key, value) in keys.as_object().unwrap() {
            let Some(value) = other(value) else {
                assert!(
                    ["nodes", "default", "quota"].contains(&key.as_str()),
                    "{section}.{key} was not tried"
                );
                continue;
            };
            let mut changed = all.clone();
            changed[section][key] = value;
            let changed: Config =
                serde_json::from_value(changed).unwrap_or_else(|error| panic!("{section}.{key}: {error}"));
            assert_ne!(changed, config, "{section}.{key}");
            let outcomes = reload(&node, &changed);
            let [outcome] = &outcomes[..] else {
                panic!("{section}.{key}: {outcomes:?}");
            };
            assert_eq!(outcome.key, format!("{section}.{key}"));
            if outcome.change == Change::Applied {
                applied.insert(outcome.key.clone());
                reload(&node, &config);
            }
            tried += 1;
        }
    }
    assert!(tried > 70, "{tried}");
    // Other files are not there, these two mean nothing without a certificate, and no log is written in this process.
    let expected = [
        "compaction.throttle",
        "disk.scrub_throttle",
        "disk.stop_usage",
        "disk.warn_usage",
        "security.check_interval",
        "security.client_ca",
        "security.tls_key",
        "storage.max_disk_usage",
        "tracing.sample_ratio",
        "tracing.slow_request",
    ];
    assert_eq!(applied, expected.map(String::from).into());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_can_be_asked_for_from_a_reload_on_and_tls_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let before = config(dir.path());
    let node = start(&before).await;
    let mut now = before.clone();
    now.security.tokens_file = Some(dir.path().join("not there"));
    let outcomes = reload(&node, &now);
    let failed = |outcome: &Outcome| matches!(&outcome.change, Change::Failed(why) if why.contains("not there"));
    assert!(outcomes.len() == 1 && failed(&outcomes[0]), "{outcomes:?}");
    let mut client = client(node.address());
    client.write(write("k", b"v", &[])).await.unwrap();
    let file = put(&dir.path().join("tokens"), &line("tenant", "a-token-of-this-tenant"));
    now.security.tokens_file = Some(file.clone());
    assert!(keys(&reload(&node, &now), &Change::Applied).contains(&"security.tokens_file".to_owned()));
    let refused = client.write(write("k", b"v", &[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    // A reload reads the file again, whether its name has changed or not.
    put(&file, &line("tenant", "another-token-of-this-tenant"));
    reload(&node, &now);
    let address = node.address();
    let mut known = secure::plain_client(address, Some("another-token-of-this-tenant"));
    known.write(write("k", b"v", &[])).await.unwrap();
    reload(&node, &before);
    client.write(write("k", b"v", &[])).await.unwrap();
    let issued = secure::Authority::new("a").issue("node");
    let with_tls = secure::secure(dir.path(), &issued);
    now.security = with_tls.security;
    now.security.check_interval = before.security.check_interval;
    let restart = ["security.tls_cert", "security.tls_key"];
    assert_eq!(keys(&reload(&node, &now), &Change::NeedsRestart), restart);
    client.write(write("k", b"v", &[])).await.unwrap();
    node.shutdown().await;
}

/// A node as a process, with a configuration file.
struct Running {
    process: std::process::Child,
    dir: PathBuf,
}

impl Running {
    fn start(dir: &Path, toml: &str, listen: &str) -> Self {
        let file = put(&dir.join("config.toml"), toml);
        let data = dir.join("data");
        let (file, data) = (file.to_str().unwrap(), data.to_str().unwrap());
        let log = std::fs::File::create(dir.join("node.log")).unwrap();
        let process = binary(&["serve", "--config", file, "--data-dir", data, "--listen", listen])
            .env("PAIRDB__METRICS__ENABLED", "false")
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            process,
            dir: dir.to_owned(),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("node.log")).unwrap()
    }

    async fn logged(&self, text: &str) {
        eventually(text, async || self.log().contains(text)).await;
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    fn status(&self, more: &[&str]) -> String {
        let data = self.dir.join("data");
        let output = binary(&[&["status", "--data-dir", data.to_str().unwrap()], more].concat()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn reloaded(&self) -> Value {
        let status: Value = serde_json::from_str(&self.status(&["--json"])).unwrap();
        status["reload"].clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_file_again_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let node = Running::start(dir.path(), "[logging]\nlevel = \"info\"\n", &listen);
    node.logged("serving").await;
    assert_eq!(node.reloaded(), Value::Null);
    let file = dir.path().join("config.toml");
    put(
        &file,
        "[logging]\nlevel = \"debug\"\n[compaction]\nthrottle = 9\n[cache]\nmax_size = \"5MiB\"\n",
    );
    node.hang_up();
    let told = |key: &str, outcome: &str| json!({"key": key, "outcome": outcome, "error": ""});
    let expected = json!([
        told("logging.level", "applied"),
        told("compaction.throttle", "applied"),
        told("cache.max_size", "needs restart"),
    ]);
    eventually("it is reloaded", async || node.reloaded()["keys"] == expected).await;
    assert!(node.log().contains("cache.max_size"), "{}", node.log());
    let text = node.status(&[]);
    assert!(text.contains("Last reload of the configuration"), "{text}");
    assert!(text.contains("needs restart"), "{text}");
    let mut client = client(&listen);
    client.write(write("k", b"v", &[])).await.unwrap();
    put(&file, "[compaction]\nthrottle = 11\n[server]\nprot = 1\n");
    node.hang_up();
    eventually("it is refused", async || {
        node.reloaded()["refused"]
            .as_str()
            .is_some_and(|why| why.contains("prot"))
    })
    .await;
    assert_eq!(node.reloaded()["keys"], json!([]));
    node.logged("nothing has changed").await;
    // What is in force is what was before: 9, which the next one changes, and the cache's size still waits.
    put(
        &file,
        "[logging]\nlevel = \"debug\"\n[compaction]\nthrottle = 9\n[cache]\nmax_size = \"5MiB\"\n",
    );
    node.hang_up();
    let expected = json!([told("cache.max_size", "needs restart")]);
    eventually("it is as before", async || node.reloaded()["keys"] == expected).await;
    client.read(read("k")).await.unwrap();
    drop(client);
    // The level is in force: it lets through what says how the node stops.
    node.signal(rustix::process::Signal::TERM);
    node.logged("shutdown step done").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_beyond_loopback_unprotected_is_told_so_loudly() {
    let dir = tempfile::tempdir().unwrap();
    let node = Running::start(dir.path(), "", &format!("0.0.0.0:{}", free_port()));
    node.logged("LISTENING BEYOND LOOPBACK").await;
    let log = node.log();
    let line = log.lines().find(|line| line.contains("LISTENING")).unwrap();
    assert!(
        line.contains("WITHOUT TLS") && line.contains("WITHOUT TOKENS"),
        "{line}"
    );
    let before = |log: &str, other: &str| log.find("LISTENING") < log.find(other);
    node.logged("serving").await;
    assert!(before(&node.log(), "serving"), "{}", node.log());
    assert_eq!(node.log().matches("LISTENING BEYOND").count(), 1, "{}", node.log());
    // Also by one that never serves: what it listens on was open before it knew.
    let beside = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let toml = format!("[storage]\ndata_dir = {data:?}\n");
    let file = put(&beside.path().join("config.toml"), &toml);
    let listen = format!("0.0.0.0:{}", free_port());
    let refused = binary(&["serve", "--config", file.to_str().unwrap(), "--listen", &listen])
        .output()
        .unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("LISTENING BEYOND"), "{said}");
    let quiet = tempfile::tempdir().unwrap();
    let node = Running::start(quiet.path(), "", &format!("127.0.0.1:{}", free_port()));
    node.logged("serving").await;
    eventually("it answers", async || node.reloaded() == Value::Null).await;
    assert!(!node.log().contains("LISTENING"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_opens_the_node_says_so_at_every_level_of_logging() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = put(&dir.path().join("tokens"), &line("tenant", "a-token-of-this-tenant"));
    let quiet = "[logging]\nlevel = \"error\"\n";
    let guarded = format!("{quiet}[security]\ntokens_file = {tokens:?}\n");
    let node = Running::start(dir.path(), &guarded, &format!("0.0.0.0:{}", free_port()));
    node.logged("WITHOUT TLS: tokens and data").await;
    assert!(!node.log().contains("serving"), "{}", node.log());
    let open = "AND WITHOUT TOKENS: whoever reaches it reads";
    assert!(!node.log().contains(open), "{}", node.log());
    put(&dir.path().join("config.toml"), quiet);
    node.hang_up();
    node.logged(open).await;
    // What is as open as it was is not told again.
    put(
        &dir.path().join("config.toml"),
        &format!("{quiet}[compaction]\nthrottle = 9\n"),
    );
    node.hang_up();
    eventually("it is reloaded", async || {
        node.reloaded()["keys"][0]["key"] == "compaction.throttle"
    })
    .await;
    assert_eq!(node.log().matches(open).count(), 1, "{}", node.log());
}

fn pipe(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_in_place_of_a_file_is_refused_and_holds_no_stop_up() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    pipe(&tokens);
    let named = format!("[security]\ntokens_file = {tokens:?}\n");
    let mut refused = Running::start(dir.path(), &named, "127.0.0.1:0");
    eventually("it ends", async || refused.process.try_wait().unwrap().is_some()).await;
    assert!(refused.log().contains("no regular file"), "{}", refused.log());
    let mut node = Running::start(dir.path(), "", &format!("127.0.0.1:{}", free_port()));
    node.logged("serving").await;
    put(&dir.path().join("config.toml"), &named);
    node.hang_up();
    eventually("the reload is refused", async || {
        let keys = &node.reloaded()["keys"][0];
        keys["key"] == "security.tokens_file" && keys["error"].as_str().unwrap().contains("no regular file")
    })
    .await;
    // A reload that hangs: nobody writes the configuration into this one.
    std::fs::remove_file(dir.path().join("config.toml")).unwrap();
    pipe(&dir.path().join("config.toml"));
    node.hang_up();
    node.signal(rustix::process::Signal::TERM);
    eventually("it stops", async || node.process.try_wait().unwrap().is_some()).await;
    assert!(node.log().contains("stopped"), "{}", node.log());
}

#[test]
fn a_node_does_not_start_with_files_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = put(&dir.path().join("tokens"), "acme some-token-in-plain-text\n");
    let data = dir.path().join("data");
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["config", "check"]] {
        let output = binary(&[command, &["--data-dir", data.to_str().unwrap()]].concat())
            .env("PAIRDB__SECURITY__TOKENS_FILE", &tokens)
            .env("PAIRDB__SECURITY__PEER_CA", "/nowhere/at/all")
            .env("PAIRDB__METRICS__ENABLED", "false")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{told}");
        for said in ["security.tokens_file", "line 1", "security.peer_ca", "/nowhere/at/all"] {
            assert!(told.contains(said), "{said}: {told}");
        }
        assert!(!told.contains("plain-text"), "{told}");
    }
}
