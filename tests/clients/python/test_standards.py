"""What others have written to the standards that are claimed, against one daemon: grpcio's health and
reflection and compression, prometheus_client's parsers, protobuf's json_format. `python test_standards.py PROGRAM`."""

import base64
import json
import queue
import socket
import sys
import threading
import unittest
import urllib.error
import urllib.request

import daemon

sys.path.insert(0, daemon.generate(daemon.ROOT / "proto", "feed/v1/feed.proto"))

import grpc  # noqa: E402
from feed.v1 import feed_pb2, feed_pb2_grpc  # noqa: E402
from google.protobuf import descriptor_pool, json_format  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # noqa: E402
    ProtoReflectionDescriptorDatabase,
)
from prometheus_client import openmetrics, parser  # noqa: E402
from prometheus_client.openmetrics import parser as openmetrics_parser  # noqa: E402

PATIENCE_S = daemon.PATIENCE_S
# As a Prometheus 3 asks.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


class Case(unittest.TestCase):
    def setUp(self):
        self.daemon = daemon.Daemon()
        self.addCleanup(self.daemon.close)

    def channel(self):
        channel = grpc.insecure_channel(self.daemon.address)
        self.addCleanup(channel.close)
        return channel

    def http(self, path, body=None, headers=None):
        """Code, headers and body of an answer."""
        request = urllib.request.Request(
            f"http://{self.daemon.address}{path}", data=body, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def post(self, text):
        headers = {"content-type": "application/json"}
        return self.http("/v1/events", text.encode(), headers)


class Health(Case):
    def test_what_is_watched_hears_of_the_stop_and_what_nobody_knows_is_watched_too(self):
        stub = health_pb2_grpc.HealthStub(self.channel())
        told = queue.Queue()
        for service in ["", "feed.v1.FeedService", "nobody.Knows"]:
            watching = stub.Watch(health_pb2.HealthCheckRequest(service=service))

            def listen(service=service, watching=watching):
                try:
                    for answer in watching:
                        told.put((service, answer.status))
                except grpc.RpcError as error:
                    told.put((service, error.code()))

            threading.Thread(target=listen, daemon=True).start()
        status = health_pb2.HealthCheckResponse
        first = {told.get(timeout=PATIENCE_S) for _ in range(3)}
        self.assertEqual(first, {
            ("", status.SERVING),
            ("feed.v1.FeedService", status.SERVING),
            ("nobody.Knows", status.SERVICE_UNKNOWN),
        })
        with self.assertRaises(grpc.RpcError) as refused:
            stub.Check(health_pb2.HealthCheckRequest(service="nobody.Knows"))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.NOT_FOUND)
        self.daemon.stop()
        rest = [told.get(timeout=PATIENCE_S) for _ in range(5)]
        self.assertEqual(set(rest), {
            ("", status.NOT_SERVING),
            ("feed.v1.FeedService", status.NOT_SERVING),
            ("", grpc.StatusCode.UNAVAILABLE),
            ("feed.v1.FeedService", grpc.StatusCode.UNAVAILABLE),
            ("nobody.Knows", grpc.StatusCode.UNAVAILABLE),
        })
        self.daemon.start()


class Reflection(Case):
    def test_a_pool_is_filled_from_what_is_told_and_misses_are_no_end(self):
        database = ProtoReflectionDescriptorDatabase(self.channel())
        self.assertIn("feed.v1.FeedService", database.get_services())
        pool = descriptor_pool.DescriptorPool(database)
        # Several misses on the same database; each is an answer.
        for symbol in ["nobody.Knows", "feed.v1.Nothing", "feed.v1.Event.nothing"]:
            with self.assertRaises(KeyError):
                database.FindFileContainingSymbol(symbol)
        with self.assertRaises(KeyError):
            database.FindFileByName("no/such.proto")
        service = pool.FindServiceByName("feed.v1.FeedService")
        self.assertEqual(service.FindMethodByName("Watch").output_type.full_name, "feed.v1.Event")
        self.assertEqual(pool.FindMessageTypeByName("feed.v1.Event").fields_by_name["at"].message_type.full_name,
                         "google.protobuf.Timestamp")
        self.assertEqual(list(database.FindAllExtensionNumbers("feed.v1.Event")), [])


