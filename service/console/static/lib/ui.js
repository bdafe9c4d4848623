// The pieces that views are made of.

import { key, segment, send, url } from "./api.js";
import { h, put, s, wait } from "./dom.js";
import { title } from "./format.js";

// Icons

const PATHS = {
  overview: ["M4 19V10", "M10 19V5", "M16 19v-7", "M21 19H3"],
  users: ["M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Z", "M4.500 20c.8-3.600 3.800-5.500 7.500-5.500s6.700 1.900 7.500 5.500"],
  items: ["M4 8l8-4 8 4v8l-8 4-8-4V8Z", "M4 8l8 4 8-4", "M12 12v8"],
  live: ["M3 12h4l3-7 4 14 3-7h4"],
  models: ["M12 4 3 8.500l9 4.500 9-4.500L12 4Z", "M4 13l8 4 8-4", "M4 17l8 4 8-4"],
  search: ["M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14Z", "m20 20-4-4"],
  key: ["M8 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8Z", "M12 12h9", "M18 12v3"],
  theme: ["M12 20a8 8 0 1 0 0-16v16Z", "M12 4a8 8 0 0 0 0 16"],
  up: ["m6 14 6-6 6 6"],
  down: ["m6 10 6 6 6-6"],
  close: ["M6 6l12 12", "M18 6 6 18"],
  picture: ["M4 5h16v14H4V5Z", "m4 16 5-5 4 4 3-3 4 4", "M15.500 9.500h.01"],
  plus: ["M12 5v14", "M5 12h14"],
  link: ["M9 15 19 5", "M12 5h7v7", "M19 14v5H5V5h5"],
};

export function icon(name, size = 20) {
  return s(
    "svg",
    { class: "icon", width: size, height: size, viewBox: "0 0 24 24", "aria-hidden": "true" },
    PATHS[name].map((d) => s("path", { d })),
  );
}

export function mark(size = 28) {
  const dots = [8.5, 16, 23.5].map((y) => s("circle", { cx: 8, cy: y, r: 2.6, class: "teacher" }));
  return s(
    "svg",
    { class: "mark", width: size, height: size, viewBox: "0 0 32 32", "aria-hidden": "true" },
    s("path", { d: "M8 8.500 23 16M8 16h15M8 23.500 23 16" }),
    dots,
    s("circle", { cx: 23, cy: 16, r: 5, class: "student" }),
  );
}

// Pictures

let catalogued = false;

/** Whether the service has a catalogue of pictures; without one none is asked for. */
export function usePictures(there) {
  catalogued = there;
}

const near = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      fetchPicture(entry.target);
    }
  },
  { rootMargin: "300px" },
);

/** A square with the item's picture, or with its initials where there is none. */
export function picture(item, size = 56) {
  const frame = h("span", { class: "pic", vars: { size: `${size}px` }, data: { tint: tint(item.item_id) } });
  put(frame, h("span", { class: "initials", "aria-hidden": "true" }, initials(title(item))));
  if (!hasPicture(item)) return frame;
  const image = h("img", { alt: "", width: size, height: size, loading: "lazy", decoding: "async" });
  image.addEventListener("load", () => frame.classList.add("seen"), { once: true });
  image.addEventListener("error", () => image.remove());
  if (key()) {
    image.dataset.path = path(item);
    near.observe(image);
  } else {
    image.src = url(path(item));
  }
  frame.append(image);
  return frame;
}

/** A live item may have been put with a picture, which only asking tells; another's is named by the catalogue. */
function hasPicture(item) {
  if (item.live || item.reason === "cold_item") return true;
  const said = item.metadata?.image;
  return catalogued && typeof said === "string" && said !== "";
}

const path = (item) => `items/${segment(item.item_id)}/image`;

/** An `img` cannot send a key, so the page does. */
async function fetchPicture(image) {
  try {
    const source = URL.createObjectURL(await (await send(image.dataset.path)).blob());
    image.addEventListener("load", () => URL.revokeObjectURL(source), { once: true });
    image.src = source;
  } catch {
    image.remove();
  }
}

