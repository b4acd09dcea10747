"""A room: every line of standard input is a message; what others say is printed. A message is
confirmed once it is durable."""

import argparse
import sys

import grpc

import connection
from feed.v1 import feed_pb2, feed_pb2_grpc


def plain(text):
    """What others wrote, without what a terminal would act on or not show."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def messages(name, room):
    # Joins before there is anything to say.
    yield feed_pb2.ChatMessage(room=room, **{"from": name})
    for line in sys.stdin:
        yield feed_pb2.ChatMessage(room=room, text=line.rstrip("\n"), **{"from": name})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("room", nargs="?", default="general")
    connection.add_arguments(parser)
    parser.add_argument("--as", dest="name", required=True)
    arguments = parser.parse_args()
    kinds = feed_pb2.ChatMessage.Kind
    with connection.connect(arguments) as channel:
        stub = feed_pb2_grpc.FeedServiceStub(channel)
        # Ends by itself after the end of the input, when all that was said is confirmed.
        for message in stub.Chat(messages(arguments.name, arguments.room)):
            sender = plain(getattr(message, "from"))
            if message.kind == kinds.MESSAGE:
                print(f"{sender}: {plain(message.text)}", flush=True)
            elif message.seq:
                print(f"stored as {message.seq}", file=sys.stderr)
            else:
                print(f"* {sender} {kinds.Name(message.kind).lower()}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except grpc.RpcError as error:
        raise SystemExit(f"{error.code().name}: {error.details()}; what was not confirmed may be "
                         "stored or not")
