// What a user did, what they get, and why: the list moves as the sliders do.

import { get, post, segment } from "../lib/api.js";
import { keep, lookUp, model, partName } from "../lib/catalogue.js";
import { h, latest, put, reorder } from "../lib/dom.js";
import { count, duration, fixed, moment, plural, signed, title, traits } from "../lib/format.js";
import { badge, card, empty, failed, field, fillIn, heading, icon, picture, searchBox, skeleton, slider } from "../lib/ui.js";

const K = 20;
const FAR = 500;
const MOST_SHOWN = 60;
const WHY = {
  trained: "by the student\u2019s embedding of this user",
  trained_and_new_events: "by the student\u2019s embedding, moved by what is new since the training",
  folded_in: "by folding in what the user did since the training",
  unknown_user: "by popularity, since nothing is known of this user",
  no_events: "by popularity, since this user has no interactions yet",
};

export async function show(place, [userId], signal) {
  const search = searchBox({
    label: "Find a user by the start of their id",
    placeholder: "Find a user by id",
    find: async (text, stop) => {
      const { users } = await get(`console/api/users?limit=12&q=${segment(text)}`, stop);
      const exact = text && !users.some((user) => user.user_id === text);
      return exact ? [...users, { user_id: text, items: null }] : users;
    },
    show: (user) => [
      h("span", { class: "name" }, user.user_id),
      h("span", { class: "note" }, user.items === null ? "ask for this id anyway" : plural(user.items, "item")),
    ],
    choose: (user) => (location.hash = `#/users/${segment(user.user_id)}`),
  });
  put(place, heading("Users", "What somebody did, what they get, and what each score is made of.", search));
  const rest = h("div", { class: "stack" });
  place.append(rest);
  if (userId === undefined) await fillIn(rest, skeleton(3, "block"), () => examples(signal));
  else await fillIn(rest, [skeleton(1, "block"), skeleton(8)], () => user(userId, signal));
}

async function examples(signal) {
  const { users } = await get("console/api/users?limit=12", signal);
  if (!users.length) return empty("The model has no users.");
  const links = users.map((each) =>
    h("a", { class: "tile", href: `#/users/${segment(each.user_id)}` },
      h("span", { class: "name" }, each.user_id), h("span", { class: "note" }, plural(each.items, "item"))));
  return card("Some with many items", h("div", { class: "tiles" }, links));
}

async function user(userId, signal) {
  const [found, about] = await Promise.all([
    get(`users/${segment(userId)}`, signal).catch((error) => {
      if (error.status === 404) return { items: [] };
      throw error;
    }),
    model(signal),
  ]);
  return [await past(userId, found, signal), controlled(userId, about, signal)];
}

async function past(userId, found, signal) {
  const events = found.recent ?? [];
  const taken = found.items.slice(0, MOST_SHOWN);
  const items = await lookUp([...taken, ...events.map((event) => event.item_id)], signal);
  const fresh = events.map((event) => thing(items.get(event.item_id) ?? { item_id: event.item_id }, event.type, event.timestamp));
  const trained = taken.map((id) => thing(items.get(id) ?? { item_id: id }));
  const more = found.items.length - taken.length;
  const known = found.items.length + events.length;
  const hidden = found.hidden?.length ? `, ${plural(found.hidden.length, "item")} hidden` : "";
  return card(null,
    h("div", { class: "who" }, h("h2", {}, userId),
      h("span", { class: "note" }, known ? `${plural(found.items.length, "item")} in training${events.length ? `, ${plural(events.length, "event")} since` : ""}${hidden}` : "not known to the model")),
    known
      ? h("ul", { class: "strip", tabindex: "0", "aria-label": "What this user did" }, fresh, trained,
        more > 0 ? h("li", { class: "more" }, `and ${count(more)} more`) : null)
      : h("p", { class: "note" }, "Nothing is known of this user, so the list below is what is popular."));
}

function thing(item, type, when) {
  return h("li", {}, h("a", { href: `#/items/${segment(item.item_id)}`, title: title(item) },
    picture(item, 72), h("span", { class: "under" }, title(item)),
    type ? [badge(type), h("span", { class: "under", title: moment(when) }, duration(Math.max(1, (Date.now() - new Date(when)) / 1000)), " ago")] : null));
}

