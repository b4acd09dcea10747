// Libraries for server-sent events against a daemon that is killed and started again: each event once
// and in order, and no coming back after the end. `node test.mjs PROGRAM`; prints `N passed, N failed`.

import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {mkdtemp, rm} from 'node:fs/promises';
import {createRequire} from 'node:module';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {createInterface} from 'node:readline';

// What one of the libraries takes for given, as browsers have it.
globalThis.window ??= globalThis;
globalThis.document ??= {readyState: 'complete', hidden: false, addEventListener() {}, removeEventListener() {}};

const require = createRequire(import.meta.url);
const {EventSourcePolyfill} = require('event-source-polyfill');
const {EventSource} = await import('eventsource');
const {createEventSource} = await import('eventsource-client');
const {fetchEventSource} = require('@microsoft/fetch-event-source');
const {default: ReconnectingEventSource} = require('reconnecting-eventsource');

const PROGRAM = process.argv[2] ?? '../../../target/debug/tailmark';
// No test waits longer for anything: a slow machine must not fail it.
const PATIENCE_MS = 120_000;
const KILLS = 3;
const EVENTS = 4;

class Daemon {
  constructor(data) {
    this.data = data;
    this.address = '127.0.0.1:0';
  }

  async start() {
    const args = ['serve', '--listen', this.address, '--data-dir', this.data];
    this.process = spawn(PROGRAM, args, {stdio: ['ignore', 'pipe', 'ignore']});
    const lines = createInterface(this.process.stdout);
    const line = await Promise.race([
      new Promise((done) => lines.once('line', done)),
      new Promise((_, fail) => this.process.once('exit', (code) => fail(new Error(`exit ${code}`)))),
    ]);
    this.address = /^ready on ([^,]+)/.exec(line)[1];
  }

  async kill() {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const gone = new Promise((done) => this.process.once('exit', done));
    this.process.kill('SIGKILL');
    await gone;
  }

  async store(topic, first, count) {
    const lines = Array.from({length: count}, (_, at) => JSON.stringify({topic, body: String(first + at)}));
    const response = await fetch(`http://${this.address}/v1/events`, {
      method: 'POST', headers: {'content-type': 'application/x-ndjson'}, body: lines.join('\n'),
    });
    assert.equal(response.status, 200, await response.text());
  }

  /** How many watches were answered so. */
  async answered(code) {
    const text = await (await fetch(`http://${this.address}/metrics`)).text();
    const line = new RegExp(`^tailmark_http_requests_total\\{route="/v1/watch",code="${code}"\\} (\\d+)`, 'm');
    return Number(line.exec(text)?.[1] ?? 0);
  }
}

