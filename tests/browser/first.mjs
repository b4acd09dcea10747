// What someone needs in the first hour: room for bodies, places to go to, and figures that say how old they are.

import { check, equal, until } from './support.mjs';

const text = (page, selector) => page.locator(selector).textContent();
const shows = (page, words) => page.locator('#tail-list .row', { hasText: words }).first().waitFor();
const width = (page, selector) => page.locator(selector).first().evaluate((node) => node.getBoundingClientRect().width);

export const cases = [
  {
    name: 'gives bodies the width of the window, and keeps that',
    run: async ({ daemon, visitor, shot }) => {
      const log = await daemon();
      await log.publish(...Array.from({ length: 40 }, (_, n) => ({ topic: 'orders.eu.created', body: JSON.stringify({ order: n, note: 'x'.repeat(150) }) })));
      const guest = await visitor({ viewport: { width: 1280, height: 800 } });
      const page = await guest.open(log.url);
      await shows(page, 'order 39');
      const before = await width(page, '#tail-list .row .what');
      await page.keyboard.press('w');
      await until('the width', async () => (await width(page, '#tail-list .row .what')) > before * 1.5);
      check(!(await page.locator('#side').isVisible()), 'the side panel makes room');
      await shot(page, 'wide');
      // Going through the events leaves it wide; asking for all of one does not.
      await page.keyboard.press('k');
      await page.locator('#tail-list .row.selected').waitFor();
      check(!(await page.locator('#side').isVisible()), 'still wide');
      const again = await guest.open(log.url);
      await shows(again, 'order 39');
      check(!(await again.locator('#side').isVisible()), 'kept for the next time');
      await again.locator('#tail-list .row').last().click();
      check(await again.locator('#side').isVisible(), 'back');
    },
  },
  {
    name: 'goes to a seq, a cursor and a time, and says when there is none',
    run: async ({ daemon, visitor }) => {
      const log = await daemon();
      const some = (from) => Array.from({ length: 250 }, (_, n) => ({ topic: 'a.b', body: `n ${from + n}` }));
      await log.publish(...some(1));
      await new Promise((done) => { setTimeout(done, 1100); });
      await log.publish(...some(251));
      // Far from the clock of the daemon, which is UTC.
      const guest = await visitor({ timezoneId: 'America/New_York' });
      const page = await guest.open(log.url);
      await shows(page, 'n 500');
      equal(await text(page, '#zone'), 'times: America/New_York', 'the clock is named');
      const goTo = async (place) => {
        await page.locator('#goto-place').fill(place);
        await page.locator('#goto-place').press('Enter');
      };
      const is = (n) => page.locator('#event-detail .seq', { hasText: new RegExp(`^#${n}$`) }).waitFor();
      // Far above what the list has.
      await goTo('7');
      await is(7);
      await goTo('#8');
      await is(8);
      const { cursor } = await (await fetch(`${log.url}/v1/events/9`)).json();
      await goTo(cursor);
      await is(9);
      await goTo('1 day');
      await is(1);
      // The list reaches there, or is made to.
      await page.locator('#tail-list .row.selected', { hasText: 'n 1' }).waitFor();
      // As the list shows it, and to the second.
      const shown = await text(page, '#tail-list .row[data-seq="1"] time');
      check(/^\d\d:\d\d:\d\d\.\d{3}$/.test(shown), shown);
      await goTo('300');
      await is(300);
      const later = await text(page, '#tail-list .row[data-seq="300"] time');
      await goTo(later);
      await is(251);
      await goTo(shown.slice(0, 8));
      await is(1);
      await goTo('latest');
      await is(500);
      await goTo('oldest');
      await is(1);
      guest.asksInVain = true;
      for (const [place, words] of [['9000', 'no event 9000'], ['soon', 'expected a seq'], ['0', 'expected a seq'], ['2026-02-30', 'expected a seq']]) {
        await goTo(place);
        await page.locator('#goto-problem', { hasText: words }).waitFor();
      }
    },
  },
  {
    name: 'goes far back, with what is around it in the list, and reads on from there',
    run: async ({ daemon, visitor, shot }) => {
      const log = await daemon();
      for (let at = 1; at <= 2000; at += 500) await log.publish(...Array.from({ length: 500 }, (_, n) => ({ topic: 'n', body: `n ${at + n}` })));
      const page = await (await visitor()).open(log.url);
      await shows(page, 'n 2000');
      const is = (n) => page.locator('#event-detail .seq', { hasText: new RegExp(`^#${n}$`) }).waitFor();
      await page.locator('#goto-place').fill('7');
      await page.locator('#goto-place').press('Enter');
      await is(7);
      await page.locator('#tail-list .row.selected[data-seq="7"]').waitFor();
      await page.locator('#tail-list .row[data-seq="8"]').waitFor();
      await page.locator('#tail-list').press('ArrowDown');
      await is(8);
      const row = await page.locator('#tail-list .row').first().evaluate((node) => node.getBoundingClientRect().height);
      const scrollTo = (at) => page.locator('#tail-list').evaluate((list, top) => { list.scrollTop = top; }, at * row);
      await scrollTo(14);
      await page.locator('#tail-list .row.between', { hasText: /read on: events 28 to 1,[78]\d\d/ }).click();
      await page.locator('#tail-list .row[data-seq="30"]').waitFor();
      await shot(page, 'far-back');
      // All that lies between, piece by piece, and nothing twice.
      for (let from = 228; from < 1800; from += 200) {
        await scrollTo(from - 14);
        const hole = page.locator('#tail-list .row.between');
        await hole.waitFor();
        await hole.click();
        await page.locator(`#tail-list .row[data-seq="${from}"]`).waitFor();
      }
      const seqs = await page.evaluate(() => globalThis.tailmark.tail.rows.filter(({ k }) => k === 'event').map(({ event }) => event.seq));
      equal(seqs, Array.from({ length: 2000 }, (_, n) => n + 1), 'each once, in order');
      check(await page.evaluate(() => !globalThis.tailmark.tail.rows.some(({ k }) => k === 'between')), 'no hole is left');
      // And live as before.
      await log.publish({ topic: 'n', body: 'n 2001' });
      await page.locator('#follow').click();
      await shows(page, 'n 2001');
    },
  },
  {
    name: 'shows what lies before the newest events, with a filter and without, and leaves the reader where he is',
    run: async ({ daemon, visitor }) => {
      const log = await daemon();
      const events = (from, to, topic) => Array.from({ length: to - from + 1 }, (_, n) => ({ topic: topic(from + n), body: `n ${from + n}` }));
      await log.publish(...events(1, 3000, (n) => (n <= 5 ? 'rare.a' : 'often.b')));
      const page = await (await visitor()).open(log.url);
      const seqs = () => page.evaluate(() => globalThis.tailmark.tail.rows.map(({ event }) => event.seq));
      const list = page.locator('#tail-list');
      await until('the newest', async () => (await seqs()).length === 200);
      await list.evaluate((node) => { node.scrollTop = 0; });
      await page.locator('#older').click();
      await until('as many more', async () => (await seqs()).length === 400);
      equal(await seqs(), Array.from({ length: 400 }, (_, n) => 2601 + n), 'each once, in order');
      // The one that was at the top is there still.
      check(await page.locator('#tail-list .row', { hasText: 'n 2801' }).first().isVisible(), 'where the reader was');
      await page.locator('#pattern').fill('rare.a');
      await page.locator('#pattern').press('Enter');
      await until('what the filter chooses', async () => (await seqs()).length === 5);
      await until('nothing before it', async () => !(await page.locator('#older').isVisible()));
      await page.locator('#pattern').fill('');
      await page.locator('#text').fill('n 77');
      await page.locator('#text').press('Enter');
      await page.locator('#older').waitFor();
      await page.locator('#older').click();
      // 77, 770 to 779 and those that begin so within the newest thousand.
      await until('found further back', async () => (await seqs()).includes(77) && (await seqs()).includes(770));
    },
  },
  {
    name: 'says of when its figures are, and fails in its own words',
    run: async ({ daemon, visitor, shot }) => {
      const log = await daemon();
      await log.publish({ topic: 'a.b', body: 'one' });
      const guest = await visitor();
      guest.cutsConnections = true;
      const page = await guest.open(log.url);
      await shows(page, 'one');
      await until('a figure', async () => (await text(page, '#chart-rate strong')).endsWith('/s'));
      check(!(await page.locator('#facts-stale').isVisible()), 'fresh');
      await page.locator('#tab-publish').click();
      await page.locator('#pub-topic').fill('a.b');
      await page.locator('#publish-form button[type=submit]').click();
      await page.locator('#pub-result .good').waitFor();
      // What became of that one is nothing that the next is about.
      await page.locator('#pub-body').fill('two');
      equal(await page.locator('#pub-result').textContent(), '', 'the old success is forgotten');
      await log.publish({ topic: 'a.b', body: 'busy' });
      await page.locator('#tree .busy').first().waitFor();
      await log.stop();
      await page.locator('#facts-stale').waitFor();
      equal(await page.locator('#tree .busy').count(), 0, 'rates are of now or not shown');
      check(/^\d\d:\d\d:\d\d$/.test(await text(page, '#fact-as-of')), 'as of a time');
      await until('the chart', async () => / at \d\d:\d\d:\d\d$/.test(await text(page, '#chart-rate strong')));
      await page.locator('#publish-form button[type=submit]').click();
      await page.locator('#pub-result .bad', { hasText: 'the daemon cannot be reached' }).waitFor();
      // At its next attempt, which it makes when it is due.
      await until('the same of the stream', async () =>
        (await page.locator('#connection').getAttribute('title')).includes('the daemon cannot be reached'));
      await shot(page, 'stale');
      await page.locator('#text').fill('another filter');
      await page.locator('#tail-empty', { hasText: 'The daemon cannot be reached' }).waitFor();
      await page.locator('#text').fill('');
      await log.start();
      await page.locator('#facts-stale').waitFor({ state: 'hidden' });
      await until('a fresh chart', async () => !(await text(page, '#chart-rate strong')).includes(' at '));
    },
  },
  {
    name: 'knows what there was before it was opened, and who is behind',
    run: async ({ daemon, visitor, shot }) => {
      const log = await daemon();
      await log.publish({ topic: 'a.b', body: 'one' });
      const points = async () => (await (await fetch(`${log.url}/v1/history`)).json()).points ?? [];
      await until('some points', async () => (await points()).length >= 4);
      const page = await (await visitor()).open(log.url);
      await shows(page, 'one');
      // It has looked once or twice itself; a line of so many points is what was before.
      await until('the past', async () => page.evaluate(() => {
        const plot = document.querySelector('#chart-rate canvas');
        const { data, width, height } = plot.getContext('2d').getImageData(0, 0, plot.width, plot.height);
        let columns = 0;
        for (let x = 0; x < width; x += 1) {
          for (let y = 0; y < height; y += 1) if (data[(y * width + x) * 4 + 3] > 0) { columns += 1; break; }
        }
        return columns > 10;
      }));
      const long = 'n'.repeat(64);
      await page.evaluate((name) => { window.other = new EventSource(`/v1/watch?name=${name}`); }, long);
      await until('its name', async () => (await text(page, '#fact-consumers')).startsWith('1: 0 behind, nnn'));
      const asItWas = page.viewportSize();
      for (const width of [1440, 1280, 1000, 800, 390]) {
        await page.setViewportSize({ width, height: 800 });
        check(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `no wider than a window of ${width}`);
        check(await page.evaluate(() => document.querySelector('#fact-consumers').getBoundingClientRect().width > 60), `its figure is seen at ${width}`);
        check(await page.evaluate(() => [...document.querySelectorAll('.facts dd')].every((it) => it.offsetWidth === 0
          || it.getBoundingClientRect().left >= document.querySelector('.facts').getBoundingClientRect().left)), `no figure is cut at its beginning at ${width}`);
        check(await page.evaluate(() => document.querySelector('#zone').offsetWidth > 0), `the clock is named at ${width}`);
      }
      await page.setViewportSize(asItWas);
      await page.evaluate(() => { window.consumer = new EventSource('/v1/watch?name=billing'); });
      await until('both', async () => (await text(page, '#fact-consumers')).startsWith('2: 0 behind'));
      // By keyboard too, and each with its rate and age.
      await page.locator('#fact-consumers').press('Enter');
      const row = page.locator('#consumers-list li', { hasText: /^billing 0 behind, [\d.]+ a second, the last [\d.]+ m?s ago$/ });
      await row.waitFor();
      await shot(page, 'consumers-all');
      await page.locator('#fact-consumers').press('Enter');
      await page.evaluate(() => window.other.close());
      await page.evaluate(() => window.consumer.close());
      await until('it has gone', async () => {
        await log.publish({ topic: 'a.b', body: 'more' });
        return /billing gone, up to [1-9]\d* behind/.test(await page.locator('#consumers-list').textContent());
      });
      await shot(page, 'consumers');
    },
  },
];
