// Finding items by words, meaning and picture; what is like them; adding and hiding one.

import { ask, get, post, segment } from "../lib/api.js";
import { model, partName } from "../lib/catalogue.js";
import { h, put } from "../lib/dom.js";
import { count, description, duration, plural, title, traits } from "../lib/format.js";
import { KNOWN, dropping, hideItem, nearest } from "../lib/goods.js";
import { shrunk } from "../lib/images.js";
import { badge, card, empty, facts, field, fillIn, heading, icon, picture, searchBox, skeleton } from "../lib/ui.js";
import { addItem } from "./add.js";

const K = 12;

export async function show(place, [itemId], signal) {
  const search = searchBox({
    label: "Find items by their words",
    placeholder: "Find an item by its words or id",
    find: async (text, stop) => (await get(`console/api/items?limit=12&q=${segment(text)}`, stop)).items,
    show: (item) => [picture(item, 32), h("span", { class: "name" }, title(item)), h("span", { class: "note" }, traits(item))],
    choose: (item) => (location.hash = `#/items/${segment(item.item_id)}`),
  });
  const rest = h("div", { class: "stack" });
  const adding = h("div", {});
  const add = h("button", { class: "button", type: "button", "aria-expanded": "false", onclick: () => toggle(add, adding, signal) }, icon("plus", 18), "Add an item");
  put(place, heading("Items", "Search by words or by a picture; see what is near, and by what.", search, add), adding, rest);
  if (itemId === undefined) await fillIn(rest, skeleton(4), () => catalogue(signal));
  else await fillIn(rest, [skeleton(1, "block"), skeleton(6)], () => item(itemId, signal));
}

async function toggle(button, place, signal) {
  const open = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(open));
  if (!open) return put(place);
  await fillIn(place, skeleton(1, "block"), async () => addItem(await model(signal), signal));
  place.querySelector("input")?.focus();
}

async function catalogue(signal) {
  const [{ items }, about] = await Promise.all([get("console/api/items?limit=24", signal), model(signal)]);
  const found = h("div", { class: "stack", "aria-live": "polite" });
  const popular = items.length
    ? card("Most interactions", h("ul", { class: "gallery" }, items.map((each) => tile(each, plural(each.popularity, "interaction")))))
    : empty("The model has no items.");
  put(found, popular);
  return [encoderSearch(about.searched_by, found, signal), found];
}

function tile(each, note) {
  return h("li", {}, h("a", { class: "goods", href: `#/items/${segment(each.item_id)}` },
    picture(each, 112), h("span", { class: "name" }, title(each)), h("span", { class: "note" }, note)));
}

// Searching by meaning and by picture

function encoderSearch(by, found, signal) {
  if (!by.length) {
    return h("p", { class: "note" }, "Search by meaning and by picture needs a model with encoders: \u2018mts4mm encoders add\u2019, \u2018mts4mm encode\u2019, and a training.");
  }
  const words = by.includes("words") ? wordSearch(found, signal) : null;
  const drop = by.includes("picture") ? pictureSearch(found, signal) : null;
  return h("section", { class: "card searches", "aria-label": "Search by meaning and by picture" }, words, drop);
}

function wordSearch(found, signal) {
  const input = h("input", { type: "search", placeholder: "e.g. something warm for a rainy evening", maxlength: 2000 });
  const form = h("form", { class: "row" }, field("By meaning", input), h("button", { class: "button", type: "submit" }, "Search"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (text) results(found, `Nearest to \u201c${text}\u201d`, null, () => post("console/api/search/words", { words: text, k: K }, signal));
  });
  return form;
}

function pictureSearch(found, signal) {
  const input = h("input", { type: "file", accept: "image/*", class: "hidden", "aria-label": "Choose a picture to search by" });
  const zone = h("label", { class: "drop" }, icon("picture", 22), h("span", {}, h("strong", {}, "Drop a picture here"), " or choose a file"), input);
  const search = async (file) => {
    if (!file) return;
    const source = URL.createObjectURL(file);
    const seen = h("img", { class: "asked", src: source, alt: "The picture searched by" });
    await results(found, "Nearest to your picture", seen, async () =>
      ask("console/api/search/picture", { method: "POST", body: await shrunk(file), signal }));
    input.value = "";
  };
  input.addEventListener("change", () => search(input.files[0]));
  dropping(zone, search);
  return zone;
}

async function results(place, name, seen, load) {
  await fillIn(place, card(name, skeleton(4)), async () => {
    const started = performance.now();
    const { near } = await load();
    const seconds = (performance.now() - started) / 1000;
    const columns = Object.entries(near).map(([by, { items }]) => column(by, items));
    return h("section", { class: "card" }, h("div", { class: "who" }, seen, h("h2", {}, name), h("span", { class: "note" }, `in ${duration(seconds)}`)),
      columns.length ? h("div", { class: "pairs" }, columns) : empty("The encoders find nothing in this to go by."));
  });
}

// One item

async function item(itemId, signal) {
  const [found, about] = await Promise.all([known(itemId, signal), model(signal)]);
  const columns = ["student", ...about.modalities].map((by) => {
    const under = h("div", {});
    fillIn(under, skeleton(6), async () => nearest(await similar(itemId, by, signal)));
    return h("div", {}, h("h3", {}, columnName(by)), under);
  });
  return [card(null, described(found)), card("Nearest items", h("div", { class: "pairs" }, columns))];
}

/** What the service says of an item, and whether that was put since the training. */
async function known(itemId, signal) {
  const found = await get(`items/${segment(itemId)}`, signal);
  const { items } = await post("console/api/items", { item_ids: [itemId] }, signal);
  return { ...found, live: items[0]?.live ?? false };
}

function described(found) {
  const rest = Object.entries(found.metadata ?? {}).filter(([name, value]) => !KNOWN.has(name) && value !== null && value !== "");
  const hide = h("button", { class: "button danger small", type: "button", onclick: () => hideAndLeave(found) }, "Hide this item");
  return h("div", { class: "item" }, picture(found, 176),
    h("div", { class: "stack tight" },
      h("div", { class: "head" }, h("h2", {}, title(found)), hide),
      description(found) ? h("p", {}, description(found)) : null,
      facts([
        ["Id", h("code", {}, found.item_id)],
        ["Interactions", count(found.popularity ?? 0)],
        ["State", found.live ? badge("put since the training", "accent") : null],
        ...rest.map(([name, value]) => [partName(name), typeof value === "object" ? JSON.stringify(value) : String(value)]),
      ])));
}

async function hideAndLeave(found) {
  if (await hideItem(found)) location.hash = "#/items";
}

const similar = async (itemId, by, signal) =>
  (by === "student"
    ? await get(`items/${segment(itemId)}/similar?k=${K}`, signal)
    : await get(`console/api/near?item_id=${segment(itemId)}&by=${segment(by)}&k=${K}`, signal)).items;

const columnName = (by) => `By the ${partName(by).toLowerCase()}`;

function column(by, items) {
  return h("div", {}, h("h3", {}, columnName(by)), nearest(items));
}
