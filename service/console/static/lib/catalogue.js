// What the page knows of the live model: its parts, its attributes, and items it has looked up.

import { get, post } from "./api.js";

let known = { version: null, items: new Map() };

/** Look items up by id, each at most once a model version; unknown ones are missing in the map. */
export async function lookUp(ids, signal) {
  const missing = [...new Set(ids)].filter((id) => !known.items.has(id));
  for (let at = 0; at < missing.length; at += 500) {
    const found = await post("console/api/items", { item_ids: missing.slice(at, at + 500) }, signal);
    if (found.model_version !== known.version) known = { version: found.model_version, items: new Map() };
    for (const item of found.items) known.items.set(item.item_id, item);
  }
  return known.items;
}

/** Keep the items of an answer, so that they need no looking up. */
export function keep(answer) {
  if (answer.model_version !== known.version) known = { version: answer.model_version, items: new Map() };
  for (const item of answer.items) known.items.set(item.item_id, item);
}

/** Look an item up anew the next time: it was put, or taken away. */
export function forget(itemId) {
  known.items.delete(itemId);
}

export const model = (signal) => get("console/api/model", signal);

const PARTS = {
  id: "ID",
  shared: "Shared",
  linear: "Linear",
  whole: "Whole",
};

/** The part's name for people. */
export function partName(part) {
  return PARTS[part] ?? part.charAt(0).toUpperCase() + part.slice(1);
}

export function teacherName(teacher) {
  return `${teacher === "id" ? "ID" : partName(teacher)} teacher`;
}
