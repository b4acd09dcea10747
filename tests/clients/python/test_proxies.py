"""`examples/python/watch.py` behind nginx as `deploy/` has it, which answers in the daemon's place or
loses it: `python test_proxies.py PROGRAM`."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

import daemon

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
STUBS = daemon.generate(daemon.ROOT / "proto", "feed/v1/feed.proto", "chat/chat.proto")


class Proxy:
    """nginx on a port of its own. `answer` says with what it answers itself."""

    def __init__(self, to):
        if NGINX is None:
            raise RuntimeError("nginx is missing: install it (Debian: apt-get install nginx-light)")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = "127.0.0.1:%d" % free.getsockname()[1]
        self.folder = tempfile.TemporaryDirectory(prefix="tailmark-nginx-", ignore_cleanup_errors=True)
        self.path = pathlib.Path(self.folder.name)
        self.to = to
        self.write("")
        paths = "".join(f"{name}_temp_path {name};" for name in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        # A worker that reloads ends its connections.
        (self.path / "conf").write_text(
            f"{user} daemon off; worker_processes 1; worker_shutdown_timeout 10ms; pid pid;\n"
            f"events {{}}\nhttp {{ access_log off; {paths} include server; }}\n")
        self.process = subprocess.Popen(
            [NGINX, "-p", self.path, "-c", self.path / "conf"], stderr=subprocess.DEVNULL)
        daemon.until(self.is_up)

    def write(self, answer):
        text = (daemon.ROOT / "deploy/nginx/tailmark.conf").read_text()
        for old, new in [
            ("listen 443 ssl http2;", f"listen {self.address} http2;"),
            ("    ssl_certificate     /etc/ssl/log.example.crt;\n", ""),
            ("    ssl_certificate_key /etc/ssl/log.example.key;\n", ""),
            ("127.0.0.1:50051", self.to),
            ("location / {", f"location / {{ {answer}"),
        ]:
            assert old in text, old
            text = text.replace(old, new)
        (self.path / "server").write_text(text)

    def answer(self, status=None):
        """Cuts what is open, and answers what comes with `status`; without one the daemon does."""
        self.write(f"return {status};" if status else "")
        self.process.send_signal(1)

    def is_up(self):
        host, port = self.address.split(":")
        with socket.socket() as to:
            return to.connect_ex((host, int(port))) == 0

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


class Watch(unittest.TestCase):
    def setUp(self):
        self.daemon = daemon.Daemon()
        self.addCleanup(self.daemon.close)
        self.proxy = Proxy(self.daemon.address)
        self.addCleanup(self.proxy.close)

    def example(self, name, *arguments, **options):
        process = subprocess.Popen(
            [sys.executable, daemon.ROOT / "examples/python" / name, *arguments,
             "--addr", self.proxy.address],
            env={"PYTHONPATH": STUBS, "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        # Nothing here waits for ever, whatever a program does.
        guard = threading.Timer(daemon.PATIENCE_S, process.kill)
        guard.start()
        for clean in (process.stdout.close, process.stderr.close, process.wait, process.kill,
                      guard.cancel):
            self.addCleanup(clean)
        return process

    def watch(self):
        """A watch of everything that has met its server."""
        state = tempfile.NamedTemporaryFile("w", suffix=".cursor")
        self.addCleanup(state.close)
        state.write("0")
        state.flush()
        return self.example("watch.py", "--state", state.name)

    def publish(self, body):
        subprocess.run([daemon.PROGRAM, "publish", "a", body, "--addr",
                        f"http://{self.daemon.address}"], check=True, stdout=subprocess.DEVNULL)

    def lost(self, watch, text):
        """Reads what it says until it says this."""
        lines = []
        for line in watch.stderr:
            lines.append(line)
            if text in line:
                return
        self.fail(f"it never said {text!r}: {lines}")

    def test_goes_on_over_what_passes(self):
        watch = self.watch()
        self.publish("0")
        self.assertEqual(watch.stdout.readline(), "1 a 0\n")
        # 404 too: it has met the server there.
        for at, status in enumerate([502, 503, 504, 429, 500, 404], 1):
            with self.subTest(status=status):
                self.proxy.answer(status)
                self.lost(watch, str(status))
                self.publish(str(at))
                self.proxy.answer()
                self.assertEqual(watch.stdout.readline(), f"{at + 1} a {at}\n")

    def test_goes_on_over_stops_and_kills(self):
        watch = self.watch()
        for at in range(10):
            (self.daemon.kill if at % 2 else self.daemon.stop)()
            self.lost(watch, "lost the connection")
            self.daemon.start()
            self.publish(str(at))
            self.assertEqual(watch.stdout.readline(), f"{at + 1} a {at}\n")

    def test_stops_and_says_why_where_it_does_not_pass(self):
        for status, code in [(401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"),
                             (404, "UNIMPLEMENTED")]:
            with self.subTest(status=status):
                self.proxy.answer(status)
                # Until the new worker has taken over, the old one may still answer.
                def ended():
                    watch = self.example("watch.py")
                    said = watch.stderr.readline()
                    watch.kill()
                    return said.startswith(code) and str(status) in said
                daemon.until(ended)

    def test_an_upload_that_a_proxy_ends_says_what_to_do(self):
        self.daemon.kill()
        upload = self.example("upload.py", "--topic", "a", stdin=subprocess.PIPE)
        _, said = upload.communicate("one\ntwo\n", timeout=daemon.PATIENCE_S)
        self.assertEqual(upload.returncode, 1)
        self.assertIn("UNAVAILABLE", said)
        self.assertIn("run it again", said)
        self.daemon.start()
        upload = self.example("upload.py", "--topic", "a", stdin=subprocess.PIPE)
        out, _ = upload.communicate("one\ntwo\n", timeout=daemon.PATIENCE_S)
        self.assertEqual(out, "2 received, 2 stored, 0 duplicates\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
