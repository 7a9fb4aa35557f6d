// The charts of the last ten minutes. One cursor goes through all of them: by pointer, or by the arrow keys.

const SPAN_MS = 600_000;
/** Longer than this without a sample is a gap. */
const GAP_MS = 7000;
const HEIGHT = 150;
const EDGE = { left: 58, right: 10, top: 8, bottom: 20 };
const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** The next of 1, 2, 5, 10, 20, … (of 1024 for bytes). */
function ceiling(value, base) {
  if (!(value > 0)) return base.least;
  let unit = 1;
  while (base.unit > 1 && value >= unit * base.unit) unit *= base.unit;
  const decade = 10 ** Math.floor(Math.log10(value / unit));
  const step = [1, 2, 5, 10].find((step) => step * decade * unit >= value) ?? 10;
  return Math.max(base.least, step * decade * unit);
}

class Chart {
  /** `lines`: name, class, and `of`, which takes the numbers from a history. `isLog`: the scale is logarithmic. */
  constructor({ title, lines, format, least = 1, unit = 1, most = Infinity, isLog = false }) {
    Object.assign(this, { title, lines, format, base: { least, unit }, most, isLog, times: [], values: [] });
    this.element = make("figure", "card chart");
    const caption = make("figcaption");
    this.when = make("span", "when");
    const head = make("h2", "", title);
    head.append(this.when);
    this.legend = make("dl", "legend");
    caption.append(head, this.legend);
    for (const line of lines) {
      const pair = make("div", line.kind);
      pair.append(make("dt", "", line.name), make("dd", "", NO_NUMBER));
      this.legend.append(pair);
    }
    this.svg = shape("svg", { role: "img", tabindex: 0, "aria-label": `${title}: arrow keys go through the last ten minutes` });
    this.element.append(caption, this.svg);
  }

  /** What the samples say; `nowMs` is the right edge. */
  take(history, nowMs) {
    this.times = history.at_ms;
    this.values = this.lines.map((line) => line.of(history));
    this.nowMs = nowMs;
    this.draw();
  }

  x(ms) {
    return EDGE.left + (1 - (this.nowMs - ms) / SPAN_MS) * (this.width - EDGE.left - EDGE.right);
  }

  y(value) {
    const height = HEIGHT - EDGE.top - EDGE.bottom;
    const least = this.base.least;
    const share = this.isLog
      ? Math.log(Math.max(value, least) / least) / Math.log(this.top / least)
      : value / this.top;
    return EDGE.top + (1 - share) * height;
  }

