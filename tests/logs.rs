//! Logs of a node: what stands in them, what can be changed while it runs, and what never gets there.

mod common;
#[path = "common/site.rs"]
mod site;

use common::*;
use pairdb_node::rpc::pb;
use serde_json::Value;
use std::path::Path;
use tonic::Request;

/// A value that nobody else would write, in each of the forms in which a log may show bytes.
const MARK: &str = "Marked-Value-4711";

fn forms_of_mark() -> [String; 3] {
    let list = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let hex = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
    [MARK.to_owned(), list(MARK.as_bytes()), hex]
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("node.log")).unwrap()
}

/// The lines with this message, of a log in JSON.
fn lines(dir: &Path, message: &str) -> Vec<Value> {
    let log = log(dir);
    // The last may be half written.
    let parsed = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["fields"]["message"] == message).collect()
}

fn admin(dir: &Path, args: &[&str]) -> std::process::Output {
    let data = dir.join("data");
    let output = binary(&[args, &["--data-dir", data.to_str().unwrap()]].concat()).output();
    output.unwrap()
}

fn start_logged(dir: &Path, environment: &[(&str, &str)]) -> Process {
    let basic = [
        ("PAIRDB__METRICS__ENABLED", "false"),
        ("PAIRDB__LOGGING__FORMAT", "json"),
        ("PAIRDB__MEM_TABLE__FLUSH_THRESHOLD", "64KiB"),
    ];
    Process::start(dir, free_port(), &[&basic, environment].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_is_logged_with_its_trace_and_the_time_of_each_hop() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = start_logged(dir.path(), &[("PAIRDB__TRACING__SLOW_REQUEST", "1us")]);
    let mut client = client(&node.addr);
    let mut request = Request::new(write("k", b"v", &[("a", 1)]));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-00");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    client.write(request).await.unwrap();
    eventually("it is logged", async || !lines(dir.path(), "a slow request").is_empty()).await;
    let line = lines(dir.path(), "a slow request").remove(0);
    assert_eq!(
        (&line["trace_id"], &line["level"]),
        (&trace.into(), &"WARN".into()),
        "{line}"
    );
    assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
    let hops = line["fields"]["hops"].as_str().unwrap();
    for hop in ["receive ", "; wal ", "; log ", "; memtable ", "; answer "] {
        assert!(hops.contains(hop), "{hop} in {hops}");
    }
    assert_eq!(line["fields"]["operation"], "write");

    let status = admin(dir.path(), &["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let slow = &status["slow_requests"][0];
    assert_eq!(
        (&slow["trace_id"], &slow["status"]),
        (&trace.into(), &"OK".into()),
        "{slow}"
    );
    assert_eq!(slow["operation"], "write");
    let now_ms = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let started_ms = slow["started_ms"].as_u64().unwrap();
    assert!(
        (now_ms - 60_000..=now_ms).contains(&started_ms),
        "{started_ms}, now {now_ms}"
    );
    let hops = slow["hops"].as_array().unwrap();
    let sum = |hop: &Value| hop["queued_us"].as_u64().unwrap() + hop["worked_us"].as_u64().unwrap();
    let (took, all) = (slow["took_us"].as_u64().unwrap(), hops.iter().map(sum).sum::<u64>());
    assert!(all <= took && took > 0, "{all} of {took}");
    assert!(
        hops.iter()
            .any(|hop| hop["name"] == "log" && hop["detail"].as_str().unwrap().contains("sync"))
    );
    node.kill();
}

/// The same for people: the ids stand behind all else, and lines of no request have none.
#[tokio::test(flavor = "multi_thread")]
async fn lines_for_people_have_the_ids_of_their_request() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [
        ("PAIRDB__TRACING__SLOW_REQUEST", "1us"),
        ("PAIRDB__LOGGING__FORMAT", "console"),
    ];
    let mut node = start_logged(dir.path(), &environment);
    let mut request = Request::new(write("k", b"v", &[("a", 1)]));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-00");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    client(&node.addr).write(request).await.unwrap();
    let slow = || {
        log(dir.path())
            .lines()
            .find(|line| line.contains("a slow request"))
            .map(str::to_owned)
    };
    eventually("it is logged", async || {
        slow().is_some_and(|line| line.contains("span_id="))
    })
    .await;
    let line = slow().unwrap();
    let (_, ids) = line.split_once(&format!(" trace_id={trace} span_id=")).expect(&line);
    assert!(ids.len() == 16 && ids.chars().all(|c| c.is_ascii_hexdigit()), "{line}");
    let all = log(dir.path());
    let others: Vec<&str> = all.lines().filter(|line| !line.contains("a slow request")).collect();
    assert!(
        !others.is_empty() && others.iter().all(|line| !line.contains("trace_id=")),
        "{others:?}"
    );
    assert_eq!(node.terminate(), Some(0));
}

/// What is logged elsewhere than on the way of a request belongs to a trace as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_a_flush_and_an_actor_that_fail_are_logged_with_their_traces() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port().to_string());
    let environment = [
        ("PAIRDB__ADMIN__FAULT_INJECTION", "true"),
        ("PAIRDB__ADMIN__PORT", port.as_str()),
    ];
    let mut node = start_logged(dir.path(), &environment);
    let address = format!("http://127.0.0.1:{port}");
    let inject = |fault: [&str; 4]| {
        let args = [&["fault", "inject", "--admin-addr", &address][..], &fault].concat();
        let output = binary(&args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let fail = |point| inject(["disk-io", "error", "--point", point]);
    let mut client = client(&node.addr);
    client.write(write("k", b"v", &[("a", 1)])).await.unwrap();
    fail("sync-table");
    admin(dir.path(), &["drain", "--timeout", "1ms"]);
    let message = "a memtable could not be flushed";
    eventually("it is logged", async || !lines(dir.path(), message).is_empty()).await;
    let line = lines(dir.path(), message).remove(0);
    assert_eq!(line["trace_id"].as_str().map(str::len), Some(32), "{line}");
    let writable = admin(dir.path(), &["undrain"]);
    assert!(writable.status.success(), "{writable:?}");

    let failing = [
        (
            ["memtable", "panic", "--point", "before-answer"],
            "an actor ended; starting it again",
            "aa",
        ),
        (
            ["disk-io", "error", "--point", "sync-log"],
            "a batch could not be logged",
            "bb",
        ),
    ];
    for (fault, message, digits) in failing {
        inject(fault);
        let mut request = Request::new(write("k", b"w", &[("a", 2)]));
        let trace = digits.repeat(16);
        let parent = format!("00-{trace}-00f067aa0ba902b7-00");
        request.metadata_mut().insert("traceparent", parent.parse().unwrap());
        client.write(request).await.unwrap_err();
        eventually("it is logged", async || !lines(dir.path(), message).is_empty()).await;
        assert_eq!(lines(dir.path(), message)[0]["trace_id"], *trace, "{message}");
    }
    node.kill();
}

/// With the backtraces that the environment asks for: who names the frames is not who ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_a_line_of_the_log_and_nobody_waits_for_its_backtrace() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port().to_string());
    let environment = [
        ("PAIRDB__ADMIN__FAULT_INJECTION", "true"),
        ("PAIRDB__ADMIN__PORT", port.as_str()),
        ("RUST_BACKTRACE", "1"),
    ];
    let mut node = start_logged(dir.path(), &environment);
    let address = format!("http://127.0.0.1:{port}");
    let inject = ["fault", "inject", "--admin-addr", &address, "memtable", "panic"];
    let injected = binary(&[&inject[..], &["--point", "mid-batch"]].concat())
        .output()
        .unwrap();
    assert!(injected.status.success(), "{injected:?}");
    let mut client = client(&node.addr);
    client.write(write("k", b"v", &[("a", 1)])).await.unwrap_err();
    let named = "the backtrace of a panic";
    eventually("its frames are named", async || !lines(dir.path(), named).is_empty()).await;
    let panics = lines(dir.path(), "a panic");
    assert_eq!(panics.len(), 1, "{panics:?}");
    let fields = &panics[0]["fields"];
    assert_eq!(fields["what"], "an injected panic at mid-batch", "{fields}");
    assert_eq!(fields["thread"], "tokio-rt-worker", "{fields}");
    assert!(
        fields["place"].as_str().unwrap().contains("src/actors/faults.rs"),
        "{fields}"
    );
    let trace = lines(dir.path(), named).remove(0);
    let frames = trace["fields"]["backtrace"].as_str().unwrap();
    assert!(frames.contains("MemtableActor"), "{frames}");
    // The actor was back before the first of its frames had a name, or at least did not wait for that.
    let log = log(dir.path());
    let place = |message: &str| {
        log.find(&format!("\"{message}\""))
            .unwrap_or_else(|| panic!("{message} in {log}"))
    };
    assert!(place("an actor ended; starting it again") < place(named), "{log}");
    for line in log.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert_eq!(node.terminate(), Some(0));
}

/// A pipe that takes nothing more, and that nobody reads.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    use rustix::fs::OFlags;
    use std::io::Write;
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'.'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer)
}

