//! The screen: what is known of the node, as lines that fit the terminal.
//!
//! Owns: what is shown where, and what is left out of a small one. Does not own: the numbers, or the terminal.

use super::super::words::{bytes, duration, micros, printable, rate};
use super::cluster;
use super::line::{Line, Paint, cut, padded};
use super::view::View;
use crate::rpc::admin_pb as pb;

/// Rows from which on each level has a line of its own, and the last ends of actors are shown.
const TALL: usize = 40;
/// Ends that a tall screen has room for, however many actors there are …
const LEAST_ENDS: usize = 6;
/// … below lines of their own.
const ENDS_HEAD: usize = 2;
/// Columns from which on it is said why an actor ended last.
const WIDE: usize = 100;
/// Marks of a line of the past, the lowest first.
const MARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const KEYS: &str = "q quit   s order   ↑ ↓ PgUp PgDn actors";

/// What is known of the node.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// What it said last; none, when it never answered.
    pub(super) status: Option<pb::StatusResponse>,
    /// Why it does not answer, and for how many milliseconds; none, while it does.
    pub(super) away: Option<(String, u64)>,
}

/// All lines of a screen of so many columns and rows, and how many actors are on it.
pub(super) fn screen(known: &Known, view: View, (columns, rows): (usize, usize)) -> (Vec<Line>, usize) {
    let Some(status) = &known.status else {
        return (waiting(known, columns), 0);
    };
    let mut lines = head(status, known, columns);
    lines.push(Line::default());
    lines.extend(requests(status, columns));
    lines.extend(memory(status));
    if rows >= TALL {
        lines.extend(levels_tall(status, columns));
    } else {
        lines.push(levels(status));
    }
    lines.push(compaction(status));
    lines.extend(slowest(status));
    lines.extend(cluster::lines(status));
    lines.push(Line::default());
    let kept_for_ends = if rows >= TALL { LEAST_ENDS + ENDS_HEAD } else { 0 };
    // The head of the actors, and the keys.
    let room = rows.saturating_sub(lines.len() + kept_for_ends + 2);
    let shown = actors(status, view, (columns, room), &mut lines);
    if rows >= TALL {
        let room = rows.saturating_sub(lines.len() + ENDS_HEAD + 1);
        lines.extend(ends(status, room));
    }
    lines.truncate(rows.saturating_sub(1));
    lines.resize_with(rows.saturating_sub(1), Line::default);
    lines.push(foot(status, view, shown, columns));
    if known.away.is_some() {
        lines.iter_mut().skip(2).for_each(Line::fade);
    }
    (lines, shown)
}

fn waiting(known: &Known, columns: usize) -> Vec<Line> {
    let why = match &known.away {
        Some((why, _)) => printable(why),
        None => "asking the node …".to_owned(),
    };
    let mut lines = vec![Line::of("no answer yet", Paint::Bad), Line::default()];
    lines.extend(
        wrapped(&why, columns)
            .into_iter()
            .map(|line| Line::of(line, Paint::Plain)),
    );
    lines.extend([Line::default(), Line::of("It is asked on. q quits.", Paint::Faint)]);
    lines
}

/// A text in lines of at most so many characters, at any character: a path has no spaces.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(columns.max(1)).map(|line| line.iter().collect()).collect()
}

fn head(status: &pb::StatusResponse, known: &Known, columns: usize) -> Vec<Line> {
    let health = status.health.clone().unwrap_or_default();
    let paint = match health.status.as_str() {
        "healthy" => Paint::Good,
        "degraded" => Paint::Warn,
        _ => Paint::Bad,
    };
    let (state, paint) = match known.away {
        Some(_) => ("no answer", Paint::Bad),
        None => (health.status.as_str(), paint),
    };
    let mut first = Line::of(printable(state), paint);
    first.add("  ", Paint::Plain);
    first.add(printable(&status.node_id), Paint::Strong);
    let up = duration(status.uptime_ms);
    first.add(
        format!("  up {up}, version {}", printable(&status.version)),
        Paint::Faint,
    );
    let second = match (&known.away, health.reasons.split_first()) {
        (Some((why, ms)), _) => {
            let text = format!("What is shown is {} old: {}", duration(*ms), printable(why));
            Line::of(text, Paint::Bad)
        }
        (None, None) => Line::of("nothing needs attention", Paint::Faint),
        (None, Some((reason, more))) => {
            let count = if more.is_empty() {
                String::new()
            } else {
                format!(" (and {} more)", more.len())
            };
            let reason = cut(&printable(reason), columns.saturating_sub(count.chars().count()));
            Line::of(format!("{reason}{count}"), paint)
        }
    };
    vec![first, second]
}

