//! What the Status RPC says: the numbers of a running node, as the wire has them.
//!
//! Owns: that translation. Does not own: the numbers (see [`crate::actors::health`]). Asks no actor, so that the answer comes
//! even when none of them does.

use crate::actors::faults::SUPERVISOR;
use crate::actors::gossip::seen::{Life, Seen};
use crate::actors::health::Health;
use crate::actors::history::Handling;
use crate::actors::mailbox::MailboxStats;
use crate::actors::reloads::{Change, Outcome, Reload};
use crate::actors::streaming::stream::StreamStatus;
use crate::actors::streaming::streams_actor::STREAM_PREFIX;
use crate::actors::supervisor::{ChildEnd, ChildStatus};
use crate::actors::trail::slowest::{SlowHop, SlowRequest};
use crate::actors::vitals;
use crate::rpc::admin_pb as pb;
use crate::storage::compaction::jobs::{JobRecord, JobState};
use crate::storage::levels::{LEVELS, Quarantined};
use crate::storage::memtable::Memtable;
use crate::storage::table::Table;
use crate::storage::view::ReadView;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Tables of a level whose sizes are told one by one.
const MOST_TABLES_TOLD: usize = 200;

pub(crate) fn status(health: &Health) -> pb::StatusResponse {
    let view = health.handles.published.load();
    let (node, reasons) = health.status();
    pb::StatusResponse {
        node_id: health.node_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: health.uptime().as_millis() as u64,
        health: Some(pb::Health {
            status: node.as_str().to_owned(),
            reasons,
            metrics: health.metrics(),
        }),
        actors: actors(health),
        tables: Some(tables(health, &view)),
        compaction: Some(compaction(health, &view)),
        memtables: std::iter::once(memtable(&view.active, "active"))
            .chain(view.sealed.iter().map(|sealed| memtable(sealed, "sealed")))
            .collect(),
        commit_log: Some(commit_log(health)),
        cache: Some(cache(health)),
        disks: disks(health),
        scrub: Some(scrub(health)),
        streams: streams(health),
        ends: ends(health),
        slow_requests: slow_requests(health),
        now_ms: health.time.now_ms(),
        supervisor_restarts: health.tree.supervisor_restarts(),
        process: Some(process(health)),
        requests: Some(requests(health)),
        history: Some(history(health)),
        members: members(health, node.as_str()),
        gossip_keys: health
            .gossip
            .as_ref()
            .map(|gossip| gossip.keys().ids())
            .unwrap_or_default(),
        write_memory: Some(write_memory(health)),
        reload: health.reloads.last().map(|last| reload(&last)),
        file_look: health.reloads.last_look().map(|last| reload(&last)),
    }
}

/// As [`status`], but for what names anybody's keys: for whom nobody asks who he is.
pub(crate) fn open_status(health: &Health) -> pb::StatusResponse {
    let mut status = status(health);
    for aside in status.tables.iter_mut().flat_map(|tables| &mut tables.quarantined) {
        aside.first_key.clear();
        aside.last_key.clear();
    }
    status
}

fn reload(last: &Reload) -> pb::Reload {
    let key = |outcome: &Outcome| {
        let (word, error) = match &outcome.change {
            Change::Applied => ("applied", ""),
            Change::NeedsRestart => ("needs restart", ""),
            Change::Failed(why) => ("failed", why.as_str()),
        };
        pb::ReloadedKey {
            key: outcome.key.clone(),
            outcome: word.to_owned(),
            error: error.to_owned(),
        }
    };
    pb::Reload {
        at_ms: last.at_ms,
        refused: last.refused.clone().unwrap_or_default(),
        keys: last.outcomes.iter().map(key).collect(),
    }
}

fn process(health: &Health) -> pb::Process {
    let memory = vitals::memory();
    pb::Process {
        cpu: health.vitals.rates().cpu.min(1.0),
        own_bytes: memory.own,
        resident_bytes: memory.resident,
        limit_bytes: memory.limit,
    }
}

fn requests(health: &Health) -> pb::Requests {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (counts, admission) = (&health.requests, health.admission.stats());
    pb::Requests {
        reads: load(&counts.reads),
        writes: load(&counts.writes),
        errors: load(&counts.errors),
        refused: admission.refused,
        shed: health.overload.shed(),
        over_quota: health.quotas.refused(),
        slowed: admission.slowed,
        reads_in_flight: admission.reads as u64,
        writes_in_flight: admission.writes as u64,
    }
}

