// The daemon's paths. Relative to the origin: the page is served by the daemon it shows.

import { fromShown } from './dom.js';
import { cut } from './shown.js';
import { frames, refusal } from './sse.js';
import { bearer } from './token.js';

async function getJson(path, signal) {
  const response = await fetch(path, { signal, cache: 'no-store', headers: { accept: 'application/json', ...bearer() } });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

export const getLog = (signal) => getJson('/v1/log', signal);
/// The last minutes, a point a second, the oldest first.
export const getHistory = (signal) => getJson('/v1/history', signal);
export const eventPath = (seqOrCursor) => `/v1/events/${encodeURIComponent(seqOrCursor)}`;
export const getEvent = (seqOrCursor, signal) => getJson(eventPath(seqOrCursor), signal);

/// Topics, at most `limit`; `complete` says whether these are all.
export async function listTopics(limit, signal) {
  const topics = [];
  let token = '';
  do {
    const params = new URLSearchParams({ page_size: '1000' });
    if (token) params.set('page_token', token);
    const page = await getJson(`/v1/topics?${params}`, signal);
    topics.push(...(page.topics ?? []));
    token = page.next_page_token ?? '';
  } while (token && topics.length < limit);
  return { topics, complete: token === '' };
}

export function watchPath(params) {
  const query = new URLSearchParams();
  for (const topic of params.topics ?? []) query.append('topic', topic);
  for (const name of ['after_cursor', 'from', 'limit', 'until_caught_up']) {
    if (params[name] !== undefined) query.set(name, String(params[name]));
  }
  return `/v1/watch?${query}`;
}

/// Stores one event; resolves once it is durable.
export async function publish(event) {
  const response = await fetch('/v1/events', {
    method: 'POST', headers: { 'content-type': 'application/json', ...bearer() }, body: JSON.stringify(event),
  });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/// What is left to say of an event that was erased, in words; `null` of any other.
export const erasedText = ({ erased }) => (erased === undefined ? null : `(erased: ${erased.reason ?? ''})`);

// What a row keeps of a body; the whole one is fetched for the event's detail.
const KEPT_CHARS = 4096;

/// An event as the page keeps it. `seq` is a number here: a log does not reach 2^53.
export function readEvent(frame) {
  const event = JSON.parse(frame.data);
  event.seq = Number(event.seq ?? 0);
  event.cursor ??= frame.id;
  event.size = (event.body ?? event.data ?? '').length;
  return event;
}

/// The same, bounded: what goes to a tab's list.
export function summary(event) {
  if (event.size <= KEPT_CHARS) return event;
  const kept = { ...event, cut: true };
  if (event.body !== undefined) kept.body = cut(event.body, KEPT_CHARS);
  if (event.data !== undefined) kept.data = event.data.slice(0, KEPT_CHARS);
  return kept;
}

// `latest` of a watch is what comes next; whoever goes there wants to see the newest.
const ENDS = { latest: 'last:1', newest: 'last:1', last: 'last:1', head: 'last:1', now: 'last:1', oldest: 'oldest', first: 'oldest' };

/// The event at a seq or a cursor; or the first of `patterns` that was appended from a time on, `null` if there
/// is none. Throws what the daemon says of a place that is none.
export async function eventAt(place, patterns) {
  // As the page itself writes a seq, too.
  const digits = place.replaceAll(',', '').replace(/^#/, '');
  const isEvent = /^\d+$/.test(digits) || /^[a-z][\w-]{20,}$/i.test(place);
  if (isEvent) {
    const event = await getEvent(/^\d+$/.test(digits) ? digits : place);
    return { ...event, seq: Number(event.seq), size: (event.body ?? event.data ?? '').length };
  }
  const from = ENDS[place.toLowerCase()] ?? fromShown(place);
  const path = watchPath({ topics: patterns, from, limit: 1, until_caught_up: true });
  const [event = null] = await read(path, new AbortController().signal);
  return event;
}

/// Of the newest `n` events of `patterns` those that `keep` keeps, oldest first, bounded.
export async function newest(patterns, n, signal, keep = () => true) {
  return read(watchPath({ topics: patterns, from: `last:${n}`, until_caught_up: true }), signal, keep);
}

// How far back one look goes at most, for what a filter chooses.
const SEARCHED = 200000;

/// Events of `patterns` before a seq, oldest first: about `n`, if `keep` keeps so many of what lies within reach. `from` is
/// how far back was looked.
export async function older(patterns, before, oldest, n, signal, keep) {
  const events = [];
  let from = before;
  for (let stretch = n; from > oldest && events.length < n && before - from < SEARCHED; stretch *= 8) {
    const end = from;
    from = Math.max(oldest, end - stretch);
    const path = watchPath({ topics: patterns, from, until_caught_up: true });
    events.unshift(...await read(path, signal, keep, end));
  }
  return { events, from };
}

/// Events of `patterns` from a seq to another, oldest first: of the first `n` those that `keep` keeps. `next` is the
/// first that was not looked at.
export async function onward(patterns, from, to, n, signal, keep) {
  let [next, seen] = [from, 0];
  const path = watchPath({ topics: patterns, from, limit: n, until_caught_up: true });
  const events = await read(path, signal, (event) => {
    [next, seen] = [event.seq + 1, seen + 1];
    return keep(event);
  }, to + 1);
  return { events, next: seen < n ? to + 1 : next };
}

async function read(path, signal, keep = () => true, before = Infinity) {
  const events = [];
  for await (const batch of frames(path, { signal, headers: bearer() })) {
    for (const frame of batch) {
      if (frame.event === 'message' && frame.data !== null) {
        const event = readEvent(frame);
        if (event.seq >= before) return events;
        if (keep(event)) events.push(summary(event));
      }
      if (frame.event === 'lost') throw new Error(JSON.parse(frame.data).message ?? 'not readable');
      if (frame.event === 'end') return events;
    }
  }
  return events;
}
