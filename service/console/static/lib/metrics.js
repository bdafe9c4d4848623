// Prometheus' text format, as far as the page reads it: rates and quantiles between two looks.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
const OWN = /^\/(console|health|livez|readyz|metrics|docs|openapi)/;

/** Samples by name: a list of `{labels, value}`. */
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
    if (!samples.has(found[1])) samples.set(found[1], []);
    samples.get(found[1]).push({ labels, value: Number(found[3]) });
  }
  return samples;
}

/** What one look says of the requests that are not the page's own or a probe's. */
export function traffic(samples, time) {
  const asked = (samples.get("mts4mm_http_requests_total") ?? []).filter(({ labels }) => !OWN.test(labels.route));
  const buckets = new Map();
  for (const { labels, value } of samples.get("mts4mm_http_request_duration_seconds_bucket") ?? []) {
    if (!OWN.test(labels.route)) buckets.set(Number(labels.le), (buckets.get(Number(labels.le)) ?? 0) + value);
  }
  const sum = (rows) => rows.reduce((total, row) => total + row.value, 0);
  return { time, requests: sum(asked), errors: sum(asked.filter(({ labels }) => Number(labels.status) >= 500)), buckets };
}

/** Requests a second, the share of errors and quantiles between two looks; null where nothing was asked. */
export function between(before, now) {
  const seconds = (now.time - before.time) / 1000;
  const requests = now.requests - before.requests;
  if (seconds <= 0 || requests < 0) return null;
  const counts = [...now.buckets].map(([bound, value]) => [bound, value - (before.buckets.get(bound) ?? 0)]).sort((a, b) => a[0] - b[0]);
  return {
    rate: requests / seconds,
    requests,
    errors: now.errors - before.errors,
    median: quantile(counts, 0.5),
    tail: quantile(counts, 0.99),
  };
}

/** Linear within the bucket that the quantile falls into. */
function quantile(counts, share) {
  const total = counts.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  let [low, below] = [0, 0];
  for (const [bound, upTo] of counts) {
    if (upTo >= share * total) {
      if (bound === Infinity) return low;
      return upTo === below ? bound : low + ((bound - low) * (share * total - below)) / (upTo - below);
    }
    [low, below] = [bound, upTo];
  }
  return low;
}
