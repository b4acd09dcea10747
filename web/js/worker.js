// The SharedWorker: one hub for all tabs of this browser.

import { Hub } from './hub.js';

const hub = new Hub();

self.addEventListener('connect', ({ ports: [port] }) => {
  let id = null;
  port.addEventListener('message', ({ data }) => {
    if (data.t === 'hello') {
      id = data.id;
      watchLock(id);
    }
    hub.receive(id, data, { send: (message) => port.postMessage(message) });
  });
  port.start();
});

/// A tab holds a lock of its name for as long as it lives: who gets it knows that the tab is gone,
/// however it went.
function watchLock(id) {
  if (!navigator.locks) return;
  navigator.locks.request(`tailmark-tab-${id}`, () => hub.remove(id));
}

// Where locks are withheld (plain HTTP from elsewhere), silence tells.
if (!navigator.locks) setInterval(() => hub.sweep(90000), 20000);
