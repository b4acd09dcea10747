"""Backups in a store of S3's kind: `python test_s3.py PROGRAM`, built with the feature `cloud`."""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import unittest

import store

PROGRAM = sys.argv.pop(1)
PATIENCE_S = 120
LINES, LINE_BYTES = 40_000, 700


def environment(port):
    ours = ("AWS_", "TAILMARK_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return env | {
        "AWS_ENDPOINT": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "XDG_CONFIG_HOME": "/nonexistent",
        "NO_PROXY": "127.0.0.1",
    }


def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it never came to that")
        time.sleep(0.01)


class Log:
    """A daemon with some sealed segments and more than one part of an upload in each."""

    def __init__(self, folder):
        self.data = folder / "data"
        env = environment(0) | {"TAILMARK_STORAGE_SLOT_BYTES": "12 MiB",
                                "TAILMARK_STORAGE_MIN_FREE_BYTES": "0"}
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", self.data],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("ready on "), line
        self.address = "http://" + line.removeprefix("ready on ").split(",")[0]
        self.seed = random.Random(7)
        self.upload(LINES)
        until(lambda: len(self.segments()) >= 2)

    def segments(self):
        return [it for it in (self.data / "segments").iterdir() if it.name[0] == "0"]

    def upload(self, count):
        lines = "".join(self.seed.randbytes(LINE_BYTES // 2).hex() + "\n" for _ in range(count))
        subprocess.run([PROGRAM, "upload", "--topic", "a", "-", "--addr", self.address], check=True,
                       input=lines, text=True, capture_output=True, env=environment(0))

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Cloud(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="tailmark-cloud-")
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.log = Log(cls.folder)
        cls.addClassCleanup(cls.log.close)
        cls.store = store.Store()

    def setUp(self):
        self.way = store.Way(self.store.port)
        self.addCleanup(self.way.cut)
        self.place = f"{self.id().rsplit('.', 1)[1]}/log"
        self.url = f"s3://{store.BUCKET}/{self.place}"
        self.store.room = None
        self.settings = {}

    def command(self, *arguments):
        env = environment(self.way.port) | self.settings
        return subprocess.Popen([PROGRAM, *map(str, arguments)], env=env, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def end(self, process):
        out, said = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, said

    def run_ok(self, *arguments):
        code, out, said = self.end(self.command(*arguments))
        self.assertEqual(code, 0, said)
        return out

    def backup(self, *more):
        return self.command("backup", self.url, "--data-dir", self.log.data, "--json", *more)

    def expect_whole(self):
        """What lies there is the log: read where it is, and put back."""
        self.run_ok("backup", "verify", self.url)
        copy = self.folder / f"copy-{random.randrange(1 << 60)}"
        self.run_ok("restore", self.url, "--data-dir", copy)
        self.assertTrue(self.run_ok("log", "diff", self.log.data, copy).endswith("equal\n"))
        subprocess.run(["rm", "-r", copy], check=True)

    def whole_ones(self):
        return [name for name in self.store.names(self.place) if name.endswith(".backup")]

    def test_it_comes_back_and_the_next_one_costs_what_is_new(self):
        code, out, _ = self.end(self.command("backup", "list", self.url))
        self.assertEqual((code, out), (3, ""))
        first = json.loads(self.run_ok("backup", self.url, "--data-dir", self.log.data, "--json"))
        self.assertGreaterEqual(int(first["segments"]), 2)
        self.expect_whole()
        self.log.upload(100)
        second = json.loads(self.end(self.backup())[1])
        self.assertGreaterEqual(int(second["reused_segments"]), int(first["segments"]))
        # Over the network, from the daemon.
        third = json.loads(self.run_ok("backup", self.url, "--addr", self.log.address, "--json"))
        self.assertGreaterEqual(int(third["reused_segments"]), int(first["segments"]))
        self.expect_whole()
        listed = self.run_ok("backup", "list", self.url).splitlines()
        self.assertEqual([line.split()[0] for line in listed],
                         [it["backup"] for it in (first, second, third)])
        # As it was, amid a segment, and as the first one had it.
        copy = self.folder / "part"
        self.run_ok("restore", self.url, "--data-dir", copy, "--to-seq", 5_000)
        self.assertIn("5000", self.run_ok("log", "info", "--data-dir", copy))
        # What is altered in the store is told.
        name = next(it for it in self.store.names(self.place) if it.endswith("/db/db"))
        self.alter(name)
        code, _, said = self.end(self.command("backup", "verify", self.url))
        self.assertEqual(code, 4, said)
        code, _, said = self.end(self.command("restore", self.url, "--data-dir", self.folder / "bad"))
        self.assertEqual(code, 4, said)

    def alter(self, name):
        body = bytearray(self.store.get(name))
        body[len(body) // 2] ^= 1
        self.store.put(name, bytes(body))

    def test_a_store_that_is_gone_for_a_while_costs_time_alone(self):
        self.way.cut_after = 9 << 20
        process = self.backup()
        until(lambda: self.way.cut_after is None)
        time.sleep(2)
        self.assertIsNone(process.poll())
        self.assertEqual(self.whole_ones(), [])
        self.way.begin()
        code, _, said = self.end(process)
        self.assertEqual(code, 0, said)
        self.expect_whole()
        # While it is read, too.
        copy = self.folder / "cut"
        self.way.passed, self.way.cut_after = 0, 1_500
        process = self.command("restore", self.url, "--data-dir", copy)
        until(lambda: self.way.cut_after is None or process.poll() is not None)
        time.sleep(1)
        self.way.begin()
        code, _, said = self.end(process)
        self.assertEqual(code, 0, said)

    def begun(self):
        """A backup that has brought a segment, and takes its time with the next."""
        process = self.backup("--rate", "8MiB")
        until(lambda: any(it.endswith("/footer") for it in self.store.names(self.place)))
        self.assertIsNone(process.poll())
        return process

    def test_a_store_that_is_gone_for_good_is_told_and_gone_on_with(self):
        process = self.begun()
        self.way.cut()
        code, _, said = self.end(process)
        self.assertEqual(code, 1, said)
        self.assertIn("cannot write s3://", said)
        self.assertEqual(self.whole_ones(), [])
        self.way.begin()
        code, out, said = self.end(self.backup())
        self.assertEqual(code, 0, said)
        self.assertGreaterEqual(int(json.loads(out)["reused_segments"]), 1)
        self.expect_whole()

    def test_a_killed_program_leaves_what_the_next_one_goes_on_with(self):
        process = self.begun()
        process.kill()
        self.end(process)
        self.assertEqual(self.whole_ones(), [])
        code, _, said = self.end(self.command("backup", "verify", self.url))
        self.assertEqual(code, 3, said)
        code, out, said = self.end(self.backup())
        self.assertEqual(code, 0, said)
        self.assertGreaterEqual(int(json.loads(out)["reused_segments"]), 1)
        self.expect_whole()

    def test_a_bucket_that_runs_full_is_told_and_gone_on_with(self):
        process = self.begun()
        self.store.room = 1 << 20
        code, out, said = self.end(process)
        self.assertEqual((code, out), (1, ""), said)
        self.assertIn("QuotaExceeded", said)
        self.assertIn("goes on", said)
        self.assertEqual(self.whole_ones(), [])
        self.store.room = None
        code, out, said = self.end(self.backup())
        self.assertEqual(code, 0, said)
        self.assertGreaterEqual(int(json.loads(out)["reused_segments"]), 1)
        self.expect_whole()
        # One that was whole stays so.
        self.log.upload(20_000)
        self.store.room = 1 << 20
        self.assertEqual(self.end(self.backup())[0], 1)
        self.store.room = None
        self.run_ok("backup", "verify", self.url)
        self.assertEqual(len(self.whole_ones()), 1)

    def test_old_backups_go_with_all_that_no_other_needs(self):
        folder = self.folder / "pruned"
        folder.mkdir()
        log = Log(folder)
        self.addCleanup(log.close)
        names = []
        for at in range(3):
            if at:
                log.upload(20_000)
                self.run_ok("trim", "--before", str(at * 25_000), "--yes", "--addr", log.address)
            names.append(self.run_ok("backup", self.url, "--data-dir", log.data).strip())
        before = self.store.names(self.place)
        look = json.loads(self.run_ok("backup", "prune", self.url, "--keep", "1", "--dry-run", "--json"))
        self.assertEqual(self.store.names(self.place), before)
        done = json.loads(self.run_ok("backup", "prune", self.url, "--keep", "1", "--json"))
        self.assertTrue(look.pop("dry_run"))
        self.assertEqual(done, look)
        self.assertEqual((done["removed"], done["kept"]), (names[:2], names[2:]))
        self.assertGreater(int(done["segments"]), 0)
        after = self.store.names(self.place)
        self.assertLess(set(after), set(before))
        self.assertFalse([it for it in after if "/pruning/" in it])
        self.run_ok("backup", "verify", self.url)
        copy = folder / "copy"
        self.run_ok("restore", self.url, "--data-dir", copy)
        self.assertTrue(self.run_ok("log", "diff", log.data, copy).endswith("equal\n"))
        again = json.loads(self.run_ok("backup", "prune", self.url, "--keep", "1", "--json"))
        self.assertEqual((again.get("removed", []), again.get("freed_bytes", "0")), ([], "0"))

    def test_nobody_prunes_beside_a_backup_nor_takes_one_beside_who_prunes(self):
        process = self.begun()
        prune = ("backup", "prune", self.url, "--keep", "1")
        for _ in range(2):
            code, _, said = self.end(self.command(*prune))
            self.assertEqual(code, 5, said)
            self.assertIn("a backup is under way here", said)
            # One that was killed may be under way, for all that is known.
            process.kill()
            process.wait()
        self.end(process)
        self.assertFalse([it for it in self.store.names(self.place) if "/pruning/" in it])
        self.store.put(f"{self.place}/pruning/1", b"")
        code, _, said = self.end(self.backup())
        self.assertEqual(code, 5, said)
        self.assertIn("backups are being removed here", said)
        self.assertEqual(self.whole_ones(), [])
        self.store.delete(f"{self.place}/pruning/1")
        # One who begins to prune while it is taken.
        process = self.backup("--rate", "8MiB")
        until(lambda: sum(it.endswith(".tail") for it in self.store.names(self.place)) > 1)
        self.store.put(f"{self.place}/pruning/2", b"")
        code, out, said = self.end(process)
        self.assertEqual((code, out), (5, ""), said)
        self.assertEqual(self.whole_ones(), [])
        self.store.delete(f"{self.place}/pruning/2")
        code, _, said = self.end(self.backup())
        self.assertEqual(code, 0, said)
        self.expect_whole()

    def test_a_place_whose_mark_is_lost_is_known_by_its_backups(self):
        name = self.run_ok("backup", self.url, "--data-dir", self.log.data).strip()
        self.store.delete(f"{self.place}/tailmark-backup")
        self.assertIn(name, self.run_ok("backup", "list", self.url))
        code, _, said = self.end(self.command("backup", "verify", self.url))
        self.assertEqual(code, 4, said)
        self.run_ok("restore", self.url, "--data-dir", self.folder / "unmarked")
        self.run_ok("backup", self.url, "--data-dir", self.log.data)
        self.expect_whole()

    def test_a_store_without_conditional_writes_is_enough(self):
        self.settings = {"AWS_CONDITIONAL_PUT": "disabled"}
        for _ in range(2):
            self.run_ok("backup", self.url, "--data-dir", self.log.data)
        self.assertEqual(len(self.whole_ones()), 2)
        self.expect_whole()

    def test_what_cannot_be_reached_as_asked_is_said(self):
        for url, says in [("s3://nobody-has-this/x", "NoSuchBucket"), ("s3:///x", "s3:///x"),
                          ("ftp://b/x", "s3://BUCKET")]:
            code, _, said = self.end(self.command("backup", url, "--data-dir", self.log.data))
            self.assertIn(code, (1, 2), said)
            self.assertIn(says, said)
        # A folder with something else in it.
        self.store.put(f"{self.place}/other", b"1")
        code, _, said = self.end(self.backup())
        self.assertEqual(code, 2, said)
        self.assertIn("something else", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
