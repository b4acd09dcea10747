// The page's reader of server-sent events beside that of the npm package `eventsource`, by WHATWG's rules:
// `node parser.mjs`. Each stream is cut at every place. Prints how many were compared.

import assert from 'node:assert/strict';
import {readFile} from 'node:fs/promises';
import {createParser} from 'eventsource-parser';

// Its folder has no package.json that would say what its modules are.
const source = await readFile(new URL('../../../web/js/sse.js', import.meta.url));
const {Frames} = await import(`data:text/javascript;base64,${source.toString('base64')}`);

/** What has data, as ours reads it, and the position that it leaves. */
function ours(pieces) {
  const frames = new Frames();
  const events = [];
  let last = '';
  for (const {id, event, data} of pieces.flatMap((piece) => frames.push(piece))) {
    last = id ?? last;
    if (data !== null) events.push({id, event: event === 'message' ? undefined : event, data});
  }
  return {events, last};
}

/** The same by the other, which knows the mark as bytes only, and waits for what may follow a last `\r`. */
function theirs(text) {
  const events = [];
  const parser = createParser({
    onEvent: ({id, event, data}) => events.push({id, event, data}),
  });
  parser.feed(`${text.replace(/^\ufeff/, '')}${text.endsWith('\r') ? ':\n' : ''}`);
  return events;
}

// Text, the data of its events, and the last id.
const STREAMS = [
  ['data: a\n\n', ['a'], ''],
  ['data:a\n\ndata:  b\n\n', ['a', ' b'], ''],
  ['\ufeffdata: a\n\n', ['a'], ''],
  // Only the first mark is one.
  ['\ufeff\ufeffdata: a\n\n', [], ''],
  ['data: a\n\n\ufeffdata: b\n\n', ['a'], ''],
  ['data: a\r\n\r\ndata: b\r\n\r\n', ['a', 'b'], ''],
  ['data: a\r\rdata: b\r\r', ['a', 'b'], ''],
  ['data: a\rdata: b\n\r\n', ['a\nb'], ''],
  ['data: a\n\r\ndata: b\r\n\n', ['a', 'b'], ''],
  ['data: a\ndata\ndata: \ndata:b\n\n', ['a\n\n\nb'], ''],
  ['data\n\n', [''], ''],
  ['data: a: b\n\n', ['a: b'], ''],
  ['event: e\ndata: a\n\ndata: b\n\n', ['a', 'b'], ''],
  ['id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n', ['a', 'b', 'c'], ''],
  ['id: 7\n\n', [], '7'],
  ['id: 1\0\ndata: a\n\n', ['a'], ''],
  ['id: 1\nid: 2\0\ndata: a\n\n', ['a'], '1'],
  [':\n\n: comment\ndata: a\n:\n\n', ['a'], ''],
  ['retry: 5\nother: x\nDATA: y\n data: z\n\n', [], ''],
  ['data: a\n', [], ''],
  ['data: größe 日本 😀\u2028x\n\n', ['größe 日本 😀\u2028x'], ''],
];

let compared = 0;
for (const [text, expected, last] of STREAMS) {
  const whole = ours([text]);
  assert.deepEqual(whole.events.map(({data}) => data), expected, JSON.stringify(text));
  assert.equal(whole.last, last, JSON.stringify(text));
  for (let at = 0; at <= text.length; at += 1) {
    assert.deepEqual(ours([text.slice(0, at), text.slice(at)]), whole, `${JSON.stringify(text)} at ${at}`);
    compared += 1;
  }
  assert.deepEqual(ours([...text]), whole, JSON.stringify(text));
  assert.deepEqual(whole.events, theirs(text), `the other reads ${JSON.stringify(text)} in another way`);
}
console.log(`${compared} cuts of ${STREAMS.length} streams read alike`);
