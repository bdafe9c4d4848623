// Adding an item, and watching it become retrievable: no training comes between.

import { ask, get, segment, send } from "../lib/api.js";
import { forget, partName } from "../lib/catalogue.js";
import { h, put, wait } from "../lib/dom.js";
import { duration, plural, title } from "../lib/format.js";
import { KNOWN, dropping, hideItem, nearest } from "../lib/goods.js";
import { shrunk } from "../lib/images.js";
import { card, empty, field, fresh, icon, picture } from "../lib/ui.js";

const K = 12;
const MOST_ATTRIBUTES = 8;
const PATIENCE = 30_000;
const LOOK_EVERY = 100;

/** The form, and below it what became of the item. */
export function addItem(about, signal) {
  if (!about.placed_by.length) {
    return card("Add an item", empty("This model has no item tower, so it cannot place an item by its content. Train one with content features: see \u2018mts4mm train\u2019."));
  }
  const result = h("div", { "aria-live": "polite" });
  return h("section", { class: "card", "aria-label": "Add an item" }, h("h2", {}, "Add an item"), formOf(about, result, signal), result);
}

function formOf(about, result, signal) {
  const id = h("input", { required: true, maxlength: 512, autocomplete: "off", spellcheck: "false" });
  const name = h("input", { autocomplete: "off" });
  const description = h("textarea", { rows: 3 });
  const attributes = about.attributes.filter((each) => !KNOWN.has(each.name)).slice(0, MOST_ATTRIBUTES).map(attribute);
  const image = pictureField();
  const features = about.placed_by.map(featuresOf);
  const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
  const submit = h("button", { class: "button main", type: "submit" }, "Add");
  const form = h("form", { class: "adding" },
    h("div", { class: "pairs" },
      h("div", { class: "stack tight" }, field("Id", id), field("Title", name), field("Description", description)),
      h("div", { class: "stack tight" }, image.element, h("div", { class: "fields" }, attributes.map((each) => each.element)))),
    featureFields(about.placed_by, features), wrong, h("div", { class: "row" }, submit));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    wrong.hidden = true;
    put(result);
    try {
      const metadata = Object.fromEntries([["title", name.value.trim()], ["description", description.value.trim()], ...attributes.map((each) => [each.name, each.value()])].filter(([, value]) => value !== "" && value !== null));
      const body = { metadata, features: Object.fromEntries(features.map((each) => [each.name, each.value()]).filter(([, value]) => value !== null)) };
      if (image.file()) body.image = await base64(await shrunk(image.file()));
      put(result, await added(id.value.trim(), body, () => put(result), signal));
    } catch (error) {
      if (error.name === "AbortError") return;
      put(wrong, error.text ?? error.message);
      wrong.hidden = false;
    } finally {
      submit.disabled = false;
    }
  });
  return form;
}

// What is asked for

function attribute({ name, values, low }) {
  if (low !== null) {
    const input = h("input", { type: "number", step: "any" });
    return { name, element: field(partName(name), input), value: () => (input.value === "" ? null : Number(input.value)) };
  }
  if (values.every((value) => typeof value === "boolean")) {
    const input = h("select", {}, h("option", { value: "" }, ""), h("option", { value: "true" }, "yes"), h("option", { value: "false" }, "no"));
    return { name, element: field(partName(name), input), value: () => (input.value === "" ? null : input.value === "true") };
  }
  const list = fresh("values");
  const input = h("input", { list, autocomplete: "off" });
  const known = h("datalist", { id: list }, values.map((value) => h("option", { value: String(value) })));
  return { name, element: h("div", {}, field(partName(name), input), known), value: () => input.value.trim() };
}

