//! The status page, as far as it can be judged without a browser: it is whole, it is allowed to do nothing but ask its own
//! node, it reads what a node really says, and it puts no text of the node into the page as HTML. `tests/page/run.sh` looks at
//! it in a browser, and the last test here runs that where there is one.

mod common;
#[path = "common/script.rs"]
mod script;

use common::*;
use pairdb_node::actors::faults::Fault;
use pairdb_node::config::Config;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// The variables of the page's scripts that hold what the node says, and where it stands in `/status`; `[]` are the items of
/// a list.
const HOLDERS: &[(&str, &str)] = &[
    ("status", ""),
    ("health", "health"),
    ("history", "history"),
    ("requests", "requests"),
    ("process", "process"),
    ("actor", "actors[]"),
    ("mailbox", "actors[].mailbox"),
    ("handling", "actors[].handling"),
    ("end", "ends[]"),
    ("status.tables", "tables"),
    ("level", "tables.levels[]"),
    ("compaction", "compaction"),
    ("job", "compaction.jobs[]"),
    ("writes", "write_memory"),
    ("memtable", "memtables[]"),
    ("log", "commit_log"),
    ("cache", "cache"),
    ("disk", "disks[]"),
    ("scrub", "scrub"),
    ("member", "members[]"),
    ("slow", "slow_requests[]"),
    ("hop", "slow_requests[].hops[]"),
];
/// The same of what this node has none of: the names are those of `proto/admin.proto`.
const OF_PROTO: &[(&str, &str)] = &[
    ("stream", "message Stream {"),
    ("aside", "message QuarantinedTable {"),
    ("reload", "message Reload {"),
    ("key", "message ReloadedKey {"),
];
/// How long a request takes that is made slow.
const SLOW: Duration = Duration::from_millis(1500);
/// What scripts of a page may not use: each reads text as HTML, or as a program.
const FORBIDDEN: &[&str] = &[
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "document.write",
    "createContextualFragment",
    "DOMParser",
    "srcdoc",
    "eval(",
    "Function(",
    "setAttribute(\"on",
    "javascript:",
];

fn shown(dir: &Path) -> Config {
    let mut config = config(dir);
    config.metrics.enabled = true;
    config.metrics.port = 0;
    config
}

/// What a path answers: its head and its body.
async fn ask(address: SocketAddr, path: &'static str) -> (String, String) {
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    });
    asked.await.unwrap()
}

/// What stands between the only `from` and the `to` that follows.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from}"));
    assert!(!rest.contains(from), "more than one {from}");
    rest.split_once(to).unwrap_or_else(|| panic!("no {to}")).0
}

/// All scripts of the page, as they stand in the source.
fn scripts() -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let scripts: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|ext| ext == "js"))
        .collect();
    assert!(scripts.len() >= 6, "{scripts:?}");
    scripts
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

/// The lines of a script without what stands behind `//`, and without comments of several lines.
fn code(script: &str) -> String {
    let lines = script.lines().map(|line| line.split("//").next().unwrap());
    lines
        .filter(|line| !line.trim_start().starts_with(['*', '/']))
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The names that are read of a variable: those behind `variable.`, and those of `{ name, other: mine } = variable`.
fn read_of(code: &str, variable: &str) -> Vec<String> {
    let holder = format!("{variable}.");
    let behind = code.match_indices(&holder).filter(|(at, _)| {
        let before = code[..*at].chars().next_back();
        before.is_none_or(|c| !is_of_name(c) && c != '.')
    });
    let name = |rest: &str| rest.chars().take_while(|c| is_of_name(*c)).collect::<String>();
    let mut names: Vec<String> = behind.map(|(at, found)| name(&code[at + found.len()..])).collect();
    for (at, _) in code.match_indices(&format!("}} = {variable};")) {
        let (_, taken) = code[..at].rsplit_once('{').unwrap();
        names.extend(taken.split(',').map(|one| name(one.trim_start())));
    }
    names
}

/// All that stands at a place of `/status`.
fn at<'a>(status: &'a Value, place: &str) -> Vec<&'a Value> {
    let mut found = vec![status];
    for step in place.split('.').filter(|step| !step.is_empty()) {
        let name = step.trim_end_matches("[]");
        found = found.into_iter().map(|value| &value[name]).collect();
        if step.ends_with("[]") {
            found = found.into_iter().flat_map(|list| list.as_array().unwrap()).collect();
        }
    }
    found.into_iter().filter(|value| !value.is_null()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_whole_and_may_ask_its_node_alone() {
    use base64::Engine;
    use sha2::Digest;

    let dir = tempfile::tempdir().unwrap();
    let node = start(&shown(dir.path())).await;
    let (head, page) = ask(node.metrics_address().unwrap(), "/").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let head = head.to_lowercase();
    for header in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
    ] {
        assert!(head.contains(header), "no {header} in {head}");
    }
    let policy = head
        .lines()
        .find_map(|line| line.strip_prefix("content-security-policy: "))
        .expect(&head);
    for rule in [
        "default-src 'none'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.split("; ").any(|one| one == rule), "no {rule} in {policy}");
    }
    assert!(
        !policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"),
        "{policy}"
    );
    // What stands in the page is what the policy lets it do, to the letter.
    for (rule, from, to) in [
        ("script-src", "<script type=\"module\">", "</script>"),
        ("style-src", "<style>", "</style>"),
    ] {
        let text = between(&page, from, to);
        assert!(text.len() > 3000, "{rule}: {}", text.len());
        let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(text));
        let wanted = format!("{rule} 'sha256-{hash}'").to_lowercase();
        assert!(policy.split("; ").any(|one| one == wanted), "no {wanted} in {policy}");
    }
    // It needs nothing from elsewhere, and has no place for what the policy would refuse.
    for foreign in [
        "http://",
        "https://",
        "src=",
        "@import",
        "url(",
        " style=",
        " onclick=",
        "/*STYLE*/",
        "/*SCRIPT*/",
        "{METRICS}",
    ] {
        let found = page.replace("http://www.w3.org/2000/svg", "").contains(foreign);
        assert!(!found, "{foreign} in the page");
    }
    let (_, elsewhere) = ask(node.metrics_address().unwrap(), "/elsewhere").await;
    assert!(elsewhere.contains("there is /,"), "{elsewhere}");
    node.shutdown().await;
}

