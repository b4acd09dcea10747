#!/usr/bin/env python3
"""How large the pieces may be in which a copy is put on disk, for what another has to wait who syncs small writes.

usage: benches/pieces.py [DIRECTORY]     (on the disk in question; takes 2 GB of it, and 10 s for each size)
"""
import os
import queue
import shutil
import sys
import tempfile
import threading
import time

FILES, FILE_BYTES, BUFFER = 40, 48 << 20, os.urandom(128 << 10)


def copy(folder, piece):
    """Writes files; a second thread syncs each piece and lets the cache go of it. Answers the seconds it took."""
    waiting = queue.Queue(1)

    def sync():
        while (item := waiting.get()) is not None:
            fd, is_last = item
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if is_last:
                os.close(fd)

    thread = threading.Thread(target=sync)
    thread.start()
    begun = time.monotonic()
    for n in range(FILES):
        fd = os.open(os.path.join(folder, str(n)), os.O_RDWR | os.O_CREAT, 0o600)
        unsynced = 0
        for _ in range(FILE_BYTES // len(BUFFER)):
            os.write(fd, BUFFER)
            unsynced += len(BUFFER)
            if unsynced >= piece:
                waiting.put((fd, False))
                unsynced = 0
        waiting.put((fd, True))
    waiting.put(None)
    thread.join()
    return time.monotonic() - begun


def main():
    parent = sys.argv[1] if len(sys.argv) > 1 else "/var/tmp"
    for kib in (128, 256, 512, 1024, 2048, 4096, 8192, 49152):
        folder = tempfile.mkdtemp(prefix="tailmark-pieces-", dir=parent)
        journal = os.open(os.path.join(folder, "journal"), os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(journal, bytes(64 << 20), 0)
        os.fsync(journal)
        taken, is_over = [], threading.Event()

        def commits():
            at = 0
            while not is_over.is_set():
                begun = time.monotonic()
                os.pwrite(journal, b"y" * 4096, at)
                os.fdatasync(journal)
                taken.append(time.monotonic() - begun)
                at = (at + 4096) % (64 << 20)
                time.sleep(0.0005)

        thread = threading.Thread(target=commits)
        thread.start()
        time.sleep(3)
        quiet, taken[:] = sorted(taken), []
        seconds = copy(folder, kib << 10)
        is_over.set()
        thread.join()
        beside = sorted(taken)
        p99 = [all_of[len(all_of) * 99 // 100] * 1e3 for all_of in (quiet, beside)]
        rate = FILES * FILE_BYTES / seconds / 1e6
        print(f"pieces of {kib} KiB: {rate:.0f} MB/s; a sync of 4 KiB, p99: {p99[0]:.1f} ms alone, {p99[1]:.1f} beside")
        shutil.rmtree(folder)


main()