fn history(health: &Health) -> pb::History {
    let mut history = pb::History::default();
    for sample in health.history.samples() {
        history.at_ms.push(sample.at_ms);
        history.reads_per_s.push(rounded(sample.reads));
        history.writes_per_s.push(rounded(sample.writes));
        history.errors_per_s.push(rounded(sample.errors));
        history.read_p50_us.push(rounded(sample.read_us.0));
        history.read_p99_us.push(rounded(sample.read_us.1));
        history.write_p50_us.push(rounded(sample.write_us.0));
        history.write_p99_us.push(rounded(sample.write_us.1));
        history
            .cache_hit_ratio
            .push(sample.cache_hits.map_or(-1.0, thousandths));
        history.pending_bytes.push(sample.pending_bytes);
    }
    history
}

/// To a tenth: more digits than anybody reads would make the most of the answer.
fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn thousandths(share: f64) -> f64 {
    (share * 1000.0).round() / 1000.0
}

/// What the gossip has seen; without it the node knows itself alone.
fn members(health: &Health, status: &str) -> Vec<pb::Member> {
    let seen = health
        .gossip
        .as_ref()
        .map(|gossip| gossip.members())
        .unwrap_or_default();
    let now = health.time.elapsed();
    if seen.is_empty() {
        let bound = health.gossip.as_ref().map(|gossip| gossip.bound.to_string());
        return vec![pb::Member {
            node_id: health.node_id.clone(),
            address: health.address.clone(),
            status: status.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_self: true,
            state: Life::Alive.as_str().to_owned(),
            gossip_address: bound.unwrap_or_default(),
            ..pb::Member::default()
        }];
    }
    let places = seen.iter().enumerate();
    places.map(|(place, seen)| member(seen, place == 0, now)).collect()
}

fn member(seen: &Seen, is_self: bool, now: Duration) -> pb::Member {
    let since = |at: Duration| now.saturating_sub(at).as_millis() as u64;
    let member = pb::Member {
        node_id: seen.identity.node_id.to_string(),
        status: "unknown".to_owned(),
        is_self,
        heard_ms: if is_self { 0 } else { seen.heard_at.map_or(0, since) },
        state: seen.life.as_str().to_owned(),
        gossip_address: seen.identity.address.to_string(),
        incarnation: seen.identity.incarnation,
        ..pb::Member::default()
    };
    let Some(heard) = &seen.heard else {
        return member;
    };
    let (record, report) = (&heard.record, &heard.record.report);
    let share = |share: f32| thousandths(f64::from(share));
    pb::Member {
        address: record.address().to_string(),
        status: report.status.as_str().to_owned(),
        version: record.version.to_string(),
        report: Some(pb::MemberReport {
            age_ms: since(heard.at),
            latched: report.is_latched,
            draining: report.is_draining,
            disk_full: report.is_disk_full,
            cpu: share(report.cpu),
            memory: share(report.memory),
            disk: share(report.disk),
            requests_per_s: rounded(f64::from(report.requests_per_s)),
            error_rate: share(report.error_rate),
            cache_hit_rate: share(report.cache_hit_rate),
        }),
        ..member
    }
}

fn write_memory(health: &Health) -> pb::WriteMemory {
    let admission = health.admission.stats();
    pb::WriteMemory {
        bytes: admission.write_bytes as u64,
        slow_bytes: admission.write_bounds.0 as u64,
        max_bytes: admission.write_bounds.1 as u64,
    }
}

fn slow_requests(health: &Health) -> Vec<pb::SlowRequest> {
    let hop = |hop: SlowHop| pb::SlowHop {
        name: hop.name.to_owned(),
        queued_us: hop.queued.as_micros() as u64,
        worked_us: hop.worked.as_micros() as u64,
        detail: hop.detail,
    };
    let request = |(started_ms, slow): (u64, SlowRequest)| pb::SlowRequest {
        trace_id: slow.trace_id,
        operation: slow.operation.to_owned(),
        started_ms,
        took_us: slow.took.as_micros() as u64,
        status: slow.status.to_owned(),
        hops: slow.hops.into_iter().map(hop).collect(),
    };
    let slowest = health.handles.traces.slowest(health.time.now_ms()).into_iter();
    slowest.map(request).collect()
}

