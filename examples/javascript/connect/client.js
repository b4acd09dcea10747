// A browser client with @connectrpc/connect-web and code generated from proto/ (`npm run generate`):
// follows a topic over lost connections, and publishes to it.

import {Code, ConnectError, createClient} from '@connectrpc/connect';
import {createGrpcWebTransport} from '@connectrpc/connect-web';
import {FeedService} from '../generated/feed/v1/feed_pb.js';
import {ChatService} from '../generated/chat/chat_pb.js';

// Who asks, where the daemon wants to know: asked at each call, so that the next token is the one in force.
let token = () => globalThis.TOKEN ?? '';
const bearer = (next) => async (request) => {
  const current = await token();
  if (current) request.header.set('authorization', `Bearer ${current}`);
  return next(request);
};

const transport = createGrpcWebTransport({
  baseUrl: globalThis.DAEMON ?? 'http://localhost:50051',
  interceptors: [bearer],
});
const feed = createClient(FeedService, transport);
const chat = createClient(ChatService, transport);

const PAUSE_MS = 250;
// Refusals of a token in a row, each of the next one, after which there is none to be had.
const MOST_REFUSALS = 10;
const pause = () => new Promise((done) => setTimeout(done, PAUSE_MS));

// What passes by itself: the server stops, restarts, or cannot be reached.
const PASSING = [Code.Unavailable, Code.Canceled, Code.DeadlineExceeded];
// What passes where no reason of the server's comes with it: a proxy is in trouble, an answer was cut
// off, or the network is away.
const PASSING_ON_THE_WAY = [Code.Internal, Code.Unknown, Code.ResourceExhausted];

/** Whether trying again can help; `docs/clients.md` has the table. */
function passes(error, hasMet) {
  const has = (type) => error.details.some((detail) => detail.type === type);
  if (PASSING.includes(error.code) || has('google.rpc.RetryInfo')) return true;
  if (has('google.rpc.ErrorInfo')) return false;
  // A proxy that knows the server no more may know it again.
  return PASSING_ON_THE_WAY.includes(error.code) || (hasMet && error.code === Code.Unimplemented);
}

/** Says who asks: `from` gives the token, or a promise of it, whenever a call is made. */
export function identify(from) {
  token = from;
}

/** Follows a topic; `handle` sees each event once, also over restarts of the server and with the next token. */
export async function follow(topic, handle) {
  let afterCursor = '';
  let refusals = 0;
  for (;;) {
    const before = afterCursor;
    try {
      const onHeader = (headers) => {
        // Comes at once: from here on nothing can be missed.
        afterCursor ||= headers.get('feed-cursor') ?? '';
      };
      for await (const event of feed.watch({topic, afterCursor}, {onHeader})) {
        handle(event);
        afterCursor = event.cursor;
      }
    } catch (thrown) {
      const error = ConnectError.from(thrown);
      const isRefused = error.code === Code.Unauthenticated && (await token()) !== '';
      refusals = isRefused && afterCursor === before ? refusals + 1 : 0;
      const mayRenew = isRefused && refusals < MOST_REFUSALS;
      if (!mayRenew && !passes(error, afterCursor !== '')) throw error;
      console.log('Lost the connection:', Code[error.code]);
    }
    await pause();
  }
}

/** Publishes; an id makes it safe to try again after a lost answer. */
export async function publish(topic, body, id = crypto.randomUUID()) {
  for (;;) {
    try {
      return await feed.publish({event: {id, topic, body}});
    } catch (thrown) {
      const error = ConnectError.from(thrown);
      if (!passes(error, false)) throw error;
      await pause();
    }
  }
}

/** The second sketch's two calls, as its client makes them. */
export async function visit(room, user, handle) {
  for await (const message of chat.subscribeMessages({room, user})) handle(message);
}

export function say(room, user, content) {
  return chat.sendMessage({room, user, content});
}

Object.assign(globalThis, {tailmark: {identify, follow, publish, visit, say}});
