// Topics as a tree of their segments, with totals and rates.

import { $, count, el, hue, rate, setText, short } from './dom.js';
import { named, shownName } from './shown.js';

const MAX_ROWS = 600;
const OPEN_BELOW = 120;

export class Tree {
  /// `on.watch(patterns)`.
  constructor(on) {
    this.on = on;
    this.root = $('tree');
    this.topics = [];
    this.complete = true;
    this.isStale = false;
    this.open = new Map();
    this.filter = '';
    this.watched = [];
    this.nodes = new Map();
    this.focused = null;
    this.root.addEventListener('click', (event) => this.#click(event));
    this.root.addEventListener('keydown', (event) => this.#key(event));
    $('topics-filter').addEventListener('input', ({ target }) => {
      this.filter = target.value.trim().toLowerCase();
      this.draw();
    });
    $('topics-filter').addEventListener('keydown', (event) => {
      if (event.key === 'ArrowDown' || event.key === 'Enter') {
        event.preventDefault();
        this.focus();
      }
    });
    this.nothing = el('li', { class: 'empty', role: 'none' });
  }

  set({ list, complete }) {
    this.topics = list;
    this.complete = complete;
    this.draw();
  }

  /// Rates are of now, or they are not shown.
  stale(isStale) {
    if (this.isStale === isStale) return;
    this.isStale = isStale;
    this.draw();
  }

  setWatched(patterns) {
    this.watched = patterns;
    this.draw();
  }

  focus() {
    (this.nodes.get(this.focused) ?? $('topics-filter')).focus();
  }

  #build() {
    const top = { children: new Map(), events: 0, rate: 0 };
    for (const topic of this.topics) {
      if (this.filter && !topic.topic.toLowerCase().includes(this.filter)) continue;
      let node = top;
      let path = '';
      for (const segment of topic.topic.split('.')) {
        node.events += topic.events;
        node.rate += topic.rate;
        path = path ? `${path}.${segment}` : segment;
        let child = node.children.get(segment);
        if (!child) {
          child = { segment, path, children: new Map(), events: 0, rate: 0, own: null };
          node.children.set(segment, child);
        }
        node = child;
      }
      node.events += topic.events;
      node.rate += topic.rate;
      node.own = topic;
    }
    return top;
  }

  #isOpen(node, level) {
    if (this.filter) return true;
    const chosen = this.open.get(node.path);
    if (chosen !== undefined) return chosen;
    return this.topics.length <= OPEN_BELOW && level < 3;
  }

  draw() {
    const rows = [];
    const visit = (node, level) => {
      for (const child of [...node.children.values()].sort(bySegment)) {
        if (rows.length >= MAX_ROWS) return;
        const isOpen = child.children.size > 0 && this.#isOpen(child, level);
        rows.push({ node: child, level, isOpen });
        if (isOpen) visit(child, level + 1);
      }
    };
    const top = this.#build();
    visit(top, 1);
    const keep = new Set(rows.map(({ node }) => node.path));
    for (const [path, row] of this.nodes) {
      if (keep.has(path)) continue;
      row.remove();
      this.nodes.delete(path);
    }
    this.nothing.remove();
    let before = null;
    for (const { node, level, isOpen } of rows) {
      let row = this.nodes.get(node.path);
      if (!row) {
        row = makeRow(node);
        this.nodes.set(node.path, row);
      }
      this.#update(row, node, level, isOpen);
      const next = before ? before.nextSibling : this.root.firstChild;
      if (next !== row) this.root.insertBefore(row, next);
      before = row;
    }
    if (!this.nodes.has(this.focused)) this.focused = rows[0]?.node.path ?? null;
    for (const [path, row] of this.nodes) row.tabIndex = path === this.focused ? 0 : -1;
    if (rows.length === 0) {
      setText(this.nothing, this.filter ? 'No topic has that in its name.' : 'No topics yet. Publish an event and its topic appears here.');
      this.root.append(this.nothing);
    }
    setText($('topics-count'), this.topics.length ? count(this.topics.length) : '');
    const notes = [];
    if (!this.complete) notes.push(`the first ${count(this.topics.length)} topics; totals are of these`);
    if (rows.length >= MAX_ROWS) notes.push(`${count(MAX_ROWS)} rows shown; find the others by name`);
    setText($('tree-note'), notes.join('. '));
  }

