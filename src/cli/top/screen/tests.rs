#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test panics")]

use super::super::view::{Scroll, Sort, Wish};
use super::*;
use unicode_width::UnicodeWidthStr;

/// A node with a stream, of which something is the matter.
fn status() -> pb::StatusResponse {
    let actor = |name: &str, parent: &str, restarts, depth, queued| pb::Actor {
        name: name.to_owned(),
        state: if name == "flush" { "restarting" } else { "running" }.to_owned(),
        restarts,
        parent: parent.to_owned(),
        last_end: if restarts > 0 {
            "killed\x1b[2J by a\nhostile \u{202e}text".to_owned()
        } else {
            String::new()
        },
        mailbox: Some(pb::Mailbox {
            messages: depth,
            ..pb::Mailbox::default()
        }),
        handling: Some(pb::Handling {
            messages_per_s: 12.0,
            queued_p99_us: queued,
            ..pb::Handling::default()
        }),
        ..pb::Actor::default()
    };
    let level = |level, tables, bytes, max_bytes| pb::Level {
        level,
        tables,
        bytes,
        max_bytes,
        table_bytes: Vec::new(),
    };
    pb::StatusResponse {
        node_id: "a node with a näme of 界".to_owned(),
        version: "0.1.0".to_owned(),
        uptime_ms: 7_384_000,
        now_ms: 1_000_000,
        health: Some(pb::Health {
            status: "degraded".to_owned(),
            reasons: vec![
                "the disk of /data is 93.0 % full; writes are slowed down".to_owned(),
                "more".to_owned(),
            ],
            metrics: std::collections::BTreeMap::new(),
        }),
        actors: vec![
            actor("vitals", "supervisor", 0, 0, 10.0),
            actor("cache-0", "supervisor", 7, 1, 900.0),
            actor("cache-1", "supervisor", 0, 0, 20.0),
            actor("flush", "supervisor", 1, 0, 3.0),
            actor("memtable", "supervisor", 0, 31, 245_000.0),
            actor("wal", "supervisor", 0, 4, 4.0),
            actor("streams", "supervisor", 0, 0, 0.0),
            actor("gateway", "supervisor", 0, 0, 0.0),
            actor("stream-node2", "streams", 0, 0, 0.0),
        ],
        history: Some(pb::History {
            reads_per_s: (0..300).map(f64::from).collect(),
            read_p50_us: vec![38.0; 300],
            read_p99_us: vec![3040.0; 300],
            writes_per_s: vec![1234.0; 300],
            write_p50_us: vec![0.0; 300],
            write_p99_us: vec![1_980_000.0; 300],
            errors_per_s: vec![0.5; 300],
            ..pb::History::default()
        }),
        tables: Some(pb::Tables {
            levels: vec![
                level(0, 3, 1 << 20, 4 << 20),
                level(1, 9, 9 << 20, 8 << 20),
                level(2, 0, 0, 16 << 20),
            ],
            ..pb::Tables::default()
        }),
        compaction: Some(pb::Compaction {
            jobs: vec![pb::CompactionJob {
                state: "running".to_owned(),
                to_level: 1,
                input_bytes: 1 << 20,
                bytes_written: 1 << 19,
                ..pb::CompactionJob::default()
            }],
            ..pb::Compaction::default()
        }),
        ends: vec![pb::End {
            at_ms: 940_000,
            actor: "cache-0".to_owned(),
            generation: 7,
            reason: "killed".to_owned(),
        }],
        ..pb::StatusResponse::default()
    }
}

fn known() -> Known {
    Known {
        status: Some(status()),
        away: None,
    }
}

fn drawn(known: &Known, view: View, size: (usize, usize)) -> Vec<String> {
    let (lines, _) = screen(known, view, size);
    lines.iter().map(|line| line.for_terminal(size.0, false)).collect()
}

fn without_codes(line: &str) -> String {
    line.replace("\x1b[7m", "").replace("\x1b[0m", "")
}

