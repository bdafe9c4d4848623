// Elements, and nothing that could turn text into HTML: strings only ever become text nodes.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 * @param {string} tag
 * @param {Object} [props] `on*` are listeners, `vars` CSS variables, `data` a dataset; true and false set and leave out
 *     an attribute, everything else is an attribute's text.
 * @param {...(Node|string|number|null|undefined|false|Array)} children
 */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same in SVG. */
export function s(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, each] of Object.entries(value)) element.style.setProperty(`--${key}`, each);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...flat(children));
  return element;
}

function flat(children) {
  return children.flat(3).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Replace what an element holds. */
export function put(element, ...children) {
  element.replaceChildren(...flat(children));
  return element;
}

/** Move children into the order of `wanted`, gliding to their places; new ones fade in, others go. */
export function reorder(parent, wanted) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const before = new Map([...parent.children].map((child) => [child, child.getBoundingClientRect()]));
  parent.replaceChildren(...wanted);
  if (still) return;
  for (const child of wanted) {
    const from = before.get(child);
    if (!from) {
      child.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 220, easing: "ease-out" });
      continue;
    }
    const to = child.getBoundingClientRect();
    const [dx, dy] = [from.left - to.left, from.top - to.top];
    if (dx || dy) {
      const path = [{ transform: `translate(${dx}px, ${dy}px)` }, { transform: "none" }];
      child.animate(path, { duration: 260, easing: "cubic-bezier(.2, .7, .2, 1)" });
    }
  }
}

/** Run what was asked for last, one run at a time: what comes meanwhile replaces what waits. */
export function latest(work) {
  let running = false;
  let waiting = null;
  return async function ask(...given) {
    waiting = given;
    if (running) return;
    running = true;
    try {
      while (waiting) {
        const next = waiting;
        waiting = null;
        await work(...next);
      }
    } finally {
      running = false;
    }
  };
}

export const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
