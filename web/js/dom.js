// Elements and texts. The one rule: what an event says becomes text, never markup.

export const $ = (id) => document.getElementById(id);

/// Makes an element. `props`: class, text, title, attributes; children are nodes or strings.
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'class') node.className = value;
    else if (name === 'text') node.textContent = value;
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children);
  return node;
}

/// Sets a text only if it differs, so that nothing is laid out for nothing.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

export const count = (n) => whole.format(n);
export const short = (n) => (Math.abs(n) < 10000 ? whole.format(n) : compact.format(n));

export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function rate(n) {
  if (n === null || n === undefined) return '–';
  if (n === 0) return '0';
  if (n < 10) return n.toFixed(1);
  return short(Math.round(n));
}

export function millis(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  const ms = seconds * 1000;
  if (ms < 0.1) return `${(ms * 1000).toFixed(0)} µs`;
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${ms.toFixed(0)} ms`;
  return `${seconds.toFixed(1)} s`;
}

/// Two of them; a unit that both have is said once.
export function twoMillis(a, b) {
  const [first, second] = [millis(a), millis(b)];
  const unit = (text) => text.slice(text.indexOf(' '));
  return `${unit(first) === unit(second) ? first.slice(0, first.indexOf(' ')) : first}, ${second}`;
}

export function bytes(n) {
  if (n < 1024) return `${n} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let unit = -1;
  do { n /= 1024; unit += 1; } while (n >= 1024 && unit < units.length - 1);
  return `${n < 10 ? n.toFixed(1) : n.toFixed(0)} ${units[unit]}`;
}

const pad = (n, width = 2) => String(n).padStart(width, '0');

/// The time of day in the reader's zone, milliseconds included.
export function clock(time) {
  const date = time instanceof Date ? time : new Date(time);
  if (Number.isNaN(date.getTime())) return String(time);
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}.${pad(date.getMilliseconds(), 3)}`;
}

/// What the reader's zone is called.
export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone || 'local time';

/// A time as this page shows it, in the reader's zone, as one that the daemon reads; anything else as it is.
export function fromShown(text) {
  const found = /^(?:(\d{4})-(\d\d)-(\d\d))?(?:(?:^|[T ])(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?$/.exec(text);
  if (!found || text === '') return text;
  const [, year, month, day, hour = 0, minute = 0, second = 0, fraction = ''] = found;
  const now = new Date();
  const date = year ? [Number(year), month - 1, Number(day)] : [now.getFullYear(), now.getMonth(), now.getDate()];
  const time = new Date(...date, Number(hour), Number(minute), Number(second), Number(fraction.slice(0, 3).padEnd(3, '0')));
  // There is no 30th of February.
  return time.getDate() === date[2] && time.getMonth() === date[1] ? time.toISOString() : text;
}

/// Today: the time of day. Before that: the day, and the time to the minute.
export function when(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return text ?? '';
  const now = new Date();
  if (date.toDateString() === now.toDateString()) return clock(date);
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${pad(date.getHours())}:${pad(date.getMinutes())}`;
}

export function span(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3600000) return `${Math.floor(ms / 60000)} min ${Math.round((ms % 60000) / 1000)} s`;
  if (ms < 86400000) return `${Math.floor(ms / 3600000)} h ${Math.floor((ms % 3600000) / 60000)} min`;
  const days = ms / 86400000;
  return days < 730 ? plural(Math.floor(days), 'day') : `${(days / 365.25).toFixed(1)} years`;
}

/// A name nobody else has, also where crypto.randomUUID is withheld (plain HTTP from elsewhere).
export function uniqueId(prefix) {
  const words = crypto.getRandomValues(new Uint32Array(4));
  return prefix + [...words].map((word) => word.toString(16).padStart(8, '0')).join('');
}

/// A hue that stays the same for the same text.
export function hue(text) {
  let hash = 2166136261;
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619);
  return (hash >>> 0) % 360;
}

/// Copies a text; says whether it could.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el('textarea', { class: 'offscreen', 'aria-hidden': 'true' });
    area.value = text;
    document.body.append(area);
    area.select();
    let done = false;
    try { done = document.execCommand('copy'); } catch { done = false; }
    area.remove();
    return done;
  }
}
