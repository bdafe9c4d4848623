// Finding items by words, meaning and picture; what is like them; adding one and hiding one.

import { ask, get, post, segment } from "../lib/api.js";
import { model, partName } from "../lib/catalogue.js";
import { h, put } from "../lib/dom.js";
import { count, description, fixed, plural, title, traits } from "../lib/format.js";
import { badge, card, dialog, empty, facts, failed, field, fillIn, heading, icon, picture, searchBox, skeleton, toast } from "../lib/ui.js";

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
  put(place, heading("Items", "Search by words or by a picture, and see what is near for the student, the image and the text.", search), rest);
  if (itemId === undefined) await fillIn(rest, skeleton(4), () => popular(signal));
  else await fillIn(rest, [skeleton(1, "block"), skeleton(6)], () => item(itemId, signal));
}

async function popular(signal) {
  const { items } = await get("console/api/items?limit=24", signal);
  if (!items.length) return empty("The model has no items.");
  return card("Most interactions", h("ul", { class: "gallery" }, items.map((each) =>
    h("li", {}, h("a", { class: "goods", href: `#/items/${segment(each.item_id)}` }, picture(each, 112), h("span", { class: "name" }, title(each)), h("span", { class: "note" }, plural(each.popularity, "interaction")))))));
}

async function item(itemId, signal) {
  const [found, about] = await Promise.all([get(`items/${segment(itemId)}`, signal), model(signal)]);
  const near = ["student"].map((by) => {
    const column = h("div", {});
    fillIn(column, skeleton(6), () => similar(itemId, by, signal));
    return h("div", {}, h("h3", {}, partName(by)), column);
  });
  const rest = Object.entries(found.metadata ?? {}).filter(([name, value]) => !["item_id", "title", "name", "description", "image"].includes(name) && value !== null && value !== "");
  return [
    card(null, h("div", { class: "item" }, picture(found, 176),
      h("div", { class: "stack tight" }, h("h2", {}, title(found)), h("p", {}, description(found)),
        facts([["Id", h("code", {}, itemId)], ["Interactions", count(found.popularity)], ...rest.map(([name, value]) => [partName(name), typeof value === "object" ? JSON.stringify(value) : String(value)])])))),
    card("Nearest items", h("div", { class: "pairs" }, near)),
  ];
}

async function similar(itemId, by, signal) {
  const { items } = await get(`items/${segment(itemId)}/similar?k=${K}${by === "student" ? "" : `&by=${by}`}`, signal);
  return h("ol", { class: "short" }, items.map((each) =>
    h("li", {}, picture(each, 40), h("a", { class: "what", href: `#/items/${segment(each.item_id)}` }, h("span", { class: "name" }, title(each)), h("span", { class: "note" }, traits(each))), h("span", { class: "note" }, fixed(each.score, 2)))));
}
