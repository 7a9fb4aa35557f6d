// The slowest recent requests, each with what it cost at every hop.

const HOP_COLOURS = 6;
/** Statuses of requests that did not fail; a missing key is an answer. */
const AS_IT_SHOULD = ["ok", "notfound"];

function newSlow() {
  const item = make("details");
  const summary = make("summary");
  const bar = make("span", "hops");
  summary.append(make("span", "took n"), make("span", "operation"), make("span", "outcome"), make("span", "ago n"), bar);
  const table = make("table");
  const head = table.createTHead().insertRow();
  for (const [name, kind] of [["Hop", ""], ["Waited", "n"], ["Worked", "n"], ["Detail", ""]]) head.append(make("th", kind, name));
  table.createTBody();
  const scroll = make("div", "scroll");
  scroll.append(table);
  item.append(summary, make("p", "trace"), scroll);
  return item;
}

function updateSlow(item, slow, longestUs, nowMs) {
  const [summary, trace, scroll] = item.children;
  const [took, operation, outcome, ago, bar] = summary.children;
  say(took, micros(slow.took_us));
  say(operation, slow.operation);
  say(outcome, slow.status);
  outcome.className = `outcome ${AS_IT_SHOULD.includes(slow.status.toLowerCase().replaceAll("_", "")) ? "good" : "bad"}`;
  say(ago, `${duration(nowMs - slow.started_ms)} ago`);
  say(trace, `Trace ${slow.trace_id}, begun at ${clock(slow.started_ms)}`);
  const pieces = slow.hops.flatMap((hop, place) => [
    { us: hop.queued_us, kind: `queued h${place % HOP_COLOURS}` },
    { us: hop.worked_us, kind: `worked h${place % HOP_COLOURS}` },
  ]);
  keep(bar, pieces, (_, place) => place, () => make("i"), (piece, { us, kind }) => {
    piece.className = kind;
    piece.style.width = `${per(us, longestUs) * 100}%`;
  });
  rows(scroll.firstChild.tBodies[0], slow.hops, (_, place) => place, (hop) => [
    { text: hop.name, kind: `swatch h${slow.hops.indexOf(hop) % HOP_COLOURS}` },
    micros(hop.queued_us),
    micros(hop.worked_us),
    hop.detail,
  ]);
}

function showSlow(status) {
  const slowest = [...status.slow_requests].sort((one, other) => other.took_us - one.took_us);
  // Hops may overlap: the bar has room for all of them.
  const length = (slow) => Math.max(slow.took_us, sum(slow.hops.map((hop) => hop.queued_us + hop.worked_us)));
  const longestUs = Math.max(1, ...slowest.map(length));
  keep(byId("slow"), slowest, (slow) => `${slow.trace_id} ${slow.operation} ${slow.took_us}`, newSlow, (item, slow) => {
    updateSlow(item, slow, longestUs, status.now_ms);
  });
  byId("no-slow").hidden = slowest.length > 0;
}
