"""A store of S3's kind on this machine, which can run full, and a way to it which can be cut."""

import selectors
import socket
import struct
import threading
import urllib.request

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "kept"
FULL = (b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>QuotaExceeded</Code>"
        b"<Message>the bucket is full</Message></Error>")


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


class Store:
    """The server. What it took it keeps for as long as the test runs."""

    def __init__(self):
        self.backend = DomainDispatcherApplication(create_backend_app)
        self.room = None
        self.requests = []
        self.lock = threading.Lock()
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True, request_handler=Quiet)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_port
        self.put("", b"")

    def answer(self, environ, begin):
        """Takes no more bytes than there is room for; what is read costs none."""
        method, length = environ["REQUEST_METHOD"], int(environ.get("CONTENT_LENGTH") or 0)
        with self.lock:
            self.requests.append((method, environ["PATH_INFO"]))
            is_full = method == "PUT" and self.room is not None and length > self.room
            if method == "PUT" and self.room is not None and not is_full:
                self.room -= length
        if is_full:
            environ["wsgi.input"].read(length)
            begin("403 Forbidden", [("Content-Type", "application/xml"),
                                    ("Content-Length", str(len(FULL)))])
            return [FULL]
        return self.backend(environ, begin)

    def url(self, name):
        return f"http://127.0.0.1:{self.port}/{BUCKET}" + (f"/{name}" if name else "")

    def get(self, name):
        with urllib.request.urlopen(self.url(name)) as answer:
            return answer.read()

    def put(self, name, body):
        """Puts an object; without a name, the bucket."""
        kind = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(self.url(name), data=body, method="PUT", headers=kind)
        urllib.request.urlopen(request).close()

    def delete(self, name):
        """Takes an object away; nobody may who does not say who he is."""
        key = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        request = urllib.request.Request(self.url(name), method="DELETE", headers={"Authorization": key})
        urllib.request.urlopen(request).close()

    def names(self, folder):
        """What lies in a folder of the bucket."""
        url = self.url("") + f"?list-type=2&max-keys=10000&prefix={folder}/"
        with urllib.request.urlopen(url) as answer:
            text = answer.read().decode()
        return [part.split("</Key>")[0] for part in text.split("<Key>")[1:]]


class Way:
    """Carries bytes to the store, until it is cut: then nobody is there, as if the server had been killed."""

    def __init__(self, port):
        self.target = port
        self.passed = 0
        self.cut_after = None
        self.open = set()
        self.lock = threading.Lock()
        self.listener = None
        self.port = 0
        self.begin()

    def begin(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen()
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=[self.listener], daemon=True).start()

    def accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self.carry, args=[client], daemon=True).start()

    def carry(self, client):
        server = socket.create_connection(("127.0.0.1", self.target))
        with self.lock:
            self.open |= {client, server}
        ready = selectors.DefaultSelector()
        ready.register(client, selectors.EVENT_READ, server)
        ready.register(server, selectors.EVENT_READ, client)
        try:
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(1 << 16)
                    if not data:
                        return
                    key.data.sendall(data)
                    if key.fileobj is client:
                        self.passed += len(data)
                        if self.cut_after is not None and self.passed >= self.cut_after:
                            self.cut_after = None
                            self.cut()
                            return
        except (OSError, ValueError):
            pass
        finally:
            for end in (client, server):
                end.close()
            with self.lock:
                self.open -= {client, server}

    def cut(self):
        """Ends all that is open without a farewell, and takes nothing more."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            open_now, self.open = self.open, set()
        for end in open_now:
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()
            except OSError:
                pass
