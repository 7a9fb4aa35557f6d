// Numbers as a person reads them. A number that is not there is a dash.

const NO_NUMBER = "–";
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

const isNumber = (number) => typeof number === "number" && Number.isFinite(number);

/** With a separator at the thousands, and so many decimals. */
function number(value, decimals = 0) {
  if (!isNumber(value)) return NO_NUMBER;
  return value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

/** A rate: a decimal as long as it matters. */
const rate = (value) => number(value, isNumber(value) && value > 0 && value < 10 ? 1 : 0);

function bytes(value) {
  if (!isNumber(value)) return NO_NUMBER;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${number(value, unit === 0 || value >= 100 ? 0 : 1)} ${UNITS[unit]}`;
}

/** Microseconds, in the unit that fits. */
function micros(value) {
  if (!isNumber(value)) return NO_NUMBER;
  if (value < 1000) return `${number(value)} µs`;
  if (value < 1e6) return `${number(value / 1e3, value < 1e5 ? 1 : 0)} ms`;
  return `${number(value / 1e6, value < 1e7 ? 2 : 1)} s`;
}

/** Milliseconds, as the two largest units. */
function duration(ms) {
  if (!isNumber(ms)) return NO_NUMBER;
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** Milliseconds below a minute with a decimal. */
const shortDuration = (ms) => (isNumber(ms) && ms < 60000 ? `${number(ms / 1000, 1)} s` : duration(ms));

const percent = (share, decimals = 1) => (isNumber(share) ? `${number(share * 100, decimals)} %` : NO_NUMBER);

/** A moment as the time of the day, here. */
const clock = (ms) => (isNumber(ms) ? new Date(ms).toLocaleTimeString("en-GB") : NO_NUMBER);
