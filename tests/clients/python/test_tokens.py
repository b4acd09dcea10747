"""The examples in Python before a daemon that wants to know who asks: `python test_tokens.py PROGRAM`."""

import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

import daemon

STUBS = daemon.generate(daemon.ROOT / "proto", "feed/v1/feed.proto", "chat/chat.proto")


class Tokens(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tailmark-tokens-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.config = self.folder / "config.toml"
        self.config.write_text(
            f'[auth]\nmode = "required"\ntokens_file = "{self.folder / "tokens.toml"}"\n')
        self.writer, self.reader = self.folder / "writer", self.folder / "reader"
        self.writer.write_text(self.create("writer", "--publish", ">", "--watch", ">"))
        self.reader.write_text(self.create("reader", "--watch", "a"))
        self.daemon = daemon.Daemon("--config", str(self.config))
        self.addCleanup(self.daemon.close)

    def token(self, *arguments):
        done = subprocess.run([daemon.PROGRAM, "token", *arguments, "--config", self.config],
                              check=True, capture_output=True, text=True)
        return done.stdout

    def create(self, name, *rights):
        return self.token("create", name, *rights)

    def example(self, name, *arguments, token_file=None, token=None, **options):
        env = {"PYTHONPATH": STUBS, "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
        if token:
            env["TAILMARK_TOKEN"] = token
        given = ["--token-file", token_file] if token_file else []
        process = subprocess.Popen(
            [sys.executable, daemon.ROOT / "examples/python" / name, *arguments, *given,
             "--addr", self.daemon.address],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, **options)
        # Nothing here waits for ever, whatever a program does.
        guard = threading.Timer(daemon.PATIENCE_S, process.kill)
        guard.start()
        for clean in (process.stdin.close, process.stdout.close, process.stderr.close, process.wait,
                      process.kill, guard.cancel):
            self.addCleanup(clean)
        return process

    def upload(self, text):
        upload = self.example("upload.py", "--topic", "a", token_file=self.writer)
        return upload.communicate(text, timeout=daemon.PATIENCE_S)

    def test_a_watch_goes_on_with_the_next_token(self):
        state = self.folder / "cursor"
        state.write_text("0")
        watch = self.example("watch.py", "a", "--state", state, token_file=self.reader)
        self.assertEqual(self.upload("one\n")[0], "1 received, 1 stored, 0 duplicates\n")
        self.assertEqual(watch.stdout.readline(), "1 a one\n")
        self.token("revoke", "reader")
        said = watch.stderr.readline()
        self.assertIn("TOKEN_", said)
        self.upload("one\ntwo\n")
        self.reader.write_text(self.create("reader", "--watch", "a"))
        self.assertEqual(watch.stdout.readline(), "2 a two\n")

    def test_a_watch_whose_token_is_gone_for_good_says_so_and_ends(self):
        watch = self.example("watch.py", "a", token="tailmark_" + "A" * 43)
        _, said = watch.communicate(timeout=daemon.PATIENCE_S)
        self.assertEqual(watch.returncode, 1)
        self.assertIn("UNAUTHENTICATED TOKEN_INVALID", said)

    def test_without_a_token_each_example_says_so_at_once(self):
        for name, arguments in [("watch.py", ["a"]), ("upload.py", ["--topic", "a"]),
                                ("chat.py", ["--as", "ada"])]:
            with self.subTest(example=name):
                process = self.example(name, *arguments)
                _, said = process.communicate("x\n", timeout=daemon.PATIENCE_S)
                self.assertEqual(process.returncode, 1)
                self.assertIn("UNAUTHENTICATED", said)

    def test_in_a_room_one_has_the_name_of_the_token(self):
        chat = self.example("chat.py", "--as", "somebody", token=self.writer.read_text().strip())
        out, _ = chat.communicate("hello\n", timeout=daemon.PATIENCE_S)
        self.assertEqual(chat.returncode, 0)
        seen = subprocess.run(
            [daemon.PROGRAM, "watch", ">", "--from", "oldest", "--until-caught-up", "--json", "--addr",
             f"http://{self.daemon.address}", "--token-file", self.writer],
            check=True, capture_output=True, text=True).stdout
        self.assertIn("writer", seen)
        self.assertNotIn("somebody", seen + out)


if __name__ == "__main__":
    unittest.main(verbosity=2)
