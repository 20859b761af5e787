"""A user of its own for each confined program, when we are root.

Two programs of one user may signal and trace each other and read each other's files. So each gets a
user and group id that no one else on the host has: one of a range that nobody hands out, taken by a
lock that ends with us. systemd's table of ids (https://systemd.io/UIDS-GIDS/) has 1879048192 to
2147483647 as unused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534
"""Linux's overflow user: where no user of its own can be had."""

FIRST, COUNT = 2_000_000_000, 65_536
_LOCKS = Path("/run/fleetscan-users")
_LOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl.h: type, whence, start, length, pid


@contextlib.contextmanager
def own_user() -> Iterator[int]:
    """A user id that no other confined program of this host has until the block ends.

    Raises:
        OSError: none can be had: we are not root, or cannot keep locks.
    """
    descriptor = os.open(_LOCKS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield FIRST + _take(descriptor)
    finally:
        os.close(descriptor)  # and with it goes the lock


def _take(descriptor: int) -> int:
    """Lock the first byte that nobody has locked; its place."""
    for offset in range(COUNT):
        place = (os.getpid() + offset) % COUNT  # processes begin apart from each other
        wanted = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        except BlockingIOError:
            continue
        return place
    raise OSError("all user ids of fleetscan's range are taken")
