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
fn it_is_one_screen_however_much_there_is_to_say() {
    let actor = |n: usize| pb::Actor {
        name: format!("actor-{n:03}"),
        state: if n == 150 { "restarting" } else { "running" }.to_owned(),
        restarts: u64::from(n == 160),
        ..pb::Actor::default()
    };
    let many = |count: usize| (0..count).map(|n| format!("reason {n}")).collect();
    let status = pb::StatusResponse {
        health: Some(pb::Health {
            reasons: many(1000),
            ..pb::Health::default()
        }),
        actors: (0..200).map(actor).collect(),
        streams: streams(32),
        tables: Some(damaged(1000)),
        reload: Some(pb::Reload {
            keys: vec![pb::ReloadedKey::default(); 100],
            ..pb::Reload::default()
        }),
        ..pb::StatusResponse::default()
    };
    assert_eq!(lines(&status, "  reason ").len(), SHOWN_REASONS);
    assert_eq!(lines(&status, "(990 others with --json)").len(), 1);
    let actors = lines(&status, "  actor-");
    assert_eq!(actors.len(), SHOWN_ACTORS, "{actors:?}");
    let last = SHOWN_ACTORS - 1;
    assert!(
        actors[last - 1].contains("actor-150") && actors[last].contains("actor-160"),
        "{actors:?}"
    );
    assert!(actors[0].contains("actor-000"), "{actors:?}");
    let all = super::of(&status).lines().count();
    assert!(all <= 110, "{all} lines");
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
