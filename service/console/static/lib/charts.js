// Small drawings beside numbers; the numbers themselves say it all, so the drawings are hidden from screen readers.

import { h, s } from "./dom.js";

/** A line through values over time, newest right. */
export function spark(values, { width = 240, height = 44, most = 60 } = {}) {
  const top = Math.max(1e-9, ...values);
  const x = (at) => width - ((values.length - 1 - at) * width) / (most - 1);
  const y = (value) => height - 2 - ((height - 4) * value) / top;
  const points = values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
  const area = values.length > 1 ? `M${x(0).toFixed(1)},${height} L${points.join(" L")} L${width},${height} Z` : "";
  return s("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    s("path", { d: area, class: "area" }), s("polyline", { points: points.join(" ") }));
}

/** Names, bars and values, on one scale. */
export function bars(rows) {
  const top = Math.max(1e-9, ...rows.map((row) => row.value));
  return h("ul", { class: "bars" }, rows.map(({ name, value, text, strong }) =>
    h("li", { class: strong ? "strong" : "" },
      h("span", { class: "label" }, name),
      h("span", { class: "track", vars: { size: value / top }, "aria-hidden": "true" }),
      h("span", { class: "value" }, text))));
}
