// Numbers with their units, as people read them.

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

export const count = (number) => whole.format(number);
export const short = (number) => (Math.abs(number) < 10_000 ? whole.format(number) : compact.format(number));
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
export const fixed = (number, digits = 3) => number.toFixed(digits).replace("-", "\u2212");
export const signed = (number, digits = 3) => (number > 0 ? "+" : "") + fixed(number, digits);
export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u202f%`;

export function bytes(size) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toPrecision(3)}\u202f${units[unit]}`;
}

/** A length of time in one unit. */
export function duration(seconds) {
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)}\u202f\u00b5s`;
  if (seconds < 1) return `${(seconds * 1000).toPrecision(seconds < 0.1 ? 2 : 3)}\u202fms`;
  if (seconds < 120) return `${Math.round(seconds)}\u202fs`;
  if (seconds < 2 * 3600) return `${Math.round(seconds / 60)}\u202fmin`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)}\u202fh`;
  return `${Math.round(seconds / 86_400)}\u202fdays`;
}

/** A moment, seen from now: "3 hours ago". */
export function ago(moment) {
  const seconds = (new Date(moment) - Date.now()) / 1000;
  const size = Math.abs(seconds);
  if (size < 10) return "just now";
  if (size < 90) return relative.format(Math.round(seconds), "second");
  if (size < 90 * 60) return relative.format(Math.round(seconds / 60), "minute");
  if (size < 36 * 3600) return relative.format(Math.round(seconds / 3600), "hour");
  return relative.format(Math.round(seconds / 86_400), "day");
}

export function moment(iso) {
  return new Date(iso).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
}

/** A version by the part that people tell apart: the day and time, and the first letters of its digest. */
export function version(name) {
  const found = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)\d\dZ-(\w{4})/.exec(name);
  return found ? `${found[1]}-${found[2]}-${found[3]} ${found[4]}:${found[5]} \u00b7 ${found[6]}` : name;
}

const SILENT = new Set(["item_id", "title", "name", "description", "image"]);

export const title = (item) => text(item.metadata?.title) || text(item.metadata?.name) || item.item_id;
export const description = (item) => text(item.metadata?.description);

/** What else is briefly known of an item. */
export function traits(item) {
  return Object.entries(item.metadata ?? {})
    .filter(([name, value]) => !SILENT.has(name) && value !== null && value !== "" && typeof value !== "object")
    .map(([, value]) => String(value))
    .filter((value) => value.length <= 40)
    .slice(0, 3)
    .join(" \u00b7 ");
}

function text(value) {
  return typeof value === "string" ? value : "";
}
