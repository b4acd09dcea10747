// Reads Prometheus text, as far as quantiles of one histogram need it.

/// Cumulative buckets of the histogram `name`, over all its labels: Map of upper bound to count.
export function buckets(text, name) {
  const found = new Map();
  const prefix = `${name}_bucket{`;
  for (const line of text.split('\n')) {
    if (!line.startsWith(prefix)) continue;
    const bound = /[{,]le="([^"]+)"/.exec(line);
    const value = Number(line.slice(line.lastIndexOf('} ') + 2).split(' ')[0]);
    if (!bound || Number.isNaN(value)) continue;
    const le = bound[1] === '+Inf' ? Infinity : Number(bound[1]);
    found.set(le, (found.get(le) ?? 0) + value);
  }
  return found;
}

/// The name of the histogram of commits, whatever prefix it has.
export function commitHistogram(text) {
  const found = /^# TYPE (\S*commit\S*seconds) histogram/m.exec(text);
  return found ? found[1] : null;
}

/// Observations between two readings.
export function difference(before, after) {
  const delta = new Map();
  for (const [le, value] of after) delta.set(le, Math.max(0, value - (before.get(le) ?? 0)));
  return delta;
}

/// A quantile, straight between the bounds of its bucket; null without observations.
export function quantile(cumulative, q) {
  const bounds = [...cumulative.keys()].sort((a, b) => a - b);
  const total = cumulative.get(bounds[bounds.length - 1]) ?? 0;
  if (total === 0) return null;
  const rank = q * total;
  let below = 0;
  let floor = 0;
  for (const bound of bounds) {
    const upTo = cumulative.get(bound);
    if (upTo >= rank) {
      if (bound === Infinity) return floor;
      return floor + (bound - floor) * ((rank - below) / Math.max(1, upTo - below));
    }
    below = upTo;
    floor = bound;
  }
  return floor;
}