fn ends(health: &Health) -> Vec<pb::End> {
    let ends = health.tree.ends().into_iter().rev();
    let end = |end: ChildEnd| pb::End {
        at_ms: end.at_ms,
        actor: end.name,
        generation: end.generation,
        reason: end.reason,
    };
    ends.map(end).collect()
}

fn actors(health: &Health) -> Vec<pb::Actor> {
    let ends = health.tree.ends();
    let last_end = |name: &str| ends.iter().rev().find(|end| end.name == name);
    let children = health.tree.children().into_iter();
    let mailboxes: HashMap<String, MailboxStats> = health.tree.mailboxes().into_iter().collect();
    let handling = health.history.handling();
    let actor = |child: ChildStatus| pb::Actor {
        state: if child.running { "running" } else { "restarting" }.to_owned(),
        generation: child.generation,
        restarts: child.restarts(),
        parent: parent(&child.name).to_owned(),
        stuck_ms: child.stuck.map_or(0, |stuck| stuck.as_millis() as u64),
        mailbox: mailboxes.get(&child.name).map(mailbox),
        handling: handling.get(&child.name).map(handled),
        last_end: last_end(&child.name).map(|end| end.reason.clone()).unwrap_or_default(),
        name: child.name,
    };
    children.map(actor).collect()
}

/// Who starts an actor again. The supervisor starts all but those of the streams.
pub(crate) fn parent(name: &str) -> &'static str {
    if name.starts_with(STREAM_PREFIX) {
        "streams"
    } else {
        SUPERVISOR
    }
}

fn mailbox(stats: &MailboxStats) -> pb::Mailbox {
    pb::Mailbox {
        messages: stats.messages as u64,
        bytes: stats.bytes as u64,
        refused: stats.refused,
    }
}

fn handled(handling: &Handling) -> pb::Handling {
    pb::Handling {
        messages_per_s: rounded(handling.messages),
        queued_p50_us: rounded(handling.queued_us.0),
        queued_p99_us: rounded(handling.queued_us.1),
        worked_p50_us: rounded(handling.worked_us.0),
        worked_p99_us: rounded(handling.worked_us.1),
    }
}

fn tables(health: &Health, view: &ReadView) -> pb::Tables {
    let options = health.jobs.options();
    let level = |number: usize| pb::Level {
        level: number as u32,
        tables: view.tables.level(number).len() as u64,
        bytes: view.tables.level_bytes(number),
        max_bytes: Some(options.size_of(number))
            .filter(|size| *size < u64::MAX)
            .unwrap_or(0),
        table_bytes: table_bytes(view.tables.level(number)),
    };
    let aside = |table: &Quarantined| pb::QuarantinedTable {
        id: table.id,
        file: table.path.display().to_string(),
        bytes: table.size,
        first_key: table.first_key.clone(),
        last_key: table.last_key.clone(),
        cause: table.cause.clone(),
    };
    pb::Tables {
        levels: (0..LEVELS).map(level).collect(),
        resident_bytes: view.tables.resident_bytes() as u64,
        quarantined: view.tables.quarantine().iter().map(|table| aside(table)).collect(),
    }
}

fn table_bytes(tables: &[Arc<Table>]) -> Vec<u64> {
    let told = if tables.len() > MOST_TABLES_TOLD { &[] } else { tables };
    told.iter().map(|table| table.size()).collect()
}

fn compaction(health: &Health, view: &ReadView) -> pb::Compaction {
    let (debt, totals) = (view.tables.debt(), health.jobs.totals());
    let now_ms = health.time.now_ms();
    pb::Compaction {
        pending_bytes: debt.pending_bytes,
        pressure: debt.pressure,
        write_delay_us: debt.write_delay().as_micros() as u64,
        jobs_completed: totals.completed,
        jobs_failed: totals.failed,
        bytes_read: totals.bytes_read,
        bytes_written: totals.bytes_written,
        tombstones_dropped: totals.tombstones_dropped,
        jobs: health
            .jobs
            .records()
            .into_iter()
            .map(|record| job(record, now_ms))
            .collect(),
    }
}