/// Rates and times, each with its past as far as there is room.
fn requests(status: &pb::StatusResponse, columns: usize) -> Vec<Line> {
    let history = status.history.clone().unwrap_or_default();
    let requests = status.requests.unwrap_or_default();
    let last = |list: &[f64]| list.last().copied().unwrap_or(0.0);
    let timed = |name: &str, rates: &[f64], p50: &[f64], p99: &[f64]| {
        let (now, p50, p99) = (rate(last(rates)), micros(last(p50)), micros(last(p99)));
        let mut line = Line::of(format!("{name:<8}{now:>8}/s"), Paint::Strong);
        line.add(format!("  p50 {p50:>8}  p99 {p99:>8}  "), Paint::Plain);
        let room = columns.saturating_sub(line.width());
        line.add(past(rates, room), Paint::Faint);
        line
    };
    let failed = last(&history.errors_per_s);
    let mut errors = Line::of(
        format!("{:<8}{:>8}/s", "failed", rate(failed)),
        if failed > 0.0 { Paint::Bad } else { Paint::Strong },
    );
    errors.add(
        format!(
            "  {} since start; under way {} reads, {} writes",
            requests.errors, requests.reads_in_flight, requests.writes_in_flight
        ),
        Paint::Plain,
    );
    vec![
        timed(
            "reads",
            &history.reads_per_s,
            &history.read_p50_us,
            &history.read_p99_us,
        ),
        timed(
            "writes",
            &history.writes_per_s,
            &history.write_p50_us,
            &history.write_p99_us,
        ),
        errors,
    ]
}

/// The last `room` numbers, as high as they are beside the highest of them.
fn past(numbers: &[f64], room: usize) -> String {
    let shown = numbers.get(numbers.len().saturating_sub(room)..).unwrap_or_default();
    let highest = shown.iter().copied().fold(0.0, f64::max);
    let mark = |number: &f64| {
        let height = if highest > 0.0 {
            number / highest * (MARKS.len() - 1) as f64
        } else {
            0.0
        };
        MARKS.get(height.round() as usize).copied().unwrap_or(' ')
    };
    shown.iter().map(mark).collect()
}

fn memory(status: &pb::StatusResponse) -> [Line; 2] {
    let (cache, process) = (status.cache.unwrap_or_default(), status.process.unwrap_or_default());
    let log = status.commit_log.clone().unwrap_or_default();
    let share = |share: f64| format!("{:.0} %", share * 100.0);
    let hits = status
        .history
        .iter()
        .find_map(|history| history.cache_hit_ratio.last().copied());
    let hits = hits.filter(|hits| *hits >= 0.0).map_or("–".to_owned(), share);
    let disk = status
        .disks
        .first()
        .map_or("–".to_owned(), |disk| format!("{} full", share(disk.used)));
    let memtables: u64 = status.memtables.iter().map(|memtable| memtable.bytes).sum();
    let held = format!(
        "cache {hits} hits, {}   memtables {}   log {}",
        bytes(cache.bytes),
        bytes(memtables),
        bytes(log.bytes)
    );
    let used = format!(
        "processors {}   memory {}   disk {disk}",
        share(process.cpu),
        bytes(process.own_bytes)
    );
    [Line::of(held, Paint::Plain), Line::of(used, Paint::Plain)]
}

fn is_over(level: &pb::Level) -> bool {
    level.max_bytes > 0 && level.bytes > level.max_bytes
}

fn levels(status: &pb::StatusResponse) -> Line {
    let mut line = Line::default();
    for level in status.tables.iter().flat_map(|tables| &tables.levels) {
        let paint = if is_over(level) { Paint::Warn } else { Paint::Plain };
        line.add(
            format!("L{}: {}×, {}  ", level.level, level.tables, bytes(level.bytes)),
            paint,
        );
    }
    line
}

/// To scale: the widest has all the room.
fn levels_tall(status: &pb::StatusResponse, columns: usize) -> Vec<Line> {
    let tables = status.tables.clone().unwrap_or_default();
    let room = columns.saturating_sub(44);
    let widest = tables
        .levels
        .iter()
        .map(|level| level.bytes.max(level.max_bytes))
        .max()
        .unwrap_or(0)
        .max(1);
    let of = |level: &pb::Level| {
        let paint = if is_over(level) { Paint::Warn } else { Paint::Plain };
        let length = (level.bytes as f64 / widest as f64 * room as f64).ceil() as usize;
        let bound = if level.max_bytes > 0 {
            format!("of {}", bytes(level.max_bytes))
        } else {
            String::new()
        };
        let mut line = Line::of(
            format!(
                "L{} {:>5} {:<6} {:>10} {bound:<14} ",
                level.level,
                level.tables,
                if level.tables == 1 { "table" } else { "tables" },
                bytes(level.bytes)
            ),
            paint,
        );
        line.add("█".repeat(length.min(room)), paint);
        line
    };
    tables.levels.iter().map(of).collect()
}

