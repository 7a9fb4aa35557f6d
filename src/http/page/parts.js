// The parts of the page, each from what the node says. `tests/page.rs` checks that a node says all that is read here, by the
// names of the variables: an `actor` is one of the actors, a `job` one of compaction's, and so on.

const sum = (numbers) => numbers.reduce((sum, number) => sum + number, 0);
const last = (numbers) => numbers[numbers.length - 1];
const per = (part, whole) => (whole > 0 ? part / whole : 0);
const plural = (count, one, more) => `${number(count)} ${count === 1 ? one : more}`;

/** A row that only keeps its place. */
const blank = (cells) => Array(cells).fill({ text: "\u00a0", kind: "blank" });

/** How full something is, in colour. */
const fullness = (share) => (share >= 0.95 ? "bad" : share >= 0.85 ? "warn" : "");

function showTiles(status) {
  const { history, requests, process, compaction } = status;
  const disk = status.disks[0];
  const restarts = sum(status.actors.map((actor) => actor.restarts));
  const now = (numbers) => last(numbers) ?? 0;
  const hits = now(history.cache_hit_ratio);
  const time = (us) => (us > 0 ? micros(us) : NO_NUMBER);
  const behind = compaction.pressure;
  const tiles = [
    ["Reads", `${rate(now(history.reads_per_s))} /s`, `p99 ${time(now(history.read_p99_us))}`],
    ["Writes", `${rate(now(history.writes_per_s))} /s`, `p99 ${time(now(history.write_p99_us))}`],
    ["Failed", `${rate(now(history.errors_per_s))} /s`, `${number(requests.errors)} since start`, now(history.errors_per_s) > 0 ? "bad" : ""],
    ["Under way", number(requests.reads_in_flight + requests.writes_in_flight), `${plural(requests.reads_in_flight, "read", "reads")}, ${plural(requests.writes_in_flight, "write", "writes")}`],
    ["Cache hits", hits >= 0 ? percent(hits) : NO_NUMBER, `${percent(status.cache.hit_ratio)} since start`],
    ["Compaction", bytes(compaction.pending_bytes), `behind; pressure ${number(behind, 2)}`, behind > 4 ? "bad" : behind > 1.5 ? "warn" : ""],
    ["Processors", percent(process.cpu, 0), "used in the last minute"],
    ["Memory", bytes(process.own_bytes), process.limit_bytes > 0 ? `of ${bytes(process.limit_bytes)}` : "", fullness(per(process.own_bytes, process.limit_bytes))],
    ["Disk", disk ? percent(disk.used) : NO_NUMBER, disk ? `${bytes(disk.available_bytes)} free` : "not measured yet", disk ? fullness(disk.used) : ""],
    ["Restarts", number(restarts), "of actors, since start"],
  ];
  const create = () => {
    const tile = make("div");
    tile.append(make("h2"), make("p", "big"), make("p", "small"));
    return tile;
  };
  keep(byId("tiles"), tiles, ([name]) => name, create, (tile, [name, big, small, kind = ""]) => {
    tile.className = `card tile ${kind}`.trim();
    [name, big, small].forEach((text, place) => say(tile.children[place], text));
  });
}

function showLevels(status) {
  const { levels, quarantined } = status.tables;
  const { compaction } = status;
  facts(byId("debt"), [
    ["behind", bytes(compaction.pending_bytes)],
    ["pressure", number(compaction.pressure, 2), compaction.pressure > 4 ? "bad" : compaction.pressure > 1.5 ? "warn" : ""],
    ["writes wait", micros(compaction.write_delay_us), compaction.write_delay_us > 0 ? "warn" : ""],
    ["written", bytes(compaction.bytes_written)],
    ["failed jobs", number(compaction.jobs_failed), compaction.jobs_failed > 0 ? "bad" : ""],
  ]);
  const widest = Math.max(1, ...levels.map((level) => Math.max(level.bytes, level.max_bytes)));
  bars(byId("levels"), levels.map((level) => ({
    name: `L${level.level}`,
    share: level.bytes / widest,
    parts: level.table_bytes,
    marks: level.max_bytes > 0 ? [level.max_bytes / widest] : [],
    kind: level.max_bytes > 0 && level.bytes > level.max_bytes ? "warn" : "",
    text: `${plural(level.tables, "table", "tables")}, ${bytes(level.bytes)}${level.max_bytes > 0 ? ` of ${bytes(level.max_bytes)}` : ""}`,
  })));
  say(byId("scale"), `Drawn to scale: the full width is ${bytes(widest)}; a mark is the size from which a level is compacted; each piece is a table.`);
  const active = compaction.jobs.filter((job) => job.state === "running" || job.state === "pending").length;
  const shown = compaction.jobs.slice(0, Math.max(JOB_ROWS, active));
  // Always as many rows, so that what stands below does not move.
  while (shown.length < JOB_ROWS) shown.push(null);
  rows(byId("jobs"), shown, (job, place) => place, (job) => (job === null ? blank(6) : jobCells(job, status.now_ms)));
  keep(byId("quarantined"), quarantined, (aside) => aside.id, () => make("li"), (line, aside) => {
    say(line, `Damaged: ${aside.file} (${bytes(aside.bytes)}): ${aside.cause}. “pairdb-node status” names its keys.`);
  });
}

