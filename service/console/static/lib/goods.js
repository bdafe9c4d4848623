// What the views of items share: lists of near ones, dropping a picture, hiding one.

import { ask, segment } from "./api.js";
import { forget } from "./catalogue.js";
import { h } from "./dom.js";
import { fixed, title, traits } from "./format.js";
import { dialog, empty, picture, toast } from "./ui.js";

/** Attributes that have a place of their own. */
export const KNOWN = new Set(["item_id", "title", "name", "description", "image"]);

export function nearest(items) {
  if (!items.length) return empty("Nothing to compare by: the item lacks this modality.");
  return h("ol", { class: "short" }, items.map((each) =>
    h("li", {}, picture(each, 40),
      h("a", { class: "what", href: `#/items/${segment(each.item_id)}` }, h("span", { class: "name" }, title(each)), h("span", { class: "note" }, traits(each))),
      h("span", { class: "note", title: "cosine" }, fixed(each.score, 2)))));
}

/** Let a file be dropped on a zone. */
export function dropping(zone, take) {
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
}

/** Ask, and then hide an item; whether that was done. */
export async function hideItem(found, { name = "Hide this item?", action = "Hide" } = {}) {
  const back = found.live ? "What was put of it is deleted; adding it again brings it back." : "It can be restored.";
  const form = await dialog({
    name,
    text: `${title(found)} is in no answer from now on, for anybody, whichever model is live. ${back}`,
    action,
    danger: true,
  });
  if (!form) return false;
  try {
    await ask(`items/${segment(found.item_id)}`, { method: "DELETE" });
  } catch (error) {
    toast(error.text ?? String(error), "bad");
    return false;
  }
  forget(found.item_id);
  toast(`${title(found)} is hidden.`);
  return true;
}
