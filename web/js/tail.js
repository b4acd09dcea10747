// The list of events: bounded, drawn only where it is looked at, once a frame.

import { erasedText } from './api.js';
import { $, count, el, hue, plural, span, when } from './dom.js';
import { topFields } from './json.js';
import { cut, named, shownLine, shownName, textNodes, topicNodes } from './shown.js';

const KEPT = 2000;
const HELD = 2000;
const SPARE_ROWS = 8;
// Room for another piece of what lies further back, and for what comes meanwhile.
const SPARE_OLDER = 1000;
// What stays of the newest where the list goes far back.
const BEHIND_A_JUMP = 200;

export class Tail {
  /// `on`: select(event), more(row) of a row that stands for what is not read, changed().
  constructor(on) {
    this.on = on;
    this.list = $('tail-list');
    this.space = $('tail-space');
    this.rows = [];
    this.held = null;
    this.selected = null;
    this.follow = true;
    this.fresh = 0;
    this.lastSeq = 0;
    this.nodes = new Map();
    this.letters = 0;
    this.drawing = false;
    this.list.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    this.list.addEventListener('click', ({ target }) => {
      const node = target.closest('.row');
      if (node?.item?.k === 'event') this.select(node.item, true);
      else if (node?.item?.k === 'between') this.on.more(node.item);
    });
    this.list.addEventListener('keydown', (event) => this.#key(event));
    new ResizeObserver(() => this.#draw(true)).observe(this.list);
  }

  /// Items from the hub: events and notes, in order.
  add(items, omitted) {
    const to = this.held ?? this.rows;
    if (omitted) to.push({ k: 'omitted', ...omitted });
    for (const item of items) {
      if (item.k === 'note' && item.note.kind === 'log') this.lastSeq = 0;
      if (item.k === 'event') {
        if (!item.listed) continue;
        // After a change of leader the hub may begin before what this tab has.
        if (item.event.seq <= this.lastSeq) continue;
        this.lastSeq = item.event.seq;
        if (!this.held && !this.follow) this.fresh += 1;
      }
      to.push(item);
    }
    if (this.held && this.held.length > HELD) {
      const gone = this.held.splice(0, this.held.length - HELD);
      this.heldGone += gone.length;
    }
    this.#trim();
    this.#soon();
  }

  /// Puts what was before in front of what has come since.
  history(events) {
    const first = this.rows.find((item) => item.k === 'event')?.event.seq ?? Infinity;
    const older = events.filter((event) => event.seq < first).map((event) => ({ k: 'event', event }));
    this.rows.unshift(...older);
    if (older.length > 0) this.lastSeq = Math.max(this.lastSeq, older[older.length - 1].event.seq);
    this.#trim();
    this.#soon(true);
  }

  /// The seq of the first event in the list.
  get first() { return this.rows.find((item) => item.k === 'event')?.event.seq ?? null; }

  /// Whether the list may grow at its beginning.
  get isFull() { return this.rows.length > 2 * KEPT - SPARE_OLDER; }

  /// Puts what lies further back in front, and leaves the reader where he is; one who stood at the newest sees
  /// where the two meet, or nothing would have changed for him.
  older(events) {
    const before = this.rows.length;
    const wasAtEnd = this.follow;
    this.follow = false;
    this.history(events);
    const height = this.#height();
    const added = this.rows.length - before;
    this.space.style.height = `${this.rows.length * height}px`;
    if (wasAtEnd) this.list.scrollTop = Math.max(0, (added + 2) * height - this.list.clientHeight);
    else this.list.scrollTop += added * height;
    this.lastTop = this.list.scrollTop;
  }

  has(seq) { return this.rows.some((item) => item.k === 'event' && item.event.seq === seq); }

  /// The newest of the list without a hole, as far as a jump keeps them: the seq of the first.
  get keptFrom() { return this.#newest().find((item) => item.k === 'event')?.event.seq ?? null; }

  #newest() {
    const hole = this.rows.findLastIndex((item) => item.k === 'between');
    return this.rows.slice(hole + 1).slice(-BEHIND_A_JUMP);
  }

  /// Shows events from far back, and behind them the newest; what lies between from a seq on has a row of its own.
  jump(events, from, head) {
    const newest = this.#newest();
    const to = (this.keptFrom ?? head + 1) - 1;
    const hole = from <= to ? [{ k: 'between', from, to }] : [];
    this.rows = [...events.map((event) => ({ k: 'event', event })), ...hole, ...newest];
    if (newest.length === 0 && events.length > 0) this.lastSeq = Math.max(this.lastSeq, events[events.length - 1].seq);
    this.follow = false;
    this.#soon(true);
  }

  /// Puts events where a row stood for what is not read; from a seq on it still is not.
  fill(hole, events, from) {
    const at = this.rows.indexOf(hole);
    if (at < 0) return;
    const rest = from <= hole.to ? [{ k: 'between', from, to: hole.to }] : [];
    this.follow = false;
    this.rows.splice(at, 1, ...events.map((event) => ({ k: 'event', event })), ...rest);
    this.#trim();
    this.#soon(true);
  }

  /// Brings an event into sight, chosen, or where it would stand.
  reveal(seq) {
    const at = this.rows.findIndex((item) => item.k === 'event' && item.event.seq >= seq);
    if (at < 0) return;
    this.follow = false;
    this.selected = this.rows[at].event.seq === seq ? this.rows[at] : null;
    const height = this.#height();
    this.space.style.height = `${this.rows.length * height}px`;
    this.list.scrollTop = Math.max(0, (at + 0.5) * height - this.list.clientHeight / 2);
    this.lastTop = this.list.scrollTop;
    this.#soon(true);
  }

  clear() {
    this.rows = [];
    this.letters = 0;
    if (this.held) this.held = [];
    this.heldGone = 0;
    this.lastSeq = 0;
    this.fresh = 0;
    this.follow = true;
    this.#soon(true);
  }

  get paused() { return this.held !== null; }
  get waiting() { return this.held === null ? 0 : this.held.length + this.heldGone; }

  pause(paused) {
    if (paused === this.paused) return;
    if (paused) {
      this.held = [];
      this.heldGone = 0;
    } else {
      if (this.heldGone > 0) this.rows.push({ k: 'omitted', count: this.heldGone, paused: true });
      this.rows.push(...this.held);
      this.held = null;
      this.follow = true;
      this.#trim();
    }
    this.#soon(true);
  }

  toNewest() {
    this.follow = true;
    this.fresh = 0;
    this.#soon(true);
  }

  #trim() {
    // Whoever reads further up keeps his place, within twice the bound.
    const bound = this.follow ? KEPT : 2 * KEPT;
    if (this.rows.length <= bound) return;
    const gone = this.rows.length - KEPT;
    this.rows.splice(0, gone);
    if (!this.follow) this.list.scrollTop = Math.max(0, this.list.scrollTop - gone * this.#height());
  }

  #height() { return Number.parseFloat(getComputedStyle(this.list).getPropertyValue('--row')) || 28; }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.list;
    const atEnd = scrollHeight - scrollTop - clientHeight < 4;
    if (atEnd) this.fresh = 0;
    // Growing content does not scroll: only the reader leaves the end.
    if (atEnd !== this.follow && (atEnd || scrollTop < (this.lastTop ?? 0))) {
      this.follow = atEnd;
      this.on.changed();
    }
    this.lastTop = scrollTop;
    this.#soon();
  }

  #soon(full = false) {
    this.full ||= full;
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.#draw(this.full);
      this.full = false;
    });
  }

  #draw() {
    const height = this.#height();
    const total = this.rows.length * height;
    this.space.style.height = `${total}px`;
    if (this.follow) {
      const end = Math.max(0, total - this.list.clientHeight);
      if (Math.abs(this.list.scrollTop - end) >= 1) this.list.scrollTop = end;
      this.lastTop = this.list.scrollTop;
    }
    const top = this.list.scrollTop;
    const first = Math.max(0, Math.floor(top / height) - SPARE_ROWS);
    const last = Math.min(this.rows.length, Math.ceil((top + this.list.clientHeight) / height) + SPARE_ROWS);
    const shown = new Map();
    for (let i = first; i < last; i += 1) shown.set(this.rows[i], i);
    for (const [item, node] of this.nodes) {
      if (shown.has(item)) continue;
      node.remove();
      node.item = null;
      this.nodes.delete(item);
    }
    for (const [item, at] of shown) {
      let node = this.nodes.get(item);
      if (!node) {
        node = drawRow(item);
        node.item = item;
        this.nodes.set(item, node);
        this.space.append(node);
        this.#makeRoom(item);
      }
      if (node.at !== at) {
        node.at = at;
        node.style.transform = `translateY(${at * height}px)`;
        node.setAttribute('aria-posinset', String(at + 1));
        node.classList.toggle('odd', item.event ? item.event.seq % 2 === 1 : false);
      }
      const selected = item === this.selected;
      if (selected !== node.selected) {
        node.selected = selected;
        node.classList.toggle('selected', selected);
        node.setAttribute('aria-selected', String(selected));
      }
    }
    const active = this.selected && this.nodes.get(this.selected);
    if (active) this.list.setAttribute('aria-activedescendant', active.id);
    else this.list.removeAttribute('aria-activedescendant');
    this.on.changed();
  }

  /// The column of topics is as wide as the longest that was shown, within the bounds of the style.
  #makeRoom(item) {
    const letters = item.event?.topic.length ?? 0;
    if (letters <= this.letters) return;
    this.letters = letters;
    this.list.style.setProperty('--letters', String(letters));
  }

  select(item, open) {
    this.selected = item;
    this.on.select(item.event, open);
    this.#soon(true);
  }

  /// The event after (1) or before (-1) the chosen one.
  move(step) {
    let at = this.rows.lastIndexOf(this.selected);
    if (at < 0) at = step > 0 ? -1 : this.rows.length;
    do { at += step; } while (this.rows[at] && this.rows[at].k !== 'event' && this.rows[at].k !== 'between');
    const item = this.rows[at];
    if (item?.k === 'between') { this.on.more(item); return; }
    if (!item) return;
    const height = this.#height();
    const { scrollTop, clientHeight } = this.list;
    if (at * height < scrollTop || (at + 1) * height > scrollTop + clientHeight) {
      this.follow = false;
      this.list.scrollTop = step < 0 ? at * height : (at + 1) * height - clientHeight;
    } else if (at < this.rows.length - 1) this.follow = false;
    this.select(item, false);
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.list.clientHeight / this.#height()) - 1);
    if (event.key === 'ArrowDown') this.move(1);
    else if (event.key === 'ArrowUp') this.move(-1);
    else if (event.key === 'Enter' && this.selected) this.on.select(this.selected.event, true);
    else if (event.key === 'End') this.toNewest();
    else if (event.key === 'Home') { this.follow = false; this.list.scrollTop = 0; }
    else if (event.key === 'PageDown' || event.key === 'PageUp') {
      this.list.scrollTop += (event.key === 'PageDown' ? 1 : -1) * page * this.#height();
    } else return;
    event.preventDefault();
  }
}

