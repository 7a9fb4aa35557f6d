#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test panics")]

use super::*;

fn streams(count: usize) -> Vec<pb::Stream> {
    let stream = |n: usize| pb::Stream {
        target_node_id: format!("target-{n:02}"),
        state: "copying".to_owned(),
        // Of many the last is the one that somebody must look at.
        problem: match n + 1 == count {
            true => "no way to it".to_owned(),
            false => String::new(),
        },
        ..pb::Stream::default()
    };
    (0..count).map(stream).collect()
}

fn damaged(count: u64) -> pb::Tables {
    let table = |id| pb::QuarantinedTable {
        id,
        file: format!("table-{id:02}"),
        ..pb::QuarantinedTable::default()
    };
    pb::Tables {
        quarantined: (0..count).map(table).collect(),
        ..pb::Tables::default()
    }
}

fn lines(status: &pb::StatusResponse, of: &str) -> Vec<String> {
    let text = super::of(status);
    text.lines()
        .filter(|line| line.contains(of))
        .map(str::to_owned)
        .collect()
}

#[test]
fn streams_and_damaged_tables_are_no_more_than_a_screen_has_room_for() {
    let status = pb::StatusResponse {
        streams: streams(32),
        tables: Some(damaged(1000)),
        ..pb::StatusResponse::default()
    };
    let shown = lines(&status, "target-");
    assert_eq!(shown.len(), SHOWN_STREAMS, "{shown:?}");
    assert!(
        shown[0].contains("target-31") && shown[0].contains("no way to it"),
        "{shown:?}"
    );
    assert!(shown[1].contains("target-00"), "{shown:?}");
    assert_eq!(lines(&status, "(24 others with --json)").len(), 1);
    assert_eq!(lines(&status, "damaged: table-").len(), SHOWN_DAMAGED);
    assert_eq!(lines(&status, "(992 other damaged ones with --json)").len(), 1);
}

#[test]
fn what_has_room_is_shown_whole() {
    let status = pb::StatusResponse {
        streams: streams(SHOWN_STREAMS),
        tables: Some(damaged(SHOWN_DAMAGED as u64)),
        ..pb::StatusResponse::default()
    };
    assert_eq!(lines(&status, "target-").len(), SHOWN_STREAMS);
    assert_eq!(lines(&status, "damaged: table-").len(), SHOWN_DAMAGED);
    assert_eq!(lines(&status, "--json"), [""; 0]);
}
