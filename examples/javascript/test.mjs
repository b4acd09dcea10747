// The two clients in a headless Chromium, from a page of another origin, against a daemon of their
// own: `node test.mjs PROGRAM`. Prints `N passed, N failed`.

import assert from 'node:assert/strict';
import {execFileSync, spawn} from 'node:child_process';
import {mkdtemp, readFile, rm, writeFile} from 'node:fs/promises';
import {createServer, request as ask} from 'node:http';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {createInterface} from 'node:readline';
import {fileURLToPath} from 'node:url';
import {chromium} from 'playwright-core';

const PROGRAM = process.argv[2] ?? '../../target/debug/tailmark';
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const HERE = dirname(fileURLToPath(import.meta.url));
// No test waits longer for anything: a slow machine must not fail it.
const PATIENCE_MS = 60_000;

class Daemon {
  constructor(data, origin, more = []) {
    this.data = data;
    this.more = more;
    this.origin = origin;
    this.address = '127.0.0.1:0';
  }

  async start() {
    const args = ['serve', '--listen', this.address, '--data-dir', this.data, ...this.more];
    const env = {...process.env, TAILMARK_HTTP_CORS_ORIGINS: this.origin};
    this.process = spawn(PROGRAM, args, {stdio: ['ignore', 'pipe', 'ignore'], env});
    const lines = createInterface(this.process.stdout);
    const [line] = await Promise.race([
      new Promise((done) => lines.once('line', (line) => done([line]))),
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
}

/** A site elsewhere: an empty page, and the two bundles. */
async function site() {
  const server = createServer(async (request, response) => {
    const file = {'/grpc-web.js': 'grpc-web.js', '/connect.js': 'connect.js'}[request.url];
    if (file) {
      response.setHeader('content-type', 'text/javascript');
      response.end(await readFile(join(HERE, 'build', file)));
    } else {
      response.setHeader('content-type', 'text/html');
      response.end('<!doctype html><title>client</title>');
    }
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return server;
}

/** A proxy before the daemon, which answers itself where that is away, or where it is told to. */
async function between(daemon) {
  const open = new Set();
  const proxy = {status: 0};
  const server = createServer((request, response) => {
    const refuse = (status) => {
      // A page may read it, as behind a proxy that stands for both.
      const headers = {'content-type': 'text/html', 'access-control-allow-origin': '*'};
      if (response.headersSent) response.destroy();
      else response.writeHead(request.method === 'OPTIONS' ? 204 : status,
        {...headers, 'access-control-allow-headers': '*'}).end('<h1>No</h1>');
    };
    if (proxy.status) return refuse(proxy.status);
    const [host, port] = daemon.address.split(':');
    const headers = {...request.headers, host: daemon.address};
    const {method, url: path} = request;
    const onward = ask({host, port, path, method, headers}, (answer) => {
      response.writeHead(answer.statusCode, answer.headers).flushHeaders();
      answer.on('error', () => response.destroy());
      answer.pipe(response);
    });
    onward.on('error', () => refuse(502));
    open.add(response);
    response.on('close', () => { open.delete(response); onward.destroy(); });
    request.pipe(onward);
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return Object.assign(proxy, {
    address: `127.0.0.1:${server.address().port}`,
    /** From here on it answers with this itself, and cuts what is open; 0 = no more. */
    answer(status) {
      proxy.status = status;
      for (const response of open) response.destroy();
    },
    close() {
      server.close();
      server.closeAllConnections();
    },
  });
}

/** A page that says what it logs, with the bundle in it. */
async function open(context, origin, daemon, bundle) {
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const lines = [];
  const waiting = new Set();
  page.on('console', (message) => {
    lines.push(message.text());
    for (const check of waiting) check();
  });
  /** The first line that matches, said before or still to come; of those from `since` on. */
  const said = (pattern, since = 0) =>
    new Promise((done, fail) => {
      const timer = setTimeout(
        () => fail(new Error(`${pattern} was never said, only:\n${lines.join('\n')}`)),
        PATIENCE_MS,
      );
      const check = () => {
        const line = lines.slice(since).find((line) => pattern.test(line));
        if (line === undefined) return;
        clearTimeout(timer);
        waiting.delete(check);
        done(line);
      };
      waiting.add(check);
      check();
    });
  await page.goto(origin);
  await page.evaluate((address) => (globalThis.DAEMON = `http://${address}`), daemon.address);
  await page.addScriptTag({url: `/${bundle}.js`});
  return {page, lines, said};
}

const TESTS = {
  async 'the client of the sketch works as it stands'({context, origin, daemon}) {
    const {page, said} = await open(context, origin, daemon, 'grpc-web');
    await said(/^\[general\] System: Welcome to room general, WebUser!$/);
    await said(/^Message sent: \S+$/);
    await page.close();
  },

  async 'what a page sends reaches another'({context, origin, daemon}) {
    const first = await open(context, origin, daemon, 'grpc-web');
    await first.said(/Welcome/);
    const second = await open(context, origin, daemon, 'grpc-web');
    await second.said(/^Message sent/);
    await first.said(/^\[general\] WebUser: Hello from browser!$/);
    await first.page.close();
    await second.page.close();
  },

  async 'a bad cursor is an error with its code'({context, origin, daemon}) {
    const {page} = await open(context, origin, daemon, 'connect');
    const code = await page.evaluate(() =>
      tailmark.publish('not a topic', 'x').then(
        () => 'accepted',
        (error) => error.code,
      ),
    );
    assert.equal(code, 3);
    await page.close();
  },

  async 'a room over connect'({context, origin, daemon}) {
    const {page, said} = await open(context, origin, daemon, 'connect');
    await page.evaluate(() => {
      tailmark.visit('lounge', 'ada', (message) => console.log(`${message.user}: ${message.content}`));
    });
    await said(/^System: Welcome to room lounge, ada!$/);
    await page.evaluate(() => tailmark.say('lounge', 'bob', 'hello'));
    await said(/^bob: hello$/);
    await page.close();
  },

  async 'a watch goes on over a kill with no gap and no repeat'({context, origin, daemon}) {
    const {page, lines, said} = await open(context, origin, daemon, 'connect');
    await page.evaluate(() => {
      tailmark.follow('orders.>', (event) => console.log(`event ${event.body}`));
    });
    const publish = (body) => page.evaluate((body) => tailmark.publish('orders.eu', body), body);
    // The first may come before the watch stands; from the first one seen on, none may be missing.
    await Promise.race([
      said(/^event warm/),
      (async () => {
        for (let n = 0; ; n++) {
          await publish(`warm${n}`);
          if (lines.some((line) => line.startsWith('event warm'))) return;
        }
      })(),
    ]);
    for (let n = 1; n <= 5; n++) await publish(`${n}.`);
    await said(/^event 5\.$/);
    await daemon.kill();
    await said(/^Lost the connection/);
    const sixth = publish('6.');
    await daemon.start();
    await sixth;
    for (let n = 7; n <= 10; n++) await publish(`${n}.`);
    await said(/^event 10\.$/);
    const seen = lines.filter((line) => /^event \d/.test(line)).map((line) => parseInt(line.slice(6)));
    assert.deepEqual(seen, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    await page.close();
  },

  async 'a watch goes on behind a proxy that answers in the place of the daemon'({context, origin, daemon}) {
    const proxy = await between(daemon);
    const {page, lines, said} = await open(context, origin, proxy, 'connect');
    await page.evaluate(() => {
      tailmark.follow('behind', (event) => console.log(`event ${event.body}`));
    });
    const direct = await open(context, origin, daemon, 'connect');
    const publish = (body) => direct.page.evaluate((body) => tailmark.publish('behind', body), body);
    await Promise.race([
      said(/^event warm/),
      (async () => {
        for (let n = 0; ; n++) {
          await publish(`warm${n}`);
          if (lines.some((line) => line.startsWith('event warm'))) return;
        }
      })(),
    ]);
    let last = 0;
    // 404 too: it has met the server there.
    for (const status of [502, 503, 504, 429, 500, 404]) {
      const before = lines.length;
      proxy.answer(status);
      await said(/^Lost the connection/, before);
      await publish(`${++last}.`);
      // The second is of an attempt that began since: it met the answer.
      await said(/^Lost the connection/, lines.length);
      proxy.answer(0);
      await said(new RegExp(`^event ${last}\\.$`));
    }
    for (let n = 0; n < 5; n++) {
      const before = lines.length;
      await daemon.kill();
      await said(/^Lost the connection/, before);
      await daemon.start();
      await publish(`${++last}.`);
      await said(new RegExp(`^event ${last}\\.$`));
    }
    const seen = lines.filter((line) => /^event \d/.test(line)).map((line) => parseInt(line.slice(6)));
    assert.deepEqual(seen, Array.from({length: last}, (_, at) => at + 1));
    // What stays is told at once.
    proxy.answer(403);
    const code = await page.evaluate(() =>
      tailmark.publish('behind', 'x').then(() => 'accepted', (error) => error.code));
    assert.equal(code, 7);
    await page.close();
    await direct.page.close();
    proxy.close();
  },

  async 'a watch goes on with the next token, and says when there is none'({context, origin}) {
    const folder = await mkdtemp(join(tmpdir(), 'tailmark-tokens-'));
    const config = join(folder, 'config.toml');
    await writeFile(config, `[auth]\nmode = "required"\ntokens_file = "${join(folder, 'tokens.toml')}"\n`);
    const run = (...args) => execFileSync(PROGRAM, ['token', ...args, '--config', config], {encoding: 'utf8'}).trim();
    const create = () => run('create', 'page', '--publish', 'a', '--watch', 'a');
    const first = create();
    const closed = new Daemon(join(folder, 'data'), origin, ['--config', config]);
    await closed.start();
    try {
      const {page, lines, said} = await open(context, origin, closed, 'connect');
      await page.evaluate((token) => { globalThis.TOKEN = token; }, first);
      await page.evaluate(() => {
        tailmark.follow('a', (event) => console.log(`event ${event.body}`))
          .catch((error) => console.log(`ended ${error.code}`));
      });
      const publish = (body) => page.evaluate((body) => tailmark.publish('a', body), body);
      for (let n = 0; !lines.some((line) => line.startsWith('event warm')); n++) await publish(`warm${n}`);
      run('revoke', 'page');
      await said(/^Lost the connection: Unauthenticated/);
      await page.evaluate((token) => { globalThis.TOKEN = token; }, create());
      await said(/^Lost the connection/).then(() => closed.kill()).then(() => closed.start());
      // Taken up by now, for it has just read its file.
      for (let n = 1; n <= 3; n++) await publish(`${n}.`);
      await said(/^event 3\.$/);
      const seen = lines.filter((line) => /^event \d/.test(line)).map((line) => parseInt(line.slice(6)));
      assert.deepEqual(seen, [1, 2, 3]);
      run('revoke', 'page');
      await said(/^ended 16$/);
      await page.close();
    } finally {
      await closed.kill();
      await rm(folder, {recursive: true});
    }
  },

  async 'an origin that is not listed is kept out'({context, daemon}) {
    const foreign = await site();
    const origin = `http://127.0.0.1:${foreign.address().port}`;
    const {page, lines, said} = await open(context, origin, daemon, 'grpc-web');
    await said(/^Error:/);
    assert.ok(!lines.some((line) => line.startsWith('Message sent')), lines.join('\n'));
    await page.close();
    foreign.close();
  },
};

const server = await site();
const origin = `http://127.0.0.1:${server.address().port}`;
const data = await mkdtemp(join(tmpdir(), 'tailmark-clients-'));
const daemon = new Daemon(data, origin);
let [passed, failed] = [0, 0];
let browser;
try {
  await daemon.start();
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    timeout: PATIENCE_MS,
  });
  const context = await browser.newContext();
  for (const [name, test] of Object.entries(TESTS)) {
    try {
      await test({context, origin, daemon});
      passed++;
      console.log(`ok    ${name}`);
    } catch (error) {
      failed++;
      console.log(`FAIL  ${name}\n${error.stack}`);
    }
  }
} finally {
  await browser?.close();
  await daemon.kill();
  server.close();
  server.closeAllConnections();
  await rm(data, {recursive: true});
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
