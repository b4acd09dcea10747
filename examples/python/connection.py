"""The way to the daemon, the same for all examples: with TLS where `--ca` or `--tls` asks for it, with a
token where there is one."""

import collections
import os

import grpc


def add_arguments(parser):
    parser.add_argument("--addr", default="127.0.0.1:50051")
    parser.add_argument("--tls", action="store_true", help="TLS; trusts what gRPC trusts by itself")
    parser.add_argument("--ca", help="TLS, and this authority (PEM) vouches for the daemon")
    parser.add_argument("--cert", help="a certificate to show (PEM)")
    parser.add_argument("--key", help="its key (PEM)")
    parser.add_argument("--token-file", help="a file with a token, read again at each call; else TAILMARK_TOKEN")


def has_token(arguments):
    return bool(arguments.token_file or os.environ.get("TAILMARK_TOKEN"))


def connect(arguments, options=()):
    channel = open_channel(arguments, options)
    if not has_token(arguments):
        return channel
    return grpc.intercept_channel(channel, Bearer(lambda: token(arguments)))


def open_channel(arguments, options):
    if not (arguments.tls or arguments.ca):
        return grpc.insecure_channel(arguments.addr, options=options)
    ca, cert, key = map(read, (arguments.ca, arguments.cert, arguments.key))
    credentials = grpc.ssl_channel_credentials(ca, private_key=key, certificate_chain=cert)
    return grpc.secure_channel(arguments.addr, credentials, options=options)


def read(path):
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def token(arguments):
    if arguments.token_file:
        return read(arguments.token_file).decode("ascii").strip()
    return os.environ["TAILMARK_TOKEN"].strip()


class Details(
    collections.namedtuple(
        "Details",
        ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression"),
    ),
    grpc.ClientCallDetails,
):
    """A call about to be made."""


class Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Says at each call who asks. gRPC's own call credentials do so as well, but over TLS only."""

    def __init__(self, current):
        self.current = current

    def intercept_unary_unary(self, proceed, call, request):
        metadata = [*(call.metadata or ()), ("authorization", f"Bearer {self.current()}")]
        call = Details(call.method, call.timeout, metadata, call.credentials, call.wait_for_ready,
                       call.compression)
        return proceed(call, request)

    intercept_unary_stream = intercept_unary_unary
    intercept_stream_unary = intercept_unary_unary
    intercept_stream_stream = intercept_unary_unary
