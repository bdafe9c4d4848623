// The versions of the store: what each says of itself, how two differ for a user, and which one answers.

import { ask, get, health, segment } from "../lib/api.js";
import { partName, teacherName } from "../lib/catalogue.js";
import { h, put, wait } from "../lib/dom.js";
import { ago, bytes, count, duration, fixed, moment, percent, plural, title, traits, version } from "../lib/format.js";
import { badge, card, dialog, empty, facts, field, fillIn, heading, icon, picture, searchBox, skeleton, table, toast } from "../lib/ui.js";
import { gateOf, verdict } from "./night.js";

const K = 20;
const PATIENCE = 30_000;

export async function show(place, [chosen], signal) {
  const list = h("section", { class: "card" });
  const rest = h("div", { class: "stack" });
  const back = h("button", { class: "button", type: "button", onclick: () => rollBack(again) }, "Roll back");
  put(place, heading("Models", "Every version that was published, and the one that answers.", back), list, rest);
  const again = () => load(true);
  const load = (quiet) =>
    fillIn(list, quiet ? [...list.childNodes] : skeleton(4), async () => {
      const { versions } = await get("console/api/versions", signal);
      const shown = versions.find((each) => each.version === chosen) ?? versions.find((each) => each.current) ?? versions[0];
      put(rest, shown ? [about(shown, again), differences(versions, shown, signal)] : []);
      return overview(versions, shown);
    });
  await load(false);
}

function overview(versions, shown) {
  if (!versions.length) return empty("There is no model yet. \u2018mts4mm train\u2019 publishes one.");
  const rows = versions.map((each) => [
    h("a", { class: "link", href: `#/models/${segment(each.version)}`, "aria-current": each === shown ? "true" : null }, version(each.version)),
    each.current ? badge("live", "accent") : each.damage ? badge("damaged", "bad") : "",
    each.created ? h("span", { title: moment(each.created) }, ago(each.created)) : "\u2013",
    metric(each, "test.recall@20"),
    metric(each, "test.ndcg@20"),
    each.bytes === undefined ? "\u2013" : bytes(each.bytes),
    verdict(each.gate),
  ]);
  const columns = [
    { name: "Version" }, { name: "State" }, { name: "Published" }, { name: "Test recall@20", kind: "number" },
    { name: "Test NDCG@20", kind: "number" }, { name: "Size", kind: "number" }, { name: "Gate" },
  ];
  return table(columns, rows, "Versions");
}

const metric = (each, name) => (each.metrics?.[name] === undefined ? "\u2013" : fixed(each.metrics[name], 4));

function about(shown, again) {
  const live = shown.current;
  const act = h("button", { class: "button main", type: "button", disabled: live, onclick: () => activate(shown.version, again) }, live ? "Is live" : "Activate");
  const head = h("div", { class: "head" }, h("div", {}, h("h2", {}, version(shown.version)), h("p", { class: "note mono" }, shown.version)), act);
  if (shown.damage) return card(null, head, h("p", { class: "wrong" }, shown.damage));
  const { dataset, split } = { dataset: shown.dataset, split: shown.dataset.split };
  const identity = facts([
    ["Published", moment(shown.created)],
    ["Data", `${dataset.name}: ${plural(dataset.users, "user")}, ${plural(dataset.items, "item")}, ${plural(dataset.interactions, "interaction")}`],
    ["Split", split.seed === null ? split.kind : `${split.kind}, seed ${split.seed}`],
    ["Fingerprint", h("code", {}, dataset.fingerprint.slice(0, 16))],
    ["Seed", String(shown.seed)],
    ["Code", shown.code_revision ? h("code", {}, shown.code_revision) : "not from a checkout"],
    ["Files", `${plural(shown.files, "file")}, ${bytes(shown.bytes)}`],
  ]);
  return card(null, head,
    h("div", { class: "grid apart" },
      h("div", {}, h("h3", {}, "Manifest"), identity, recipe(shown.recipe)),
      h("div", {}, h("h3", {}, "Figures"), figures(shown.metrics))),
    h("div", { class: "gate" }, h("h3", {}, "Gate"), gateOf(shown.gate)));
}

function recipe(settings) {
  const rows = Object.entries(settings).map(([name, value]) => [name, value === null ? "none" : JSON.stringify(value)]);
  return h("details", {}, h("summary", {}, `Recipe, ${plural(rows.length, "setting")}`), facts(rows.map(([name, value]) => [h("code", {}, name), h("code", {}, value)])));
}

const MEASURES = ["recall@20", "ndcg@20", "recall@10", "ndcg@10"];

function figures(metrics) {
  const rows = new Map();
  for (const [key, value] of Object.entries(metrics)) {
    const found = /^(?:(.*)\.)?(test)\.([^.]+)$/.exec(key);
    if (!found) continue;
    const name = modelName(found[1]);
    if (!rows.has(name)) rows.set(name, {});
    rows.get(name)[found[3]] = value;
  }
  const measures = [...new Set([...rows.values()].flatMap(Object.keys))].sort((a, b) => order(a) - order(b) || a.localeCompare(b)).slice(0, 4);
  const shown = [...rows].map(([name, values]) => [name, ...measures.map((each) => (values[each] === undefined ? "\u2013" : fixed(values[each], 4)))]);
  if (!shown.length) return empty("The manifest has no figures of a test.");
  return table([{ name: "On the test split" }, ...measures.map((name) => ({ name, kind: "number" }))], shown, "Figures on the test split");
}

