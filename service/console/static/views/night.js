// What the gate decided about a version, and by which figures.

import { h } from "../lib/dom.js";
import { badge, empty, facts } from "../lib/ui.js";

export function verdict(gate) {
  if (!gate) return badge("not asked");
  return badge(passed(gate) ? "passed" : "refused", passed(gate) ? "good" : "bad");
}

export const passed = (gate) => gate.promoted ?? gate.passed ?? gate.verdict === "promote";

export function gateOf(gate) {
  if (!gate) return empty("Published by hand: no gate was asked.");
  return facts(Object.entries(gate).map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : String(value)]));
}
