"""Initial RAM disks: the first stage that mounts the appliance's root, and the agent's files.

The kernel unpacks several archives laid end to end as one, so the agent travels in an archive of
its own: a change of the agent needs no new appliance.
"""

from __future__ import annotations

import functools
import hashlib
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
"""Folder of the four packages: the repository, or ``fleetscan`` where it is installed."""

_PACKAGE = "fleetscan"  # what they are imported from

_ROOMS = ("appliance/ground", "appliance/guest")
_TABLES = "*/tables"  # and the fact tables with their collectors, whoever has them
_START = """\
import sys
sys.path[:] = ["/run/agent", *sys.path, "/usr/lib/python3/dist-packages"]
from fleetscan.appliance.guest.__main__ import boot
boot({tables!r})
"""


def pack(files: Mapping[str, bytes], *, executable: frozenset[str] = frozenset()) -> bytes:
    """An uncompressed cpio archive ("newc") of the files and the directories above them.

    Args:
        files: path without leading slash to content; an empty path component is not allowed.
        executable: the paths that get mode 0755 instead of 0644.

    Source of the format: the Linux kernel's
    Documentation/driver-api/early-userspace/buffer-format.rst.
    """
    folders = {str(parent) for path in files for parent in Path(path).parents} - {"."}
    entries: list[tuple[str, int, bytes]] = [
        (folder, stat.S_IFDIR | 0o755, b"") for folder in folders
    ]
    for path, content in files.items():
        mode = 0o755 if path in executable else 0o644
        entries.append((path, stat.S_IFREG | mode, content))
    archive = [_entry(index, *entry) for index, entry in enumerate(sorted(entries), start=1)]
    return b"".join([*archive, _entry(0, "TRAILER!!!", 0, b"")])


def _entry(inode: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    links, no_time, no_device, checksum = 1, 0, 0, 0
    fields = [inode, mode, 0, 0, links, no_time, len(content)]
    fields += [no_device, no_device, no_device, no_device, len(encoded), checksum]
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + encoded) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def agent_files() -> dict[str, bytes]:
    """The agent's files by path below its directory in the appliance.

    What ships follows from its place: the modules of the ground and of the guest's room, those of
    the fact tables, and the packages that they are in.
    """
    rooms = _rooms()
    paths = {path for room in rooms for path in room.rglob("*.py")}
    paths |= {room.parent / "__init__.py" for room in rooms}
    files = {f"{_PACKAGE}/{path.relative_to(PROJECT)}": path.read_bytes() for path in sorted(paths)}
    files["start.py"] = _START.format(tables=tables_package()).encode()
    return files


def native_sources() -> list[Path]:
    """What of the agent is written in C: part of the appliance, whose build compiles it."""
    return [path for room in _rooms() for path in sorted(room.rglob("*.[ch]"))]


def agent_command() -> tuple[str, ...]:
    """What runs the agent as an ordinary process; a directory and a socket's descriptor follow."""
    return (sys.executable, "-m", f"{_PACKAGE}.appliance.guest", tables_package())


def _rooms() -> list[Path]:
    return [_tables(), *(PROJECT / room for room in _ROOMS)]


def tables_package() -> str:
    """The package of the fact tables. The agent gets its name: it imports none itself."""
    return ".".join((_PACKAGE, *_tables().relative_to(PROJECT).parts))


def _tables() -> Path:
    (marker,) = PROJECT.glob(f"{_TABLES}/__init__.py")
    return marker.parent


@functools.cache
def agent_archive() -> bytes:
    """The archive that puts the agent below /agent; same files, same bytes.

    Read once a process: whoever replaces the files meanwhile changes no scan that runs.
    """
    return pack({f"agent/{path}": content for path, content in agent_files().items()})


@functools.cache
def agent_id() -> str:
    """Content address of the agent and its collectors: 12 hex digits."""
    return hashlib.sha256(agent_archive()).hexdigest()[:12]