#[test]
fn it_fits_every_terminal_and_has_no_codes_but_its_own() {
    for known in [
        known(),
        Known::default(),
        Known {
            away: Some(("gone: \x1b]0;".repeat(40), 3000)),
            ..known()
        },
    ] {
        for size in [(80, 24), (140, 45), (20, 5), (1, 1), (400, 200)] {
            let lines = drawn(&known, View::default(), size);
            let most = if known.status.is_some() { size.1 } else { 30 };
            assert!(lines.len() <= most, "{} lines in {size:?}", lines.len());
            for line in lines {
                let plain = without_codes(&line);
                assert!(plain.width() <= size.0, "{size:?}: {line:?}");
                assert!(
                    !plain.chars().any(char::is_control) && !plain.contains('\u{202e}'),
                    "{line:?}"
                );
            }
        }
    }
}

#[test]
fn a_small_terminal_has_all_that_matters() {
    let lines = drawn(&known(), View::default(), (80, 24));
    assert_eq!(lines.len(), 24);
    assert!(
        lines[0].starts_with("degraded  a node with a näme of 界  up 2h 3m 4s"),
        "{}",
        lines[0]
    );
    assert!(lines[1].starts_with("the disk of /data is 93.0 % full") && lines[1].ends_with("(and 1 more)"));
    assert!(
        lines[3].starts_with("reads        299/s  p50    38 µs  p99   3.0 ms"),
        "{}",
        lines[3]
    );
    assert!(
        lines[3].ends_with('█') && lines[3].width() == 80,
        "the past fills the line: {}",
        lines[3]
    );
    assert!(lines[4].contains("1234/s  p50        –  p99   1.98 s"), "{}", lines[4]);
    let all = lines.join("\n");
    for part in [
        "L1: 9×, 9.0 MiB",
        "L0→L1 50 % of 1.0 MiB",
        "failed       0.5/s",
        "memtable",
        "  stream-node2",
        "245 ms",
        "q quit",
    ] {
        assert!(all.contains(part), "no {part} in\n{all}");
    }
    // Columns stand below each other.
    let head = lines
        .iter()
        .map(|line| without_codes(line))
        .find(|line| line.starts_with("actor"))
        .unwrap();
    let memtable = lines.iter().find(|line| line.starts_with("memtable")).unwrap();
    let ends_at = |line: &str, text: &str| line[..line.find(text).unwrap()].width() + text.width();
    assert_eq!(ends_at(&head, "depth"), ends_at(memtable, " 31"));
    assert_eq!(ends_at(&head, "queue p99"), ends_at(memtable, "245 ms"));
}

#[test]
fn a_large_terminal_draws_the_levels_to_scale_and_has_the_ends() {
    let lines = drawn(&known(), View::default(), (140, 45));
    let bar = |level: &str| {
        let line = lines.iter().find(|line| line.starts_with(level)).unwrap();
        line.chars().filter(|c| *c == '█').count()
    };
    assert_eq!((bar("L0 "), bar("L1 "), bar("L2 ")), (6, 54, 0));
    let all = lines.join("\n");
    assert!(all.contains("1m ago  cache-0") && all.contains("killed"), "{all}");
}

#[test]
fn actors_are_ordered_and_scrolled() {
    let status = status();
    let names = |view: View| -> Vec<String> {
        view.ordered(&status.actors)
            .iter()
            .map(|(actor, _)| actor.name.clone())
            .collect()
    };
    let mut view = View::default();
    assert_eq!(
        names(view)[6..],
        ["streams", "stream-node2", "gateway"],
        "a child follows its parent"
    );
    let first_by: Vec<(Sort, String)> = (0..4)
        .map(|_| {
            view.follow(Wish::Sort { forward: true }, 9, 3);
            (view.sort, names(view)[0].clone())
        })
        .collect();
    let wanted = [
        (Sort::Restarts, "cache-0"),
        (Sort::Depth, "memtable"),
        (Sort::Queue, "memtable"),
        (Sort::Work, "vitals"),
    ];
    assert_eq!(first_by, wanted.map(|(sort, name)| (sort, name.to_owned())));
    view.follow(Wish::Sort { forward: true }, 9, 3);
    assert_eq!(view.sort, Sort::Tree);

    for (scroll, above) in [
        (Scroll::Lines(-1), 0),
        (Scroll::Lines(1), 1),
        (Scroll::Pages(1), 4),
        (Scroll::Pages(1), 6),
        (Scroll::Lines(1), 6),
        (Scroll::Pages(-1), 3),
        (Scroll::Bottom, 6),
        (Scroll::Top, 0),
        (Scroll::Bottom, 6),
    ] {
        view.follow(Wish::Scroll(scroll), 9, 3);
        assert_eq!(view.above, above, "{scroll:?}");
    }
    // 16 rows have room for three of the nine.
    let (_, shown) = screen(&known(), view, (80, 16));
    let lines = drawn(&known(), view, (80, 16)).join("\n");
    assert_eq!(shown, 3);
    assert!(lines.contains("gateway") && !lines.contains("memtable  "), "{lines}");
    assert!(lines.contains("actors 7 to 9 of 9, by tree"), "{lines}");
}

