// Takes the picture in the README: node picture.mjs EVENTS.jsonl.gz [--binary FILE] [--chromium FILE] [--out FILE]
//
// All but the last few thousand events are uploaded; the rest come at a lively pace while it looks.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { chromium } from 'playwright-core';

import { cleanUp, Daemon, tempDir, until } from './support.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const argument = (name, otherwise) => {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : process.argv[at + 1];
};
const chromiumAt = argument('--chromium', ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync));
const lines = gunzipSync(readFileSync(process.argv[2])).toString().trim().split('\n');
process.on('exit', cleanUp);

const log = new Daemon(argument('--binary', path.resolve(root, process.env.CARGO_TARGET_DIR ?? 'target', 'debug/tailmark')));
await log.start();
const past = Math.floor(lines.length * 0.2);
const file = path.join(tempDir(), 'past.jsonl');
writeFileSync(file, `${lines.slice(0, past).join('\n')}\n`);
await log.run('upload', '--format', 'jsonl', file);

const browser = await chromium.launch({ executablePath: chromiumAt, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'] });
const page = await browser.newPage({ viewport: { width: 1440, height: 860 }, colorScheme: 'light', reducedMotion: 'reduce' });
await page.goto(log.url);
await page.waitForSelector('#connection[data-phase="open"]');

let at = past;
async function feed(ms, most = 9) {
  for (const end = Date.now() + ms; Date.now() < end;) {
    const n = 1 + Math.floor(Math.random() * most);
    const response = await fetch(`${log.url}/v1/events`, {
      method: 'POST', headers: { 'content-type': 'application/x-ndjson' }, body: lines.slice(at, at + n).join('\n'),
    });
    if (!response.ok) throw new Error(await response.text());
    at += n;
    await new Promise((done) => { setTimeout(done, 60 + Math.random() * 240); });
  }
}
await feed(75000);
// What makes it worth having: killed, and nothing is missed.
await log.stop('SIGKILL');
await log.start();
await feed(150, 4);
await page.locator('#tail-list .row.good').waitFor();
await feed(2600, 1);
await until('all of it', () => page.evaluate((last) => globalThis.tailmark.tail.lastSeq === last, at));
// Something worth reading, in sight.
await page.locator('#tail-list .row[data-seq]').nth(19).click();
await page.locator('#event-detail pre').waitFor();
await page.mouse.move(700, 5);
await page.screenshot({ path: argument('--out', path.join(root, 'docs/images/page.png')) });
await browser.close();
await log.stop();
