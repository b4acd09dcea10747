"""A daemon of our own on a free port, and the stubs that the tests speak through."""

import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
SEEDS = ROOT / "tests" / "it" / "seed"
PROGRAM = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ROOT / "target/debug/tailmark")
# No test waits longer for anything: a slow machine must not fail it.
PATIENCE_S = 60


def generate(protos, *files):
    """Generates the stubs of `files` under `protos` into a folder of their own."""
    into = tempfile.mkdtemp(prefix="stubs-")
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"--python_out={into}",
         f"--grpc_python_out={into}", *files],
        check=True,
    )
    return into


def until(condition):
    """Waits until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it never came to that")
        time.sleep(0.01)


class Daemon:
    """`tailmark serve` on a data directory of its own; can be killed and started again on the
    same port."""

    def __init__(self, *options):
        self.options = options
        self.data = tempfile.TemporaryDirectory(prefix="tailmark-clients-")
        self.address = "127.0.0.1:0"
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--listen", self.address, "--data-dir", self.data.name,
             *self.options],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        line = self.process.stdout.readline()
        if not line.startswith("ready on "):
            raise RuntimeError(f"not ready: {line!r}")
        self.address = line.removeprefix("ready on ").split(",")[0]

    def stop(self):
        """Asks it to stop, and waits until it has."""
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def close(self):
        self.kill()
        self.data.cleanup()