async function until(what, condition) {
  const end = Date.now() + PATIENCE_MS;
  while (!await condition()) {
    if (Date.now() > end) throw new Error(`${what}: not within ${PATIENCE_MS} ms`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

/** Listens as EventSource has it. */
function listen(source, seen) {
  source.onmessage = ({data}) => seen.bodies.push(JSON.parse(data).body);
  source.addEventListener('end', () => { seen.ends += 1; });
  source.addEventListener('lost', ({data}) => seen.lost.push(data));
  return {isClosed: () => source.readyState === 2, close: () => source.close()};
}

/** Names, and what opens a watch of a URL. */
const LIBRARIES = {
  'event-source-polyfill': (url, seen) => listen(new EventSourcePolyfill(url), seen),
  eventsource: (url, seen) => listen(new EventSource(url), seen),
  'reconnecting-eventsource': (url, seen) =>
    listen(new ReconnectingEventSource(url, {eventSourceClass: EventSource, max_retry_time: 200}), seen),
  'eventsource-client': (url, seen) => {
    const source = createEventSource({
      url,
      onMessage: ({data, event}) => {
        if (!event) seen.bodies.push(JSON.parse(data).body);
        if (event === 'end') seen.ends += 1;
        if (event === 'lost') seen.lost.push(data);
      },
    });
    return {isClosed: () => source.readyState === 'closed', close: () => source.close()};
  },
  '@microsoft/fetch-event-source': (url, seen) => {
    const stop = new AbortController();
    let isClosed = false;
    fetchEventSource(url, {
      signal: stop.signal,
      openWhenHidden: true,
      onmessage: ({data, event}) => {
        if (!event && data) seen.bodies.push(JSON.parse(data).body);
        if (event === 'end') seen.ends += 1;
        if (event === 'lost') seen.lost.push(data);
      },
      // It takes every end for a good one unless it is told otherwise.
      onclose: () => { if (seen.ends + seen.lost.length === 0) throw new Error('come back'); },
      onerror: () => 100,
    }).finally(() => { isClosed = true; });
    return {isClosed: () => isClosed, close: () => stop.abort()};
  },
};
/** One that asks once more after the end is told 204, and stops. This one stops before. */
const STOPS_BEFORE = ['@microsoft/fetch-event-source'];
/** These go on after any answer, the first because fetch has no body for a 204: their user closes them. */
const STOPS_NEVER = ['event-source-polyfill', 'reconnecting-eventsource'];

const nothing = () => ({bodies: [], ends: 0, lost: []});

async function misses_nothing_over_kills(daemon, name, open) {
  const topic = `kills.${name.replace(/[^a-z]/g, '-')}`;
  const seen = nothing();
  await daemon.store(topic, 0, EVENTS);
  const source = open(`http://${daemon.address}/v1/watch?topic=${topic}&from=oldest`, seen);
  for (let kill = 1; kill <= KILLS; kill += 1) {
    await until('the events', () => seen.bodies.length >= kill * EVENTS);
    await daemon.kill();
    await daemon.start();
    await daemon.store(topic, kill * EVENTS, EVENTS);
  }
  const expected = Array.from({length: (KILLS + 1) * EVENTS}, (_, at) => String(at));
  await until('the events', () => seen.bodies.length >= expected.length);
  source.close();
  assert.deepEqual(seen, {bodies: expected, ends: 0, lost: []});
}

async function stops_at_the_end(daemon, name, open) {
  const topic = `end.${name.replace(/[^a-z]/g, '-')}`;
  await daemon.store(topic, 0, EVENTS);
  const before = await daemon.answered(204);
  const seen = nothing();
  const url = `http://${daemon.address}/v1/watch?topic=${topic}&from=oldest&until_caught_up`;
  const source = open(url, seen);
  const expected = STOPS_BEFORE.includes(name) ? 0 : 1;
  if (STOPS_NEVER.includes(name)) {
    await until('an answer of 204', async () => await daemon.answered(204) > before);
    source.close();
  } else {
    await until('the end', source.isClosed);
    assert.equal(await daemon.answered(204) - before, expected);
  }
  assert.deepEqual(seen, {bodies: ['0', '1', '2', '3'], ends: 1, lost: []});
}

async function stops_at_a_lost_position(daemon, name, open) {
  const before = await daemon.answered(204);
  const seen = nothing();
  const source = open(`http://${daemon.address}/v1/watch?after_cursor=99999999`, seen);
  const isOver = STOPS_NEVER.includes(name) ? async () => await daemon.answered(204) > before : source.isClosed;
  await until('the end', isOver);
  source.close();
  assert.equal(seen.lost.length, 1);
  assert.equal(JSON.parse(seen.lost[0]).reason, 'CURSOR_AHEAD');
}

const TESTS = [misses_nothing_over_kills, stops_at_the_end, stops_at_a_lost_position];

/** One library against a daemon of its own; how many failed. */
async function run(name, open) {
  const data = await mkdtemp(join(tmpdir(), 'tailmark-eventsource-'));
  const daemon = new Daemon(data);
  let failed = 0;
  try {
    await daemon.start();
    for (const test of TESTS) {
      try {
        await test(daemon, name, open);
      } catch (error) {
        failed += 1;
        console.log(`FAILED ${name} ${test.name}: ${error.stack}`);
      }
    }
  } finally {
    await daemon.kill();
    await rm(data, {recursive: true});
  }
  return failed;
}

// Some of them print what they meet: connections that were cut.
console.error = () => {};
const libraries = Object.entries(LIBRARIES);
const failed = (await Promise.all(libraries.map(([name, open]) => run(name, open)))).reduce((a, b) => a + b);
console.log(`${libraries.length * TESTS.length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
