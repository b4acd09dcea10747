"""The way to the daemon, the same for all examples: with TLS where `--ca` or `--tls` asks for it."""

import grpc


def add_arguments(parser):
    parser.add_argument("--addr", default="127.0.0.1:50051")
    parser.add_argument("--tls", action="store_true", help="TLS; trusts what gRPC trusts by itself")
    parser.add_argument("--ca", help="TLS, and this authority (PEM) vouches for the daemon")
    parser.add_argument("--cert", help="a certificate to show (PEM)")
    parser.add_argument("--key", help="its key (PEM)")


def connect(arguments, options=()):
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
