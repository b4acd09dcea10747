"""Stores each line of a file as an event, and can simply be run again: with an id to each line
nothing is stored twice."""

import argparse
import hashlib
import sys

import grpc

import connection
from feed.v1 import feed_pb2, feed_pb2_grpc


def events(file, topic):
    for number, line in enumerate(file, 1):
        body = line.rstrip("\n")
        # The same line at the same place is the same event.
        name = hashlib.sha256(f"{topic}\0{number}\0{body}".encode()).hexdigest()[:32]
        yield feed_pb2.Event(id=name, topic=topic, body=body)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", default="-")
    connection.add_arguments(parser)
    parser.add_argument("--topic", required=True)
    arguments = parser.parse_args()
    file = sys.stdin if arguments.file == "-" else open(arguments.file, encoding="utf-8")
    with file, connection.connect(arguments) as channel:
        stub = feed_pb2_grpc.FeedServiceStub(channel)
        try:
            result = stub.UploadEvents(events(file, arguments.topic))
        except grpc.RpcError as error:
            # Whoever ended it, the server or something on the way to it: a part may be stored.
            raise SystemExit(f"{error.code().name}: {error.details()}; run it again: "
                             "what is stored already is not stored twice")
    print(f"{result.received} received, {result.stored} stored, {result.duplicates} duplicates")


if __name__ == "__main__":
    main()
