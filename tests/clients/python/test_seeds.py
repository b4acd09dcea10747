"""Clients generated from the first and second public sketch of the service, exactly as these have
them, against one daemon: `python test_seeds.py PROGRAM`."""

import queue
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import daemon

sys.path.insert(0, daemon.generate(daemon.SEEDS, "feed/v1/feed.proto", "chat/chat.proto"))

import grpc  # noqa: E402
from chat import chat_pb2, chat_pb2_grpc  # noqa: E402
from feed.v1 import feed_pb2, feed_pb2_grpc  # noqa: E402
from google.rpc import error_details_pb2  # noqa: E402
from grpc_status import rpc_status  # noqa: E402

PATIENCE_S = daemon.PATIENCE_S


class Sender:
    """The sending half of a stream whose messages come one by one."""

    def __init__(self):
        self.queue = queue.Queue()

    def send(self, message):
        self.queue.put(message)

    def close(self):
        self.queue.put(None)

    def __iter__(self):
        return iter(self.queue.get, None)


def says(sender, text):
    return feed_pb2.ChatMessage(**{"from": sender, "text": text})


class Case(unittest.TestCase):
    def setUp(self):
        self.daemon = daemon.Daemon()
        self.addCleanup(self.daemon.close)

    def channel(self):
        channel = grpc.insecure_channel(self.daemon.address)
        self.addCleanup(channel.close)
        return channel

    def feed(self):
        return feed_pb2_grpc.FeedServiceStub(self.channel())

    def rooms(self):
        return chat_pb2_grpc.ChatServiceStub(self.channel())

    def upload(self, topic, bodies):
        events = (feed_pb2.Event(topic=topic, body=body) for body in bodies)
        return self.feed().UploadEvents(events, timeout=PATIENCE_S).received


