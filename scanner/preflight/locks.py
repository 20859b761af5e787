"""Whether a running guest writes to an image.

VMware's desktop products keep a folder of lock files beside each disk that is in use.

QEMU takes open-file-description locks on single bytes of an image: byte 100 + n says that it
uses permission n (docs/devel/block, block/file-posix.c: RAW_LOCK_PERM_BASE). Readers use
"consistent read" alone; whoever uses one of the others may change the file.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from pathlib import Path

_PERMISSION_BASE = 100
_WRITE, _RESIZE = 1, 3  # BLK_PERM_WRITE, _WRITE_UNCHANGED (2), BLK_PERM_RESIZE
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, len, pid


def has_lock_folder(path: str) -> bool:
    """Whether VMware keeps lock files for an image, in the folder ``NAME.lck`` beside it."""
    return any(Path(f"{path}.lck").glob("*.lck"))


def is_written(fd: int) -> bool:
    """Whether another process holds a file's locks for writing, or has a device for its own.

    Also False where the filesystem has no such locks.
    """
    request = _FLOCK.pack(
        fcntl.F_WRLCK, os.SEEK_SET, _PERMISSION_BASE + _WRITE, _RESIZE - _WRITE + 1, 0
    )
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, request)
    except OSError:
        return _is_claimed(fd)
    return _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK or _is_claimed(fd)


def _is_claimed(fd: int) -> bool:
    """Whether the kernel itself uses a block device: mounted, or part of a volume group."""
    if not stat.S_ISBLK(os.fstat(fd).st_mode):
        return False
    try:
        # O_EXCL without O_CREAT: only for block devices, fails while one is in use (open(2)).
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_EXCL))
    except OSError:
        return True
    return False
