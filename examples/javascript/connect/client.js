// A browser client with @connectrpc/connect-web and code generated from proto/ (`npm run generate`):
// follows a topic over lost connections, and publishes to it.

import {Code, ConnectError, createClient} from '@connectrpc/connect';
import {createGrpcWebTransport} from '@connectrpc/connect-web';
import {FeedService} from '../generated/feed/v1/feed_pb.js';
import {ChatService} from '../generated/chat/chat_pb.js';

const transport = createGrpcWebTransport({baseUrl: globalThis.DAEMON ?? 'http://localhost:50051'});
const feed = createClient(FeedService, transport);
const chat = createClient(ChatService, transport);

const PAUSE_MS = 250;
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

/** Follows a topic; `handle` sees each event once, also over restarts of the server. */
export async function follow(topic, handle) {
  let afterCursor = '';
  for (;;) {
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
      if (!passes(error, afterCursor !== '')) throw error;
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

Object.assign(globalThis, {tailmark: {follow, publish, visit, say}});