function initials(text) {
  const words = text.match(/[\p{L}\p{N}]+/gu) ?? ["?"];
  return words
    .slice(0, 2)
    .map((word) => [...word][0].toUpperCase())
    .join("");
}

function tint(text) {
  let sum = 7;
  for (const character of text) sum = (sum * 31 + character.codePointAt(0)) % 997;
  return sum % 5;
}

// States

export function heading(text, sub, ...actions) {
  const bar = actions.length ? h("div", { class: "actions" }, actions) : null;
  return h("div", { class: "head" }, h("div", {}, h("h1", {}, text), sub ? h("p", { class: "sub" }, sub) : null), bar);
}

export const empty = (text, ...more) => h("div", { class: "empty" }, h("p", {}, text), more);

export function failed(error, again) {
  const retry = again ? h("button", { class: "button", type: "button", onclick: again }, "Try again") : null;
  return h("div", { class: "empty bad", role: "alert" }, h("p", {}, error.text ?? String(error)), retry);
}

/** Grey rows of the size that the content will have. */
export function skeleton(rows, kind = "row") {
  const blocks = Array.from({ length: rows }, () => h("div", { class: `ghost ${kind}` }));
  return h("div", { class: "ghosts", "aria-hidden": "true" }, blocks);
}

/** Show what `load` gives; a ghost before, the error in its place if it fails. */
export async function fillIn(place, ghost, load) {
  put(place, ghost);
  place.setAttribute("aria-busy", "true");
  try {
    put(place, await load());
  } catch (error) {
    if (error.name === "AbortError") return;
    put(place, failed(error, () => fillIn(place, ghost, load)));
  } finally {
    place.removeAttribute("aria-busy");
  }
}

export function toast(text, kind = "good") {
  const shown = h("p", { class: `toast ${kind}` }, text);
  document.getElementById("toasts").append(shown);
  setTimeout(() => shown.remove(), 6000);
}

export function card(name, ...children) {
  return h("section", { class: "card" }, name ? h("h2", {}, name) : null, children);
}

export function badge(text, kind = "") {
  return h("span", { class: `badge ${kind}` }, text);
}

/** A figure with its name and, below, what it is to be read against. */
export function figure(name, value, note, kind = "") {
  const below = note ? h("span", { class: "note" }, note) : null;
  return h("div", { class: `figure ${kind}` }, h("dt", {}, name), h("dd", {}, value, below));
}

/** A list of names and values. */
export function facts(pairs) {
  const rows = pairs
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)));
  return h("dl", { class: "facts" }, rows);
}

export function table(columns, rows, caption) {
  const head = h("tr", {}, columns.map((column) => h("th", { scope: "col", class: column.kind }, column.name)));
  const body = rows.map((row) =>
    h("tr", {}, row.map((cell, at) => h(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null, class: columns[at].kind }, cell))),
  );
  const named = h("caption", { class: "hidden" }, caption);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, h("table", {}, named, h("thead", {}, head), h("tbody", {}, body)));
}

// Controls

const TYPING = 90;
let numbered = 0;
export const fresh = (prefix) => `${prefix}-${(numbered += 1)}`;

export function slider(name, { min = 0, max = 1, step = 0.05, value, show, change }) {
  const id = fresh("slider");
  const shown = h("output", { for: id }, show(value));
  const input = h("input", { id, type: "range", min, max, step, value });
  const paint = () => input.style.setProperty("--fill", `${(100 * (input.value - min)) / (max - min)}%`);
  paint();
  input.addEventListener("input", () => {
    shown.textContent = show(Number(input.value));
    paint();
    change(Number(input.value));
  });
  const element = h("div", { class: "slider" }, h("label", { for: id }, name), shown, input);
  element.set = (number) => {
    input.value = number;
    shown.textContent = show(number);
    paint();
  };
  return element;
}

/**
 * A box to search in, with its results in a list below, by pointer or by keys.
 * @param {Object} given `label`; `find(text, signal)` gives a list; `show(found)` the content of its row; `choose(found)`.
 */