const JOB_ROWS = 6;
const JOB_KINDS = { running: "good", pending: "faint", failed: "bad" };

function jobCells(job, nowMs) {
  const isActive = job.state === "running" || job.state === "pending";
  const done = Math.min(1, per(job.bytes_written, job.input_bytes));
  const written = isActive ? { text: percent(done, 0), kind: "done", done } : job.state === "completed" && job.bytes_read === 0 ? "moved" : bytes(job.bytes_written);
  return [
    `L${job.from_level} → L${job.to_level}`,
    { text: job.error ? `${job.state}: ${job.error}` : job.state, kind: JOB_KINDS[job.state] ?? "" },
    bytes(job.input_bytes),
    written,
    shortDuration(job.duration_ms),
    isActive ? "" : `${duration(nowMs - job.chosen_ms - job.duration_ms)} ago`,
  ];
}

function showMemory(status) {
  const { write_memory: writes, commit_log: log, cache } = status;
  bars(byId("memory"), [{
    name: "writes",
    title: "What memtables and writes under way hold together; from the mark on writes are slowed down",
    share: per(writes.bytes, writes.max_bytes),
    parts: status.memtables.map((memtable) => memtable.bytes),
    marks: [per(writes.slow_bytes, writes.max_bytes)],
    kind: writes.bytes > writes.slow_bytes ? "warn" : "",
    text: `${bytes(writes.bytes)} of ${bytes(writes.max_bytes)}`,
  }]);
  const memtables = [...status.memtables];
  while (memtables.length < MEMTABLE_ROWS) memtables.push(null);
  rows(byId("memtables"), memtables, (memtable, place) => place, (memtable) =>
    memtable === null ? blank(4) : [memtable.id, memtable.state, bytes(memtable.bytes), number(memtable.entries)]);
  facts(byId("log"), [
    ["segments", number(log.segments)],
    ["size", bytes(log.bytes)],
    ["batches per sync", number(per(log.batches, log.syncs), 1)],
    ["applied up to", number(log.applied_seq)],
    ["takes writes", log.latched ? `no: ${log.latched}` : "yes", log.latched ? "bad" : ""],
  ]);
  bars(byId("cache-bars"), [
    { name: "held", share: per(cache.bytes, cache.max_bytes), text: `${bytes(cache.bytes)} of ${bytes(cache.max_bytes)}` },
    {
      name: "weights",
      title: "Weight of what is used often, and of what was used lately, in the choice of what stays",
      share: 1,
      parts: [cache.frequency_weight, cache.recency_weight],
      kind: "split",
      text: `often ${number(cache.frequency_weight, 2)}, lately ${number(cache.recency_weight, 2)}`,
    },
  ]);
  facts(byId("cache"), [
    ["hit ratio", percent(cache.hit_ratio)],
    ["of reads", number(cache.hits + cache.misses)],
    ["entries", number(cache.entries)],
    ["evicted", number(cache.evictions)],
    ["shards", number(cache.shards)],
  ]);
}

const MEMTABLE_ROWS = 2;

/** The children of an actor follow it, each with its depth. */
function* tree(actors, parent, depth) {
  for (const actor of actors.filter((actor) => actor.parent === parent)) {
    yield { actor, depth };
    yield* tree(actors, actor.name, depth + 1);
  }
}

function showActors(status) {
  const { actors } = status;
  const isDown = actors.some((actor) => actor.state !== "running");
  const supervisor = ["supervisor", { text: isDown ? "restarts some" : "running", kind: isDown ? "warn" : "good" }, restarted(status.supervisor_restarts), "", "", "", ""];
  const listed = [{ cells: supervisor, key: "" }, ...[...tree(actors, "supervisor", 1)].map(({ actor, depth }) => ({ cells: actorCells(actor, depth), key: actor.name }))];
  rows(byId("actors"), listed, ({ key }) => key, ({ cells }) => cells);
}

