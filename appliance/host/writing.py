"""How the host makes files and directories: every one of them, with modes that no umask decides.

What is made is for us alone: directories 0700, files 0600. One wish overrides that: in a directory
with the set-group-ID bit (``chmod g+s``), what is made gets the permissions that the directory
gives its group, and so does all below it. Nothing is ever given to other users.

A file appears under its name complete or not at all. It is written under a fresh name in the same
directory, opened so that no link and no file that somebody put there is followed or reused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path

_DIRECTORY = 0o700
_FILE = 0o600
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_GROUP = {_DIRECTORY: stat.S_IRWXG, _FILE: stat.S_IRGRP | stat.S_IWGRP}


def make_directory(path: Path, *, durable: bool = False) -> None:
    """Make a directory, and those above it that are missing; one that is there stays as it is.

    Args:
        path: the directory.
        durable: whether the names of those that are made must be on disk.

    Raises:
        OSError: it cannot be made, or something else has its name.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        mode = _mode_in(folder.parent, _DIRECTORY)
        try:
            folder.mkdir(mode)
        except FileExistsError:  # another process was faster
            continue
        _set_mode(folder, mode)
        if durable:
            flush_directory(folder.parent)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def _set_mode(folder: Path, mode: int) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _mode_in(parent: Path, mode: int) -> int:
    """The mode of something made in a directory: as wide as that lets its group, if it says so."""
    wish = parent.stat().st_mode
    if not wish & stat.S_ISGID:
        return mode
    inherited = stat.S_ISGID if mode == _DIRECTORY else 0
    return mode | inherited | (wish & _GROUP[mode])


def new_file(path: Path, mode: int | None = None) -> BufferedWriter:
    """A new file, open for writing.

    Args:
        path: its name, which nothing has yet.
        mode: its permissions; for us alone, or as its directory says, when None.

    Raises:
        OSError: something has its name, or it cannot be made.
    """
    wanted = _mode_in(path.parent, _FILE) if mode is None else mode
    descriptor = os.open(path, _NEW, _FILE)
    try:
        os.fchmod(descriptor, wanted)
        return os.fdopen(descriptor, "wb")
    except BaseException:
        os.close(descriptor)
        raise


@contextlib.contextmanager
def replacing(
    path: Path, *, mode: int | None = None, durable: bool = True
) -> Iterator[BufferedWriter]:
    """A new file that gets its name when the block ends without error.

    Whoever reads the name meanwhile finds what was there before. A link that has the name is
    replaced, not followed.

    Args:
        path: the name; its directory is there.
        mode: as for :func:`new_file`.
        durable: whether its content must be on disk before its name is.

    Raises:
        OSError: the directory is not writable or full, or the name is a device's or directory's.
    """
    _refuse_special(path)
    temporary = temporary_beside(path)
    stream = new_file(temporary, mode)
    try:
        with stream:
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    if durable:
        flush_directory(path.parent)


def _refuse_special(path: Path) -> None:
    """Keep a name from being replaced that stands for a device or a descriptor, as /dev/stdout."""
    folder = path.parent.resolve()
    special = folder == Path("/dev") or folder.is_relative_to("/proc")
    with contextlib.suppress(FileNotFoundError):
        special = special or not stat.S_ISREG(path.stat().st_mode)
    if special:
        raise FileExistsError(errno.EEXIST, "it is not the name of a regular file", str(path))


def temporary_beside(path: Path) -> Path:
    """A name in the same directory that nobody else uses.

    It begins with a dot and does not end as ``path`` does, so that no reader takes it for data.
    """
    return path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.tmp")


def flush_directory(path: Path) -> None:
    """Force the names in a directory to disk.

    Raises:
        OSError: it is no directory, or its disk failed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that a file stands for; who comes second waits.

    Raises:
        OSError: the file cannot be made, or is a link.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, _FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def umask() -> int:
    """The umask of this process, read without changing it (proc_pid_status(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o077
