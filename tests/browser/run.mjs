// Drives the live page in a real, headless Chromium against a real daemon.
//
//   node run.mjs [--only PART] [--binary FILE] [--chromium FILE] [--out DIR]
//
// Screenshots go to target/browser/. The last line counts: N passed, N failed.

import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

import { cases as parts } from './cases.mjs';
import { cases as first } from './first.mjs';
import { cases as shown } from './shown.mjs';
import { cases as tokens } from './tokens.mjs';
import { BOUND_MS, cleanUp, Daemon } from './support.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const argument = (name) => {
  const at = process.argv.indexOf(name);
  return at < 0 ? undefined : process.argv[at + 1];
};
const binary = argument('--binary') ?? path.resolve(root, process.env.CARGO_TARGET_DIR ?? 'target', 'debug/tailmark');
const executablePath = argument('--chromium') ?? process.env.CHROMIUM
  ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const out = argument('--out') ?? path.join(root, 'target/browser');
const only = argument('--only') ?? '';

if (!existsSync(binary)) throw new Error(`no program at ${binary}: cargo build first`);
if (!executablePath) throw new Error('no Chromium: install it, or say where it is: --chromium FILE');
mkdirSync(out, { recursive: true });
process.on('exit', cleanUp);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

const browser = await chromium.launch({
  executablePath,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--disable-extensions',
    '--disable-domain-reliability', '--no-default-browser-check', '--no-pings',
  ],
});

/// Pages of one profile, watched for what must never happen.
class Visitor {
  constructor(context, problems) {
    this.context = context;
    this.problems = problems;
    /// Errors of a connection that the test itself cuts.
    this.cutsConnections = false;
    /// Errors of an event that must be refused.
    this.getsRefused = false;
    /// Answers to who has no token, or the wrong one.
    this.isUnknown = false;
    /// Answers to who asks for what is not there.
    this.asksInVain = false;
  }

  static async make(problems, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, reducedMotion: 'reduce', ...options });
    context.setDefaultTimeout(BOUND_MS);
    const visitor = new Visitor(context, problems);
    await context.addInitScript(() => {
      globalThis.violations = [];
      addEventListener('securitypolicyviolation', (event) => {
        globalThis.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
        console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`);
      });
    });
    context.on('weberror', (error) => problems.push(`page error: ${error.error().stack ?? error.error()}`));
    context.on('console', (message) => {
      if (!['error', 'warning'].includes(message.type())) return;
      const text = `${message.text()} (${message.location().url})`;
      const isCut = /net::ERR_(CONNECTION|INCOMPLETE|EMPTY_RESPONSE|NETWORK)/.test(text);
      const isRefused = /status of 4\d\d .*\/v1\/events\)$/.test(text);
      const isUnknown = /status of 40[13] /.test(text);
      if (visitor.cutsConnections && isCut) return;
      if (visitor.getsRefused && isRefused) return;
      if (visitor.isUnknown && isUnknown) return;
      if (visitor.asksInVain && /status of 40[04] .*\/v1\/(events\/|watch\?)/.test(text)) return;
      problems.push(`console ${message.type()}: ${text}`);
    });
    context.on('request', (request) => {
      const { protocol, hostname } = new URL(request.url());
      if (protocol !== 'data:' && hostname !== '127.0.0.1') problems.push(`asked elsewhere: ${request.url()}`);
    });
    return visitor;
  }

  /// A tab that is live.
  async open(url, { phase = 'open' } = {}) {
    const page = await this.context.newPage();
    await page.goto(url);
    await page.waitForSelector(`#connection[data-phase="${phase}"]`);
    return page;
  }

  async close() {
    for (const page of this.context.pages()) {
      const violations = await page.evaluate(() => globalThis.violations);
      for (const violation of violations) this.problems.push(`CSP violation: ${violation}`);
    }
    await this.context.close();
  }
}

let passed = 0;
let failed = 0;
for (const { name, run } of [...parts, ...shown, ...tokens, ...first].filter((one) => one.name.includes(only))) {
  const began = Date.now();
  const problems = [];
  const visitors = [];
  const daemons = [];
  const shots = [];
  try {
    await run({
      daemon: async (settings) => {
        const daemon = new Daemon(binary);
        if (settings) daemon.configure(settings);
        daemons.push(daemon);
        await daemon.start();
        return daemon;
      },
      visitor: async (options) => {
        const visitor = await Visitor.make(problems, options);
        visitors.push(visitor);
        return visitor;
      },
      shot: async (page, shot) => {
        await page.screenshot({ path: path.join(out, `${shot}.png`) });
        shots.push(shot);
      },
      binary,
    });
    for (const visitor of visitors.splice(0)) await visitor.close();
    if (problems.length > 0) throw new Error(problems.join('\n  '));
    passed += 1;
    console.log(`ok      ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)${shots.length ? ` [${shots.join(', ')}]` : ''}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${error.stack ?? error}${problems.length > 0 ? `\n  ${problems.join('\n  ')}` : ''}`);
    for (const visitor of visitors) {
      for (const page of visitor.context.pages()) {
        await page.screenshot({ path: path.join(out, `failed-${failed}.png`), timeout: 5000 }).catch(() => {});
      }
      await visitor.context.close().catch(() => {});
    }
  }
  for (const daemon of daemons) await daemon.stop('SIGKILL').catch(() => {});
}
await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
