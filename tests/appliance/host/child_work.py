"""What a child is asked for in the tests of appliance.host.child."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import weakref

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.appliance.host import child


class Work:
    """Answers, or dies in one of many ways."""

    def add(self, one: int, other: int) -> bytes:
        sys.stdout.write("not an answer\n")
        sys.stdout.flush()
        return str(one + other).encode()

    def allocate(self, size: int) -> bytes:
        child.note("allocating")
        return str(len(b"x" * size)).encode()

    def raise_store_error(self) -> bytes:
        raise StoreError("no such part \x1b[2J", hint="restore it")

    def die(self, number: int) -> bytes:
        child.note("dying \x1b[31m")
        sys.stderr.write("terminate called \x1b[2J\n")
        sys.stderr.flush()
        os.kill(os.getpid(), number)
        time.sleep(60)
        return b""

    def hang(self) -> bytes:
        child.note("hanging")
        signal.pause()
        return b""

    def lie(self) -> bytes:
        """Announce an answer longer than any may be."""
        os.write(child._Pipe.out or 0, child._HEADER.pack(b"A", 1 << 62))
        return b""

    def hush(self) -> bytes:
        """Close the pipe that answers go through, and stay."""
        child.note("hushing")
        os.close(child._Pipe.out or 0)
        signal.pause()
        return b""

    def stop(self) -> bytes:
        """Read no more requests, nor anything else, and do not die of an ordinary signal."""
        child.note("stopping")
        os.kill(os.getpid(), signal.SIGSTOP)
        return b""

    def live(self, signs: int) -> bytes:
        """Take longer than the time given, with signs of life."""
        for number in range(signs):
            time.sleep(0.3)
            child.note(str(number))
        return b"done"

    def limits(self) -> bytes:
        with open("/proc/self/limits") as stream:  # noqa: PTH123 - not a path of ours
            return stream.read().encode()


def make() -> Work:
    return Work()


def make_with_files(folder: str) -> Work:
    """One that has a directory to remove in the end."""
    work = Work()
    scratch = tempfile.TemporaryDirectory(dir=folder)
    weakref.finalize(work, scratch.cleanup)
    return work
