// The frame: which view is shown, whether the service is there, and the key.

import { ask, get, health, key, on, setKey } from "./lib/api.js";
import { h, put, wait } from "./lib/dom.js";
import { version } from "./lib/format.js";
import { dialog, failed, field, icon, mark, usePictures } from "./lib/ui.js";
import * as items from "./views/items.js";
import * as live from "./views/live.js";
import * as models from "./views/models.js";
import * as overview from "./views/overview.js";
import * as users from "./views/users.js";

const VIEWS = { overview, users, items, live, models };
const NAMES = { overview: "Overview", users: "Users", items: "Items", live: "Live", models: "Models" };
const THEMES = ["auto", "light", "dark"];

const main = document.getElementById("main");
const banner = document.getElementById("banner");
const status = h("span", { class: "status" });
const keyButton = h("button", { class: "quiet", type: "button", hidden: true, onclick: () => askForKey(null) });
let leaving = null;
let looking = false;

function start() {
  put(
    document.getElementById("side"),
    h("a", { class: "brand", href: "#/overview" }, mark(), h("span", {}, "MTS4MM")),
    h("nav", { "aria-label": "Views" }, Object.keys(VIEWS).map((view) =>
      h("a", { href: `#/${view}`, data: { view } }, icon(view), h("span", {}, NAMES[view])))),
    h("div", { class: "foot" }, status, themeButton(), keyButton),
  );
  paintKey();
  addEventListener("hashchange", () => show(true));
  on("away", waitForService);
  on("locked", ({ presented, detail }) => askForKey(presented ? detail : null));
  on("key", () => {
    paintKey();
    retry();
  });
  setInterval(lookAtHealth, 10_000);
  lookAtHealth();
  show(false);
}

async function show(moved) {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const view = Object.hasOwn(VIEWS, name) ? name : "overview";
  leaving?.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  document.title = `${NAMES[view]} \u00b7 MTS4MM`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  await get("console/api/settings", signal).then(heed, () => {});
  if (signal.aborted) return;
  const place = h("div", { class: `view ${view}` });
  put(main, place);
  draw(VIEWS[view], place, rest, signal);
  if (moved) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

/** Go by what the service says of itself. */
function heed({ pictures, keys }) {
  usePictures(pictures);
  keyButton.hidden = !keys;
  if (keys && !key()) askForKey(null);
}

async function draw(view, place, rest, signal) {
  try {
    await view.show(place, rest.map(decodeURIComponent), signal);
  } catch (error) {
    if (error.name !== "AbortError") put(place, failed(error, () => show(false)));
  }
}

async function lookAtHealth() {
  if (looking || document.hidden) return;
  try {
    const found = await health();
    status.className = `status ${found.status}`;
    put(status, h("i", {}), h("span", {}, found.model_version ? version(found.model_version) : found.status));
    status.title = `The service is ${found.status}.`;
  } catch {
    put(status, h("i", {}), h("span", {}, "no answer"));
    status.className = "status unavailable";
  }
}

/** Say that the service is away, look for it, and load what failed meanwhile when it is back. */
async function waitForService() {
  if (looking) return;
  looking = true;
  banner.hidden = false;
  put(banner, h("span", { class: "spinner", "aria-hidden": "true" }), "The service does not answer. Looking for it\u2026");
  do await wait(1500); while (!(await answers()));
  looking = false;
  banner.hidden = true;
  lookAtHealth();
  retry();
}

async function answers() {
  try {
    heed(await ask("console/api/settings", { timeout: 3000 }));
  } catch (error) {
    return error.status !== 0;
  }
  return true;
}

/** Load anew what failed, and only that: a form half filled, a slider and a filter stay as they are. */
function retry() {
  main.querySelectorAll(".empty.bad > button").forEach((again) => again.click());
}

let asking = false;

async function askForKey(error) {
  if (asking) return;
  asking = true;
  const input = h("input", {
    type: "password",
    name: "key",
    autocomplete: "off",
    required: true,
    pattern: "\\s*[!-~]+\\s*",
    title: "A key has letters, digits and signs of ASCII, and no spaces.",
    value: key() ?? "",
  });
  const form = await dialog({
    name: "API key",
    text: "This service asks for a key. It stays in this tab and is gone when the tab is closed.",
    error,
    fields: [field("Key", input, "`mts4mm keys new` makes one. Looking needs the scope read, clicks in Live events, and changing models or items, or having a visitor forgotten, admin.")],
    action: "Use key",
  });
  asking = false;
  if (form) setKey(input.value.trim());
}

function paintKey() {
  put(keyButton, icon("key", 18), h("span", {}, key() ? "Change key" : "Enter key"));
}

function themeButton() {
  let theme = localStorage.getItem("mts4mm.theme") ?? "auto";
  const name = h("span", {});
  const paint = () => {
    document.documentElement.dataset.theme = theme;
    name.textContent = `Theme: ${theme}`;
  };
  paint();
  return h("button", {
    class: "quiet",
    type: "button",
    onclick: () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      localStorage.setItem("mts4mm.theme", theme);
      paint();
    },
  }, icon("theme", 18), name);
}

start();
