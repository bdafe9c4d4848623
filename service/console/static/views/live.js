// Being a visitor: every click is an event that the service counts, and the list beside it adapts at once.

import { ask, get, post, segment } from "../lib/api.js";
import { h, latest, put, reorder } from "../lib/dom.js";
import { duration, title, traits } from "../lib/format.js";
import { uuid } from "../lib/id.js";
import { badge, empty, failed, fillIn, heading, picture, searchBox, skeleton, toast } from "../lib/ui.js";

/** Clicks that are being sent. */
const underWay = new Set();
const VISITOR = "mts4mm.visitor";
const CLICKED = "mts4mm.clicked";
const SHELF = 24;
const K = 16;

export async function show(place, _path, signal) {
  const shelf = h("section", { class: "card" });
  const list = h("section", { class: "card" });
  const fresh = h("button", { class: "button", type: "button", onclick: () => startAnew(place, signal) }, "New visitor");
  put(place, heading("Live", "Click what you like, as a visitor would. Each click is an event; the list adapts before your eyes.", fresh),
    h("div", { class: "live-grid" }, shelf, list));
  await visit(shelf, list, signal);
}

async function startAnew(place, signal) {
  const visitor = sessionStorage.getItem(VISITOR);
  const clicked = sessionStorage.getItem(CLICKED);
  sessionStorage.removeItem(VISITOR);
  sessionStorage.removeItem(CLICKED);
  if (visitor && clicked) forget(visitor);
  await show(place, [], signal);
}

/** Have a visitor forgotten, with the clicks that are still under way. */
async function forget(visitor) {
  await Promise.allSettled(underWay);
  try {
    await ask(`users/${segment(visitor)}`, { method: "DELETE" });
  } catch (error) {
    toast(`${visitor} is not forgotten. ${error.text ?? error}`, "bad");
  }
}

function visitorId() {
  const known = sessionStorage.getItem(VISITOR);
  if (known) return known;
  const made = `visitor-${uuid().slice(0, 8)}`;
  sessionStorage.setItem(VISITOR, made);
  return made;
}

async function visit(shelf, list, signal) {
  const visitor = visitorId();
  const clicks = h("ul", { class: "strip", tabindex: "0", "aria-label": "What you clicked" });
  const line = h("p", { class: "note", role: "status" });
  const gets = h("ol", { class: "gallery", "aria-label": "Recommended to this visitor" });
  const goods = h("ul", { class: "gallery", "aria-label": "Items to click" });
  const rows = new Map();
  let before = null;
  let timed = "";
  let last = null;

  const draw = (answer) => {
    const now = answer.items.map((item) => item.item_id);
    const changed = before === null ? null : now.filter((id) => !before.has(id)).length;
    const wanted = answer.items.map((item) => {
      if (!rows.has(item.item_id)) rows.set(item.item_id, tile(item, click));
      const element = rows.get(item.item_id);
      element.classList.toggle("new", before !== null && !before.has(item.item_id));
      return element;
    });
    reorder(gets, wanted);
    before = new Set(now);
    last = answer.recommendation_id;
    put(line, badge(answer.strategy, "accent"), ` ${timed}${changed === null ? "" : `${changed} of ${now.length} items are new.`}`);
  };
  const refresh = latest(async () => {
    try {
      const started = performance.now();
      const answer = await post("recommend", { user_id: visitor, k: K }, signal);
      timed += `List in ${duration((performance.now() - started) / 1000)}. `;
      draw(answer);
      timed = "";
    } catch (error) {
      if (error.name !== "AbortError") put(line, failed(error, refresh));
    }
  });
  async function click(item) {
    const started = performance.now();
    try {
      const event = { event_id: uuid(), user_id: visitor, item_id: item.item_id, type: "click", timestamp: new Date().toISOString() };
      if (last) event.recommendation_id = last;
      sessionStorage.setItem(CLICKED, "yes");
      await counted(event, signal);
      timed = `Event counted in ${duration((performance.now() - started) / 1000)}. `;
    } catch (error) {
      if (error.name !== "AbortError") toast(error.text ?? String(error), "bad");
      return;
    }
    if (sessionStorage.getItem(VISITOR) !== visitor) return;
    clicked(item);
    refresh();
  }
  const clicked = (item) => {
    none.remove();
    clicks.prepend(h("li", {}, picture(item, 56), h("span", { class: "under" }, title(item))));
  };
  const none = h("li", { class: "more" }, "Nothing yet.");
  clicks.append(none);

  const search = searchBox({
    label: "Find an item to click",
    placeholder: "Find an item by its words",
    find: async (text, stop) => (await get(`console/api/items?limit=12&q=${segment(text)}`, stop)).items,
    show: (item) => [picture(item, 32), h("span", { class: "name" }, title(item)), h("span", { class: "note" }, traits(item))],
    choose: click,
  });
  put(shelf, h("div", { class: "who" }, h("h2", {}, "The shop"), search), h("div", {}, skeleton(4)));
  put(list, h("div", { class: "who" }, h("h2", {}, "What this visitor gets"), h("code", { class: "note" }, visitor)), clicks, line, gets);
  await fillIn(shelf.lastChild, skeleton(4), async () => {
    const { items } = await get(`console/api/shelf?limit=${SHELF}`, signal);
    put(goods, items.map((item) => tile(item, click)));
    return items.length ? goods : empty("The model has no items.");
  });
  await recall(visitor, clicked, signal);
  await refresh();
}

async function counted(event, signal) {
  const sent = post("events", event, signal);
  underWay.add(sent);
  await sent.finally(() => underWay.delete(sent));
}

/** What the visitor of this tab did before the view was left. */
async function recall(visitor, clicked, signal) {
  if (!sessionStorage.getItem(CLICKED)) return;
  const known = await get(`users/${segment(visitor)}`, signal).catch((error) => {
    if (error.status === 404 || error.status === 503) return null;
    throw error;
  });
  const ids = (known?.recent ?? []).map((event) => event.item_id);
  if (!ids.length) return;
  const { items } = await post("console/api/items", { item_ids: ids }, signal);
  items.reverse().forEach(clicked);
}

function tile(item, click) {
  const button = h("button", { class: "goods", type: "button", onclick: () => click(item) },
    picture(item, 112), h("span", { class: "name" }, title(item)), h("span", { class: "note" }, traits(item)));
  const element = h("li", { data: { item: item.item_id } }, button);
  return element;
}