class Feed(Case):
    def test_a_watch_answers_at_once_and_is_live(self):
        watch = self.feed().Watch(feed_pb2.WatchRequest(topic="alerts"), timeout=PATIENCE_S)
        names = dict(watch.initial_metadata())
        self.assertIn("feed-cursor", names)
        self.assertEqual(self.upload("alerts", ["one", "two"]), 2)
        self.upload("others", ["unseen"])
        self.upload("alerts", ["three"])
        events = [next(watch) for _ in range(3)]
        self.assertEqual([event.body for event in events], ["one", "two", "three"])
        self.assertTrue(all(event.id and event.at.seconds for event in events))
        watch.cancel()
        with self.assertRaises(grpc.RpcError) as caught:
            next(watch)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.CANCELLED)

    def test_an_upload_of_nothing_is_no_error(self):
        self.assertEqual(self.upload("alerts", []), 0)

    def test_resumes_over_a_kill_with_what_the_sketch_has(self):
        """The sketch knows `after_cursor`, and the cursor to begin with from the metadata."""
        watch = self.feed().Watch(feed_pb2.WatchRequest(topic="alerts"), timeout=PATIENCE_S)
        cursor = dict(watch.initial_metadata())["feed-cursor"]
        self.upload("alerts", ["1", "2", "3"])
        self.assertEqual([next(watch).body for _ in range(3)], ["1", "2", "3"])
        self.daemon.kill()
        with self.assertRaises(grpc.RpcError) as caught:
            next(watch)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.daemon.start()
        self.upload("alerts", ["4", "5"])
        again = feed_pb2.WatchRequest(topic="alerts", after_cursor=cursor)
        watch = self.feed().Watch(again, timeout=PATIENCE_S)
        bodies = [next(watch).body for _ in range(5)]
        self.assertEqual(bodies, ["1", "2", "3", "4", "5"])
        # By metadata alone, for a client that knows the topic only.
        known = feed_pb2.WatchRequest(topic="alerts")
        metadata = [("feed-after-cursor", cursor)]
        watch = self.feed().Watch(known, metadata=metadata, timeout=PATIENCE_S)
        self.assertEqual([next(watch).body for _ in range(5)], bodies)

    def test_a_deadline_is_a_deadline(self):
        watch = self.feed().Watch(feed_pb2.WatchRequest(topic="alerts"), timeout=1)
        with self.assertRaises(grpc.RpcError) as caught:
            next(watch)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)

    def test_an_error_says_which_field(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.upload("not a topic", ["x"])
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        kinds = set()
        for detail in rpc_status.from_call(caught.exception).details:
            kinds |= {type(kind) for kind in (info, bad) if detail.Unpack(kind)}
        self.assertEqual(kinds, {type(info), type(bad)})
        self.assertEqual(info.domain, "tailmark")
        self.assertEqual(info.metadata["index"], "0")

    def test_chat_echoes_and_broadcasts(self):
        listener, sender = Sender(), Sender()
        heard = self.feed().Chat(iter(listener), timeout=PATIENCE_S)
        listener.send(says("listener", "here"))
        self.assertEqual(next(heard).text, "echo: here")
        spoken = self.feed().Chat(iter(sender), timeout=PATIENCE_S)
        texts = ["hello", "world", "bye"]
        for text in texts:
            sender.send(says("client", text))
        sender.close()
        echoes = list(spoken)
        self.assertEqual([getattr(echo, "from") for echo in echoes], ["server"] * 3)
        self.assertEqual([echo.text for echo in echoes], [f"echo: {text}" for text in texts])
        listener.close()
        others = [(getattr(message, "from"), message.text) for message in heard]
        # Presence comes as messages too: the sketch has no kinds.
        presence = ("joined the room", "left the room")
        others = [other for other in others if other[1] not in presence]
        self.assertEqual(others, [("client", text) for text in texts])


class Rooms(Case):
    def message(self, user, content, room="general", id=""):
        return chat_pb2.Message(id=id, user=user, content=content, room=room)

    def subscribe(self, user, room="general", **options):
        request = chat_pb2.SubscribeRequest(room=room, user=user)
        stream = self.rooms().SubscribeMessages(request, timeout=PATIENCE_S, **options)
        welcome = next(stream)
        self.assertEqual((welcome.id, welcome.user), ("system", "System"))
        self.assertEqual(welcome.type, chat_pb2.SYSTEM)
        self.assertIn(room, welcome.content)
        self.assertIn(user, welcome.content)
        return stream

    def said(self, stream, count):
        """The next messages that people said: presence comes when it comes."""
        messages = []
        while len(messages) < count:
            message = next(stream)
            if message.type == chat_pb2.CHAT:
                messages.append(message)
        return messages

    def test_a_message_reaches_the_room_and_stays_in_it(self):
        stream = self.subscribe("alice")
        cursor = dict(stream.initial_metadata())["feed-cursor"]
        request = chat_pb2.SendMessageRequest(user="bob", content="hello", room="general")
        answer = self.rooms().SendMessage(request, timeout=PATIENCE_S)
        self.assertTrue(answer.message_id)
        self.assertGreater(answer.timestamp.seconds, 1_700_000_000)
        [message] = self.said(stream, 1)
        self.assertEqual((message.user, message.content), ("bob", "hello"))
        self.assertEqual((message.id, message.room), (answer.message_id, "general"))
        self.daemon.kill()
        self.daemon.start()
        metadata = [("feed-after-cursor", cursor)]
        [again] = self.said(self.subscribe("alice", metadata=metadata), 1)
        self.assertEqual((again.id, again.content), (message.id, "hello"))

    def test_who_comes_and_goes_is_seen(self):
        stream = self.subscribe("alice")
        other = self.subscribe("bob")
        joined = next(stream)
        self.assertEqual((joined.type, joined.user), (chat_pb2.JOIN, "bob"))
        other.cancel()
        left = next(stream)
        self.assertEqual((left.type, left.user), (chat_pb2.LEAVE, "bob"))

    def test_uploads_are_counted_and_heard(self):
        stream = self.subscribe("alice", room="uploads")
        messages = (self.message("carol", f"m{n}", "uploads", f"id{n}") for n in range(10))
        answer = self.rooms().UploadMessages(messages, timeout=PATIENCE_S)
        self.assertEqual((answer.message_count, answer.success), (10, True))
        heard = self.said(stream, 10)
        self.assertEqual([message.id for message in heard], [f"id{n}" for n in range(10)])

    def test_chat_echoes_keeps_time_and_broadcasts(self):
        stream = self.subscribe("alice")
        sender = Sender()
        chat = self.rooms().Chat(iter(sender), timeout=PATIENCE_S)
        # Nothing sent yet: the server shows that it is there.
        alive = next(chat)
        self.assertEqual((alive.type, alive.user), (chat_pb2.SYSTEM, "Server"))
        self.assertTrue(alive.id.startswith("server_"))
        sender.send(self.message("bob", "hi", id="m1"))
        echo = next(message for message in chat if message.id.startswith("echo_"))
        self.assertEqual((echo.id, echo.user), ("echo_m1", "Server"))
        self.assertEqual((echo.content, echo.type), ("Echo: hi", chat_pb2.SYSTEM))
        [heard] = self.said(stream, 1)
        self.assertEqual((heard.user, heard.content), ("bob", "hi"))
        sender.close()
        self.assertEqual([m for m in chat if m.type == chat_pb2.CHAT], [])

    def test_both_services_share_a_room(self):
        stream = self.subscribe("alice", room="general")
        sender = Sender()
        chat = self.feed().Chat(iter(sender), timeout=PATIENCE_S)
        sender.send(says("ada", "from the other side"))
        self.assertEqual(next(chat).text, "echo: from the other side")
        [heard] = self.said(stream, 1)
        self.assertEqual((heard.user, heard.content), ("ada", "from the other side"))
        sender.close()
        list(chat)

    def test_metrics_are_those_of_this_daemon(self):
        request = chat_pb2.MetricsRequest(instance_id="server-01", interval_seconds=1)
        stream = self.rooms().StreamMetrics(request, timeout=PATIENCE_S)
        seen = {}
        while not {"cpu_usage", "memory_usage", "requests_per_second"} <= seen.keys():
            metric = next(stream)
            self.assertEqual(metric.labels["instance"], "server-01")
            seen[metric.name] = metric
        self.assertIn("core", seen["cpu_usage"].labels)
        self.assertEqual(seen["memory_usage"].labels["type"], "resident")
        self.assertGreater(seen["memory_usage"].value, 1)
        self.assertIn("endpoint", seen["requests_per_second"].labels)
        stream.cancel()
        elsewhere = chat_pb2.MetricsRequest(instance_id="elsewhere")
        with self.assertRaises(grpc.RpcError) as caught:
            next(self.rooms().StreamMetrics(elsewhere, timeout=PATIENCE_S))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_bad_messages_are_refused_with_their_fields(self):
        for request in [
            chat_pb2.SendMessageRequest(user="", content="x"),
            chat_pb2.SendMessageRequest(user="x", content=""),
        ]:
            with self.assertRaises(grpc.RpcError) as caught:
                self.rooms().SendMessage(request, timeout=PATIENCE_S)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        pretence = chat_pb2.Message(user="x", content="y", type=chat_pb2.SYSTEM)
        with self.assertRaises(grpc.RpcError) as caught:
            self.rooms().UploadMessages(iter([pretence]), timeout=PATIENCE_S)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)


