// The classes of proto/chat/chat.proto in the form in which `protoc --js_out` makes them, as far as
// the client beside uses them. Written by hand over the same runtimes (google-protobuf, grpc-web): the
// generators' packages hold no program and fetch it from elsewhere when they are installed, which
// our builds do not allow. With protoc and its plugins at hand, make these two files with
//   protoc -I ../../../proto --js_out=import_style=commonjs:. \
//     --grpc-web_out=import_style=commonjs,mode=grpcwebtext:. chat/chat.proto

const jspb = require('google-protobuf');
const {Timestamp} = require('google-protobuf/google/protobuf/timestamp_pb.js');

const STRING = {
  empty: '',
  read: (reader) => reader.readString(),
  write: (writer, number, value) => value && writer.writeString(number, value),
};
const ENUM = {
  empty: 0,
  read: (reader) => reader.readEnum(),
  write: (writer, number, value) => value && writer.writeEnum(number, value),
};
// As text: a number of JavaScript holds 53 bits (`jstype = JS_STRING`).
const SEQ = {
  empty: '0',
  read: (reader) => reader.readUint64String(),
  write: (writer, number, value) => value !== '0' && writer.writeUint64String(number, value),
};
const TIMESTAMP = {
  empty: undefined,
  read(reader) {
    const value = new Timestamp();
    reader.readMessage(value, Timestamp.deserializeBinaryFromReader);
    return value;
  },
  write(writer, number, value) {
    if (value) writer.writeMessage(number, value, Timestamp.serializeBinaryToWriter);
  },
};

/** A message class with a getter and a setter for each field: `[number, name, kind]`. */
function message(fields) {
  const byNumber = new Map(fields.map((field) => [field[0], field]));
  class Message {
    constructor() {
      this.values = new Map();
    }

    static deserializeBinary(bytes) {
      const reader = new jspb.BinaryReader(bytes);
      const made = new Message();
      while (reader.nextField()) {
        const field = byNumber.get(reader.getFieldNumber());
        if (field) made.values.set(field[1], field[2].read(reader));
        else reader.skipField();
      }
      return made;
    }

    serializeBinary() {
      const writer = new jspb.BinaryWriter();
      for (const [number, name, kind] of fields) {
        kind.write(writer, number, this.values.get(name) ?? kind.empty);
      }
      return writer.getResultBuffer();
    }
  }
  for (const [, name, kind] of fields) {
    Message.prototype[`get${name}`] = function () {
      return this.values.get(name) ?? kind.empty;
    };
    Message.prototype[`set${name}`] = function (value) {
      this.values.set(name, value);
      return this;
    };
  }
  return Message;
}

exports.MessageType = {CHAT: 0, JOIN: 1, LEAVE: 2, SYSTEM: 3};
exports.SendMessageRequest = message([[1, 'User', STRING], [2, 'Content', STRING], [3, 'Room', STRING]]);
exports.SendMessageResponse = message([[1, 'MessageId', STRING], [2, 'Timestamp', TIMESTAMP]]);
exports.SubscribeRequest = message([[1, 'Room', STRING], [2, 'User', STRING], [3, 'AfterCursor', STRING]]);
exports.Message = message([
  [1, 'Id', STRING],
  [2, 'User', STRING],
  [3, 'Content', STRING],
  [4, 'Room', STRING],
  [5, 'Timestamp', TIMESTAMP],
  [6, 'Type', ENUM],
  [7, 'Seq', SEQ],
  [8, 'Cursor', STRING],
]);