let rowNumber = 0;

function drawRow(item) {
  rowNumber += 1;
  const id = `row-${rowNumber}`;
  if (item.k !== 'event') {
    const { text: said, tone } = noteText(item);
    const text = shownLine(said);
    const isHole = item.k === 'between';
    return el('div', { class: `row note ${isHole ? 'between' : ''} ${tone}`, id, role: 'option', 'aria-disabled': String(!isHole), title: text }, el('span', { text }));
  }
  const { event } = item;
  return el('div', { class: 'row', id, role: 'option', 'aria-selected': 'false', 'aria-setsize': '-1', 'data-seq': event.seq },
    el('span', { class: 'seq', text: count(event.seq) }),
    el('time', { text: when(event.appended_at ?? event.at), datetime: event.appended_at ?? event.at }),
    topicChip(event.topic),
    el('span', { class: 'what' },
      ...(event.type ? [named(event.type, { class: 'type' })] : []),
      ...(event.key ? [named(event.key, { class: 'key' })] : []),
      preview(event)));
}

export function topicChip(topic) {
  const segments = topic.split('.');
  const node = el('span', { class: 'topic', title: shownName(topic) });
  node.style.setProperty('--hue', String(hue(segments.slice(0, 2).join('.'))));
  node.append(el('i', { 'aria-hidden': 'true' }));
  if (segments.length > 1) node.append(el('span', { class: 'stem' }, ...topicNodes(segments.slice(0, -1).join('.')), '.'));
  node.append(el('span', { class: 'leaf' }, ...topicNodes(segments[segments.length - 1])));
  return node;
}

