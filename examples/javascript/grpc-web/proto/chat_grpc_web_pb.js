// The client of chat.ChatService in the form in which `protoc --grpc-web_out` makes it in text mode;
// see chat_pb.js. A browser can send no stream, so the calls that need one are not there.

const {GrpcWebClientBase, MethodDescriptor, MethodType} = require('grpc-web');
const {Message, SendMessageRequest, SendMessageResponse, SubscribeRequest} = require('./chat_pb.js');

const SEND_MESSAGE = descriptor('SendMessage', MethodType.UNARY, SendMessageRequest, SendMessageResponse);
const SUBSCRIBE_MESSAGES =
  descriptor('SubscribeMessages', MethodType.SERVER_STREAMING, SubscribeRequest, Message);

function descriptor(name, kind, request, response) {
  return new MethodDescriptor(
    `/chat.ChatService/${name}`,
    kind,
    request,
    response,
    (message) => message.serializeBinary(),
    response.deserializeBinary,
  );
}

exports.ChatServiceClient = class ChatServiceClient {
  constructor(hostname, credentials, options) {
    this.client = new GrpcWebClientBase({...options, format: 'text'});
    this.hostname = hostname.replace(/\/+$/, '');
  }

  sendMessage(request, metadata, callback) {
    const method = `${this.hostname}/chat.ChatService/SendMessage`;
    return this.client.rpcCall(method, request, metadata ?? {}, SEND_MESSAGE, callback);
  }

  subscribeMessages(request, metadata) {
    const method = `${this.hostname}/chat.ChatService/SubscribeMessages`;
    return this.client.serverStreaming(method, request, metadata ?? {}, SUBSCRIBE_MESSAGES);
  }
};