class Examples(unittest.TestCase):
    """`examples/python`, as its README says."""

    def setUp(self):
        self.daemon = daemon.Daemon()
        self.addCleanup(self.daemon.close)

    def start(self, name, *arguments, **options):
        stubs = daemon.generate(daemon.ROOT / "proto", "feed/v1/feed.proto", "chat/chat.proto")
        process = subprocess.Popen(
            [sys.executable, daemon.ROOT / "examples/python" / name, *arguments,
             "--addr", self.daemon.address],
            env={"PYTHONPATH": stubs, "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, text=True, **options,
        )
        # Nothing here waits for ever, whatever a program does.
        guard = threading.Timer(PATIENCE_S, process.kill)
        guard.start()
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(guard.cancel)
        return process

    def upload(self, lines):
        process = self.start("upload.py", "--topic", "sensors.a", stdin=subprocess.PIPE)
        text = "".join(f"{line}\n" for line in lines)
        return process.communicate(text, timeout=PATIENCE_S)[0]

    def other_than(self, known, path):
        """What the file holds when it holds something else."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                with open(path, encoding="ascii") as file:
                    if (found := file.read()) not in ("", known):
                        return found
            except FileNotFoundError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"{path} stays at {known!r}")

    def test_upload_can_be_run_again(self):
        lines = ["one", "two", "two"]
        self.assertEqual(self.upload(lines), "3 received, 3 stored, 0 duplicates\n")
        self.assertEqual(self.upload(lines), "3 received, 0 stored, 3 duplicates\n")

    def test_watch_goes_on_over_a_kill_of_the_server_and_its_own(self):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            state = ("--state", f"{folder}/cursor")
            self.upload(["before"])
            with open(state[1], "w", encoding="ascii") as file:
                file.write("0")
            watch = self.start("watch.py", "sensors.>", *state)
            self.assertEqual(watch.stdout.readline(), "1 sensors.a before\n")
            self.daemon.kill()
            self.daemon.start()
            self.upload(["before", "during"])
            self.assertEqual(watch.stdout.readline(), "2 sensors.a during\n")
            watch.kill()
            watch.wait()
            self.upload(["before", "during", "after"])
            again = self.start("watch.py", "sensors.>", *state)
            # At least once: the kill may have come before the cursor of the last line was saved.
            line = again.stdout.readline()
            if line == "2 sensors.a during\n":
                line = again.stdout.readline()
            self.assertEqual(line, "3 sensors.a after\n")
            # Else it writes to the folder while that goes.
            again.kill()
            again.wait()

    def test_watch_keeps_up_where_nothing_matches_and_waits_as_it_is_asked_to(self):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            state = f"{folder}/cursor"
            watch = self.start("watch.py", "sensors.>", "--state", state, stderr=subprocess.PIPE)
            self.addCleanup(watch.stderr.close)
            begun = self.other_than("", state)
            # Enough of others' events for a heartbeat that says how far it has looked.
            with grpc.insecure_channel(self.daemon.address) as channel:
                events = (feed_pb2.Event(topic="others", body="x") for _ in range(10_001))
                feed_pb2_grpc.FeedServiceStub(channel).UploadEvents(events, timeout=PATIENCE_S)
            self.other_than(begun, state)
            # A server that stops says for how long it wants to be left alone.
            self.daemon.stop()
            lines = [watch.stderr.readline() for _ in range(2)]
            self.assertRegex(lines[0], "STOPPING$")
            asked = float(lines[1].removeprefix("again in ").removesuffix(" s\n"))
            # `server.retry_delay` of this daemon, and at most 0.1 s of its own.
            self.assertGreaterEqual(asked, 1)
            self.assertLess(asked, 1.2)
            self.daemon.start()
            self.upload(["after"])
            self.assertEqual(watch.stdout.readline(), "10002 sensors.a after\n")
            watch.kill()
            watch.wait()

    def test_chat_says_and_hears(self):
        first = self.start("chat.py", "lounge", "--as", "ada", stdin=subprocess.PIPE,
                           stderr=subprocess.PIPE)
        self.addCleanup(first.stderr.close)
        first.stdin.write("hello\n")
        first.stdin.flush()
        self.assertEqual(first.stderr.readline(), "stored as 1\n")
        second = self.start("chat.py", "lounge", "--as", "bob", stdin=subprocess.PIPE,
                            stderr=subprocess.DEVNULL)
        second.communicate("hi there\n", timeout=PATIENCE_S)
        self.assertEqual(first.stdout.readline(), "bob: hi there\n")
        first.communicate(timeout=PATIENCE_S)


if __name__ == "__main__":
    unittest.main(verbosity=2)
