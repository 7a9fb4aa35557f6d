//! What the screen says of other nodes: the members, and the streams to them; a line each, where there is something to say.
//!
//! Owns: these lines. Does not own: their place on the screen, or the numbers.

use super::super::words::{bytes, duration, printable};
use super::line::{Line, Paint};
use crate::rpc::admin_pb as pb;
use std::collections::BTreeMap;

/// Streams that have a line of their own; the others are in `status`.
const MOST_STREAMS: usize = 3;

/// The lines; none of a node that knows itself alone and sends nothing.
pub(super) fn lines(status: &pb::StatusResponse) -> Vec<Line> {
    let streams = status.streams.iter().take(MOST_STREAMS).map(stream);
    members(&status.members).into_iter().chain(streams).collect()
}

/// How many are how, and the names of those that are not well.
fn members(members: &[pb::Member]) -> Option<Line> {
    if members.len() < 2 {
        return None;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut line = Line::of(format!("members {}", members.len()), Paint::Plain);
    let mut ill = Line::default();
    for member in members {
        let state = if member.state == "alive" {
            member.status.as_str()
        } else {
            member.state.as_str()
        };
        *counts.entry(state).or_default() += 1;
        let paint = match state {
            "healthy" | "left" => continue,
            "down" | "unhealthy" => Paint::Bad,
            _ => Paint::Warn,
        };
        ill.add(format!("  {} {}", printable(&member.node_id), printable(state)), paint);
    }
    let counts: Vec<_> = counts
        .iter()
        .map(|(state, count)| format!("{count} {}", printable(state)))
        .collect();
    line.add(format!(": {}", counts.join(", ")), Paint::Plain);
    line.append(ill);
    Some(line)
}

fn stream(stream: &pb::Stream) -> Line {
    let paint = match (stream.state.as_str(), stream.problem.is_empty()) {
        ("failed", _) => Paint::Bad,
        (_, false) => Paint::Warn,
        (_, true) => Paint::Plain,
    };
    let mut line = Line::of(
        format!(
            "stream to {} {}",
            printable(&stream.target_node_id),
            printable(&stream.state)
        ),
        paint,
    );
    line.add(
        format!(
            "  {} copied, {} forwarded, {} waiting for {}  {}",
            bytes(stream.bytes_copied),
            bytes(stream.bytes_streamed),
            bytes(stream.bytes_waiting),
            duration(stream.lag_ms),
            printable(&stream.problem)
        ),
        Paint::Plain,
    );
    line
}
