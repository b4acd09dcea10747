// What others chose, on the page: nothing hides in it, and it stays what it is.

import { readFileSync } from 'node:fs';

import { check, equal, until } from './support.mjs';

const table = JSON.parse(readFileSync(new URL('../shown.json', import.meta.url), 'utf8'));
const RAW = ['a', 'a\u200b', 'a\u202eb'];
const SHOWN = ['a', 'a\\u{200b}', 'a\\u{202e}b'];

/// What a reader sees of each element: its text, and of what is not seen what the stylesheet puts there.
function seen(locator) {
  return locator.evaluateAll((all) => {
    const of = (node) => {
      if (node.nodeType === Node.TEXT_NODE) return node.data;
      if (!node.classList.contains('unseen')) return [...node.childNodes].map(of).join('');
      const { width, height } = node.firstChild.getBoundingClientRect();
      if (width > 0 || height > 0) throw new Error(`${node.dataset.shown} takes room`);
      return JSON.parse(getComputedStyle(node, '::before').content.replaceAll('\\\\', '\\').replaceAll('\\', '\\\\'));
    };
    return all.map(of);
  });
}

const texts = (locator) => locator.evaluateAll((all) => all.map((node) => node.textContent));

export const cases = [
  {
    name: 'shows names that differ in what is not seen as different, everywhere',
    run: async ({ daemon, visitor, shot }) => {
      const log = await daemon();
      const other = (topic) => ({ topic, type: topic, key: topic, id: topic, headers: { [topic]: topic }, body: `of ${RAW.indexOf(topic)}` });
      await log.publish(...RAW.map(other), ...RAW.map((from) => ({ topic: 'chat.general', body: 'hello', headers: { from } })));
      const page = await (await visitor()).open(`${log.url}/#room=general&view=chat`);
      await page.locator('#tail-list .row[data-seq="6"]').waitFor();
      await page.locator('#chat-log .message').nth(2).waitFor();
      const rows = page.locator('#tail-list .row');
      equal((await seen(rows.locator('.topic'))).slice(0, 3), SHOWN, 'topics in the tail');
      equal((await texts(rows.locator('.topic'))).slice(0, 3), RAW, 'and what is there to be copied');
      equal(await seen(rows.locator('.type')), SHOWN, 'types');
      equal(await seen(rows.locator('.key')), SHOWN, 'keys');
      equal(await rows.locator('.topic').evaluateAll((all) => all.slice(0, 3).map(({ title }) => title)), SHOWN, 'tooltips');
      await page.locator('#tree [role=treeitem]').nth(4).waitFor();
      const tree = (await seen(page.locator('#tree [role=treeitem] .name > bdi'))).filter((name) => name.startsWith('a'));
      equal(tree.sort(), [...SHOWN].sort(), 'the tree');
      equal(await seen(page.locator('#chat-log .message b')), SHOWN, 'users');
      equal((await seen(rows.locator('.body'))).slice(3), SHOWN.map((name) => `${name}: hello`), 'users in the tail');
      await shot(page, 'unseen');
      for (const [at, raw] of RAW.entries()) {
        await rows.nth(at).click();
        await page.locator('#event-detail .seq', { hasText: `#${at + 1}` }).waitFor();
        const detail = page.locator('#event-detail');
        equal(await seen(detail.locator('h3 .topic')), [SHOWN[at]], 'the topic of an event');
        equal((await seen(detail.locator('.fields:not(.headers) dd bdi'))).slice(0, 3), [SHOWN[at], SHOWN[at], SHOWN[at]], 'id, type, key');
        equal(await seen(detail.locator('.headers dt, .headers dd')), [SHOWN[at], SHOWN[at]], 'headers');
        equal(await texts(detail.locator('.headers dd')), [raw], 'their text');
      }
      await shot(page, 'unseen-event');
      // Fields show text as it is: what it reads is said beside it.
      await page.locator('#tree [role=treeitem] .name > bdi', { has: page.locator('.unseen') }).first().click();
      const pattern = await page.locator('#pattern').inputValue();
      check(RAW.slice(1).includes(pattern), `watches ${JSON.stringify(pattern)}`);
      const hint = () => page.evaluate(() => getComputedStyle(document.querySelector('#pattern').parentElement, '::after').content);
      equal(await hint(), JSON.stringify(`reads ${SHOWN[RAW.indexOf(pattern)]}`), 'what the pattern reads');
      await page.locator('#tail-list .row').first().waitFor();
      await until('the topic alone', async () => (await texts(rows.locator('.topic'))).every((topic) => topic === pattern));
      await page.locator('#pattern').fill('a');
      equal(await hint(), 'none', 'nothing to say');
    },
  },
  {
    name: 'says which room it is, also where the address hides it',
    run: async ({ daemon, visitor, shot }) => {
      const log = await daemon();
      const page = await (await visitor()).open(`${log.url}/#room=general%E2%80%8B&view=chat`);
      await page.locator('#chat-log .empty', { hasText: 'Nobody has said anything' }).waitFor();
      equal(await seen(page.locator('#chat-log .empty')), ['Nobody has said anything in general\\u{200b} yet.'], 'the room');
      const hint = await page.evaluate(() => getComputedStyle(document.querySelector('#chat-room').parentElement, '::after').content);
      equal(hint, '"reads general\\\\u{200b}"', 'the field');
      await shot(page, 'unseen-room');
    },
  },
  {
    name: 'gives the real text to whoever copies what is shown',
    run: async ({ daemon, visitor }) => {
      const log = await daemon();
      const topic = 'or\u200bders.e\u202eu';
      await log.publish({ topic, body: 'x' });
      const page = await (await visitor()).open(log.url);
      await page.locator('#tail-list .row .topic').waitFor();
      await page.locator('#tree [role=treeitem]').nth(1).waitFor();
      const pasted = async (selector) => {
        await page.locator(selector).first().evaluate((node) => getSelection().selectAllChildren(node));
        await page.keyboard.press('Control+C');
        await page.locator('#text').fill('');
        await page.keyboard.press('Control+V');
        return page.locator('#text').inputValue();
      };
      equal(await pasted('#tail-list .row .topic'), topic, 'a topic of the tail');
      equal(await pasted('#tree [role=treeitem] .name > bdi'), 'or\u200bders', 'a segment of the tree');
    },
  },
  {
    name: 'keeps texts readable, in their direction and on their side',
    run: async ({ daemon, visitor, shot }) => {
      const log = await daemon();
      const family = '\u{1f469}\u200d\u{1f4bb} \u2764\ufe0f';
      const bodies = [family, 'שלום, עולם!', 'می\u200cخواهم', 'safe \u202egnp.exe', 'one\ntwo\u2028three', '{"שלום": "عالم", "n": 1}', 'esc \u001b[31m \u009b pass\u200bword'];
      await log.publish(...bodies.map((body, at) => ({ topic: `שלום.${at}.سلام`, body })), ...bodies.map((body) => ({ topic: 'chat.general', body, headers: { from: 'דנה' } })));
      const page = await (await visitor()).open(`${log.url}/#room=general&view=chat`);
      const said = page.locator('#chat-log .message p');
      await said.nth(6).waitFor();
      const shown = [...bodies];
      shown[3] = 'safe \\u{202e}gnp.exe';
      shown[4] = 'one\ntwo\\u{2028}three';
      shown[6] = 'esc \\u{1b}[31m \\u{9b} pass\\u{200b}word';
      equal(await seen(said), shown, 'messages');
      equal(await texts(said), bodies, 'the real ones');
      const directions = await said.evaluateAll((all) => all.map((node) => getComputedStyle(node).direction));
      equal(directions, ['ltr', 'rtl', 'rtl', 'ltr', 'ltr', 'rtl', 'ltr'], 'directions');
      // Segments stand in their order, whatever way each of them is read; so do name and text.
      const inOrder = (selector, at) => page.locator(selector).nth(at).evaluate((node) => {
        const lefts = [...node.querySelectorAll('bdi')].map((part) => part.getBoundingClientRect().left);
        return lefts.length > 1 && lefts.every((left, i) => i === 0 || left >= lefts[i - 1]);
      });
      for (let at = 0; at < 7; at += 1) check(await inOrder('#tail-list .row .topic', at), `segments of row ${at}`);
      for (let at = 7; at < 12; at += 1) check(await inOrder('#tail-list .row .body', at), `name and text of row ${at}`);
      await page.locator('#tail-list .row').nth(3).click();
      await page.locator('#event-detail pre').waitFor();
      equal(await seen(page.locator('#event-detail pre')), [shown[3]], 'the body');
      await shot(page, 'directions');
    },
  },
  {
    name: 'marks a word that mixes scripts',
    run: async ({ daemon, visitor }) => {
      const log = await daemon();
      await log.publish({ topic: 'p\u0430ypal.orders' }, { topic: 'заказ-order.größe' }, { topic: 'paypal.orders' });
      const page = await (await visitor()).open(log.url);
      await page.locator('#tail-list .row').nth(2).waitFor();
      const mixed = page.locator('#tail-list .mixed');
      equal(await texts(mixed), ['p\u0430ypal'], 'mixed words');
      equal(await mixed.getAttribute('title'), 'Latin and Cyrillic letters in one word', 'why');
    },
  },
  {
    name: 'shows all that the terminal shows, as the terminal does',
    run: async ({ daemon, visitor }) => {
      const log = await daemon();
      const page = await (await visitor()).open(log.url);
      const wrong = await page.evaluate(async (rows) => {
        const base = new URL('.', document.querySelector('script[type=module]').src).href;
        const shown = await import(`${base}shown.js`);
        const bad = [];
        for (const { why, raw, name, text } of rows) {
          if (shown.shownName(raw) !== name) bad.push(`${why}, as a name: ${JSON.stringify(shown.shownName(raw))}`);
          if (shown.shownText(raw) !== text) bad.push(`${why}, as a text: ${JSON.stringify(shown.shownText(raw))}`);
          if (shown.named(raw).textContent !== raw) bad.push(`${why}: the text is another`);
        }
        // Cut between what a reader sees as characters.
        for (const [whole, most, kept] of [['a\u{1f469}\u200d\u{1f4bb}b', 4, 'a'], ['a\u{1f600}', 2, 'a'], ['ae\u0301', 2, 'a'], ['abc', 2, 'ab'], ['q'.padEnd(300, '\u0301'), 9, 'q'.padEnd(9, '\u0301')]]) {
          if (shown.cut(whole, most) !== kept) bad.push(`${JSON.stringify(whole)} is cut to ${JSON.stringify(shown.cut(whole, most))}`);
        }
        // Very many are no reason to make very many elements.
        const many = document.createElement('p');
        many.append(...shown.textNodes('\u202ea'.repeat(100000)));
        if (many.childElementCount > 0) bad.push(`${many.childElementCount} elements`);
        return bad;
      }, table);
      equal(wrong, [], 'parts');
    },
  },
];