#[test]
fn no_text_of_the_node_gets_into_the_page_as_html() {
    let code = code(&scripts());
    for way in FORBIDDEN {
        assert!(!code.contains(way), "the page's script has {way}");
    }
    assert!(
        code.matches("textContent").count() >= 3,
        "it puts text in by textContent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_the_page_reads_is_what_a_node_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = shown(dir.path());
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(32);
    config.compaction.throttle = 0;
    config.tracing.slow_request = SLOW / 2;
    config.admin.fault_injection = true;
    config.admin.port = 0;
    let node = start(&config).await;
    let mut client = client(node.address());
    for n in 0..1500_u32 {
        let key = format!("k{}", n * 7919 % 1500);
        client.write(write(&key, &[7; 500], &[])).await.unwrap();
        client.read(read(&key)).await.unwrap();
    }
    let stall = injection("memtable", "before-answer", Fault::Stall(SLOW));
    node.requests().handles.faults.inject(stall).unwrap();
    client.write(write("slow", b"v", &[])).await.unwrap();
    assert!(node.tree().kill("scrub"));
    let address = node.metrics_address().unwrap();
    let status = async || serde_json::from_str::<Value>(&ask(address, "/status").await.1).unwrap();
    eventually("all there can be is there", async || {
        let status = status().await;
        let has = |place: &str| !at(&status, place).is_empty();
        HOLDERS.iter().all(|(_, place)| has(place)) && has("history.at_ms[]")
    })
    .await;
    let (before, status) = (status().await, status().await);
    let code = code(&scripts());
    let mut read = 0;
    for (variable, place) in HOLDERS {
        let names = read_of(&code, variable);
        assert!(!names.is_empty(), "nothing is read of {variable}");
        read += names.len();
        for name in names {
            let is_said = at(&status, place).iter().any(|value| value.get(&name).is_some());
            assert!(
                is_said,
                "the page reads {variable}.{name}, and /status has no {place}.{name}"
            );
        }
    }
    let proto = include_str!("../proto/admin.proto");
    for (variable, message) in OF_PROTO {
        let fields = between(proto, message, "\n}");
        for name in read_of(&code, variable) {
            assert!(fields.contains(&format!(" {name} = ")), "{message} has no {name}");
        }
    }
    // Of slow requests it leaves out nothing either, and the one that was made slow says where it was.
    for (variable, place) in [("slow", "slow_requests[]"), ("hop", "slow_requests[].hops[]")] {
        let names = read_of(&code, variable);
        for said in at(&status, place)
            .iter()
            .flat_map(|value| value.as_object().unwrap().keys())
        {
            assert!(names.contains(said), "the page does not show {place}.{said}");
        }
    }
    let slow = at(&status, "slow_requests[]").into_iter().find(|slow| {
        let mut hops = slow["hops"].as_array().unwrap().iter();
        hops.any(|hop| hop["name"] == "memtable" && hop["worked_us"].as_u64().unwrap() >= SLOW.as_micros() as u64)
    });
    let slow = slow.expect("the write that was slow is among the slowest");
    assert_eq!((&slow["operation"], &slow["status"]), (&"write".into(), &"OK".into()));
    assert_eq!(slow["trace_id"].as_str().unwrap().len(), 32);
    let slow_before = at(&before, "slow_requests[]").into_iter();
    let mut same = slow_before.filter(|before| before["trace_id"] == slow["trace_id"]);
    assert_eq!(same.next(), Some(slow), "two looks at the same request differ");
    assert!(read > 100, "{read} names are read");
    // And the page leaves nothing out.
    for name in status.as_object().unwrap().keys() {
        let named = [
            format!("status.{name}"),
            format!("{name},"),
            format!("{name} }}"),
            format!("{name}:"),
        ];
        assert!(
            named.iter().any(|named| code.contains(named)),
            "the page does not show {name}"
        );
    }
    node.shutdown().await;
}

#[test]
fn a_person_sees_the_node_in_a_browser() {
    // A browser and a Python that start: what tests/page needs. It ends by itself: what it waits for has a limit, and so has the
    // whole of it.
    let probes = [
        "python3 --version",
        "for browser in \"$BROWSER\" chromium chromium-browser google-chrome; do
            command -v \"$browser\" && exec timeout 60 \"$browser\" --version
        done
        echo no Chromium >&2
        exit 1",
    ];
    script::run_where(&probes.map(str::to_owned), "tests/page/run.sh");
}
