// One event, whole.

import { $, bytes, copy, count, el, setText, span } from './dom.js';
import { erasedText, eventPath, getEvent } from './api.js';
import { prettyJson } from './json.js';
import { named, shownLine, textNodes } from './shown.js';
import { inWords } from './sse.js';
import { topicChip } from './tail.js';
import { hasToken } from './token.js';

export class Detail {
  /// `on.watch(patterns)`.
  constructor(on) {
    this.on = on;
    this.event = null;
    this.raw = false;
  }

  async show(event) {
    this.event = event;
    this.#draw(event);
    if (!event.cut) return;
    try {
      // By its cursor, which names this event of this log: the daemon may serve another by now.
      const whole = await getEvent(event.cursor);
      if (this.event !== event) return;
      this.#draw({ ...whole, seq: Number(whole.seq), size: (whole.body ?? whole.data ?? '').length });
    } catch (error) {
      if (this.event === event) setText($('detail-cut'), `only its beginning is shown: ${shownLine(inWords(error))}`);
    }
  }

  #draw(event) {
    const at = $('event-detail');
    $('event-none').hidden = true;
    at.hidden = false;
    const fields = el('dl', { class: 'fields' });
    const field = (name, ...value) => fields.append(el('dt', { text: name }), el('dd', {}, ...value));
    if (event.id) field('id', named(event.id, { class: 'mono' }));
    if (event.type) field('type', named(event.type));
    if (event.key) field('key', named(event.key));
    field('appended', el('time', { datetime: event.appended_at, text: event.appended_at ?? '' }));
    if (event.at && event.at !== event.appended_at) {
      field('at', el('time', { datetime: event.at, text: event.at }), ...apart(event));
    }
    field('cursor', el('span', { class: 'mono', text: event.cursor ?? '' }), copyButton('Copy cursor', () => event.cursor ?? ''));
    if (event.erased) {
      const { erased_at: at, erasure } = event.erased;
      field('erased', el('time', { datetime: at, text: at ?? '' }));
      field('erasure', el('span', { class: 'mono', text: erasure ?? '' }));
    }
    const headers = Object.entries(event.headers ?? {});
    const parts = [
      el('div', { class: 'detail-head' },
        el('h3', {}, topicChip(event.topic)),
        el('span', { class: 'seq', text: `#${count(event.seq)}` })),
      el('div', { class: 'actions' },
        el('button', { type: 'button', text: 'Watch this topic', onclick: () => this.on.watch([event.topic]) }),
        copyButton('Copy JSON', () => asJson(event)),
        // A link carries no token.
        ...(hasToken() ? [] : [el('a', { class: 'button', href: eventPath(event.seq), target: '_blank', rel: 'noopener', text: 'Open' })])),
      fields,
    ];
    if (headers.length > 0) {
      const table = el('dl', { class: 'fields headers' });
      for (const [name, value] of headers) table.append(el('dt', {}, named(name)), el('dd', {}, named(value)));
      parts.push(el('h4', { text: 'Headers' }), table);
    }
    parts.push(...this.#body(event));
    at.replaceChildren(...parts);
  }

  #body(event) {
    const erased = erasedText(event);
    if (erased !== null) return [el('p', { class: 'hint' }, ...textNodes(erased))];
    const head = el('div', { class: 'body-head' }, el('h4', { text: event.data === undefined ? 'Body' : 'Data' }),
      el('span', { class: 'muted', text: event.size === 0 ? 'empty' : bytes(bodyBytes(event)) }));
    const out = [head];
    if (event.cut) out.push(el('p', { class: 'hint', id: 'detail-cut', text: 'fetching all of it …' }));
    if (event.data !== undefined) {
      out.push(el('pre', { class: 'json', tabindex: '0', text: hexDump(event.data) }));
      return out;
    }
    const body = event.body ?? '';
    if (body === '') return out;
    const pretty = event.cut ? null : prettyJson(body);
    if (pretty !== null) {
      head.append(el('button', {
        type: 'button', class: 'link', text: this.raw ? 'pretty' : 'as sent',
        onclick: () => { this.raw = !this.raw; this.#draw(event); },
      }));
    }
    const isPlain = pretty === null || this.raw;
    const pre = el('pre', { class: isPlain ? 'json plain' : 'json', tabindex: '0', 'aria-label': 'Body' });
    if (!isPlain) colour(pre, pretty);
    else pre.append(...textNodes(body));
    out.push(pre);
    return out;
  }
}

function apart(event) {
  const ms = Date.parse(event.appended_at) - Date.parse(event.at);
  return Number.isFinite(ms) && ms >= 1 ? [el('span', { class: 'muted', text: ` ${span(ms)} before` })] : [];
}

function bodyBytes(event) {
  if (event.data === undefined) return event.cut ? event.size : new TextEncoder().encode(event.body ?? '').length;
  return Math.floor(event.size / 4) * 3 - (event.data.endsWith('==') ? 2 : Number(event.data.endsWith('=')));
}

function asJson(event) {
  const { size, cut, ...fields } = event;
  void size;
  void cut;
  return JSON.stringify({ ...fields, seq: String(event.seq) });
}

function copyButton(text, what) {
  const button = el('button', { type: 'button', class: 'copy', text });
  button.addEventListener('click', async () => {
    setText(button, await copy(what()) ? 'Copied' : 'Not allowed here');
    setTimeout(() => setText(button, text), 1500);
  });
  return button;
}

function colour(pre, text) {
  let at = 0;
  // Very long ones stay plain: a node a token is too much.
  if (text.length > 200000) {
    pre.append(...textNodes(text));
    return;
  }
  for (const match of text.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d[\d.eE+-]*/g)) {
    pre.append(...textNodes(text.slice(at, match.index)));
    const kind = match[1] === undefined ? 'lit' : match[2] === undefined ? 'str' : 'name';
    const token = match[1] ?? match[0];
    pre.append(el('span', { class: kind }, ...textNodes(token)));
    at = match.index + token.length;
  }
  pre.append(...textNodes(text.slice(at)));
}

function hexDump(base64) {
  let raw;
  try { raw = atob(base64.slice(0, 4096 - (4096 % 4))); } catch { return base64; }
  const lines = [];
  for (let i = 0; i < Math.min(raw.length, 1024); i += 16) {
    const part = [...raw.slice(i, i + 16)].map((c) => c.charCodeAt(0));
    const hex = part.map((byte) => byte.toString(16).padStart(2, '0')).join(' ').padEnd(47);
    lines.push(`${i.toString(16).padStart(4, '0')}  ${hex}  ${part.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : '.')).join('')}`);
  }
  if (raw.length > 1024) lines.push('…');
  return lines.join('\n');
}