  #update(row, node, level, isOpen) {
    const hasChildren = node.children.size > 0;
    row.path = node.path;
    row.item = node;
    row.setAttribute('aria-level', String(level));
    row.style.setProperty('--level', String(level - 1));
    if (hasChildren) row.setAttribute('aria-expanded', String(isOpen));
    else row.removeAttribute('aria-expanded');
    const [twist, , numberRate, number] = row.children;
    twist.classList.toggle('none', !hasChildren);
    const isBusy = node.rate > 0 && !this.isStale;
    setText(numberRate, isBusy ? rate(node.rate) : '');
    setText(number, short(node.events));
    row.classList.toggle('busy', isBusy);
    const watched = this.watched.length > 0 && patternsOf(node).every((pattern) => this.watched.includes(pattern));
    row.classList.toggle('watched', watched);
    row.setAttribute('aria-selected', String(watched));
    row.title = `${shownName(node.path)}: ${count(node.events)} events${this.isStale ? '' : `, ${rate(node.rate)}/s`}`;
  }

  #toggle(row) {
    this.open.set(row.path, row.getAttribute('aria-expanded') !== 'true');
    this.draw();
  }

  #click({ target }) {
    const row = target.closest('[role=treeitem]');
    if (!row) return;
    this.#focusRow(row);
    if (target.closest('.twist') && row.hasAttribute('aria-expanded')) this.#toggle(row);
    else this.on.watch(patternsOf(row.item));
  }

  #focusRow(row) {
    if (!row) return;
    this.focused = row.path;
    for (const [path, other] of this.nodes) other.tabIndex = path === row.path ? 0 : -1;
    row.focus();
  }

  #key(event) {
    const row = event.target.closest('[role=treeitem]');
    if (!row) return;
    const expanded = row.getAttribute('aria-expanded');
    const rows = [...this.root.children];
    if (event.key === 'ArrowDown') this.#focusRow(row.nextElementSibling);
    else if (event.key === 'ArrowUp') this.#focusRow(row.previousElementSibling);
    else if (event.key === 'Home') this.#focusRow(rows[0]);
    else if (event.key === 'End') this.#focusRow(rows[rows.length - 1]);
    else if (event.key === 'ArrowRight') {
      if (expanded === 'false') this.#toggle(row);
      else if (expanded === 'true') this.#focusRow(row.nextElementSibling);
    } else if (event.key === 'ArrowLeft') {
      if (expanded === 'true') this.#toggle(row);
      else this.#focusRow(this.nodes.get(row.path.split('.').slice(0, -1).join('.')));
    } else if (event.key === 'Enter' || event.key === ' ') this.on.watch(patternsOf(row.item));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

/// As a reader has them; two that differ in what is not seen keep their places.
function bySegment(a, b) {
  return a.segment.localeCompare(b.segment) || (a.segment < b.segment ? -1 : 1);
}

function makeRow(node) {
  const name = el('span', { class: 'name' }, el('i', { 'aria-hidden': 'true' }), named(node.segment));
  name.firstChild.style.setProperty('--hue', String(hue(node.path.split('.').slice(0, 2).join('.'))));
  return el('li', { role: 'treeitem', tabindex: '-1' },
    el('span', { class: 'twist', 'aria-hidden': 'true', text: '›' }), name,
    el('span', { class: 'num rate' }), el('span', { class: 'num' }));
}

/// What to watch for a node: itself if it is a topic, and all below it.
export function patternsOf(node) {
  const patterns = [];
  if (node.own || node.children.size === 0) patterns.push(node.path);
  if (node.children.size > 0) patterns.push(`${node.path}.>`);
  return patterns;
}