#[test]
fn it_says_that_the_node_is_away_and_how_old_the_numbers_are() {
    let away = Known {
        away: Some(("no node answers at /data/admin.sock".to_owned(), 12_400)),
        ..known()
    };
    let lines = drawn(&away, View::default(), (80, 24));
    assert!(lines[0].starts_with("no answer  a node"), "{}", lines[0]);
    assert_eq!(
        lines[1],
        "What is shown is 12s old: no node answers at /data/admin.sock"
    );
    let (lines, _) = screen(&away, View::default(), (80, 24));
    assert!(
        lines[3].for_terminal(80, true).starts_with("\x1b[2mreads"),
        "what is old is faint"
    );
    let never = Known { status: None, ..away };
    let lines = drawn(&never, View::default(), (80, 24)).join("\n");
    assert!(
        lines.contains("no answer yet") && lines.contains("/data/admin.sock"),
        "{lines}"
    );
}

#[test]
fn members_streams_and_the_slowest_request_are_shown_where_there_are_any() {
    let alone = drawn(&known(), View::default(), (100, 40));
    for word in ["members", "stream to", "slowest"] {
        assert!(!alone.iter().any(|line| line.starts_with(word)), "{word} in {alone:#?}");
    }
    let member = |name: &str, state: &str, status: &str| pb::Member {
        node_id: name.to_owned(),
        state: state.to_owned(),
        status: status.to_owned(),
        ..pb::Member::default()
    };
    let hop = |name: &str, queued_us, worked_us| pb::SlowHop {
        name: name.to_owned(),
        queued_us,
        worked_us,
        ..pb::SlowHop::default()
    };
    let mut known = known();
    let status = known.status.as_mut().unwrap();
    status.members = vec![
        member("n1", "alive", "healthy"),
        member("n2\x1b[2J", "down", "healthy"),
        member("n3", "alive", "degraded"),
        member("n4", "left", "healthy"),
    ];
    status.streams = vec![pb::Stream {
        target_node_id: "n5".to_owned(),
        state: "copying".to_owned(),
        bytes_waiting: 3 << 20,
        problem: "it refuses".to_owned(),
        ..pb::Stream::default()
    }];
    status.slow_requests = vec![pb::SlowRequest {
        operation: "write".to_owned(),
        took_us: 12_000,
        hops: vec![hop("wal", 1, 2), hop("log", 9000, 1000), hop("answer", 0, 5)],
        ..pb::SlowRequest::default()
    }];
    let shown = drawn(&known, View::default(), (100, 40));
    let line = |word: &str| shown.iter().find(|line| line.starts_with(word)).unwrap();
    let members = line("members");
    assert!(
        members.starts_with("members 4: 1 degraded, 1 down, 1 healthy, 1 left  n2"),
        "{members}"
    );
    assert!(
        members.ends_with("down  n3 degraded") && !members.contains('\x1b'),
        "{members}"
    );
    let stream = line("stream to n5 copying");
    assert!(
        stream.contains("3.0 MiB waiting") && stream.contains("it refuses"),
        "{stream}"
    );
    assert!(line("slowest write 12").contains("in log 9"), "{}", line("slowest"));
}
