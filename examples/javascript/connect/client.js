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

/** Whether an error passes by itself: the server stops, restarts, or cannot be reached. */
function isPassing(error) {
  return [Code.Unavailable, Code.Unknown, Code.Internal, Code.Aborted].includes(error.code);
}

/** Follows a topic; `handle` sees each event once, also over restarts of the server. */
export async function follow(topic, handle) {
  let afterCursor = '';
  for (;;) {
    try {
      const onHeader = (headers) => {
        // Comes at once: from here on nothing can be missed.
        afterCursor ||= headers.get('feed-cursor');
      };
      for await (const event of feed.watch({topic, afterCursor}, {onHeader})) {
        handle(event);
        afterCursor = event.cursor;
      }
    } catch (thrown) {
      const error = ConnectError.from(thrown);
      if (!isPassing(error)) throw error;
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
      if (!isPassing(error)) throw error;
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
