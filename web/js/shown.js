// What others chose, shown so that two names never read alike because of what is not seen, and no text
// reorders what stands beside it. The rules are src/escape.rs's; tests/shown.json holds both to them.
//
// What is escaped stays in the document as it is, without a shape; what is seen is put before it by the
// stylesheet. So what a reader copies is the real text.

import { el } from './dom.js';

// \p{C}: controls, format characters, surrogates, private use, unassigned. \p{DI}: what Unicode calls default ignorable.
const UNSEEN = /[\p{C}\p{Z}\p{DI}\u2800\ufffc\u{13441}\u{13442}\u{16fe4}\u{1d159}]/u;
const PLAIN = /^[!-[\]-~]*$/;
const isUnseen = (c) => c !== ' ' && UNSEEN.test(c);
/// Marks, and what ends a syllable.
const joins = (c) => /[\p{M}\u1161-\u1175\u11a8-\u11c2\u{16d67}]/u.test(c);
const isNfc = (text) => text.normalize('NFC') === text;
/// Marks above and below one letter that a reader still tells apart.
const MARKS = 4;

const escape = (c) => `\\u{${c.codePointAt(0).toString(16)}}`;

/// Whether a letter and what joins it read like no other.
function isTold(cluster, base) {
  if (!isNfc(cluster)) return false;
  let before = base;
  let marks = 0;
  for (const c of cluster.normalize('NFD')) {
    if (/[\p{Mn}\p{Me}]/u.test(c)) {
      marks += 1;
      if (c === before || marks > MARKS || ('ijlıȷ'.includes(base) && c === '\u0307')) return false;
    }
    before = c;
  }
  return true;
}

/// Pairs of what is there and what is shown of it.
class Pieces {
  constructor() { this.list = []; }

  seen(text) {
    const last = this.list.at(-1);
    if (last && last[1] === null) last[0] += text;
    else this.list.push([text, null]);
  }

  escaped(c) { this.list.push([c, escape(c)]); }
}

function namePieces(name) {
  const pieces = new Pieces();
  const chars = [...name];
  let isBare = true;
  let isEdge = true;
  for (let i = 0; i < chars.length;) {
    const c = chars[i];
    const next = chars[i + 1];
    const isSpace = c === ' ' && (isEdge || next === undefined || next === ' ');
    if ((c === '\\' && next === 'u' && chars[i + 2] === '{') || isSpace || isUnseen(c) || (isBare && joins(c))) {
      pieces.escaped(c);
      isBare = true;
      isEdge = true;
      i += 1;
      continue;
    }
    let end = i + 1;
    while (end < chars.length && joins(chars[end]) && !isUnseen(chars[end])) end += 1;
    const cluster = chars.slice(i, end).join('');
    const hasLetter = c !== '.' && c !== ' ';
    if ((end === i + 1 && isNfc(cluster)) || (hasLetter && isTold(cluster, c))) pieces.seen(cluster);
    else for (const part of chars.slice(i, end)) if (part === c && isNfc(c)) pieces.seen(part); else pieces.escaped(part);
    isBare = !hasLetter;
    isEdge = false;
    i = end;
  }
  return pieces.list;
}

const HARMFUL = /[\p{Cc}\u2028-\u202e\u2066-\u2069\p{NChar}]/u;
const isHarmful = (c) => c !== '\n' && c !== '\t' && c !== '\r' && HARMFUL.test(c);
/// Works on its neighbours and is not seen itself.
const isSilent = (c) => !HARMFUL.test(c) && isUnseen(c) && !/[\p{Co}\p{Cn}\p{Zs}]/u.test(c);
const isAscii = (c) => c === undefined || c <= '\u007f';

/// Whether silent characters do what they are for, or hide something.
function hasWork(run, before, after) {
  if (run.length <= 2) return !isAscii(before) || !isAscii(after);
  return run.length <= 8 && before === '\u{1f3f4}' && run.every((c) => c >= '\u{e0020}' && c <= '\u{e007f}');
}

// Silent or harmful, or a backslash: whatever needs a look.
const ODD = /[^\n\r\t -[\]-~\u00a1-\u00ac\u00ae-\u02ff]/;

