// What all tabs of a browser share: one stream, one sampler. Runs in a SharedWorker, or in the tab
// that leads. Knows tabs only as ports with `send(message)`.
//
// Invariant: the stream's patterns are the union of what the tabs want. Nothing waits without
// bound for a slow tab: what it cannot take is counted and named.

import { summary } from './api.js';
import { selects, says } from './pattern.js';
import { Sampler } from './sampler.js';
import { Stream } from './stream.js';
import { setToken } from './token.js';

const FLUSH_MS = 80;
const MAX_PENDING = 600;

export class Hub {
  #tabs = new Map();
  #flushTimer = 0;
  #stateTimer = 0;
  #gather = 0;

  constructor() {
    this.log = null;
    this.stream = new Stream({
      event: (event) => this.#event(event),
      note: (note) => this.#note(note),
      change: () => this.#stateSoon(),
      log: (log) => this.sampler.seen(log),
      begun: () => { for (const tab of this.#tabs.values()) this.#ready(tab); },
    });
    this.sampler = new Sampler({
      history: (samples) => this.#all({ t: 'samples', samples }),
      log: (log, sample) => {
        this.log = log;
        this.#all({ t: 'sample', sample, log, hasMetrics: this.sampler.hasMetrics });
        this.#stateSoon();
      },
      topics: (topics) => this.#all({ t: 'topics', topics }),
    }, (head) => this.#lag(head));
  }

  #position() {
    const { seq, cursor, logId } = this.stream;
    return { seq, cursor, logId };
  }

  #lag(head) {
    const { seq, patterns, state, live } = this.stream;
    if (patterns === null || state.phase !== 'open') return null;
    if (patterns.length > 0) return live ? 0 : null;
    return seq === null ? null : Math.max(0, head - seq);
  }

  /// A message from a tab. `port.send` answers it.
  receive(id, message, port) {
    if (message.t === 'hello') {
      setToken(message.token);
      this.#tabs.set(id, {
        port, pending: [], omitted: null, waiting: false, ready: false,
        visible: message.visible, want: message.want, heard: Date.now(),
      });
      this.stream.beginAfter(message.after);
      port.send({
        t: 'welcome', number: message.number, samples: this.sampler.samples, topics: this.sampler.topics, log: this.log, hasMetrics: this.sampler.hasMetrics,
      });
      this.sampler.start();
      // After a change of leader the tabs' positions come together first, lowest wins: none misses anything.
      this.#subscribeSoon(message.after ? 300 : 20);
      if (this.stream.cursor !== null) this.#ready(this.#tabs.get(id));
      return;
    }
    const tab = this.#tabs.get(id);
    if (!tab) {
      if (message.t !== 'bye') port.send({ t: 'who' });
      return;
    }
    tab.heard = Date.now();
    if (message.t === 'want') {
      tab.want = message.want;
      // What waits was chosen by the old filter; the tab reads the past anew.
      tab.pending = tab.pending.filter(({ k }) => k !== 'event');
      tab.omitted = null;
      this.#subscribe();
      tab.port.send({ t: 'wanted', number: message.number });
    } else if (message.t === 'taken') {
      tab.waiting = false;
      if (tab.pending.length > 0) this.#flushSoon();
    } else if (message.t === 'visible') {
      tab.visible = message.visible;
      this.#subscribe();
    } else if (message.t === 'skip') this.stream.skipToNow();
    else if (message.t === 'retry') this.stream.retryNow();
    else if (message.t === 'bye') this.remove(id);
  }

  /// From here on the tab gets all that is appended; what was before it may now read for itself.
  #ready(tab) {
    if (tab.ready) return;
    tab.ready = true;
    tab.port.send({ t: 'ready', position: this.#position() });
  }

  remove(id) {
    if (this.#tabs.delete(id)) this.#subscribe();
  }

  /// Drops tabs that have said nothing for so long, where nothing better tells that they are gone.
  sweep(silentMs) {
    for (const [id, tab] of this.#tabs) {
      if (Date.now() - tab.heard > silentMs) this.remove(id);
      else tab.port.send({ t: 'ping' });
    }
  }

  #subscribeSoon(ms) {
    clearTimeout(this.#gather);
    if (this.stream.patterns === null) this.#gather = setTimeout(() => this.#subscribe(), ms);
    else this.#subscribe();
  }

  #subscribe() {
    const tabs = [...this.#tabs.values()];
    this.sampler.setVisible(tabs.some((tab) => tab.visible));
    if (tabs.length === 0) {
      this.stream.want(null);
      this.sampler.stop();
    } else this.stream.want(union(tabs.map((tab) => tab.want)));
    this.#stateSoon();
  }

  /// Whether it is for the tab's list. Asked here, where the whole body is.
  #listed({ want: { patterns, text } }, event) {
    return selects(patterns, event.topic) && says(event, text);
  }

  #event(event) {
    let kept = null;
    for (const tab of this.#tabs.values()) {
      const listed = this.#listed(tab, event);
      if (!listed && event.topic !== tab.want.room) continue;
      kept ??= summary(event);
      this.#push(tab, { k: 'event', event: kept, listed });
    }
  }

  #note(note) {
    for (const tab of this.#tabs.values()) this.#push(tab, { k: 'note', note: { at: Date.now(), ...note } });
    this.#stateSoon();
  }

  #push(tab, item) {
    tab.pending.push(item);
    if (tab.pending.length > MAX_PENDING) {
      // Its own room's messages and what happened to the stream are never left out.
      const at = tab.pending.findIndex(({ k, event }) => k === 'event' && event.topic !== tab.want.room);
      if (at >= 0) {
        const [{ event }] = tab.pending.splice(at, 1);
        tab.omitted ??= { count: 0, from: event.seq, to: event.seq };
        tab.omitted.count += 1;
        tab.omitted.to = event.seq;
      }
    }
    this.#flushSoon();
  }

  #flushSoon() {
    if (this.#flushTimer !== 0) return;
    this.#flushTimer = setTimeout(() => {
      this.#flushTimer = 0;
      for (const tab of this.#tabs.values()) {
        // One batch under way a tab: a busy tab gets the next when it has taken this one.
        if (tab.waiting || (tab.pending.length === 0 && !tab.omitted)) continue;
        tab.waiting = true;
        tab.port.send({ t: 'items', omitted: tab.omitted, items: tab.pending, position: this.#position() });
        tab.pending = [];
        tab.omitted = null;
      }
    }, FLUSH_MS);
  }

  #stateSoon() {
    if (this.#stateTimer !== 0) return;
    this.#stateTimer = setTimeout(() => {
      this.#stateTimer = 0;
      const { state, seq, patterns } = this.stream;
      const head = Number(this.log?.head_seq ?? 0);
      this.#all({
        t: 'state',
        state: { ...state, seq, filtered: (patterns?.length ?? 0) > 0, patterns, lag: this.#lag(head), tabs: this.#tabs.size, now: Date.now() },
      });
    }, 40);
  }

  #all(message) {
    for (const tab of this.#tabs.values()) tab.port.send(message);
  }
}

/// Every pattern that some tab wants; empty as soon as one wants everything.
export function union(wants) {
  const patterns = new Set();
  for (const { patterns: own, room } of wants) {
    if (own.length === 0) return [];
    for (const pattern of own) patterns.add(pattern);
    if (room) patterns.add(room);
  }
  // More than a watch may name: everything, and the tabs choose.
  return patterns.size > 64 ? [] : [...patterns].sort();
}
