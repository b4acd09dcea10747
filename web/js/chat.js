// A room: events on `chat.<room>`. One's own message is pending until it comes back from the log.

import { inWords } from './sse.js';
import { $, el, setText, uniqueId, when } from './dom.js';
import { erasedText, newest, publish } from './api.js';
import { roomTopic, topicRoom } from './pattern.js';
import { label, named, sayUnseen, shownLine, textNodes } from './shown.js';

const KEPT = 300;
const HISTORY = 100;

export class Chat {
  /// `on.room()`: another room is wanted.
  constructor(on) {
    this.on = on;
    this.messages = [];
    this.pending = new Map();
    this.abort = new AbortController();
    this.log = $('chat-log');
    this.active = false;
    $('chat-name').value = stored('tailmark-name') ?? '';
    $('chat-room').addEventListener('change', () => this.enter());
    $('chat-name').addEventListener('change', ({ target }) => store('tailmark-name', target.value.trim()));
    $('chat-join').addEventListener('submit', (event) => {
      event.preventDefault();
      this.enter();
      $('chat-text').focus();
    });
    $('chat-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
  }

  get room() { return $('chat-room').value.trim() || 'general'; }

  /// The topic to follow; null until the room has been looked at once.
  get topic() { return this.active ? roomTopic(this.room) : null; }

  activate(room) {
    if (room) $('chat-room').value = room;
    sayUnseen($('chat-room'));
    if (this.active && this.entered === this.room) return;
    this.enter();
  }

  enter() {
    if (this.active && this.entered === this.room) return;
    this.active = true;
    this.entered = this.room;
    this.#clear();
    this.on.room();
  }

  /// The daemon serves another log: what was said here was said elsewhere.
  otherLog() {
    if (!this.active) return;
    this.#clear();
    this.history();
  }

  #clear() {
    this.messages = [];
    this.pending.clear();
    this.log.replaceChildren(el('li', { class: 'empty', text: 'reading what was said …' }));
  }

  /// Reads the room's past; called once the stream includes the room, so that nothing lies between.
  async history() {
    this.abort.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    try {
      const events = await newest([this.topic], HISTORY, signal);
      this.#add(events);
      if (this.messages.length === 0 && this.pending.size === 0) this.#empty('Nobody has said anything in ', named(this.room), ' yet.');
    } catch (error) {
      if (!signal.aborted && this.messages.length === 0) this.#empty(`What was said before cannot be read: ${shownLine(inWords(error))}`);
    }
  }

  #empty(...said) { this.log.replaceChildren(el('li', { class: 'empty' }, ...said)); }

  /// Events of the stream; others than the room's are passed over.
  take(events) {
    const own = events.filter((event) => event.topic === this.topic);
    if (own.length > 0) this.#add(own);
  }

  suggest(topics) {
    const rooms = topics.map(({ topic }) => topicRoom(topic)).filter((room) => room !== null).slice(0, 100);
    const list = $('chat-rooms');
    if ([...list.children].map((option) => option.value).join('\n') === rooms.join('\n')) return;
    list.replaceChildren(...rooms.map((value) => el('option', { value, label: label(value) })));
  }

  #add(events) {
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 30;
    this.log.querySelector('.empty')?.remove();
    const known = new Set(this.messages.map(({ event }) => event.seq));
    for (const event of events) {
      if (known.has(event.seq)) continue;
      const waiting = this.pending.get(event.id);
      if (waiting) {
        waiting.remove();
        this.pending.delete(event.id);
      }
      const node = message(event, event.headers?.from ?? '', this.#isOwn(event.headers?.from));
      const next = this.messages.find((other) => other.event.seq > event.seq);
      if (next) {
        next.node.before(node);
        this.messages.splice(this.messages.indexOf(next), 0, { event, node });
      } else {
        const last = this.messages[this.messages.length - 1]?.node;
        if (last) last.after(node); else this.log.prepend(node);
        this.messages.push({ event, node });
      }
    }
    while (this.messages.length > KEPT) this.messages.shift().node.remove();
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  #isOwn(from) { return from !== undefined && from !== '' && from === $('chat-name').value.trim(); }

  async #send() {
    const text = $('chat-text').value;
    const name = $('chat-name').value.trim();
    if (text.trim() === '') return;
    if (name === '') {
      $('chat-name').setCustomValidity('a name, so that others know who speaks');
      $('chat-name').reportValidity();
      $('chat-name').setCustomValidity('');
      $('chat-name').focus();
      return;
    }
    store('tailmark-name', name);
    this.activate();
    $('chat-text').value = '';
    const event = { id: uniqueId('web-'), topic: this.topic, type: 'chat.message', body: text, headers: { from: name } };
    const node = message({ ...event, at: new Date().toISOString() }, name, true);
    node.classList.add('pending');
    this.log.querySelector('.empty')?.remove();
    this.log.append(node);
    this.pending.set(event.id, node);
    this.log.scrollTop = this.log.scrollHeight;
    await this.#deliver(event, node);
  }

  /// Safe to repeat: the same id with the same content is stored once.
  async #deliver(event, node) {
    const state = node.querySelector('.state');
    setText(state, 'sending …');
    try {
      await publish(event);
      if (this.pending.has(event.id)) setText(state, 'durable, waiting to see it');
    } catch (error) {
      if (!this.pending.has(event.id)) return;
      setText(state, `not confirmed: ${shownLine(inWords(error))} `);
      node.classList.add('failed');
      state.append(el('button', {
        type: 'button', class: 'link', text: 'send again',
        onclick: () => { node.classList.remove('failed'); this.#deliver(event, node); },
      }));
    }
  }
}

/// Binary content shows where it is text, as the daemon's own chat has it.
function textOf(event) {
  const erased = erasedText(event);
  if (erased !== null) return erased;
  if (event.data === undefined) return event.body ?? '';
  let raw;
  try { raw = atob(event.data); } catch { return event.data; }
  // The end of what was cut off may be half a character.
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(raw, (c) => c.charCodeAt(0)), { stream: event.cut === true });
}

function message(event, from, isOwn) {
  return el('li', { class: isOwn ? 'message own' : 'message', 'data-seq': event.seq },
    el('div', { class: 'meta' }, el('b', {}, from ? named(from) : 'no name'),
      el('time', { datetime: event.at, text: when(event.at) }),
      el('span', { class: 'state', text: '' })),
    el('p', { dir: 'auto' }, ...textNodes(textOf(event))));
}

function stored(name) { try { return localStorage.getItem(name); } catch { return null; } }
export function store(name, value) { try { localStorage.setItem(name, value); } catch { /* private mode */ } }
export { stored };
