// Watches that said what they are called.

import { $, count, el, rate, setText, span } from './dom.js';
import { shownLine } from './shown.js';

// What has come since one left is counted whether it concerns it or not.
const lagText = (events, gone) => `${gone && events > 0 ? 'up to ' : ''}${count(events)}`;

/// Who is behind, the one most behind first.
export function drawConsumers(consumers) {
  const rows = consumers.map(({ name, watches, lag_events, events_per_second, idle }) => ({
    name, lag: lagText(Number(lag_events ?? 0), !Number(watches ?? 0)), behind: Number(lag_events ?? 0), gone: !Number(watches ?? 0),
    detail: `${rate(events_per_second ?? 0)} a second, the last ${span(1000 * Number.parseFloat(idle ?? '0'))} ago`,
  }));
  rows.sort((a, b) => b.behind - a.behind);
  $('facts-consumers').hidden = rows.length === 0;
  if (rows.length === 0) return;
  // The figure first: of what has no room the end is cut.
  const [{ name, lag, gone }] = rows;
  const said = shownLine(`${count(rows.length)}: ${lag} behind, ${name}${gone ? ' (gone)' : ''}`);
  setText($('fact-consumers'), said);
  $('fact-consumers').setAttribute('aria-label', `consumers, ${said}`);
  const lines = rows.map((row) => shownLine(`${row.name} ${row.gone ? 'gone, ' : ''}${row.lag} behind, ${row.detail}`));
  const list = $('consumers-list');
  if (list.dataset.lines === lines.join('\n')) return;
  list.dataset.lines = lines.join('\n');
  list.replaceChildren(...lines.map((text) => el('li', { text })));
}
