// How the service is, which model answers, and how it compares: the page to open first.

import { ask, get, health, segment } from "../lib/api.js";
import { teacherName } from "../lib/catalogue.js";
import { bars, spark } from "../lib/charts.js";
import { h, put, wait } from "../lib/dom.js";
import { ago, count, duration, fixed, moment, percent, plural, short, version } from "../lib/format.js";
import { between, parse, traffic } from "../lib/metrics.js";
import { badge, card, empty, facts, figure, fillIn, heading, skeleton, table } from "../lib/ui.js";
import { outcome, reasons, showNight, verdict } from "./night.js";

const EVERY = 2000;
const LOOKS = 31;
const MAIN = "test.recall@20";
const SECOND = "test.ndcg@20";

export async function show(place, [sub], signal) {
  if (sub === "night") return showNight(place, signal);
  const now = h("section", { class: "card", "aria-label": "The service now" });
  const flow = card("Traffic");
  const model = h("section", { class: "card" });
  const history = h("section", { class: "card" });
  const night = h("section", { class: "card" });
  put(place, heading("Overview", "How the service is, which model answers, and what it is worth."),
    now, flow, h("div", { class: "grid" }, model, night), history);
  put(now, skeleton(1, "block"));
  const known = { data: null };
  watch(now, flow, known, signal);
  fillIn(night, skeleton(4, "line"), () => lastNight(signal));
  return fillIn(history, skeleton(4), async () => {
    const { versions } = await get("console/api/versions", signal);
    known.data = versions.find((each) => each.current)?.dataset ?? null;
    put(model, await againstTeachers(versions.find((each) => each.current)));
    return lastVersions(versions);
  });
}

/** Look at health and metrics every two seconds, while the view is shown. */
async function watch(now, flow, known, signal) {
  const looks = [];
  const rates = [];
  const chart = h("div", { class: "flow" });
  flow.append(chart);
  put(chart, skeleton(1, "block"));
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        const [found, text] = await Promise.all([health(signal), ask("metrics", { signal })]);
        const samples = parse(text);
        put(now, figuresOf(found, samples, known.data));
        showTraffic(chart, samples, looks, rates);
      } catch (error) {
        if (signal.aborted) return;
        if (error.status !== 0) put(chart, h("p", { class: "note" }, error.text ?? String(error)));
      }
    }
    await wait(EVERY);
  }
}

function figuresOf(found, samples, data) {
  const kinds = { ok: "good", degraded: "warn", unavailable: "bad" };
  const state = h("span", { class: "big" }, badge(found.status, kinds[found.status]));
  if (!found.model_version) return h("dl", { class: "figures" }, figure("Status", state, "no model is loaded"));
  const redis = samples.get("mts4mm_redis_up")?.[0]?.value === 1;
  const accepted = (samples.get("mts4mm_events_total") ?? []).filter(({ labels }) => labels.outcome === "accepted");
  const events = accepted.reduce((total, { value }) => total + value, 0);
  return h("dl", { class: "figures state" },
    figure("Status", state, found.problems?.length ? found.problems.join(" ") : `up for ${duration(found.uptime_seconds)}`),
    figure("Live model", h("span", {}, duration(found.model_age_seconds), h("small", {}, " old")), version(found.model_version)),
    figure("Training data", data ? h("span", {}, short(data.interactions), h("small", {}, " interactions")) : "\u2013",
      `as of ${ago(found.model_created)}`),
    figure("Catalogue", h("span", {}, short(found.items), h("small", {}, " items")), plural(found.users, "user")),
    figure("Index", found.index_recall === null ? "\u2013" : percent(found.index_recall), `measured recall@20, ${found.index}`),
    figure("Redis", h("span", { class: "big" }, badge(redis ? "answers" : "away", redis ? "good" : "bad")), `${plural(events, "event")} taken since the start`),
  );
}

