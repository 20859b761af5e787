"""Memory limits by control groups (version 2), where ours was delegated to us.

A group may give its children limits only while it holds no process itself. So the place for a VM's
group is beside our own: in a group that was handed over to be divided, which systemd does with
``Delegate=`` and ``DelegateSubgroup=`` and says in an attribute. Everywhere else a process is held
by its address space alone.

Sources: Documentation/admin-guide/cgroup-v2.rst of Linux 6.12; systemd's CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "fleetscan-vm-"
_DELEGATED = "user.delegate"
_GONE_SECONDS = 2.0  # a group is busy for a moment after its last process has ended


class MemoryGroup:
    """A group whose processes together may have so much memory.

    Attributes:
        path: its directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, pid: int) -> None:
        """Put a process, and those it will start, into the group.

        Raises:
            OSError: it has ended already.
        """
        (self.path / "cgroup.procs").write_text(str(pid))


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup | None]:
    """A group of its own with this limit, removed at the end; None where we can make none.

    Args:
        limit: in bytes, page cache included, which the kernel frees before it kills.
    """
    path = _make(limit)
    try:
        yield MemoryGroup(path) if path else None
    finally:
        if path:
            _remove(path)


def _make(limit: int) -> Path | None:
    parent = delegated()
    if parent is None:
        return None
    try:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError:
        return None
    try:
        (path / "memory.max").write_text(str(limit))
        (path / "memory.oom.group").write_text("1")
    except OSError:
        _remove(path)
        return None
    return path


def delegated() -> Path | None:
    """The group above ours, where it was handed over and has memory to give; None otherwise."""
    own = _own()
    if own is None:
        return None
    parent = own.parent
    try:
        if os.getxattr(parent, _DELEGATED) != b"1":
            return None
        if "memory" not in (parent / "cgroup.controllers").read_text().split():
            return None
        (parent / "cgroup.subtree_control").write_text("+memory")
    except OSError:  # it has no such attribute, holds processes, or is not ours
        return None
    return parent


def _own() -> Path | None:
    """The directory of our own group; None without a hierarchy of version 2, or at its top."""
    mounts = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    tops = [words[4] for words in mounts if words[words.index("-") + 1] == "cgroup2"]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, _, name = line.split(":", 2)
        if number == "0" and name.strip("/") and tops:
            return Path(tops[0], name.strip("/"))
    return None


def _remove(path: Path) -> None:
    end = time.monotonic() + _GONE_SECONDS
    while True:
        try:
            path.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > end:
                return
        time.sleep(0.001)