function pictureField() {
  let chosen = null;
  const input = h("input", { type: "file", accept: "image/*", class: "hidden", "aria-label": "Choose a picture of the item" });
  const shown = h("span", {}, h("strong", {}, "Drop a picture here"), " or choose a file");
  const zone = h("label", { class: "drop" }, icon("picture", 22), shown, input);
  const take = (file) => {
    if (!file) return;
    chosen = file;
    const source = URL.createObjectURL(file);
    const seen = h("img", { class: "asked", src: source, alt: "The picture of the item" });
    seen.addEventListener("load", () => URL.revokeObjectURL(source), { once: true });
    seen.addEventListener("error", () => seen.remove(), { once: true });
    put(shown, seen, " ", file.name);
  };
  input.addEventListener("change", () => take(input.files[0]));
  dropping(zone, take);
  return { element: zone, file: () => chosen };
}

function featuresOf({ modality, width }) {
  const input = h("textarea", { rows: 2, spellcheck: "false", class: "mono", placeholder: `${plural(width, "number")}, with commas or spaces between` });
  const value = () => {
    const words = input.value.split(/[\s,;[\]]+/).filter(Boolean);
    if (!words.length) return null;
    const numbers = words.map(Number);
    const bad = words.find((_, at) => !Number.isFinite(numbers[at]));
    if (bad !== undefined) throw new Error(`Features of ${modality}: \u201c${bad}\u201d is no number.`);
    if (numbers.length !== width) throw new Error(`Features of ${modality}: the model takes ${plural(width, "number")}, here are ${numbers.length}.`);
    return numbers;
  };
  return { name: modality, element: field(`Features of ${modality}`, input), value };
}

function featureFields(places, features) {
  const encoded = places.filter((each) => each.encoder).map((each) => each.modality);
  const fields = h("div", { class: "stack tight" }, features.map((each) => each.element));
  if (!encoded.length) {
    return h("div", { class: "stack tight" },
      h("p", { class: "note" }, "This model brings no encoders, so words and a picture do not place an item: give its features, of one modality at least."), fields);
  }
  return h("div", {},
    h("p", { class: "note" }, `The model\u2019s encoders make features of the title, the description and the picture: ${encoded.join(", ")}.`),
    h("details", {}, h("summary", {}, "Give features instead"), fields));
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.slice(reader.result.indexOf(",") + 1)));
    reader.addEventListener("error", () => reject(new Error("The picture cannot be read.")));
    reader.readAsDataURL(blob);
  });
}

// What became of it

async function added(itemId, body, close, signal) {
  const started = performance.now();
  const answer = await ask(`items/${segment(itemId)}`, { method: "PUT", body, signal });
  forget(itemId);
  const items = await retrievable(itemId, signal);
  const seconds = (performance.now() - started) / 1000;
  const item = { ...(await get(`items/${segment(itemId)}`, signal)), live: true };
  const how = answer.known
    ? "The model knows it from the training: its metadata are new, its vector stays."
    : `Placed by ${answer.modalities.join(" and ")}.`;
  const remove = async () => {
    if (await hideItem(item, { name: "Remove this item?", action: "Remove" })) close();
  };
  return h("div", { class: "stack tight outcome" },
    h("div", { class: "head" },
      h("div", { class: "row middle" }, picture(item, 64),
        h("div", { class: "what" }, h("a", { class: "link", href: `#/items/${segment(itemId)}` }, title(item)),
          h("p", { role: "status" }, h("strong", {}, `Retrievable after ${duration(seconds)}.`), ` ${how}`))),
      h("button", { class: "button danger small", type: "button", onclick: remove }, "Remove this item")),
    h("h3", {}, "Nearest by the student"), nearest(items));
}

/** Ask for what is like the item until the service has it. */
async function retrievable(itemId, signal) {
  const deadline = performance.now() + PATIENCE;
  while (performance.now() < deadline) {
    const response = await send(`items/${segment(itemId)}/similar?k=${K}`, { signal, accepted: [404] });
    if (response.ok) return (await response.json()).items;
    await wait(LOOK_EVERY);
  }
  throw new Error("The item was put, but the service does not find it yet. See its log for the reason.");
}
