// npm install grpc-web
// npm install google-protobuf
//
// The browser client of the second public sketch of this service: what it calls and what it prints.
// Only the address is ours, and no proxy stands between.

const {ChatServiceClient} = require('./proto/chat_grpc_web_pb');
const {SubscribeRequest, SendMessageRequest} = require('./proto/chat_pb');

const client = new ChatServiceClient(globalThis.DAEMON ?? 'http://localhost:50051');

// Server streaming
const subscribeReq = new SubscribeRequest();
subscribeReq.setRoom('general');
subscribeReq.setUser('WebUser');

const stream = client.subscribeMessages(subscribeReq, {});

stream.on('data', (message) => {
  console.log(`[${message.getRoom()}] ${message.getUser()}: ${message.getContent()}`);
});

stream.on('status', (status) => {
  console.log('Stream status:', status);
});

stream.on('end', () => {
  console.log('Stream ended');
});

// Unary
const sendReq = new SendMessageRequest();
sendReq.setUser('WebUser');
sendReq.setContent('Hello from browser!');
sendReq.setRoom('general');

client.sendMessage(sendReq, {}, (err, response) => {
  if (err) {
    console.error('Error:', err);
    return;
  }
  console.log('Message sent:', response.getMessageId());
});