fn job(record: JobRecord, now_ms: u64) -> pb::CompactionJob {
    let (state, error) = match record.state {
        JobState::Pending => ("pending", String::new()),
        JobState::Running => ("running", String::new()),
        JobState::Completed => ("completed", String::new()),
        JobState::Failed(cause) => ("failed", cause),
    };
    let until_ms = if record.ended_ms > 0 { record.ended_ms } else { now_ms };
    pb::CompactionJob {
        id: record.id,
        state: state.to_owned(),
        from_level: record.from as u32,
        to_level: record.to as u32,
        inputs: record.inputs,
        input_bytes: record.input_bytes,
        bytes_read: record.read,
        bytes_written: record.written,
        chosen_ms: record.chosen_ms,
        duration_ms: until_ms.saturating_sub(record.chosen_ms),
        error,
    }
}

fn memtable(memtable: &Memtable, state: &str) -> pb::Memtable {
    pb::Memtable {
        id: memtable.id(),
        state: state.to_owned(),
        bytes: memtable.bytes() as u64,
        entries: memtable.entries() as u64,
        max_seq: memtable.max_seq(),
    }
}

fn commit_log(health: &Health) -> pb::CommitLog {
    let log = health.log.stats();
    pb::CommitLog {
        segments: log.segments as u64,
        bytes: log.bytes,
        syncs: log.syncs,
        batches: log.batches,
        applied_seq: health.handles.published.applied(),
        latched: health.log.latched().map(|cause| cause.to_string()).unwrap_or_default(),
    }
}

fn cache(health: &Health) -> pb::Cache {
    let (hits, misses) = (
        health.cache.hits.load(Ordering::Relaxed),
        health.cache.misses.load(Ordering::Relaxed),
    );
    let shards = health.shards.len();
    let recency = health.shards.iter().map(|shard| shard.recency()).sum::<f64>() / shards.max(1) as f64;
    pb::Cache {
        hits,
        misses,
        hit_ratio: hits as f64 / (hits + misses).max(1) as f64,
        bytes: health.sum_of_shards(|shard| shard.bytes.load(Ordering::Relaxed) as u64),
        entries: health.sum_of_shards(|shard| shard.entries.load(Ordering::Relaxed) as u64),
        evictions: health.sum_of_shards(|shard| shard.evictions.load(Ordering::Relaxed)),
        shards: shards as u64,
        frequency_weight: 1.0 - recency,
        recency_weight: recency,
        max_bytes: health.cache_max_bytes as u64,
    }
}

fn disks(health: &Health) -> Vec<pb::Disk> {
    let disks = health.disk.disks();
    let disk = |disk: &crate::storage::space::DiskUse| pb::Disk {
        directory: disk.dir.display().to_string(),
        total_bytes: disk.space.total,
        available_bytes: disk.space.available,
        used: disk.space.used(),
    };
    disks.iter().map(disk).collect()
}

fn scrub(health: &Health) -> pb::Scrub {
    let progress = &health.scrub;
    pb::Scrub {
        tables: progress.tables.load(Ordering::Relaxed),
        tables_done: progress.tables_done.load(Ordering::Relaxed),
        bytes: progress.bytes.load(Ordering::Relaxed),
        keys: progress.keys.load(Ordering::Relaxed),
        completed: progress.completed.load(Ordering::Relaxed),
    }
}

fn streams(health: &Health) -> Vec<pb::Stream> {
    let now_ms = health.time.now_ms();
    let stream = |stream: StreamStatus| pb::Stream {
        address: stream.address.to_string(),
        state: stream.state.as_str().to_owned(),
        keys_copied: stream.sent.keys_copied,
        bytes_copied: stream.sent.bytes_copied,
        keys_streamed: stream.sent.keys_streamed,
        bytes_streamed: stream.sent.bytes_streamed,
        keys_resent: stream.sent.keys_resent,
        keys_waiting: stream.backlog.changes,
        bytes_waiting: stream.backlog.bytes,
        lag_ms: stream.backlog.lag_ms(now_ms),
        overflows: stream.backlog.overflows,
        problem: stream.problem.unwrap_or_default(),
        target_node_id: stream.target,
    };
    health.streaming.all().into_iter().map(stream).collect()
}
