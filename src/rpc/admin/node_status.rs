//! What the Status RPC says: the numbers of a running node, as the wire has them.
//!
//! Owns: that translation. Does not own: the numbers (see [`crate::actors::health`]). Asks no actor, so that the answer comes
//! even when none of them does.

use crate::actors::health::Health;
use crate::actors::streaming::stream::StreamStatus;
use crate::actors::supervisor::{ChildEnd, ChildStatus};
use crate::actors::trail::slowest::{SlowHop, SlowRequest};
use crate::rpc::admin_pb as pb;
use crate::storage::compaction::jobs::{JobRecord, JobState};
use crate::storage::levels::{LEVELS, Quarantined};
use crate::storage::memtable::Memtable;
use crate::storage::view::ReadView;
use std::sync::atomic::Ordering;

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
    }
}

fn slow_requests(health: &Health) -> Vec<pb::SlowRequest> {
    let now_ms = health.time.now_ms();
    let hop = |hop: SlowHop| pb::SlowHop {
        name: hop.name.to_owned(),
        queued_us: hop.queued.as_micros() as u64,
        worked_us: hop.worked.as_micros() as u64,
        detail: hop.detail,
    };
    let request = |slow: SlowRequest| pb::SlowRequest {
        trace_id: slow.trace_id,
        operation: slow.operation.to_owned(),
        started_ms: now_ms.saturating_sub(slow.age.as_millis() as u64),
        took_us: slow.took.as_micros() as u64,
        status: slow.status.to_owned(),
        hops: slow.hops.into_iter().map(hop).collect(),
    };
    let slowest = health.handles.traces.slowest().into_iter();
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
    let actor = |child: ChildStatus| pb::Actor {
        state: if child.running { "running" } else { "restarting" }.to_owned(),
        generation: child.generation,
        restarts: child.restarts(),
        last_end: last_end(&child.name).map(|end| end.reason.clone()).unwrap_or_default(),
        name: child.name,
    };
    children.map(actor).collect()
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