const restarted = (count) => ({ text: number(count), kind: count > 0 ? "warn" : "faint" });

function actorCells(actor, depth) {
  const { mailbox, handling } = actor;
  const state = actor.stuck_ms > 0 ? `at one message for ${duration(actor.stuck_ms)}` : actor.state;
  const isWell = actor.state === "running" && actor.stuck_ms === 0;
  // The p99 of nothing is nothing.
  const time = (us) => (handling && handling.messages_per_s > 0 ? micros(us) : NO_NUMBER);
  return [
    { text: `${"\u00a0".repeat(3 * (depth - 1))}└ ${actor.name}`, kind: "tree" },
    { text: state, kind: isWell ? "good" : "bad" },
    restarted(actor.restarts),
    mailbox ? { text: number(mailbox.messages), kind: mailbox.messages > 0 ? "" : "faint" } : NO_NUMBER,
    handling ? rate(handling.messages_per_s) : NO_NUMBER,
    handling ? time(handling.queued_p99_us) : NO_NUMBER,
    handling ? time(handling.worked_p99_us) : NO_NUMBER,
  ];
}

function showEnds(status) {
  const key = (end) => `${end.at_ms} ${end.actor} ${end.generation}`;
  rows(byId("ends"), status.ends, key, (end) => [
    duration(status.now_ms - end.at_ms),
    { text: end.actor, kind: "whole" },
    number(end.generation),
    end.reason,
  ]);
  byId("no-ends").hidden = status.ends.length > 0;
}

function showDisks(status) {
  bars(byId("disks"), status.disks.map((disk) => ({
    name: disk.directory,
    share: disk.used,
    kind: fullness(disk.used),
    text: `${percent(disk.used)} of ${bytes(disk.total_bytes)}, ${bytes(disk.available_bytes)} free`,
  })));
  const { scrub } = status;
  facts(byId("scrub"), [
    ["scrub: tables read", `${number(scrub.tables_done)} of ${number(scrub.tables)}`],
    ["bytes", bytes(scrub.bytes)],
    ["keys", number(scrub.keys)],
    ["walks completed", number(scrub.completed)],
  ]);
}

function showReloads(status) {
  showReload("reload", status.reload);
  showReload("file-look", status.file_look);
}

function showReload(place, reload) {
  const outcome = (key) => (key.error ? `${key.outcome}: ${key.error}` : key.outcome);
  const keys = reload ? reload.keys.map((key) => [key.key, outcome(key)]) : [];
  const refused = reload?.refused ? [["refused, nothing has changed", reload.refused]] : [];
  facts(byId(place), [["at", reload ? clock(reload.at_ms) : "none since the start"], ...refused, ...keys]);
}

const HEALTH_KINDS = { healthy: "good", degraded: "warn", unhealthy: "bad" };

function showMembers(status) {
  rows(byId("members"), status.members, (member) => member.node_id, (member) => [
    member.is_self ? `${member.node_id} (this node)` : member.node_id,
    member.state === "alive"
      ? { text: member.status, kind: `${HEALTH_KINDS[member.status] ?? "warn"} whole` }
      : { text: member.state, kind: `${member.state === "down" ? "bad" : "warn"} whole` },
    { text: member.address, kind: "whole" },
    member.version,
    member.is_self ? "now" : `${duration(member.heard_ms)} ago`,
  ]);
  const [signing, ...accepted] = status.gossip_keys;
  byId("gossip-keys").hidden = signing === undefined;
  byId("gossip-keys").textContent =
    `Gossip keys: ${signing} signs${accepted.map((id) => `, ${id} is accepted`).join("")}`;
  rows(byId("streams"), status.streams, (stream) => stream.target_node_id, (stream) => [
    stream.target_node_id,
    { text: stream.state, kind: stream.state === "failed" ? "bad" : stream.problem ? "warn" : "good" },
    bytes(stream.bytes_copied + stream.bytes_streamed),
    bytes(stream.bytes_waiting),
    shortDuration(stream.lag_ms),
    stream.problem,
  ]);
  byId("streams-table").hidden = status.streams.length === 0;
  byId("no-streams").hidden = status.streams.length > 0;
}