/** The list under its controls. */
function controlled(userId, about, signal) {
  const wanted = { weights: {}, diversity: 0, atMost: {}, filter: {} };
  const rows = new Map();
  const list = h("ol", { class: "ranked", "aria-label": "Recommendations" });
  const line = h("p", { class: "note", role: "status" });
  const under = h("div", {}, line, list);
  const parts = about.parts;
  let neutral = null;

  const request = (more) => ({ user_id: userId, k: K, filter: wanted.filter, ...more });
  const refresh = latest(async () => {
    try {
      neutral ??= places(await post("recommend", request({ k: FAR }), signal));
      const started = performance.now();
      const { weights, diversity, atMost } = wanted;
      const answer = await post("recommend", request({ weights, diversity, at_most: atMost, explain: true }), signal);
      const seconds = (performance.now() - started) / 1000;
      keep(answer);
      const why = answer.items.flatMap((item) => (item.explanation ?? []).map((part) => part.because)).filter(Boolean);
      const items = await lookUp(why, signal);
      draw(answer, items);
      put(line, badge(answer.strategy, "accent"), ` ${plural(answer.items.length, "item")} ${WHY[answer.reason] ?? answer.reason}, in ${duration(seconds)}`);
    } catch (error) {
      if (error.name !== "AbortError") put(line, failed(error, refresh));
    }
  });

  const draw = (answer, items) => {
    const scale = scaleOf(answer.items);
    const wantedRows = answer.items.map((item) => {
      if (!rows.has(item.item_id)) rows.set(item.item_id, row(item));
      rows.get(item.item_id).update(item, neutral.get(item.item_id), scale, items);
      return rows.get(item.item_id);
    });
    reorder(list, wantedRows);
    if (!wantedRows.length) put(list, h("li", { class: "none" }, "No item meets these filters."));
  };

  const again = () => {
    neutral = null;
    refresh();
  };
  refresh();
  return h("section", { class: "card flush", "aria-label": "What this user gets" },
    controls(parts, about.attributes, wanted, refresh, again), under);
}

const places = (answer) => new Map(answer.items.map((item) => [item.item_id, item.rank]));

function controls(parts, attributes, wanted, refresh, again) {
  const times = (number) => `\u00d7${fixed(number, 2)}`;
  const sliders = parts.map((part) =>
    slider(partName(part), {
      max: 3,
      value: 1,
      show: times,
      change: (factor) => {
        wanted.weights[part] = factor;
        refresh();
      },
    }));
  const diversity = slider("Diversity", {
    value: 0,
    show: (number) => fixed(number, 2),
    change: (number) => {
      wanted.diversity = number;
      refresh();
    },
  });
  const filters = filtersOf(attributes, wanted, refresh, again);
  const reset = h("button", {
    class: "button small",
    type: "button",
    onclick: () => {
      wanted.weights = {};
      wanted.diversity = 0;
      wanted.atMost = {};
      wanted.filter = {};
      sliders.forEach((each) => each.set(1));
      diversity.set(0);
      filters?.reset();
      again();
    },
  }, "Reset");
  return h("div", { class: "controls" }, h("div", { class: "sliders" }, sliders, diversity), h("div", { class: "filters" }, filters, reset));
}

function filtersOf(attributes, wanted, refresh, again) {
  const inputs = attributes.slice(0, 6).map((attribute) =>
    attribute.values.length ? choice(attribute, wanted, again) : range(attribute, wanted, again));
  const box = h("form", { class: "row", "aria-label": "Filters" }, inputs, limit(attributes, wanted, refresh));
  box.addEventListener("submit", (event) => event.preventDefault());
  return Object.assign(box, { reset: () => HTMLFormElement.prototype.reset.call(box) });
}

function choice({ name, values }, wanted, again) {
  const select = h("select", {}, h("option", { value: "" }, "any"), values.map((value, at) => h("option", { value: at }, String(value))));
  select.addEventListener("change", () => {
    if (select.value === "") delete wanted.filter[name];
    else wanted.filter[name] = values[Number(select.value)];
    again();
  });
  return field(partName(name), select);
}

