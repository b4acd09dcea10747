// A tab's way to the hub.
//
// A browser opens six connections to one origin over HTTP/1.1, so tabs must not hold a stream each.
// In this order: a SharedWorker; else the tab that holds a lock leads and the others talk to it over
// a BroadcastChannel; else (neither is there) a hub of one's own.

import { uniqueId } from './dom.js';
import { Hub } from './hub.js';
import { tag } from './token.js';

// Tabs of other tokens see other things, and have a hub of their own.
const CHANNEL = 'tailmark-hub';

export class Link {
  /// `on(message)` gets what the hub says. `hello()` makes the first message, also the next first one.
  constructor(on, hello, token = '') {
    this.token = token;
    this.tag = tag(token);
    this.id = uniqueId('tab-');
    this.on = on;
    this.hello = hello;
    this.mode = 'own';
    this.#holdLock().then(() => this.#connect());
    addEventListener('pagehide', () => this.send({ t: 'bye' }));
    // Back from the cache of pages that were left.
    addEventListener('pageshow', ({ persisted }) => { if (persisted) this.#greet(); });
  }

  /// Resolves once the lock is held, so that the hub cannot get it first.
  #holdLock() {
    if (!navigator.locks) return Promise.resolve();
    return new Promise((held) => {
      navigator.locks.request(`tailmark-tab-${this.id}`, () => {
        held();
        return new Promise(() => {});
      });
    });
  }

  #greet() { this.send({ t: 'hello', id: this.id, token: this.token, ...this.hello() }); }

  #receive(message) {
    if (message.t === 'who') this.#greet();
    else if (message.t === 'ping') this.send({ t: 'pong' });
    else this.on(message);
  }

  #connect() {
    const forced = new URLSearchParams(location.search).get('share');
    if (typeof SharedWorker === 'function' && (forced === null || forced === 'worker')) return this.#worker();
    if (navigator.locks && typeof BroadcastChannel === 'function' && forced !== 'own') return this.#elect();
    return this.#own();
  }

  #worker() {
    this.mode = 'worker';
    const worker = new SharedWorker(new URL('./worker.js', import.meta.url), { type: 'module', name: `tailmark${this.tag}` });
    worker.addEventListener('error', () => {
      // A browser without module workers.
      if (this.mode === 'worker') this.#own();
    });
    worker.port.addEventListener('message', ({ data }) => this.#receive(data));
    worker.port.start();
    this.send = (message) => worker.port.postMessage(message);
    this.#greet();
  }

  #own() {
    this.mode = 'own';
    const hub = new Hub();
    const port = { send: (message) => queueMicrotask(() => this.#receive(message)) };
    this.send = (message) => hub.receive(this.id, message, port);
    this.#greet();
  }

  #elect() {
    this.mode = 'elected';
    const name = `${CHANNEL}${this.tag}`;
    const channel = new BroadcastChannel(name);
    channel.addEventListener('message', ({ data }) => { if (data.to === this.id) this.#receive(data.message); });
    channel.addEventListener('message', ({ data }) => { if (data.to === 'tabs') this.#greet(); });
    this.send = (message) => channel.postMessage({ to: 'hub', from: this.id, message });
    this.#greet();
    navigator.locks.request(name, () => {
      const hub = new Hub();
      const local = { send: (message) => queueMicrotask(() => this.#receive(message)) };
      const remote = (to) => ({ send: (message) => channel.postMessage({ to, message }) });
      channel.addEventListener('message', ({ data }) => {
        if (data.to !== 'hub') return;
        if (data.message.t === 'hello') navigator.locks.request(`tailmark-tab-${data.from}`, () => hub.remove(data.from));
        hub.receive(data.from, data.message, remote(data.from));
      });
      this.send = (message) => hub.receive(this.id, message, local);
      this.#greet();
      channel.postMessage({ to: 'tabs' });
      // Leads until the tab is gone.
      return new Promise(() => {});
    });
  }

  send() {}
}