class Exposition(Case):
    def samples(self, families):
        # Bounds as numbers: the two formats write them in two ways.
        def labels(sample):
            bound = lambda name, value: float(value) if name == "le" else value  # noqa: E731
            return tuple(sorted((name, bound(name, value)) for name, value in sample.labels.items()))

        return {(sample.name, labels(sample)) for family in families for sample in family.samples}

    def test_both_formats_are_read_by_the_parsers_of_prometheus_and_say_the_same(self):
        self.post('{"topic":"a","body":"x"}')
        for accept in [PROMETHEUS, "text/plain"]:
            self.http("/metrics", headers={"accept": accept})
        _, headers, text = self.http("/metrics", headers={"accept": PROMETHEUS})
        self.assertEqual(headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8")
        opened = list(openmetrics_parser.text_string_to_metric_families(text))
        _, headers, text = self.http("/metrics")
        self.assertEqual(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
        classic = list(parser.text_string_to_metric_families(text))
        self.assertEqual(self.samples(opened), self.samples(classic))
        self.assertGreater(len(opened), 30)
        for families in [opened, classic]:
            appended = [family for family in families if family.name == "tailmark_events_appended"]
            self.assertEqual([(family.type, family.samples[0].value) for family in appended], [("counter", 1.0)])
        # A null control: neither is the other.
        with self.assertRaises(ValueError):
            list(openmetrics_parser.text_string_to_metric_families(text))
        self.assertTrue(openmetrics.exposition.CONTENT_TYPE_LATEST.startswith("application/openmetrics-text"))


class Json(Case):
    """protobuf's own reader and writer of JSON beside the daemon's."""

    def same(self, text, message):
        """That this text is the message as protobuf would write it, and nothing in it is unknown."""
        parsed = json_format.Parse(text, type(message)())
        written = json_format.MessageToDict(parsed, preserving_proto_field_name=True)
        self.assertEqual(json.loads(text), written, text)
        return parsed

    def test_what_is_answered_is_proto3_json(self):
        code, _, stored = self.post(json.dumps({
            "topic": "a.größe", "body": "two\nlines \x07 \x7f \u2028", "id": "1", "type": "t", "key": "k",
            "headers": {"h": "", "a": "b"}, "at": "2013-06-06T17:43:32.5-07:00"}))
        self.assertEqual(code, 200, stored)
        self.same(stored, feed_pb2.UploadResult())
        self.post(json.dumps({"topic": "a", "data": base64.b64encode(bytes(range(256))).decode()}))
        stub = feed_pb2_grpc.FeedServiceStub(self.channel())
        for seq in [1, 2]:
            _, _, text = self.http(f"/v1/events/{seq}")
            told = self.same(text, feed_pb2.Event())
            self.assertEqual(told, stub.GetEvent(feed_pb2.GetEventRequest(seq=seq)))
        self.same(self.http("/v1/topics?page_size=1")[2], feed_pb2.ListTopicsResponse())
        log = self.same(self.http("/v1/log")[2], feed_pb2.LogStatus())
        asked = stub.GetLog(feed_pb2.GetLogRequest())
        # What both say at two moments.
        for status in [log, asked]:
            status.ClearField("uptime")
            status.ClearField("disk_bytes")
        self.assertEqual(log, asked)
        _, _, stream = self.http("/v1/watch?from=oldest&until_caught_up")
        data = [line.removeprefix("data: ") for line in stream.split("\n") if line.startswith("data: ")]
        # The last is the end's own.
        kinds = [self.same(text, feed_pb2.Event()).marker.kind for text in data[:-1]]
        self.assertEqual(kinds, [feed_pb2.Marker.RESUMED, 0, 0, feed_pb2.Marker.CAUGHT_UP])

    def test_what_protobuf_reads_is_read_alike(self):
        stub = feed_pb2_grpc.FeedServiceStub(self.channel())
        for text in [
            '{"topic":"a"}',
            ' {\n"topic" : "a" , "body":"\\u00fc\\/\\ud83d\\ude00" }\t',
            '{"topic":"a","id":null,"body":null,"data":null,"type":null,"key":null,"headers":null,"at":null}',
            '{"topic":"a","seq":"7","cursor":"x","appended_at":"2020-01-01T00:00:00Z"}',
            '{"topic":"a","seq":7,"appendedAt":"2020-01-01T00:00:00Z"}',
            '{"topic":"a","seq":1e1}',
            '{"topic":"a","data":"-_8"}',
            '{"topic":"a","data":"-_8="}',
            '{"topic":"a","data":"+/8="}',
            '{"topic":"a","data":"+/8"}',
            '{"topic":"a","data":""}',
            '{"topic":"a","headers":{}}',
            '{"topic":"a","headers":{"ü":"","b":"x"}}',
            '{"topic":"a","at":"1970-01-01T00:00:00Z"}',
            '{"topic":"a","at":"0001-01-01T00:00:00Z"}',
            '{"topic":"a","at":"9999-12-31T23:59:59.999999999Z"}',
            '{"topic":"a","at":"2013-06-06T17:43:32.123Z"}',
            '{"topic":"a","at":"2013-06-06T17:43:32.123456Z"}',
            '{"topic":"a","at":"2013-06-06T17:43:32.1-07:30"}',
            '{"topic":"a","at":"2013-06-06T17:43:32+00:00"}',
        ]:
            expected = json_format.Parse(text, feed_pb2.Event())
            code, _, answer = self.post(text)
            self.assertEqual(code, 200, f"{text}: {answer}")
            stored = stub.GetEvent(feed_pb2.GetEventRequest(seq=int(json.loads(answer)["first_seq"])))
            for field in ["topic", "body", "data", "type", "key", "headers"]:
                self.assertEqual(getattr(stored, field), getattr(expected, field), f"{text}: {field}")
            if expected.HasField("at"):
                self.assertEqual(stored.at, expected.at, text)

    def test_what_protobuf_refuses_is_refused(self):
        for text in [
            '{"topic":1}',
            '{"topic":["a"]}',
            '{"topic":"a","unknown":1}',
            '{"topic":"a","topic":"b"}',
            '{"topic":"a","appended_at":null,"appendedAt":null,"body":5}',
            '{"topic":"a","headers":{"a":1}}',
            '{"topic":"a","headers":["a"]}',
            '{"topic":"a","headers":{"a":"1","a":"2"}}',
            '{"topic":"a","headers":{"a":"1"},"headers":{"b":"2"}}',
            '{"topic":"a","at":"2013-06-06"}',
            '{"topic":"a","at":"2013-02-29T00:00:00Z"}',
            '{"topic":"a","at":"10000-01-01T00:00:00Z"}',
            '{"topic":"a","at":5}',
            '{"topic":"a",}',
            "{'topic':'a'}",
            '{"topic":"a"',
            '{"topic":"a"} x',
            '["a"]',
            "null",
        ]:
            with self.assertRaises(json_format.ParseError, msg=text):
                json_format.Parse(text, feed_pb2.Event())
            code, _, answer = self.post(text)
            self.assertEqual(code, 400, f"{text}: {answer}")
            self.assertEqual(json.loads(answer)["reason"], "EVENT_MALFORMED", f"{text}: {answer}")
        self.assertEqual(json.loads(self.http("/v1/log")[2]).get("head_seq"), None)


class Counter:
    """A way to the daemon that counts what comes back."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.server = (host, int(port))
        self.answered = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.server)
            threading.Thread(target=self.pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self.pump, args=(far, near, True), daemon=True).start()

    def pump(self, source, sink, is_answer):
        try:
            while data := source.recv(65536):
                self.answered += len(data) if is_answer else 0
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Compression(Case):
    """grpcio's compression, which is that of gRPC Core."""

    # JSON that is worth it.
    BODY = json.dumps([{"order": at, "paid": True, "to": "somebody"} for at in range(2000)])

    def counted(self, **options):
        counter = Counter(self.daemon.address)
        self.addCleanup(counter.listener.close)
        channel = grpc.insecure_channel(counter.address, **options)
        self.addCleanup(channel.close)
        return counter, feed_pb2_grpc.FeedServiceStub(channel)

    def test_who_compresses_is_answered_compressed_and_nobody_else(self):
        answered = {}
        for compression in [grpc.Compression.Gzip, grpc.Compression.NoCompression]:
            counter, feed = self.counted(compression=compression)
            event = feed_pb2.Event(topic=f"orders.{int(compression)}", body=self.BODY)
            feed.Publish(feed_pb2.PublishRequest(event=event), timeout=PATIENCE_S)
            self.assertEqual(feed.UploadEvents(iter([event] * 3), timeout=PATIENCE_S).received, 3)
            request = feed_pb2.WatchRequest(
                topic=event.topic, start=feed_pb2.Start(oldest=True), until_caught_up=True)
            before = counter.answered
            for _ in range(2):
                watched = list(feed.Watch(request, timeout=PATIENCE_S))
                self.assertEqual([one.body for one in watched], [self.BODY] * len(watched))
                batches = list(feed.WatchBatches(request, timeout=PATIENCE_S))
                self.assertEqual(sum(len(one.events) for one in batches), len(watched))
            answered[compression] = counter.answered - before
        plain, gzip = (answered[one] for one in
                       [grpc.Compression.NoCompression, grpc.Compression.Gzip])
        self.assertGreater(plain, 8 * len(self.BODY), "grpcio could read gzip, and did not ask")
        self.assertLess(5 * gzip, plain)

    def test_a_room_is_live_in_gzip(self):
        _, feed = self.counted(compression=grpc.Compression.Gzip)
        outgoing = queue.Queue()
        chat = feed.Chat(iter(outgoing.get, None), timeout=PATIENCE_S)
        for text in ["hello", self.BODY, "bye"]:
            outgoing.put(feed_pb2.ChatMessage(**{"from": "ann", "room": "r", "text": text}))
            self.assertEqual(next(chat).text, "echo: " + text)
        outgoing.put(None)
        self.assertEqual(list(chat), [])

    def test_what_becomes_too_large_is_told(self):
        _, feed = self.counted(compression=grpc.Compression.Gzip)
        event = feed_pb2.Event(topic="a", data=bytes(20_000_000))
        with self.assertRaises(grpc.RpcError) as raised:
            feed.UploadEvents(iter([event]), timeout=PATIENCE_S)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertIn("what came in gzip becomes more than", raised.exception.details())


if __name__ == "__main__":
    unittest.main()