function range({ name, low, high }, wanted, again) {
  const bound = (end, hint) => {
    const input = h("input", { type: "number", min: low, max: high, step: "any", placeholder: fixed(hint, 0), "aria-label": `${name}, ${end}` });
    input.addEventListener("change", () => {
      const bounds = { ...wanted.filter[name], [end]: input.value === "" ? undefined : Number(input.value) };
      if (bounds.min === undefined && bounds.max === undefined) delete wanted.filter[name];
      else wanted.filter[name] = bounds;
      again();
    });
    return input;
  };
  return h("fieldset", { class: "field" }, h("legend", {}, partName(name)), h("span", { class: "pair" }, bound("min", low), bound("max", high)));
}

/** At most so many items of one value of an attribute. */
function limit(attributes, wanted, refresh) {
  const names = attributes.filter((attribute) => attribute.values.length).map((attribute) => attribute.name);
  if (!names.length) return null;
  const most = h("input", { type: "number", min: 1, max: K, step: 1, placeholder: "any", "aria-label": "At most" });
  const name = h("select", { "aria-label": "of one" }, names.map((each) => h("option", { value: each }, partName(each))));
  const changed = () => {
    wanted.atMost = most.value === "" ? {} : { [name.value]: Number(most.value) };
    refresh();
  };
  most.addEventListener("change", changed);
  name.addEventListener("change", changed);
  return h("fieldset", { class: "field limit" }, h("legend", {}, "At most, of one"), h("span", { class: "pair" }, most, name));
}

/** One scale for all bars of a list, with room for what pulls down. */
function scaleOf(items) {
  const scores = items.flatMap((item) => (item.explanation ?? []).map((part) => part.score));
  const low = Math.min(0, ...scores);
  const high = Math.max(1e-9, ...scores);
  return { zero: -low / (high - low), unit: 1 / (high - low) };
}

function row(item) {
  const rank = h("span", { class: "rank" });
  const move = h("span", { class: "move" });
  const score = h("span", { class: "score" });
  const parts = h("ul", { class: "parts", "aria-label": "What the score is the sum of" });
  const element = h("li", {},
    h("span", { class: "place" }, rank, move),
    picture(item, 64),
    h("a", { class: "what", href: `#/items/${segment(item.item_id)}` }, h("span", { class: "name" }, title(item)), h("span", { class: "note" }, traits(item))),
    score, parts);
  element.dataset.item = item.item_id;
  element.update = (now, before, scale, items) => {
    rank.textContent = now.rank;
    moved(move, before === undefined ? null : before - now.rank);
    put(score, fixed(now.score, now.explanation ? 3 : 0));
    put(parts, (now.explanation ?? []).map((part) => bar(part, scale, items)));
  };
  return element;
}

function moved(element, places) {
  if (places === null) {
    element.className = "move new";
    put(element, "new");
  } else if (places === 0) {
    element.className = "move same";
    put(element, h("span", { "aria-hidden": "true" }, "\u2013"), h("span", { class: "hidden" }, "same place"));
  } else {
    const up = places > 0;
    element.className = `move ${up ? "up" : "down"}`;
    put(element, icon(up ? "up" : "down", 12), h("span", { class: "hidden" }, up ? "up " : "down "), count(Math.abs(places)));
  }
}

function bar({ part, score, because }, scale, items) {
  const size = Math.abs(score) * scale.unit;
  const from = score < 0 ? scale.zero - size : scale.zero;
  const source = because === null ? null : items.get(because) ?? { item_id: because };
  return h("li", { class: "part" },
    h("span", { class: "label" }, partName(part)),
    h("span", { class: "value" }, signed(score, 2)),
    h("span", { class: `bar ${score < 0 ? "minus" : ""}`, vars: { from, size, zero: scale.zero }, "aria-hidden": "true" }),
    source ? h("span", { class: "because", title: `because of ${title(source)}` }, picture(source, 20), h("span", { class: "hidden" }, "because of "), h("span", { class: "under" }, title(source))) : h("span", { class: "because none" }, "no single item"));
}
