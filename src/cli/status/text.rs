//! The status of a node for a person: a section for each part, a line for each thing.
//!
//! Owns: the choice of what is shown, and the alignment. Does not own: the numbers.

use super::super::words::{bytes, duration, micros, printable, rate};
use crate::rpc::admin_pb as pb;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

/// Jobs that are shown; all that are remembered stand in the JSON form.
const SHOWN_JOBS: usize = 3;
/// Reasons why it is not healthy.
const SHOWN_REASONS: usize = 10;
/// Actors.
const SHOWN_ACTORS: usize = 24;
/// Keys of a configuration that was read again.
const SHOWN_KEYS: usize = 8;
/// Ends of actors that are shown, likewise.
const SHOWN_ENDS: usize = 5;
/// Slowest requests that are shown, likewise.
const SHOWN_SLOW: usize = 3;
/// Members that are shown, likewise.
const SHOWN_MEMBERS: usize = 8;
/// Streams that are shown, likewise.
const SHOWN_STREAMS: usize = 8;
/// Damaged tables that are shown, likewise.
const SHOWN_DAMAGED: usize = 8;
/// Input tables of a job that are named.
const NAMED_INPUTS: usize = 8;

/// The whole status.
pub(super) fn of(status: &pb::StatusResponse) -> String {
    let mut out = Text(String::new());
    out.head(status);
    out.requests(status);
    out.actors(&status.actors);
    out.ends(&status.ends);
    out.tables(&status.tables.clone().unwrap_or_default());
    out.compaction(&status.compaction.clone().unwrap_or_default());
    out.memory_and_disks(status);
    out.members(status);
    out.streams(&status.streams);
    out.slowest(&status.slow_requests);
    out.reload("Last reload of the configuration", status.reload.as_ref());
    out.reload("Last change of the files of [security]", status.file_look.as_ref());
    out.0
}

/// Whether a column begins or ends at its edge.
#[derive(Clone, Copy)]
enum Align {
    Left,
    Right,
}
use Align::{Left, Right};

struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(printable(line).trim_end());
        self.0.push('\n');
    }

    fn section(&mut self, name: &str) {
        self.line("");
        self.line(name);
    }

    /// Rows below each other, every column as wide as its widest cell; the last is not padded.
    fn rows(&mut self, aligns: &[Align], rows: &[Vec<String>]) {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        for row in rows {
            let mut line = String::from(" ");
            for (column, (cell, align)) in row.iter().zip(aligns).enumerate() {
                let width = width(column);
                // A write into a string does not fail.
                let _ = match align {
                    Left => write!(line, " {cell:<width$}"),
                    Right => write!(line, " {cell:>width$}"),
                };
                line.push(' ');
            }
            self.line(&line);
        }
    }

    fn head(&mut self, status: &pb::StatusResponse) {
        let uptime = Duration::from_secs(status.uptime_ms / 1000);
        self.line(&format!(
            "{}, version {}, up {}",
            status.node_id,
            status.version,
            humantime::format_duration(uptime)
        ));
        let health = status.health.clone().unwrap_or_default();
        self.line(&health.status);
        for reason in health.reasons.iter().take(SHOWN_REASONS) {
            self.line(&format!("  {reason}"));
        }
        self.hidden(health.reasons.len(), SHOWN_REASONS, "others");
    }

    fn requests(&mut self, status: &pb::StatusResponse) {
        self.section("Requests");
        let history = status.history.clone().unwrap_or_default();
        let requests = status.requests.unwrap_or_default();
        let last = |list: &[f64]| list.last().copied().unwrap_or(0.0);
        let mut rows = vec![row(["", "a second", "p50", "p99", "under way", "since start"])];
        for (name, rates, p50, p99, now, all) in [
            (
                "reads",
                &history.reads_per_s,
                &history.read_p50_us,
                &history.read_p99_us,
                requests.reads_in_flight,
                requests.reads,
            ),
            (
                "writes",
                &history.writes_per_s,
                &history.write_p50_us,
                &history.write_p99_us,
                requests.writes_in_flight,
                requests.writes,
            ),
        ] {
            let (p50, p99) = (micros(last(p50)), micros(last(p99)));
            rows.push(row([
                name,
                &rate(last(rates)),
                &p50,
                &p99,
                &now.to_string(),
                &all.to_string(),
            ]));
        }
        let failed = rate(last(&history.errors_per_s));
        rows.push(row(["failed", &failed, "", "", "", &requests.errors.to_string()]));
        self.rows(&[Left, Right, Right, Right, Right, Right], &rows);
    }

    fn actors(&mut self, actors: &[pb::Actor]) {
        self.section("Actors");
        let heads = [
            "",
            "state",
            "restarts",
            "waiting",
            "queue p99",
            "work p99",
            "last ended because",
        ];
        let mut rows = vec![row(heads)];
        rows.extend(shown_actors(actors).map(|actor| {
            let handling = actor.handling.unwrap_or_default();
            let waiting = actor
                .mailbox
                .map_or(String::new(), |mailbox| mailbox.messages.to_string());
            row([
                &actor.name,
                &actor.state,
                &actor.restarts.to_string(),
                &waiting,
                &micros(handling.queued_p99_us),
                &micros(handling.worked_p99_us),
                &actor.last_end,
            ])
        }));
        self.rows(&[Left, Left, Right, Right, Right, Right, Left], &rows);
        self.hidden(actors.len(), SHOWN_ACTORS, "others");
    }

    fn ends(&mut self, ends: &[pb::End]) {
        if ends.is_empty() {
            return;
        }
        self.section("Last ends of actors");
        let rows = ends.iter().take(SHOWN_ENDS).map(|end| {
            let at = UNIX_EPOCH + Duration::from_millis(end.at_ms);
            row([
                &humantime::format_rfc3339_millis(at).to_string(),
                &end.actor,
                &format!("generation {}", end.generation),
                &end.reason,
            ])
        });
        self.rows(&[Left, Left, Left, Left], &rows.collect::<Vec<_>>());
        self.hidden(ends.len(), SHOWN_ENDS, "earlier ones");
    }

    fn tables(&mut self, tables: &pb::Tables) {
        self.section("Tables");
        let mut rows = vec![row(["", "tables", "size", "of at most"])];
        rows.extend(tables.levels.iter().map(|level| {
            let at_most = if level.max_bytes > 0 {
                bytes(level.max_bytes)
            } else {
                "any".to_owned()
            };
            let (tables, size) = (level.tables.to_string(), bytes(level.bytes));
            row([&format!("L{}", level.level), &tables, &size, &at_most])
        }));
        self.rows(&[Left, Right, Right, Right], &rows);
        for table in tables.quarantined.iter().take(SHOWN_DAMAGED) {
            self.line(&format!(
                "  damaged: {} ({}), keys {:?} to {:?}: {}",
                table.file,
                bytes(table.bytes),
                table.first_key,
                table.last_key,
                table.cause
            ));
        }
        self.hidden(tables.quarantined.len(), SHOWN_DAMAGED, "other damaged ones");
    }

    fn compaction(&mut self, compaction: &pb::Compaction) {
        self.section("Compaction");
        let delay = match compaction.write_delay_us {
            0 => String::new(),
            delay => format!("; each write waits {:?}", Duration::from_micros(delay)),
        };
        self.line(&format!(
            "  {} behind, pressure {:.2}{delay}",
            bytes(compaction.pending_bytes),
            compaction.pressure
        ));
        self.line(&format!(
            "  {} jobs completed, {} failed; {} read, {} written, {} tombstones dropped",
            compaction.jobs_completed,
            compaction.jobs_failed,
            bytes(compaction.bytes_read),
            bytes(compaction.bytes_written),
            compaction.tombstones_dropped
        ));
        if compaction.jobs.is_empty() {
            return;
        }
        let heads = ["job", "state", "levels", "input", "read", "written", "time", "tables"];
        let mut rows = vec![row(heads)];
        rows.extend(compaction.jobs.iter().take(SHOWN_JOBS).map(job_row));
        self.rows(&[Right, Left, Left, Right, Right, Right, Right, Left], &rows);
        self.hidden(compaction.jobs.len(), SHOWN_JOBS, "earlier ones");
    }

    fn memory_and_disks(&mut self, status: &pb::StatusResponse) {
        self.section("Memory and disks");
        let sealed = status.memtables.len().saturating_sub(1);
        let held: u64 = status.memtables.iter().map(|memtable| memtable.bytes).sum();
        let entries: u64 = status.memtables.iter().map(|memtable| memtable.entries).sum();
        let cache = status.cache.unwrap_or_default();
        let log = status.commit_log.clone().unwrap_or_default();
        let (process, scrub) = (status.process.unwrap_or_default(), status.scrub.unwrap_or_default());
        let indexes = status.tables.as_ref().map_or(0, |tables| tables.resident_bytes);
        let mut rows = vec![
            row([
                "process",
                &format!(
                    "{} of memory, {:.0} % of the processors; indexes and filters hold {}",
                    bytes(process.own_bytes),
                    process.cpu * 100.0,
                    bytes(indexes)
                ),
            ]),
            row([
                "memtables",
                &format!("1 active, {sealed} sealed; {}, {entries} entries", bytes(held)),
            ]),
            row([
                "cache",
                &format!(
                    "{:.1} % of {} reads hit; {} entries, {} of {}, {} evicted; weights: frequency {:.2}, recency {:.2}",
                    cache.hit_ratio * 100.0,
                    cache.hits + cache.misses,
                    cache.entries,
                    bytes(cache.bytes),
                    bytes(cache.max_bytes),
                    cache.evictions,
                    cache.frequency_weight,
                    cache.recency_weight
                ),
            ]),
            row([
                "commit log",
                &format!(
                    "{} segments, {}; {} batches, {} syncs; applied up to seq {}",
                    log.segments,
                    bytes(log.bytes),
                    log.batches,
                    log.syncs,
                    log.applied_seq
                ),
            ]),
        ];
        if !log.latched.is_empty() {
            rows.push(row(["", &format!("takes no writes: {}", log.latched)]));
        }
        rows.extend(status.disks.iter().map(|disk| {
            let (free, size) = (bytes(disk.available_bytes), bytes(disk.total_bytes));
            let used = disk.used * 100.0;
            row([
                "disk",
                &format!("{used:.1} % used, {free} of {size} free: {}", disk.directory),
            ])
        }));
        rows.push(row([
            "scrub",
            &format!(
                "{} of {} tables read, {}, {} keys; {} walks completed",
                scrub.tables_done,
                scrub.tables,
                bytes(scrub.bytes),
                scrub.keys,
                scrub.completed
            ),
        ]));
        self.rows(&[Left, Left], &rows);
    }

    /// A node that knows itself alone is said in its head.
    fn members(&mut self, status: &pb::StatusResponse) {
        if status.members.len() < 2 && status.gossip_keys.is_empty() {
            return;
        }
        self.section("Members");
        let mut rows = vec![row([
            "", "at", "state", "health", "cpu", "memory", "disk", "a second", "failed", "hits", "heard of",
        ])];
        let shown = shown_members(&status.members);
        rows.extend(shown.iter().map(|member| member_row(member)));
        self.rows(
            &[Left, Left, Left, Left, Right, Right, Right, Right, Right, Right, Left],
            &rows,
        );
        self.hidden(status.members.len(), shown.len(), "others");
        if let Some((first, others)) = status.gossip_keys.split_first() {
            let others = others.iter().map(|key| format!(", {key} is accepted"));
            self.line(&format!("  gossip keys: {first} signs{}", others.collect::<String>()));
        }
    }

    fn streams(&mut self, streams: &[pb::Stream]) {
        if streams.is_empty() {
            return;
        }
        self.section("Streams");
        let mut rows = vec![row(["to", "at", "state", "copied", "forwarded", "waiting", "for", ""])];
        rows.extend(shown_streams(streams).map(|stream| {
            row([
                &stream.target_node_id,
                &stream.address,
                &stream.state,
                &format!("{} ({})", stream.keys_copied, bytes(stream.bytes_copied)),
                &format!("{} ({})", stream.keys_streamed, bytes(stream.bytes_streamed)),
                &format!("{} ({})", stream.keys_waiting, bytes(stream.bytes_waiting)),
                &format!("{:?}", Duration::from_millis(stream.lag_ms)),
                &stream.problem,
            ])
        }));
        self.rows(&[Left, Left, Left, Right, Right, Right, Right, Left], &rows);
        self.hidden(streams.len(), SHOWN_STREAMS, "others");
    }

    fn slowest(&mut self, requests: &[pb::SlowRequest]) {
        if requests.is_empty() {
            return;
        }
        self.section("Slowest requests of the last minutes, with the hop that took longest");
        let rows = requests.iter().take(SHOWN_SLOW).map(|request| {
            let time = |hop: &&pb::SlowHop| hop.queued_us + hop.worked_us;
            let longest = request.hops.iter().max_by_key(time).cloned().unwrap_or_default();
            row([
                &request.operation,
                &micros(request.took_us as f64),
                &request.status,
                &longest.name,
                &format!("{} queued", micros(longest.queued_us as f64)),
                &format!("{} at work", micros(longest.worked_us as f64)),
                &request.trace_id,
            ])
        });
        self.rows(
            &[Left, Right, Left, Left, Right, Right, Left],
            &rows.collect::<Vec<_>>(),
        );
        self.hidden(requests.len(), SHOWN_SLOW, "others");
    }

    fn reload(&mut self, what: &str, reload: Option<&pb::Reload>) {
        let Some(reload) = reload else {
            return;
        };
        let at = UNIX_EPOCH + Duration::from_millis(reload.at_ms);
        self.section(&format!("{what}, {}", humantime::format_rfc3339_millis(at)));
        if !reload.refused.is_empty() {
            self.line(&format!("  refused, nothing has changed: {}", reload.refused));
        } else if reload.keys.is_empty() {
            self.line("  nothing had changed");
        }
        let rows = reload
            .keys
            .iter()
            .take(SHOWN_KEYS)
            .map(|key| row([&key.key, &key.outcome, &key.error]));
        self.rows(&[Left, Left, Left], &rows.collect::<Vec<_>>());
        self.hidden(reload.keys.len(), SHOWN_KEYS, "others");
    }

    /// How many there are beside the `shown`.
    fn hidden(&mut self, all: usize, shown: usize, what: &str) {
        let hidden = all.saturating_sub(shown);
        if hidden > 0 {
            self.line(&format!("  ({hidden} {what} with --json)"));
        }
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// As many as a screen has room for, in their order. Those that do not run, or were restarted, are shown before others.
fn shown_actors(actors: &[pb::Actor]) -> impl Iterator<Item = &pb::Actor> {
    let is_well = |actor: &pb::Actor| actor.state == "running" && actor.restarts == 0;
    let mut places: Vec<usize> = (0..actors.len()).collect();
    places.sort_by_key(|place| actors.get(*place).is_some_and(is_well));
    places.truncate(SHOWN_ACTORS);
    places.sort_unstable();
    places.into_iter().filter_map(|place| actors.get(place))
}

/// As many as a screen has room for, whoever is not well before the others: they are why one looks.
fn shown_members(members: &[pb::Member]) -> Vec<&pb::Member> {
    let is_well = |member: &&pb::Member| member.is_self || (member.state == "alive" && member.status == "healthy");
    let (well, ill): (Vec<_>, Vec<_>) = members.iter().partition(is_well);
    // This node, then the ill ones, then the others as they come.
    let (own, well): (Vec<_>, Vec<_>) = well.into_iter().partition(|member| member.is_self);
    own.into_iter().chain(ill).chain(well).take(SHOWN_MEMBERS).collect()
}

/// As many as a screen has room for, those that do not get on before the others.
fn shown_streams(streams: &[pb::Stream]) -> impl Iterator<Item = &pb::Stream> {
    let (well, ill): (Vec<_>, Vec<_>) = streams.iter().partition(|stream| stream.problem.is_empty());
    ill.into_iter().chain(well).take(SHOWN_STREAMS)
}

fn member_row(member: &pb::Member) -> Vec<String> {
    let report = member.report.unwrap_or_default();
    let percent = |share: f64| {
        member
            .report
            .map_or(String::new(), |_| format!("{:.0} %", share * 100.0))
    };
    let flags = [
        (report.latched, "log latched"),
        (report.draining, "draining"),
        (report.disk_full, "disk full"),
    ];
    let flags = flags.into_iter().filter_map(|(is_set, name)| is_set.then_some(name));
    let health: Vec<_> = std::iter::once(member.status.as_str()).chain(flags).collect();
    row([
        &member.node_id,
        &member.address,
        &member.state,
        &health.join(", "),
        &percent(report.cpu),
        &percent(report.memory),
        &percent(report.disk),
        &member
            .report
            .map_or(String::new(), |report| rate(report.requests_per_s)),
        &percent(report.error_rate),
        &percent(report.cache_hit_rate),
        &match member.is_self {
            true => "this node".to_owned(),
            false => format!("{} ago", duration(member.heard_ms)),
        },
    ])
}

fn job_row(job: &pb::CompactionJob) -> Vec<String> {
    let is_move = job.state == "completed" && job.bytes_read == 0;
    let written = match job.state.as_str() {
        "completed" if is_move => "moved".to_owned(),
        "pending" => String::new(),
        "running" => {
            let done = job.bytes_written as f64 / job.input_bytes.max(1) as f64;
            format!("{:.0} %", done.min(1.0) * 100.0)
        }
        _ => bytes(job.bytes_written),
    };
    let mut named: Vec<String> = job.inputs.iter().take(NAMED_INPUTS).map(u64::to_string).collect();
    if job.inputs.len() > NAMED_INPUTS {
        named.push(format!("and {} more", job.inputs.len() - NAMED_INPUTS));
    }
    let mut tables = named.join(", ");
    if !job.error.is_empty() {
        tables = format!("{tables}: {}", job.error);
    }
    row([
        &job.id.to_string(),
        &job.state,
        &format!("L{} to L{}", job.from_level, job.to_level),
        &bytes(job.input_bytes),
        &bytes(job.bytes_read),
        &written,
        &format!("{:?}", Duration::from_millis(job.duration_ms)),
        &tables,
    ])
}

#[cfg(test)]
mod tests;
