"""`examples/producer.rs` as a program, killed and started again together with the daemon:
`python test_producer.py PROGRAM PRODUCER`."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import daemon

PRODUCER = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "")
LINES = 60_000
KILLS = 6


class Producer(unittest.TestCase):
    def setUp(self):
        self.daemon = daemon.Daemon()
        self.addCleanup(self.daemon.close)
        self.lines = tempfile.TemporaryFile("w+")
        self.addCleanup(self.lines.close)
        self.lines.writelines(f"line {number}\n" for number in range(1, LINES + 1))

    def start(self):
        self.lines.seek(0)
        process = subprocess.Popen(
            [PRODUCER, f"http://{self.daemon.address}", "numbers-1", "numbers"],
            stdin=self.lines, stderr=subprocess.PIPE, text=True,
        )
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def run_program(self, *arguments):
        program = [daemon.PROGRAM, *arguments, "--addr", f"http://{self.daemon.address}"]
        done = subprocess.run(program, check=True, capture_output=True, text=True,
                              timeout=daemon.PATIENCE_S)
        return done.stdout

    def head(self):
        return int(json.loads(self.run_program("status", "--json")).get("head_seq", 0))

    def test_each_line_is_stored_once_however_often_either_side_is_killed(self):
        stopped_at = []
        for kill in range(KILLS):
            process = self.start()
            before = self.head()
            while self.head() == before and process.poll() is None:
                pass
            if kill % 2:
                self.daemon.kill()
                self.daemon.start()
            process.kill()
            process.wait()
            stopped_at.append(self.head())
        last = self.start()
        self.assertEqual(last.wait(timeout=daemon.PATIENCE_S), 0, last.stderr.read())
        # It was in the middle of it, else this would prove nothing.
        self.assertLess(stopped_at[0], LINES)
        self.assertEqual(self.head(), LINES)
        out = self.run_program("watch", "--from", "oldest", "--until-caught-up", "--json")
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([event["body"] for event in events],
                         [f"line {number}" for number in range(1, LINES + 1)])
        # Nothing is left to do, and the program sees that.
        again = self.start()
        self.assertEqual(again.wait(timeout=daemon.PATIENCE_S), 0)
        self.assertEqual(again.stderr.read(), f"{LINES} lines were stored before, 0 now\n")
        self.assertEqual(self.head(), LINES)


if __name__ == "__main__":
    unittest.main(verbosity=2)