  draw() {
    this.width = this.svg.getBoundingClientRect().width;
    if (!this.width || !this.nowMs) return;
    const shown = this.values.map((line) => line.filter((value, place) => value !== null && this.isShown(place)));
    const highest = shown.flat().reduce((most, value) => Math.max(most, value), 0);
    this.top = Math.min(this.most, this.isLog ? Math.max(10 ** Math.ceil(Math.log10(highest || 1)), this.base.least * 1000) : ceiling(highest, this.base));
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    const shapes = [...this.grid(), ...this.values.map((line, place) => this.path(line, this.lines[place].kind))];
    this.line = shape("line", { class: "cursor", y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
    this.svg.replaceChildren(...shapes, this.line);
    this.point(cursorMs);
  }

  isShown(place) {
    return this.nowMs - this.times[place] <= SPAN_MS;
  }

  /** Lines and names of both axes. */
  *grid() {
    const values = [];
    const factor = this.top / this.base.least > 1e5 ? 100 : 10;
    if (this.isLog) for (let value = this.top; value >= this.base.least; value /= factor) values.push(value);
    else for (let part = 0; part <= 4; part += 2) values.push((this.top * part) / 4);
    for (const value of values) {
      const y = this.y(value);
      yield shape("line", { class: "grid", x1: EDGE.left, x2: this.width - EDGE.right, y1: y, y2: y });
      const label = shape("text", { x: EDGE.left - 6, y: y + 4, "text-anchor": "end" });
      // "10 ms", and not "10.0 ms".
      label.textContent = this.format(value).replace(/\.0+\b/, "");
      yield label;
    }
    const every = this.width < 480 ? 5 : 2;
    for (let minutes = 10; minutes >= 0; minutes -= every) {
      const x = this.x(this.nowMs - minutes * 60_000);
      const label = shape("text", { x, y: HEIGHT - 4, "text-anchor": minutes === 0 ? "end" : minutes === 10 ? "start" : "middle" });
      label.textContent = minutes === 0 ? "now" : `−${minutes} min`;
      yield label;
    }
  }

  /** A line, interrupted where there are no samples or nothing was measured. */
  path(line, kind) {
    let path = "";
    let before = -Infinity;
    line.forEach((value, place) => {
      if (value === null || !this.isShown(place)) return;
      const ms = this.times[place];
      const goesOn = ms - before <= GAP_MS;
      const point = `${this.x(ms).toFixed(1)} ${this.y(value).toFixed(1)}`;
      // A single sample is a dot: the line's ends are round.
      path += goesOn ? `L${point}` : `M${point}h0`;
      before = ms;
    });
    return shape("path", { class: `line ${kind}`, d: path });
  }

  /** Shows the values of one moment; of the latest without one. */
  point(ms) {
    const last = this.times.length - 1;
    let place = last;
    if (ms !== null) while (place > 0 && Math.abs(this.times[place - 1] - ms) <= Math.abs(this.times[place] - ms)) place -= 1;
    [...this.legend.children].forEach((pair, number) => {
      const value = this.values[number]?.[place];
      say(pair.children[1], value === null || value === undefined ? NO_NUMBER : this.format(value));
    });
    say(this.when, ms === null || last < 0 ? "" : clock(this.times[place]));
    this.line?.classList.toggle("on", ms !== null && last >= 0);
    if (ms !== null && last >= 0 && this.line) {
      const x = this.x(this.times[place]);
      this.line.setAttribute("x1", x);
      this.line.setAttribute("x2", x);
    }
  }
}

/** The moment that is looked at; null: now. */
let cursorMs = null;

/** A number that means "there were none" is a gap. */
const without = (none) => (numbers) => numbers.map((number) => (number === none ? null : number));

const CHARTS = [
  new Chart({
    title: "Requests per second",
    format: rate,
    least: 10,
    lines: [
      { name: "reads", kind: "one", of: (history) => history.reads_per_s },
      { name: "writes", kind: "two", of: (history) => history.writes_per_s },
      { name: "failed", kind: "bad", of: (history) => history.errors_per_s },
    ],
  }),
  new Chart({
    title: "Latency",
    format: micros,
    least: 10,
    isLog: true,
    lines: [
      { name: "read p50", kind: "one faint", of: (history) => without(0)(history.read_p50_us) },
      { name: "read p99", kind: "one", of: (history) => without(0)(history.read_p99_us) },
      { name: "write p50", kind: "two faint", of: (history) => without(0)(history.write_p50_us) },
      { name: "write p99", kind: "two", of: (history) => without(0)(history.write_p99_us) },
    ],
  }),
  new Chart({
    title: "Cache hits",
    format: (share) => percent(share, 0),
    least: 1,
    most: 1,
    lines: [{ name: "hits", kind: "one", of: (history) => without(-1)(history.cache_hit_ratio) }],
  }),
  new Chart({
    title: "Compaction debt",
    format: bytes,
    least: 1 << 20,
    unit: 1024,
    lines: [{ name: "behind", kind: "two", of: (history) => history.pending_bytes }],
  }),
];

function point(ms) {
  cursorMs = ms;
  for (const chart of CHARTS) chart.point(ms);
}

/** Goes `steps` samples on; at the end of them is now. */
function step(chart, steps) {
  const { times } = chart;
  const found = cursorMs === null ? -1 : times.findIndex((ms) => ms >= cursorMs);
  const at = found < 0 ? times.length : found;
  const next = Math.max(0, at + steps);
  point(next < times.length ? times[next] : null);
}

function onKey(event, chart) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -15, PageDown: 15, Home: -Infinity };
  if (event.key in steps) step(chart, steps[event.key]);
  else if (event.key === "End" || event.key === "Escape") point(null);
  else return;
  event.preventDefault();
}

function showCharts(history, nowMs) {
  for (const chart of CHARTS) chart.take(history, nowMs);
}

function placeCharts(parent) {
  for (const chart of CHARTS) {
    parent.append(chart.element);
    const { svg } = chart;
    const at = (event) => {
      const inside = (event.clientX - svg.getBoundingClientRect().left - EDGE.left) / (chart.width - EDGE.left - EDGE.right);
      point(chart.nowMs && inside >= 0 ? chart.nowMs - (1 - inside) * SPAN_MS : null);
    };
    svg.addEventListener("pointermove", at);
    svg.addEventListener("pointerleave", () => point(null));
    svg.addEventListener("keydown", (event) => onKey(event, chart));
    svg.addEventListener("blur", () => point(null));
    new ResizeObserver(() => chart.draw()).observe(svg);
  }
}