const PREVIEW_CHARS = 300;

function preview(event) {
  const erased = erasedText(event);
  if (erased !== null) return el('span', { class: 'body dim' }, ...textNodes(erased));
  if (event.data !== undefined) return el('span', { class: 'body dim', text: `${event.size * 3 / 4 | 0} bytes, binary` });
  const body = cut(event.body ?? '', PREVIEW_CHARS).replace(/\s+/g, ' ');
  if (body === '') return el('span', { class: 'body dim', text: 'empty' });
  const fields = event.cut ? null : jsonFields(event.body);
  if (fields) return fields;
  const from = event.headers?.from;
  const who = from && event.topic.startsWith('chat.') ? [named(from), ': '] : [];
  return el('span', { class: 'body' }, ...who, el('bdi', {}, ...textNodes(body)));
}

const FIELDS = 8;

/// An object as names and values side by side, the way a reader skims it; null if it is none.
function jsonFields(body) {
  const fields = topFields(body);
  if (!fields || fields.length === 0) return null;
  const node = el('span', { class: 'body' });
  for (const [name, value] of fields.slice(0, FIELDS)) {
    const said = cut(value, PREVIEW_CHARS).replace(/\s+/g, ' ');
    node.append(named(name, { class: 'name' }), ' ', el('bdi', {}, ...textNodes(said)), '  ');
  }
  if (fields.length > FIELDS) node.append('…');
  return node;
}

