// A daemon of one's own, a browser of one's own, and waiting for things.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

/// How long anything may take. Never a measure: machines are slow and busy.
export const BOUND_MS = 60000;

// Settings of whoever runs this are not ours.
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TAILMARK_')));
const children = new Set();
const folders = new Set();

export function tempDir() {
  const dir = mkdtempSync(path.join(tmpdir(), 'tailmark-browser-'));
  folders.add(dir);
  return dir;
}

/// Ends what was started here and removes what was written. Also for an exit in a hurry.
export function cleanUp() {
  for (const child of children) child.kill('SIGKILL');
  for (const dir of folders) rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
}

export class Daemon {
  constructor(binary, dir = tempDir()) {
    this.binary = binary;
    this.dir = dir;
    this.port = 0;
    this.settings = [];
  }

  /// Begins with these settings, which commands of it read too.
  configure(text) {
    const file = path.join(tempDir(), 'config.toml');
    writeFileSync(file, text);
    this.settings = ['--config', file];
  }

  get url() { return `http://127.0.0.1:${this.port}`; }

  /// Starts it; again on the same port, once it has one.
  async start() {
    const child = spawn(this.binary, ['serve', '--data-dir', this.dir, '--listen', `127.0.0.1:${this.port}`, ...this.settings], { stdio: ['ignore', 'pipe', 'pipe'], env });
    children.add(child);
    this.child = child;
    this.ended = new Promise((done) => { child.once('exit', () => { children.delete(child); done(); }); });
    let said = '';
    const ready = new Promise((done, fail) => {
      const read = (data) => {
        said += data;
        const found = /ready on 127\.0\.0\.1:(\d+)/.exec(said);
        if (found) {
          this.port = Number(found[1]);
          done();
        }
      };
      child.stdout.on('data', read);
      child.stderr.on('data', read);
      child.once('exit', (code) => fail(new Error(`the daemon ended (${code}): ${said}`)));
      child.once('error', fail);
    });
    await within(ready, 'the daemon to be ready');
  }

  async stop(signal = 'SIGTERM') {
    this.child.kill(signal);
    await within(this.ended, `the daemon to end by ${signal}`);
  }

  /// Runs the program against it.
  async run(...args) {
    const child = spawn(this.binary, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...env, TAILMARK_ADDR: this.url } });
    children.add(child);
    let said = '';
    this.printed = '';
    child.stdout.on('data', (data) => { said += data; this.printed += data; });
    child.stderr.on('data', (data) => { said += data; });
    const code = await within(new Promise((done) => { child.once('exit', done); }), `tailmark ${args[0]}`);
    children.delete(child);
    if (code !== 0) throw new Error(`tailmark ${args.join(' ')}: ${code}: ${said}`);
    return said;
  }

  async publish(...events) {
    const response = await fetch(`${this.url}/v1/events`, {
      method: 'POST', headers: { 'content-type': 'application/x-ndjson' },
      body: events.map((event) => JSON.stringify(event)).join('\n'),
    });
    if (!response.ok) throw new Error(`publish: ${response.status} ${await response.text()}`);
    return response.json();
  }

  async log() { return (await fetch(`${this.url}/v1/log`)).json(); }
}

export function within(promise, what, ms = BOUND_MS) {
  let timer;
  const late = new Promise((_, fail) => { timer = setTimeout(() => fail(new Error(`gave up waiting for ${what}`)), ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/// Waits until `probe` gives something true.
export async function until(what, probe, ms = BOUND_MS) {
  const end = Date.now() + ms;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) { last = error; }
    if (Date.now() > end) throw new Error(`gave up waiting for ${what}; last: ${last}`);
    await new Promise((done) => { setTimeout(done, 50); });
  }
}

export function equal(actual, expected, what) {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${what}: ${a}, expected ${b}`);
}

export function check(truth, what) {
  if (!truth) throw new Error(what);
}
