// The service, as the page speaks to it: the key that goes with every request, and what went wrong in plain words.

const ROOT = new URL("..", document.baseURI);
const KEY = "mts4mm.key";
const events = new EventTarget();

/** An answer with an error. `status` is 0 where there was no answer at all. */
export class Problem extends Error {
  constructor(status, detail, errors = [], retryAfter = null) {
    super(detail);
    this.status = status;
    this.errors = errors;
    this.retryAfter = retryAfter;
  }

  get text() {
    return [this.message, ...this.errors.map((each) => `${each.pointer.replace("#/", "")}: ${each.detail}`)].join(" ");
  }
}

export const on = (name, listener) => events.addEventListener(name, (event) => listener(event.detail));
export const key = () => sessionStorage.getItem(KEY);

export function setKey(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
  events.dispatchEvent(new CustomEvent("key"));
}

export const url = (path) => new URL(path, ROOT).href;
export const segment = encodeURIComponent;

/** Ask, and read the answer as JSON. */
export async function ask(path, { method = "GET", body, signal, timeout = 20_000 } = {}) {
  const response = await send(path, { method, body, signal, timeout });
  const type = response.headers.get("content-type") ?? "";
  return type.includes("json") ? response.json() : response.text();
}

export const get = (path, signal) => ask(path, { signal });
export const post = (path, body, signal) => ask(path, { method: "POST", body, signal });

/** The answer itself; throws a Problem for any error. */
export async function send(path, options = {}) {
  const secret = key();
  const response = await fetched(path, secret, options);
  if (response.ok || options.accepted?.includes(response.status)) return response;
  const byKey = response.status === 401 || (response.status === 403 && secret !== null);
  if (byKey && key() !== secret) return send(path, options); // the key was changed meanwhile
  throw await refused(response, byKey, secret);
}

async function fetched(path, secret, { method = "GET", body, signal, timeout = 20_000 }) {
  const headers = { accept: "application/json" };
  if (secret) headers["x-api-key"] = secret;
  if (body !== undefined && !(body instanceof FormData) && !(body instanceof Blob)) {
    headers["content-type"] = "application/json";
    body = JSON.stringify(body);
  } else if (body instanceof Blob) {
    headers["content-type"] = body.type || "application/octet-stream";
  }
  const limit = AbortSignal.timeout(timeout);
  try {
    return await fetch(url(path), {
      method,
      headers,
      body,
      credentials: "same-origin",
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    events.dispatchEvent(new CustomEvent("away"));
    throw new Problem(0, limit.aborted ? "The service took too long to answer." : "The service does not answer.");
  }
}

async function refused(response, byKey, secret) {
  let document = {};
  try {
    document = await response.json();
  } catch {
    // a proxy's page: its status has to say it
  }
  const detail = document.detail ?? `${response.status} ${response.statusText}`;
  const waiting = Number(response.headers.get("retry-after")) || null;
  const problem = new Problem(response.status, detail, document.errors ?? [], waiting);
  if (byKey) {
    events.dispatchEvent(new CustomEvent("locked", { detail: { presented: secret !== null, detail } }));
  }
  return problem;
}

/** Health has an answer also where it is bad. */
export async function health(signal) {
  return (await send("health", { signal, accepted: [503] })).json();
}

/** Keep an answer as a file: a link could not send the key. */
export async function download(path, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await (await send(path)).blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