/** What the figures under a prefix of the manifest are of. */
function modelName(prefix) {
  if (prefix === undefined) return "Student";
  const [kind, ...rest] = prefix.split(".");
  if (kind === "teacher") return teacherName(rest.join(" "));
  return kind === "alone" ? ["Student", ...rest.map(partName), "unconsolidated"].join(" ") : prefix;
}

const order = (name) => (MEASURES.indexOf(name) + MEASURES.length + 1) % (MEASURES.length + 1);

// Two versions, one user

function differences(versions, shown, signal) {
  const sound = versions.filter((each) => !each.damage);
  if (sound.length < 2) return card("Difference for a user", empty("Two versions are needed to compare."));
  const other = sound[sound.indexOf(shown) + 1] ?? sound.find((each) => each !== shown);
  const select = (value) => h("select", {}, sound.map((each) => h("option", { value: each.version, selected: each.version === value }, version(each.version) + (each.current ? " (live)" : ""))));
  const before = select(other.version);
  const after = select((sound.includes(shown) ? shown : sound[0]).version);
  const result = h("div", {}, empty("Choose a user to see how their list differs."));
  let user = null;
  const compare = () => user !== null && fillIn(result, skeleton(6), async () => {
    const query = new URLSearchParams({ user_id: user, before: before.value, after: after.value, k: K });
    return compared(await get(`console/api/compare?${query}`, signal));
  });
  before.addEventListener("change", compare);
  after.addEventListener("change", compare);
  const search = searchBox({
    label: "User to compare for",
    placeholder: "Find a user by id",
    find: async (text, stop) => (await get(`console/api/users?limit=12&q=${segment(text)}`, stop)).users,
    show: (found) => [h("span", { class: "name" }, found.user_id), h("span", { class: "note" }, plural(found.items, "item"))],
    choose: (found) => {
      user = found.user_id;
      compare();
    },
  });
  return card("Difference for a user",
    h("div", { class: "row wide" }, field("Before", before), field("After", after), h("div", { class: "field" }, h("span", { class: "note" }, "User"), search)), result);
}

function compared({ user_id: user, before, after }) {
  if (!before.known && !after.known) return empty(`Neither version knows the user ${user}.`);
  const was = new Map(before.items.map((item, at) => [item.item_id, at + 1]));
  const is = new Set(after.items.map((item) => item.item_id));
  const kept = after.items.filter((item) => was.has(item.item_id)).length;
  const moves = after.items.map((item, at) => (was.has(item.item_id) ? was.get(item.item_id) - at - 1 : null));
  const gone = before.items.filter((item) => !is.has(item.item_id));
  return [
    h("p", { class: "note", role: "status" }, `${user}: ${kept} of ${after.items.length} items are in both lists${after.items.length ? ` (${percent(kept / after.items.length, 0)})` : ""}. By the embeddings alone, without the day\u2019s events.`),
    h("div", { class: "pairs" },
      side(before, (item, at) => (is.has(item.item_id) ? null : badge("gone", "bad"))),
      side(after, (item, at) => movement(moves[at]))),
    gone.length ? null : h("p", { class: "note" }, "No item left the list."),
  ];
}

function movement(places) {
  if (places === null) return badge("new", "accent");
  if (places === 0) return null;
  const up = places > 0;
  return h("span", { class: `move ${up ? "up" : "down"}` }, icon(up ? "up" : "down", 12), h("span", { class: "hidden" }, up ? "up " : "down "), count(Math.abs(places)));
}

function side(list, mark) {
  const rows = list.items.map((item, at) =>
    h("li", {}, h("span", { class: "rank" }, at + 1), picture(item, 40),
      h("a", { class: "what", href: `#/items/${segment(item.item_id)}` }, h("span", { class: "name" }, title(item)), h("span", { class: "note" }, traits(item))), mark(item, at)));
  return h("div", {}, h("h3", {}, version(list.version)), list.known ? h("ol", { class: "short" }, rows) : empty("This version does not know the user."));
}

// Changing what is live

async function activate(wanted, again) {
  const form = await dialog({
    name: "Activate this version?",
    text: `The service loads and checks ${version(wanted)}, and then answers from it. Requests under way finish on the one that is live now.`,
    action: "Activate",
  });
  if (form) await change(`admin/models/${segment(wanted)}:activate`, () => wanted, again);
}

async function rollBack(again) {
  const form = await dialog({
    name: "Roll back?",
    text: "The version that was live before the current one becomes live again.",
    action: "Roll back",
    danger: true,
  });
  if (form) await change("admin/rollback", (answer) => answer.live, again);
}

async function change(path, wantedOf, again) {
  const started = performance.now();
  try {
    const wanted = wantedOf(await ask(path, { method: "POST", body: {}, timeout: 120_000 }));
    await untilLive(wanted);
    toast(`${version(wanted)} is live after ${duration((performance.now() - started) / 1000)}.`);
  } catch (error) {
    toast(error.text ?? String(error), "bad");
  }
  again();
}

async function untilLive(wanted) {
  const deadline = performance.now() + PATIENCE;
  while (performance.now() < deadline) {
    if ((await health()).model_version === wanted) return;
    await wait(200);
  }
  throw new Error(`The service does not answer from ${version(wanted)} yet. See its log for the reason.`);
}