function range(from, to) {
  if (!to || to < from) return from ? `from ${count(from)} on` : 'a range that is not known';
  return from === to ? `event ${count(from)}` : `events ${count(from)} to ${count(to)}`;
}

/// What happened to the stream, in words.
export function noteText(item) {
  if (item.k === 'omitted') {
    const why = item.paused ? 'came while paused and are not kept' : 'came faster than they can be shown';
    const where = item.from ? ` (between ${count(item.from)} and ${count(item.to)})` : '';
    return { text: `${plural(item.count, 'event')} ${why}${where}; the log has them`, tone: 'quiet' };
  }
  if (item.k === 'between') return { text: `↓ read on: ${range(item.from, item.to)}`, tone: 'quiet' };
  const { note } = item;
  if (note.kind === 'gone') return { text: `${range(note.from, note.to)} ${note.reason === 'expired' ? 'expired' : 'compacted away'}, by rules for topics`, tone: 'quiet' };
  if (note.kind === 'gap') return { text: `not delivered: ${range(note.from, note.to)} (${note.reason})`, tone: 'bad' };
  if (note.kind === 'log') return { text: note.text, tone: 'bad' };
  if (note.kind === 'resumed') {
    const after = note.after === null ? '' : ` after ${count(note.after)}`;
    const came = note.filtered ? 'filtered, from the exact position'
      : `${plural(Math.max(0, (note.events ?? 0) - note.missed), 'event')} caught up, ${count(note.missed)} missed, ${count(note.repeated)} repeated`;
    const good = note.missed === 0 && note.repeated === 0;
    return { text: `resumed at ${when(note.at)}${after}, ${span(note.downMs)} away: ${came}`, tone: good ? 'good' : 'bad' };
  }
  return { text: note.text ?? note.kind, tone: 'quiet' };
}