/// What a node that shows its metrics there has in one of them.
fn metric(port: u16, name: &str) -> f64 {
    let (status, text) = site::ask(([127, 0, 0, 1], port).into(), "/metrics");
    assert_eq!(status, 200, "{text}");
    site::samples(&text, "node-of-logs")[name]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_up_no_request_and_not_the_end() {
    let (dir, metrics) = (tempfile::tempdir().unwrap(), free_port());
    let metrics_port = metrics.to_string();
    let (mut log, pipe) = full_pipe();
    let environment = [
        ("PAIRDB__SERVER__NODE_ID", "node-of-logs"),
        ("PAIRDB__METRICS__PORT", metrics_port.as_str()),
        ("PAIRDB__LOGGING__LEVEL", "debug"),
    ];
    let mut node = Process::start_logging_to(
        pipe.into(),
        dir.path(),
        &format!("127.0.0.1:{}", free_port()),
        &environment,
    );
    let mut client = client(&node.addr);
    let first = tokio::time::timeout(PATIENCE, client.write(write("k", b"v", &[("a", 1)])));
    first.await.expect("the start waits for who reads the log").unwrap();
    assert_eq!(metric(metrics, "log_lines_dropped_total"), 0.0);
    // Each write that a draining node refuses is a line.
    let drained = admin(dir.path(), &["drain"]);
    assert!(drained.status.success(), "{drained:?}");
    let dropped = || metric(metrics, "log_lines_dropped_total");
    let went_on = tokio::time::timeout(PATIENCE, async {
        while dropped() == 0.0 {
            for _ in 0..200 {
                client.write(write("k", b"w", &[("a", 2)])).await.unwrap_err();
            }
        }
        let before = dropped();
        for _ in 0..50 {
            client.write(write("k", b"w", &[("a", 2)])).await.unwrap_err();
            assert_eq!(client.read(read("k")).await.unwrap().into_inner().value, b"v");
        }
        let more = dropped() - before;
        assert!(more >= 50.0, "{more} of 50 lines");
    });
    went_on.await.expect("requests wait for who reads the log");
    assert_eq!(node.terminate(), Some(0));
    // Whoever reads it now has nothing but what was there before.
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut log, &mut read).unwrap();
    assert!(
        read.iter().all(|byte| *byte == b'.'),
        "{}",
        String::from_utf8_lossy(&read)
    );

    // One that cannot start does not wait for anybody to hear why either.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, (_log, pipe)) = (taken.local_addr().unwrap(), full_pipe());
    let data = dir.path().join("data");
    let refused = binary(&[
        "serve",
        "--data-dir",
        data.to_str().unwrap(),
        "--listen",
        &taken.to_string(),
    ])
    .env("PAIRDB__METRICS__ENABLED", "false")
    .stderr(pipe)
    .spawn();
    let mut refused = refused.unwrap();
    let mut code = None;
    eventually("it ends", async || {
        code = refused.try_wait().unwrap().map(|ended| ended.code());
        code.is_some()
    })
    .await;
    assert_eq!(code, Some(Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_is_changed_while_the_node_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = start_logged(
        dir.path(),
        &[
            ("PAIRDB__LOGGING__LEVEL", "error"),
            ("PAIRDB__TRACING__SLOW_REQUEST", "1us"),
        ],
    );
    let mut client = client(&node.addr);
    let slow = || lines(dir.path(), "a slow request").len();
    client.write(write("k", b"v", &[])).await.unwrap();
    let changed = admin(dir.path(), &["log-level", "info,pairdb_node::actors::wal=trace"]);
    assert!(changed.status.success(), "{changed:?}");
    assert!(
        String::from_utf8_lossy(&changed.stdout).contains("before: error"),
        "{changed:?}"
    );
    assert_eq!(slow(), 0, "what came before is not logged");
    eventually("it takes effect", async || {
        client.write(write("k", b"v", &[])).await.unwrap();
        slow() > 0
    })
    .await;
    let back = admin(dir.path(), &["log-level", "error"]);
    assert!(back.status.success(), "{back:?}");
    let before = slow();
    for _ in 0..20 {
        client.write(write("k", b"v", &[])).await.unwrap();
    }
    assert_eq!(slow(), before);
    for wrong in ["loud", "h2=trace"] {
        let refused = admin(dir.path(), &["log-level", wrong]);
        assert!(!refused.status.success(), "{wrong}: {refused:?}");
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains("must be trace") || wrong.contains("h2"),
            "{refused:?}"
        );
    }
    assert_eq!(node.terminate(), Some(0));
}

/// Everything that a client can do with a value, right and wrong.
async fn use_values(client: &mut Client, number: u32) {
    let value = MARK.repeat(50);
    let value = value.as_bytes();
    let key = format!("k{number}");
    client.write(write(&key, value, &[("a", 1)])).await.unwrap();
    client.read(read(&key)).await.unwrap();
    let mut named = write(&key, value, &[]);
    named.idempotency_key = format!("id{number}");
    client.write(named).await.unwrap();
    let repair = pb::RepairRequest {
        tenant_id: "tenant".to_owned(),
        key: key.clone(),
        value: value.to_vec(),
        vector_clock: wire_clock(&[("b", 1)]),
    };
    client.repair(repair).await.unwrap();
    // Wrong keys, tenants and clocks, and a value that is too large.
    let mut wrong = vec![
        write("", value, &[]),
        write("a\0b", value, &[]),
        write(&key, value, &[("", 1)]),
    ];
    wrong.push(write(&"k".repeat(100_000), value, &[]));
    wrong.push(write(&key, &MARK.repeat(700_000).into_bytes(), &[]));
    let mut no_tenant = write(&key, value, &[]);
    no_tenant.tenant_id = "a:b".to_owned();
    wrong.push(no_tenant);
    let mut refused = 0;
    for request in wrong.clone() {
        refused += u32::from(client.write(request).await.is_err());
    }
    assert!(refused >= 4, "{refused}");
    let mut operations = vec![write(&key, value, &[])];
    operations.extend(wrong.into_iter().take(3));
    client
        .batch_write(pb::BatchWriteRequest {
            operations: operations.clone(),
        })
        .await
        .unwrap();
    let operations = operations.into_iter().enumerate().map(|(id, write)| pb::Operation {
        id: id as u64,
        operation: Some(pb::operation::Operation::Write(write)),
    });
    let operations: Vec<_> = operations.collect();
    let mut results = client
        .operations(tokio_stream::iter(operations))
        .await
        .unwrap()
        .into_inner();
    while results.message().await.unwrap().is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_is_ever_logged_whatever_is_logged_and_goes_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let fault_port = free_port().to_string();
    let environment = [
        ("PAIRDB__LOGGING__LEVEL", "trace"),
        ("PAIRDB__TRACING__SLOW_REQUEST", "1us"),
        ("PAIRDB__ADMIN__FAULT_INJECTION", "true"),
        ("PAIRDB__ADMIN__PORT", &fault_port),
        ("PAIRDB__SUPERVISOR__MAX_RESTARTS", "10000"),
    ];
    let mut node = start_logged(dir.path(), &environment);
    let mut client = client(&node.addr);
    for number in 0..20 {
        use_values(&mut client, number).await;
    }
    // Actors that end in the middle of a write have it in their hands.
    let fault_address = format!("http://127.0.0.1:{fault_port}");
    for (actor, point) in [
        ("wal", "message"),
        ("memtable", "mid-batch"),
        ("wal", "before-sync"),
        ("cache-0", "message"),
    ] {
        let what = if point == "before-sync" { "stall" } else { "panic" };
        let injected = binary(&[
            "fault",
            "--admin-addr",
            &fault_address,
            "inject",
            actor,
            what,
            "--point",
            point,
        ])
        .output()
        .unwrap();
        assert!(
            injected.status.success(),
            "{}",
            String::from_utf8_lossy(&injected.stderr)
        );
        for _ in 0..5 {
            let _ = client.write(write("k", MARK.as_bytes(), &[])).await;
            let _ = client.read(read("k")).await;
        }
    }
    eventually("the faults are logged", async || {
        lines(dir.path(), "an injected fault").len() >= 3
    })
    .await;
    assert_eq!(node.terminate(), Some(0));
    let mut node = start_logged(dir.path(), &environment);
    assert_eq!(node.terminate(), Some(0));
    let log = log(dir.path());
    for expected in [
        "a slow request",
        "an actor ended; starting it again",
        "flushed a memtable",
        "\"DEBUG\"",
    ] {
        assert!(
            log.contains(expected),
            "{expected}: the log says too little to prove anything"
        );
    }
    for form in forms_of_mark() {
        let found = log.lines().find(|line| line.contains(&form));
        assert_eq!(found, None);
    }
}
