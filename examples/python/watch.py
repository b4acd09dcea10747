"""Follows a pattern for ever, over lost connections and restarts of either side.

Every event is handled at least once, and exactly once as long as this program is not killed
between handling an event and saving its cursor. What the server has no longer is said, never
skipped.
"""

import argparse
import os
import random
import sys
import time

import grpc
from grpc_status import rpc_status
from google.rpc import error_details_pb2

import connection
from feed.v1 import feed_pb2, feed_pb2_grpc

CODE = grpc.StatusCode
# What passes by itself: the server stops, restarts, or cannot be reached.
PASSING = {CODE.UNAVAILABLE, CODE.CANCELLED, CODE.DEADLINE_EXCEEDED}
# What passes where no reason of the server's comes with it: a proxy is in trouble, or has cut an
# answer off.
PASSING_ON_THE_WAY = {CODE.INTERNAL, CODE.UNKNOWN, CODE.RESOURCE_EXHAUSTED}
# Refusals of a token in a row, each of the next one, after which there is none to be had.
MOST_REFUSALS = 10
# A connection that is silent for this long is probed, and given up if nothing answers.
CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
]


def plain(text):
    """What others wrote, without what a terminal would act on or not show."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def load(path):
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def save(path, cursor):
    """Whole or not at all: a half-written cursor would be refused at the next start."""
    beside = path + ".new"
    with open(beside, "w", encoding="ascii") as file:
        file.write(cursor)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def explain(error):
    """The stable reason, its metadata, and the pause that the server asks for, in seconds."""
    reason, metadata, pause = "", {}, 0.0
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            pause = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, metadata, pause


def passes(code, reason, pause, has_met):
    """Whether trying again can help. `docs/clients.md` has the table."""
    if pause or code in PASSING:
        return True
    if reason:
        return False
    # A proxy that knows the server no more may know it again; the server itself once met stays.
    return code in PASSING_ON_THE_WAY or (has_met and code == CODE.UNIMPLEMENTED)


def follow(stub, pattern, cursor, handle, keep, may_renew):
    """One connection's worth of watching; returns the cursor that it came to, how long the server
    wants to be left alone, and whether it refused the token: the next call sends the next one."""
    # Markers tell how far a watch has looked that finds nothing: else its cursor would grow old.
    request = feed_pb2.WatchRequest(topic=pattern, after_cursor=cursor, markers=True)
    pause, is_refused = 0.0, False
    try:
        call = stub.Watch(request)
        # Comes at once, also on an idle topic: from here on nothing can be missed. What a proxy
        # answers itself has no such header.
        for name, value in call.initial_metadata():
            if name == "feed-cursor" and not cursor:
                cursor = value
                keep(cursor)
        for event in call:
            # What has a marker is no event; its cursor counts all the same.
            if not event.HasField("marker"):
                handle(event)
            if event.cursor != cursor:
                cursor = event.cursor
                keep(cursor)
    except grpc.RpcError as error:
        reason, metadata, pause = explain(error)
        is_refused = error.code() == CODE.UNAUTHENTICATED and reason.startswith("TOKEN_")
        # Whoever has a cursor has met the server, be it in a run before.
        passes_by_itself = passes(error.code(), reason, pause, has_met=bool(cursor))
        if not passes_by_itself and not (is_refused and may_renew):
            raise SystemExit(f"{error.code().name} {reason} {metadata}: {error.details()}")
        print(f"lost the connection: {error.details()} {reason}", file=sys.stderr, flush=True)
    return cursor, pause, is_refused


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="")
    connection.add_arguments(parser)
    parser.add_argument("--state", help="file that keeps the cursor from run to run")
    arguments = parser.parse_args()

    cursor = load(arguments.state) if arguments.state else ""

    def keep(cursor):
        if arguments.state:
            save(arguments.state, cursor)

    def handle(event):
        print(f"{event.seq} {plain(event.topic)} {plain(event.body)}", flush=True)

    pause, refusals = 0.1, 0
    has_token = connection.has_token(arguments)
    with connection.connect(arguments, CHANNEL_OPTIONS) as channel:
        stub = feed_pb2_grpc.FeedServiceStub(channel)
        while True:
            before = cursor
            may_renew = has_token and refusals < MOST_REFUSALS
            cursor, asked, is_refused = follow(
                stub, arguments.pattern, cursor, handle, keep, may_renew)
            refusals = refusals + 1 if is_refused and cursor == before else 0
            pause = 0.1 if cursor != before else min(pause * 2, 5)
            # On top of what was asked for, so that not everybody comes back at the same moment.
            pause_now = asked + pause * random.uniform(0.5, 1)
            print(f"again in {pause_now:.2f} s", file=sys.stderr, flush=True)
            time.sleep(pause_now)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