export function searchBox({ label, placeholder, find, show, choose, nothing = "Nothing found." }) {
  const list = fresh("found");
  const input = h("input", {
    type: "search",
    role: "combobox",
    autocomplete: "off",
    spellcheck: "false",
    placeholder,
    "aria-label": label,
    "aria-expanded": "false",
    "aria-controls": list,
    "aria-autocomplete": "list",
  });
  const options = h("ul", { id: list, role: "listbox", "aria-label": label, hidden: true });
  const box = h("div", { class: "search" }, icon("search", 18), input, options);
  let found = [];
  let active = -1;
  let looking = null;
  let entered = false;

  const open = (there) => {
    options.hidden = !there;
    input.setAttribute("aria-expanded", String(there));
    if (!there) mark(-1);
  };
  const mark = (index) => {
    active = index;
    [...options.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === index)));
    const option = options.children[index];
    if (option?.id) input.setAttribute("aria-activedescendant", option.id);
    else input.removeAttribute("aria-activedescendant");
    option?.scrollIntoView({ block: "nearest" });
  };
  const stop = () => {
    looking?.abort();
    looking = null;
    entered = false;
  };
  const close = () => {
    stop();
    open(false);
  };
  const take = (chosen) => {
    close();
    input.value = "";
    choose(chosen);
  };
  /** Look for what is typed, unless more is typed meanwhile; until the rows are there, none of an earlier text counts. */
  const look = async (delay) => {
    stop();
    found = [];
    mark(-1);
    const { signal } = (looking = new AbortController());
    await wait(delay);
    if (signal.aborted) return;
    const text = input.value.trim();
    let instead = nothing;
    try {
      found = await find(text, signal);
    } catch (error) {
      if (signal.aborted) return;
      instead = error.text ?? String(error);
    }
    looking = null;
    const rows = found.map((each, at) =>
      h("li", { role: "option", id: `${list}-${at}`, "aria-selected": "false", onpointerdown: (event) => {
        event.preventDefault();
        take(each);
      } }, show(each)),
    );
    put(options, rows.length ? rows : h("li", { role: "option", "aria-disabled": "true", class: "none" }, instead));
    open(true);
    mark(found.length && text ? 0 : -1);
    if (entered && active >= 0) take(found[active]);
    entered = false;
  };
  input.addEventListener("input", () => look(TYPING));
  input.addEventListener("focus", () => look(0));
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    const step = steps[event.key];
    if (step && found.length) {
      event.preventDefault();
      if (options.hidden) open(true);
      const from = active < 0 && step < 0 ? 0 : active;
      mark((from + step + found.length) % found.length);
    } else if (event.key === "Enter" && (active >= 0 || looking)) {
      event.preventDefault();
      if (active >= 0) take(found[active]);
      else entered = true;
    } else if (event.key === "Escape") {
      event.preventDefault(); // a browser would empty the box, which opens the list again
      close();
    }
  });
  return box;
}

// Dialogs

/**
 * Ask in a dialog.
 * @returns {Promise<HTMLFormElement|null>} the form as it was sent, or null
 */
export function dialog({ name, text, fields = [], action, danger = false, error = null }) {
  return new Promise((resolve) => {
    const id = fresh("dialog");
    const form = h("form", { method: "dialog" },
      h("h2", { id }, name),
      text ? h("p", {}, text) : null,
      error ? h("p", { class: "wrong", role: "alert" }, error) : null,
      fields,
      h("div", { class: "actions" },
        h("button", { class: "button", type: "button", onclick: () => box.close("") }, "Cancel"),
        h("button", { class: `button ${danger ? "danger" : "main"}`, type: "submit", value: "yes" }, action)),
    );
    const box = h("dialog", { "aria-labelledby": id }, form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      box.close("yes");
    });
    box.addEventListener("close", () => {
      resolve(box.returnValue === "yes" ? form : null);
      box.remove();
    });
    document.body.append(box);
    box.showModal();
  });
}

export function field(name, input, hint) {
  const id = fresh("field");
  input.id = id;
  const below = hint ? h("span", { class: "note" }, hint) : null;
  return h("div", { class: "field" }, h("label", { for: id }, name), input, below);
}