function textPieces(text) {
  const pieces = new Pieces();
  const chars = [...text];
  for (let i = 0; i < chars.length;) {
    const c = chars[i];
    let end = i + 1;
    if ((c === '\\' && chars[i + 1] === 'u' && chars[i + 2] === '{') || isHarmful(c)) pieces.escaped(c);
    else if (isSilent(c)) {
      while (end < chars.length && isSilent(chars[end])) end += 1;
      const run = chars.slice(i, end);
      if (hasWork(run, chars[i - 1], chars[end])) pieces.seen(run.join(''));
      else run.forEach((part) => pieces.escaped(part));
    } else pieces.seen(c);
    i = end;
  }
  return pieces.list;
}

const join = (pieces) => pieces.map(([raw, shown]) => shown ?? raw).join('');

/// A name as plain text: for tooltips, and where there is no markup.
export const shownName = (name) => (PLAIN.test(name) ? name : join(namePieces(name)));
/// A text as plain text.
export const shownText = (text) => (ODD.test(text) || text.includes('\\') ? join(textPieces(text)) : text);
/// Words of our own with others' in them.
export const shownLine = (line) => [...line].map((c) => (isUnseen(c) ? escape(c) : c)).join('');

/// More than a reader looks at, and than a page should hold.
const MOST_MARKS = 2000;

function unseen(raw, shown) {
  const code = `U+${raw.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
  return el('span', { class: 'unseen', 'data-shown': shown, title: `${code}: part of the text, and not seen by itself` }, el('span', { text: raw }));
}

// Scripts with letters that look like another's.
const ALIKE = ['Latin', 'Greek', 'Cyrillic', 'Armenian', 'Cherokee', 'Coptic'].map((name) => [name, new RegExp(`\\p{Script=${name}}`, 'u')]);

/// The words of a text, those set apart that mix scripts.
function words(text) {
  if (!/[^\u0000-\u024f]/.test(text)) return [text];
  return text.split(/([\p{L}\p{M}]+)/u).filter(Boolean).map((word) => {
    const scripts = ALIKE.filter(([, script]) => script.test(word)).map(([name]) => name);
    return scripts.length < 2 ? word : el('span', { class: 'mixed', title: `${scripts.join(' and ')} letters in one word`, text: word });
  });
}

function nodes(pieces, seen) {
  if (pieces.length > MOST_MARKS) return [join(pieces)];
  return pieces.flatMap(([raw, shown]) => (shown === null ? seen(raw) : [unseen(raw, shown)]));
}

/// A name, in an element that keeps its direction to itself.
export function named(name, props = {}) {
  return el('bdi', props, ...(PLAIN.test(name) ? [name] : nodes(namePieces(name), words)));
}

/// A topic: its segments in order, whatever their direction.
export function topicNodes(topic) {
  if (PLAIN.test(topic)) return [topic];
  return topic.split('.').flatMap((segment, at) => (at > 0 ? ['.', named(segment)] : [named(segment)]));
}

/// A text for an element that isolates it.
export function textNodes(text) {
  return ODD.test(text) || text.includes('\\') ? nodes(textPieces(text), (seen) => [seen]) : [text];
}

const graphemes = typeof Intl.Segmenter === 'function' ? new Intl.Segmenter('en', { granularity: 'grapheme' }) : null;

/// The beginning of a text, of at most so many UTF-16 units, cut between what a reader sees as characters.
export function cut(text, most) {
  if (text.length <= most) return text;
  // Of one that is longer than this, half is kept.
  const part = text.slice(0, most + 64);
  const at = graphemes?.segment(part).containing(most)?.index ?? most;
  const end = at > 0 ? at : most;
  const isPair = end === most && /[\ud800-\udbff]/.test(text[end - 1]);
  return text.slice(0, isPair ? end - 1 : end);
}

/// What a list of values to choose from says beside one that is not all seen.
export function label(value) {
  const shown = shownName(value);
  return shown === value ? undefined : shown;
}

/// Copies a topic in one piece: its parts are boxes, which a browser would put on lines of their own.
export function copyTopics() {
  document.addEventListener('copy', (event) => {
    const selection = getSelection();
    if (selection.rangeCount !== 1) return;
    const range = selection.getRangeAt(0);
    const at = range.commonAncestorContainer;
    if (!(at.nodeType === Node.ELEMENT_NODE ? at : at.parentElement).closest('.topic')) return;
    event.clipboardData.setData('text/plain', range.cloneContents().textContent);
    event.preventDefault();
  });
}

/// An input shows its text as it is: what is not seen of it is said below.
export function sayUnseen(input) {
  const name = input.value.trim();
  const shown = shownName(name);
  if (shown === name) delete input.parentElement.dataset.unseen;
  else input.parentElement.dataset.unseen = `reads ${shown}`;
}