fn compaction(status: &pb::StatusResponse) -> Line {
    let compaction = status.compaction.clone().unwrap_or_default();
    let paint = if compaction.write_delay_us > 0 {
        Paint::Warn
    } else {
        Paint::Plain
    };
    let mut line = Line::of(
        format!(
            "compaction {} behind, pressure {:.2}",
            bytes(compaction.pending_bytes),
            compaction.pressure
        ),
        paint,
    );
    for job in compaction.jobs.iter().filter(|job| job.state == "running") {
        let done = job.bytes_written as f64 / job.input_bytes.max(1) as f64;
        line.add(
            format!(
                "  L{}→L{} {:.0} % of {}",
                job.from_level,
                job.to_level,
                done.min(1.0) * 100.0,
                bytes(job.input_bytes)
            ),
            Paint::Good,
        );
    }
    line
}

/// The slowest request of the last minutes, and the hop at which it was longest.
fn slowest(status: &pb::StatusResponse) -> Option<Line> {
    let slow = status.slow_requests.first()?;
    let took = micros(slow.took_us as f64);
    let mut line = Line::of(format!("slowest {} {took}", printable(&slow.operation)), Paint::Plain);
    if let Some(hop) = slow.hops.iter().max_by_key(|hop| hop.queued_us + hop.worked_us) {
        line.add(
            format!(
                "  in {} {} queued, {} at work",
                printable(&hop.name),
                micros(hop.queued_us as f64),
                micros(hop.worked_us as f64)
            ),
            Paint::Plain,
        );
    }
    line.add(format!("  trace {}", printable(&slow.trace_id)), Paint::Faint);
    Some(line)
}

/// Adds the actors that there is room for. Returns how many.
fn actors(status: &pb::StatusResponse, view: View, (columns, room): (usize, usize), lines: &mut Vec<Line>) -> usize {
    let is_wide = columns >= WIDE;
    let mut heads = format!(
        "{:<18}{:<11}{:>8}{:>7}{:>9}{:>11}{:>10}",
        "actor", "state", "restarts", "depth", "msg/s", "queue p99", "work p99"
    );
    if is_wide {
        heads.push_str("  last end");
    }
    lines.push(Line::of(heads, Paint::Head));
    let ordered = view.ordered(&status.actors);
    let above = view.above.min(ordered.len().saturating_sub(room));
    let shown: Vec<_> = ordered.into_iter().skip(above).take(room).collect();
    let count = shown.len();
    lines.extend(
        shown
            .into_iter()
            .map(|(actor, depth)| actor_line(actor, depth, is_wide)),
    );
    count
}

fn actor_line(actor: &pb::Actor, depth: usize, is_wide: bool) -> Line {
    let handling = actor.handling.unwrap_or_default();
    let messages = actor
        .mailbox
        .map_or("–".to_owned(), |mailbox| mailbox.messages.to_string());
    // The p99 of nothing is nothing.
    let time = |us: f64| {
        if handling.messages_per_s > 0.0 {
            micros(us)
        } else {
            micros(0.0)
        }
    };
    let name = format!("{}{}", "  ".repeat(depth), printable(&actor.name));
    let mut line = Line::of(padded(&name, 17), Paint::Plain);
    line.add(" ", Paint::Plain);
    let (state, paint) = match actor.stuck_ms {
        0 if actor.state == "running" => ("running".to_owned(), Paint::Good),
        0 => (printable(&actor.state), Paint::Bad),
        ms => (format!("stuck {}", duration(ms)), Paint::Bad),
    };
    line.add(format!("{} ", padded(&state, 10)), paint);
    line.add(
        format!("{:>8}", actor.restarts),
        if actor.restarts > 0 { Paint::Warn } else { Paint::Plain },
    );
    let numbers = format!(
        "{messages:>7}{:>9}{:>11}{:>10}  ",
        rate(handling.messages_per_s),
        time(handling.queued_p99_us),
        time(handling.worked_p99_us)
    );
    line.add(numbers, Paint::Plain);
    if is_wide {
        line.add(printable(&actor.last_end), Paint::Faint);
    }
    line
}

fn ends(status: &pb::StatusResponse, room: usize) -> Vec<Line> {
    let mut lines = vec![
        Line::default(),
        Line::of(padded("last ends of actors", 19), Paint::Head),
    ];
    lines.extend(status.ends.iter().take(room).map(|end| {
        let ago = duration(status.now_ms.saturating_sub(end.at_ms));
        Line::of(
            format!(
                "{ago:>12} ago  {}  {}",
                padded(&printable(&end.actor), 18),
                printable(&end.reason)
            ),
            Paint::Plain,
        )
    }));
    lines
}

fn foot(status: &pb::StatusResponse, view: View, shown: usize, columns: usize) -> Line {
    let all = status.actors.len();
    let above = view.above.min(all.saturating_sub(shown));
    let place = if shown < all {
        format!(
            "actors {} to {} of {all}, by {}",
            above + 1,
            above + shown,
            view.sort.name()
        )
    } else {
        format!("by {}", view.sort.name())
    };
    let gap = columns.saturating_sub(KEYS.chars().count() + place.chars().count());
    Line::of(format!("{KEYS}{}{place}", " ".repeat(gap.max(2))), Paint::Head)
}

#[cfg(test)]
mod tests;
