"""openat2(2): paths that the kernel resolves inside a directory, and never out of it."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct

_SYS_OPENAT2 = 437  # the same number on every architecture: Linux 5.6, openat2(2)
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10

_open_how = struct.Struct("=QQQ")  # linux/openat2.h: flags, mode, resolve

# Types are set once, and no object is made for each argument: collectors open a thousand files.
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, *[ctypes.c_char_p] * 2, ctypes.c_size_t]
_syscall.restype = ctypes.c_long


@functools.cache
def _how(flags: int, *, links: bool) -> bytes:
    resolve = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS | (0 if links else _RESOLVE_NO_SYMLINKS)
    return _open_how.pack(flags, 0, resolve)


def openat2(dir_fd: int, path: str, flags: int, *, links: bool = True) -> int:
    """Open a path below a directory, which its links see as the top, and return its descriptor.

    Args:
        dir_fd: the directory.
        path: the path.
        flags: as for open(2).
        links: whether symbolic links are followed.

    Raises:
        OSError: as open(2) would; ELOOP when there is a link that is not followed.
    """
    how = _how(flags, links=links)
    while True:
        fd: int = _syscall(_SYS_OPENAT2, dir_fd, os.fsencode(path), how, _open_how.size)
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        # EAGAIN: a rename raced with ".." resolution; openat2(2) says to try again.
        if code not in (errno.EINTR, errno.EAGAIN):
            raise OSError(code, os.strerror(code), os.fsdecode(path))
