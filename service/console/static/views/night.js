// The last night: what the gate decided and by which figures, and what each teacher would have said.

import { download, get, segment } from "../lib/api.js";
import { lookUp, partName, teacherName } from "../lib/catalogue.js";
import { h, put } from "../lib/dom.js";
import { count, duration, fixed, moment, percent, plural, title, version } from "../lib/format.js";
import { badge, card, empty, facts, fillIn, heading, picture, skeleton, table, toast } from "../lib/ui.js";

const KINDS = { promoted: "good", nothing_new: "", refused: "bad", rolled_back: "bad", failed: "bad" };

export function verdict(gate) {
  if (!gate) return badge("not asked");
  return badge(gate.verdict === "promoted" ? "passed" : "refused", gate.verdict === "promoted" ? "good" : "bad");
}

export const outcome = (name) => badge(name.replaceAll("_", " "), KINDS[name]);

/** Why a night ended as it did; the first few reasons, if only so many are wanted. */
export function reasons(night, most = Infinity) {
  const all = (night.reasons ?? [night.reason]).filter(Boolean);
  const rest = all.length > most ? h("li", { class: "note" }, `and ${plural(all.length - most, "more reason")}`) : null;
  return h("ul", { class: "reasons" }, all.slice(0, most).map((reason) => h("li", {}, capital(reason))), rest);
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** The gate's checks, the failed ones first. */
export function gateOf(gate) {
  if (!gate) return empty("Published by hand: no gate was asked.");
  const checks = [...(gate.checks ?? [])].sort((one, other) => Number(one.passed) - Number(other.passed));
  const number = (value) => (value === null || value === undefined ? "\u2013" : Number(value.toPrecision(4)).toString().replace("-", "\u2212"));
  const rows = checks.map((check) => [check.name, badge(check.passed ? "passed" : "failed", check.passed ? "good" : "bad"), number(check.value), number(check.bound), h("span", { class: "why" }, check.reason)]);
  const columns = [{ name: "Check" }, { name: "Result" }, { name: "Figure", kind: "number" }, { name: "Bound", kind: "number" }, { name: "Why" }];
  return [
    h("p", { class: "note" }, verdict(gate), ` ${plural(gate.judged_users ?? 0, "user")} judged, ${gate.champion ? `against ${version(gate.champion)}` : "without a champion"}.`),
    rows.length ? table(columns, rows, "What the gate checked") : null,
  ];
}

export async function showNight(place, signal) {
  const rest = h("div", { class: "stack" });
  const keep = h("button", { class: "button", type: "button", onclick: () => download("console/api/night/page", "night.html").catch((error) => toast(error.text ?? String(error), "bad")) }, "Download the report");
  put(place, heading("Last night", "What the nightly run did, what the gate saw, and what the student took from whom.", keep), rest);
  await fillIn(rest, [skeleton(1, "block"), skeleton(6)], async () => {
    const night = await get("console/api/night/report", signal);
    const known = await lookUp(night.samples?.flatMap(shownItems) ?? [], signal);
    return [summary(night), card("The gate", gateOf(night.gate)), ...(night.samples ?? []).map((sample) => sampleOf(sample, known))];
  });
}

function summary(night) {
  const steps = (night.steps ?? []).map(({ step, seconds }) => [step, duration(seconds)]);
  return card(null, h("div", { class: "who" }, h("h2", {}, moment(night.started)), outcome(night.outcome), night.dry_run ? badge("dry run") : null), reasons(night),
    h("div", { class: "grid apart" },
      facts([
        ["Champion", night.champion ? version(night.champion) : "none"],
        ["New version", night.version ? version(night.version) : "none"],
        ...Object.entries(night.data ?? {}).filter(([name, value]) => typeof value === "number" && name !== "seconds").map(([name, value]) => [partName(name).replaceAll("_", " "), count(value)]),
      ]),
      facts([
        ...steps.map(([name, took]) => [capital(name), took]),
        ...Object.entries(night.data?.drift ?? {}).map(([name, value]) => [`Drift: ${name.replaceAll("_", " ")}`, fixed(value)]),
      ])));
}

const shownItems = (sample) => [sample.took, sample.held_out, sample.student, ...Object.values(sample.teachers)].flat().map((item) => item.item_id);

/** One sample user: the student's list, who else had each item, and every teacher's own list. */
function sampleOf(sample, known) {
  const held = new Set(sample.held_out.map((item) => item.item_id));
  const shares = Object.entries(sample.shares).map(([name, share]) => `${teacherName(name)} ${percent(share, 0)}`).join(", ");
  const lists = [["Student", sample.student, true], ...Object.entries(sample.teachers).map(([name, items]) => [teacherName(name), items, false])];
  return card(null,
    h("div", { class: "who" }, h("h2", {}, h("a", { class: "link", href: `#/users/${segment(sample.user_id)}` }, sample.user_id)),
      h("span", { class: "note" }, `Of the student\u2019s list, these had it too: ${shares}.`)),
    h("div", { class: "pairs" }, lists.map(([name, items, student]) => h("div", {}, h("h3", {}, name), h("ol", { class: "short" }, items.map((item) => entry(item, known, held, student)))))));
}

function entry(item, known, held, student) {
  const found = known.get(item.item_id) ?? { item_id: item.item_id, metadata: { title: item.title } };
  const also = student ? h("span", { class: "note" }, item.also.length ? item.also.map(partName).join(", ") : "the student alone") : null;
  return h("li", {}, picture(found, 32),
    h("a", { class: "what", href: `#/items/${segment(item.item_id)}` }, h("span", { class: "name" }, title(found)), also),
    held.has(item.item_id) ? badge("taken", "good") : null);
}
