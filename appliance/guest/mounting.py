"""mount(2), by the C library: a process less for each filesystem."""

from __future__ import annotations

import ctypes
import os

# Source of the numbers: linux/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_BIND = 0x1000

READ_ONLY = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME
"""How everything of a scanned machine is mounted."""

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount a filesystem.

    Raises:
        OSError: the kernel refused.
    """
    arguments = [source, target, kind]
    encoded = [None if text is None else os.fsencode(text) for text in arguments]
    data = os.fsencode(options) if options else None
    if _libc.mount(*encoded, ctypes.c_ulong(flags), data) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), source)


def bind(source: str, target: str) -> None:
    """Make a mounted tree appear a second time, read-only as it is.

    Raises:
        OSError: the kernel refused.
    """
    mount(source, target, None, MS_BIND)
