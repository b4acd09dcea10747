// A daemon that wants to know who looks.

import { check, equal, until } from './support.mjs';

const rows = '#tail-list .row[data-seq]';
const seqs = (page) => page.evaluate(() => globalThis.tailmark.tail.rows.filter(({ k }) => k === 'event').map(({ event }) => event.seq));

export const cases = [
  {
    name: 'asks who looks, shows what they may see, and asks again when the token is taken back',
    run: async ({ daemon, visitor }) => {
      const log = await daemon('[auth]\nmode = "required"\n');
      const give = async (...args) => {
        await log.run('token', 'create', ...args, ...log.settings);
        return log.printed.trim();
      };
      const writer = await give('writer', '--publish', '>', '--watch', '>');
      const reader = await give('reader', '--watch', 'seen.>', '--publish', 'seen.>');
      const publish = (...events) => fetch(`${log.url}/v1/events`, {
        method: 'POST', headers: { 'content-type': 'application/x-ndjson', authorization: `Bearer ${writer}` },
        body: events.map((event) => JSON.stringify(event)).join('\n'),
      });
      await until('the token', async () => (await publish({ topic: 'seen.a', body: 'one' })).ok);
      await publish({ topic: 'hidden.a', body: 'two' }, { topic: 'seen.b', body: 'three' });

      const one = await visitor();
      one.isUnknown = true;
      const page = await one.context.newPage();
      await page.goto(log.url);
      const dialog = page.locator('#token');
      const say = async (token) => {
        await page.locator('#token-text').fill(token);
        await Promise.all([page.waitForEvent('load'), page.locator('#token-form button').click()]);
      };
      await dialog.waitFor({ state: 'visible' });
      check(!(await page.locator('#token-problem').isVisible()), 'nothing is wrong yet');
      await page.keyboard.press('Escape');
      await dialog.waitFor({ state: 'visible' });
      // What no header can hold is told here, and leads nowhere else.
      for (const text of ['\u201ctailmark_abc\u201d', 'two words', '"quoted"']) {
        await page.locator('#token-text').fill(text);
        await page.locator('#token-form button').click();
        await page.locator('#token-problem', { hasText: 'this is no token' }).waitFor();
        check(await dialog.isVisible(), 'it is asked for again');
        await page.evaluate((kept) => sessionStorage.setItem('tailmark-token', kept), text);
        await Promise.all([page.waitForEvent('load'), page.reload()]);
        await page.locator('#token-problem', { hasText: 'this is no token' }).waitFor();
      }
      await page.evaluate(() => sessionStorage.clear());
      await Promise.all([page.waitForEvent('load'), page.reload()]);
      await dialog.waitFor({ state: 'visible' });
      await say('tailmark_wrong');
      await page.locator('#token-problem', { hasText: 'does not take this token' }).waitFor();
      await say(reader);
      await page.waitForSelector('#connection[data-phase="open"]');
      await page.locator(rows, { hasText: 'three' }).waitFor();
      equal(await seqs(page), [1, 3], 'what may be seen, and no more');
      const tree = () => page.locator('#tree [role=treeitem]').evaluateAll((all) => all.map((row) => row.path));
      await until('the tree', async () => (await tree()).length === 3);
      equal(await tree(), ['seen', 'seen.a', 'seen.b'], 'tree');
      await publish({ topic: 'hidden.a', body: 'four' }, { topic: 'seen.a', body: 'five' });
      await page.locator(rows, { hasText: 'five' }).waitFor();
      equal(await seqs(page), [1, 3, 5], 'live');
      // Kept in this tab and nowhere else; and another tab is another one who looks.
      const kept = await page.evaluate(() => [Object.values(sessionStorage), Object.values(localStorage), document.cookie, location.href]);
      equal(kept[0], [reader], 'sessionStorage');
      check(!JSON.stringify(kept.slice(1)).includes(reader), 'the token is nowhere else');
      const other = await one.context.newPage();
      await other.goto(log.url);
      await other.locator('#token').waitFor({ state: 'visible' });
      equal(await other.locator(rows).count(), 0, 'nothing is shown to who says nothing');

      await log.run('token', 'revoke', 'reader', ...log.settings);
      await dialog.waitFor({ state: 'visible' });
      await say(writer);
      await page.locator(rows, { hasText: 'four' }).waitFor();
      equal(await seqs(page), [1, 2, 3, 4, 5], 'with rights to all of it');
    },
  },
];
