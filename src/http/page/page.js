// Asks the node every two seconds, and says when it does not answer.

const EVERY_MS = 2000;
const PATIENCE_MS = 4000;
/** What is shown is old from here on. */
const OLD_MS = 7000;
const SIGNS = { healthy: "●", degraded: "▲", unhealthy: "■", starting: "◌", gone: "✕", asking: "◌" };

/** When the last answer came, by the browser's clock; null: none came yet. */
let answeredMs = null;
/** Why there was none since; empty when there was. */
let trouble = "";
let isPaused = false;
let timer = 0;
let shownState = "asking";
let nodeName = "PairDB node";
/** Why it is not better, as it said last. */
let reasons = [];

/** Of the parts; one that fails leaves the others as they should be. */
const PARTS = [showTiles, showLevels, showMemory, showActors, showEnds, showDisks, showReloads, showMembers, showSlow];

function show(status) {
  const { health } = status;
  nodeName = status.node_id;
  shownState = health.status;
  say(byId("node"), status.node_id);
  say(byId("about"), `version ${status.version}, up ${duration(status.uptime_ms)}`);
  reasons = health.reasons;
  for (const part of [...PARTS, ({ history }) => showCharts(history, status.now_ms)]) {
    try {
      part(status);
    } catch (error) {
      console.error(error);
    }
  }
}

/** The head: how the node is, or since when nobody knows. */
function showState() {
  const silentMs = answeredMs === null ? 0 : Date.now() - answeredMs;
  const isOld = trouble !== "" || (silentMs > OLD_MS && !isPaused);
  const state = isOld ? (trouble === STARTING ? "starting" : "gone") : shownState;
  document.body.dataset.state = state;
  document.body.classList.toggle("old", isOld || isPaused);
  const words = { gone: "no answer", asking: "asking …" };
  say(byId("state"), `${SIGNS[state] ?? "■"} ${words[state] ?? state}`);
  say(byId("age"), answeredMs === null ? "" : `${isPaused ? "paused" : isOld ? "old" : "live"}, ${clock(answeredMs)}`);
  keep(byId("reasons"), said(isOld, silentMs), (_, place) => place, () => make("li"), say);
  document.title = `${words[state] ?? state} · ${nodeName}`;
}

/** What a person must know before he reads the numbers. */
function said(isOld, silentMs) {
  if (answeredMs === null) return [trouble || "Asking the node …"];
  const old = `What is shown is ${duration(silentMs)} old, from ${clock(answeredMs)}.`;
  if (isOld) return [`${trouble || NO_ANSWER}. ${old}`, ...reasons];
  if (isPaused) return [`Paused. ${old}`, ...reasons];
  return reasons.length > 0 ? reasons : ["Nothing needs attention."];
}

const STARTING = "The node is starting: it reads its log back";
const NO_ANSWER = "The node does not answer";

async function ask() {
  const answer = await fetch("/status", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.status === 503) throw new Error(STARTING);
  if (!answer.ok) throw new Error(`The node answers ${answer.status}`);
  return answer.json();
}

async function update() {
  clearTimeout(timer);
  if (isPaused) return;
  try {
    const status = await ask();
    // It was paused meanwhile.
    if (isPaused) return;
    answeredMs = Date.now();
    trouble = "";
    show(status);
  } catch (error) {
    const isOurs = error.message === STARTING || error.message.startsWith("The node answers");
    trouble = isOurs ? error.message : NO_ANSWER;
  }
  showState();
  clearTimeout(timer);
  timer = setTimeout(update, EVERY_MS);
}

function pause() {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", isPaused);
  say(byId("pause"), isPaused ? "Go on" : "Pause");
  showState();
  if (!isPaused) update();
}

const head = document.querySelector("header");
new ResizeObserver(() => {
  document.documentElement.style.setProperty("--head", `${head.offsetHeight + 8}px`);
}).observe(head);
placeCharts(byId("charts"));
byId("pause").addEventListener("click", pause);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) update();
});
setInterval(showState, 1000);
update();
