"""Files whose bytes are the ones that a checksum names, however they are opened afterwards.

A file is hashed through the descriptor that is handed on, so that nobody can put another one in
its place meanwhile. What was hashed is remembered by device, inode, size and both times of the
file; the time of its last change (ctime) is the kernel's, and no program can set it back. This
process remembers it, and so does a note beside the files, which only we or root can write
(``host.trust``): a file that did not change since is not hashed again by every process. The
note is worth as much as the manifest with the checksums, which is beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.host import trust, writing
from fleetscan.appliance.host.descriptors import opened

NOTE = "verified.json"
_READABLE = 0o644  # no secret: those who may use an appliance of root's need not hash it either

Identity = tuple[int, int, int, int, int]
"""Device, inode, size, and times of the last modification and change, in nanoseconds."""

_verified: dict[Identity, str] = {}
"""Checksums that this process knows."""


def identity(status: os.stat_result) -> Identity:
    """What distinguishes a file from any other, and from itself before a change."""
    times = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, *times


def open_verified(
    stack: contextlib.ExitStack, path: Path, checksum: str, *, anew: bool = False
) -> int:
    """A descriptor of a file that has this SHA-256 checksum, for reading.

    Args:
        stack: closes it.
        path: the file.
        checksum: 64 hex digits.
        anew: hash it although it has not changed since that was last done.

    Raises:
        ApplianceError: it has another one.
        UntrustedError: other users could have written the file.
        OSError: it cannot be read.
    """
    descriptor = opened(stack, path)
    found = identity(trust.check_file(path, descriptor))
    if not anew:
        if found not in _verified:
            _verified.update(_noted(path.parent))
        if _verified.get(found) == checksum:
            return descriptor
    if _hash(descriptor) != checksum or identity(os.fstat(descriptor)) != found:
        raise ApplianceError(
            f"{path} is damaged: its checksum is not what it was when it was made",
            hint="run: fleetscan appliance build --force (or import it again)",
        )
    _remember(path.parent, found, checksum)
    return descriptor


def _hash(descriptor: int) -> str:
    with open(descriptor, "rb", closefd=False) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    os.lseek(descriptor, 0, os.SEEK_SET)
    return digest


def _remember(folder: Path, found: Identity, checksum: str) -> None:
    """Remember a checksum; a note that cannot be written costs the next process a hash."""
    _verified[found] = checksum
    noted = {**_noted(folder), found: checksum}
    with contextlib.suppress(OSError):
        present = {identity(path.stat()) for path in folder.iterdir()}
        content = [[key, value] for key, value in noted.items() if key in present]
        with writing.replacing(folder / NOTE, mode=_READABLE, durable=False) as stream:
            stream.write(json.dumps(content).encode())


def _noted(folder: Path) -> dict[Identity, str]:
    """What the note says; nothing when there is none, or others could have written it."""
    path = folder / NOTE
    try:
        with path.open("rb") as stream:
            trust.check_file(path, stream.fileno())
            content = json.load(stream)
        return {_identity_of(key): str(value) for key, value in content}
    except (OSError, ValueError, TypeError, trust.UntrustedError):
        return {}


def _identity_of(numbers: list[int]) -> Identity:
    device, inode, size, modified, changed = map(int, numbers)
    return device, inode, size, modified, changed