function showTraffic(chart, samples, looks, rates) {
  looks.push(traffic(samples, performance.now()));
  if (looks.length > LOOKS) looks.shift();
  const last = looks.length > 1 ? between(looks.at(-2), looks.at(-1)) : null;
  if (last) rates.push(last.rate);
  if (rates.length > LOOKS - 1) rates.shift();
  const window = looks.length > 1 ? between(looks[0], looks.at(-1)) : null;
  const seconds = looks.length > 1 ? (looks.at(-1).time - looks[0].time) / 1000 : 0;
  const dash = "\u2013";
  put(chart,
    h("dl", { class: "figures" },
      figure("Requests", last ? h("span", {}, fixed(last.rate, last.rate < 10 ? 1 : 0), h("small", {}, "/s")) : dash, `${count(looks.at(-1).requests)} in all`),
      figure("Median", window?.median == null ? dash : duration(window.median), "p50"),
      figure("Slowest 1\u202f%", window?.tail == null ? dash : duration(window.tail), "p99"),
      figure("Errors", window?.requests ? percent(window.errors / window.requests) : dash, `${count(looks.at(-1).errors)} in all`)),
    h("div", { class: "chart" }, spark(rates, { most: LOOKS - 1 }),
      h("p", { class: "note" }, seconds ? `Requests a second over the last ${duration(seconds)}; the page\u2019s own look-ups and probes are not counted.` : "Measuring\u2026")));
}

async function againstTeachers(live) {
  if (!live?.metrics) return [h("h2", {}, "The student and its teachers"), empty("No model is live.")];
  const name = MAIN;
  const rows = [{ name: "Student", value: live.metrics[name] ?? 0, text: fixed(live.metrics[name] ?? 0), strong: true }];
  for (const [key, value] of Object.entries(live.metrics)) {
    const found = /^teacher\.([^.]+)\.(.+)$/.exec(key);
    if (found?.[2] === name) rows.push({ name: teacherName(found[1]), value, text: fixed(value) });
  }
  rows.sort((one, other) => (other.strong ?? 0) - (one.strong ?? 0) || other.value - one.value);
  return [h("h2", {}, "The student and its teachers"), bars(rows),
    h("p", { class: "note" }, `Recall@20 on the test split of ${live.dataset.name}: ${plural(live.dataset.users, "user")}, ${plural(live.dataset.items, "item")}, ${plural(live.dataset.interactions, "interaction")}. Only the student is served.`)];
}

function lastVersions(versions) {
  if (!versions.length) return [h("h2", {}, "Versions"), empty("There is no model yet. \u2018mts4mm train\u2019 publishes one.")];
  const shown = versions.slice(0, 6);
  const top = Math.max(...shown.map((each) => each.metrics?.[MAIN] ?? 0));
  const measured = (each, at) => {
    const value = each.metrics?.[MAIN];
    if (value === undefined) return "\u2013";
    const before = shown.slice(at + 1).find((other) => other.metrics?.[MAIN] !== undefined)?.metrics[MAIN];
    const change = before === undefined ? null : value - before;
    const kind = change >= 0 ? "good" : "bad";
    return h("span", { class: "measured" }, h("span", { class: "track", vars: { size: value / top }, "aria-hidden": "true" }), fixed(value),
      change === null ? h("span", { class: "change" }) : h("span", { class: `change ${kind}` }, `${change >= 0 ? "+" : "\u2212"}${fixed(Math.abs(change))}`));
  };
  const rows = shown.map((each, at) => [
    h("a", { class: "link", href: `#/models/${segment(each.version)}` }, version(each.version)),
    each.current ? badge("live", "accent") : each.damage ? badge("damaged", "bad") : "",
    each.created ? h("span", { title: moment(each.created) }, ago(each.created)) : "\u2013",
    measured(each, at),
    each.metrics?.[SECOND] === undefined ? "\u2013" : fixed(each.metrics[SECOND]),
    verdict(each.gate),
  ]);
  const columns = [{ name: "Version" }, { name: "State" }, { name: "Published" }, { name: "Test recall@20, against the one before" }, { name: "Test NDCG@20", kind: "number" }, { name: "Gate" }];
  return [h("h2", {}, "Last versions"), table(columns, rows, "Last versions")];
}

async function lastNight(signal) {
  const { night } = await get("console/api/night", signal);
  const name = h("h2", {}, "Last night");
  if (!night) return [name, empty("No night has been run here yet. \u2018mts4mm nightly\u2019 trains on the day\u2019s events, and puts a model live only if it is no worse.")];
  return [h("div", { class: "who" }, name, outcome(night.outcome)), reasons(night, 2), facts([
    ["Ended", h("span", { title: moment(night.ended) }, `${ago(night.ended)}, after ${duration(night.seconds)}`)],
    ["Last success", night.last_success ? ago(night.last_success) : "never"],
    ["Champion", night.champion ? version(night.champion) : "none"],
    ["New version", night.version ? version(night.version) : "none"],
  ]), night.report ? h("p", { class: "more" }, h("a", { class: "link", href: "#/overview/night" }, "What the gate saw, and what each teacher said")) : null];
}
