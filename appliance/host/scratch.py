"""Directories for what nobody needs afterwards; those that killed processes left are swept away.

A process holds a lock on its directory for as long as it lives, and so the lock tells a directory
in use from one that was left: the kernel lets go of it however the process ends. A directory gets
its name once it is locked, so that there is none without an owner that could be mistaken for left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fleetscan.appliance.host.descriptors import held

_BEING_MADE = ".fleetscan-"
_MADE_SECONDS = 3600.0  # making one takes microseconds
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Scratch:
    """A directory of our own below TMPDIR.

    Args:
        kind: a word for people who look at TMPDIR.

    Attributes:
        path: the directory, mode 0700, until :meth:`close`.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, kind: str) -> None:
        base = Path(tempfile.gettempdir())
        _sweep(base, kind)
        made = tempfile.mkdtemp(prefix=_BEING_MADE, dir=base)
        self._lock: int | None = os.open(made, _OPEN)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = Path(made).rename(base / f"fleetscan-{kind}-{secrets.token_hex(8)}")

    def close(self) -> None:
        """Remove it with all that is in it; nothing happens a second time."""
        lock, self._lock = self._lock, None
        if lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(lock)


@contextlib.contextmanager
def scratch_directory(kind: str) -> Iterator[Path]:
    """A directory as :class:`Scratch` has it, for the length of a block."""
    scratch = Scratch(kind)
    try:
        yield scratch.path
    finally:
        scratch.close()


def _sweep(base: Path, kind: str) -> None:
    """Remove the directories of this kind whose owners are gone. Others' are never touched."""
    name = re.compile(rf"fleetscan-{kind}-[0-9a-f]{{16}}")
    for path in base.iterdir():
        if name.fullmatch(path.name):
            _remove_left(path, 0.0)
        elif path.name.startswith(_BEING_MADE):
            _remove_left(path, _MADE_SECONDS)


def _remove_left(path: Path, seconds: float) -> None:
    """Remove a directory of this user's that nobody holds, and that is so old at least."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        descriptor = held(stack, os.open(path, _OPEN))
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or time.time() - status.st_mtime < seconds:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
