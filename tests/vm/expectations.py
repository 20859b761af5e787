"""What the builder, ``blkid``, ``find`` and the package tools said of an example image."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

_TYPES = {
    "f": "file",
    "d": "directory",
    "l": "symlink",
    "c": "character",
    "b": "block",
    "p": "fifo",
    "s": "socket",
}
_FIELDS = 9


@dataclass(frozen=True)
class Entry:
    """A directory entry; what means nothing for its type is None."""

    type: str
    mode: int
    uid: int
    gid: int
    size: int | None
    modified: int
    links: int | None
    target: bytes | None


@dataclass(frozen=True)
class Usage:
    """A filesystem's usage, in bytes."""

    type: str
    size: int
    used: int
    available: int
    inodes: int
    inodes_used: int


class Expected:
    """The folder of expectations beside an image."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def text(self, name: str) -> str:
        """A file of the folder."""
        return (self._folder / name).read_text()

    def packages(self) -> list[tuple[str, ...]]:
        """Name, version, architecture and status, as dpkg-query or rpm printed them; sorted."""
        return sorted(tuple(line.split("\t")) for line in self.text("packages").splitlines())

    def files(self) -> dict[bytes, Entry]:
        """Every path of the tree, as find printed it."""
        fields = (self._folder / "files").read_bytes().split(b"\0")[:-1]
        records = [fields[start : start + _FIELDS] for start in range(0, len(fields), _FIELDS)]
        return {record[0]: _entry(record) for record in records}

    def filesystems(self) -> list[tuple[str | None, ...]]:
        """Type, UUID, label and version of each device, as blkid printed them; sorted."""
        blocks = [_fields(block) for block in self.text("blkid").split("\n\n") if block.strip()]
        names = ("TYPE", "UUID", "LABEL", "VERSION")
        return sorted((tuple(block.get(name) for name in names) for block in blocks), key=str)

    def mounts(self) -> dict[str, tuple[str | None, ...]]:
        """Mountpoint to filesystem type, UUID, label and btrfs subvolume."""
        rows = json.loads(self.text("mounts.json"))["filesystems"]
        top = min((row["target"] for row in rows), key=len)
        return {
            row["target"].removeprefix(top) or "/": (
                row["fstype"],
                row["uuid"],
                row["label"],
                row["fsroot"].strip("/") or None,
            )
            for row in rows
        }

    def usage(self) -> dict[str, Usage]:
        """Mountpoint to what df said."""
        lines = [line.split() for line in self.text("df").splitlines()[1:]]
        top = min((fields[0] for fields in lines), key=len)
        return {
            fields[0].removeprefix(top) or "/": Usage(fields[1], *map(int, fields[2:]))
            for fields in lines
        }


def _entry(record: list[bytes]) -> Entry:
    _, kind, mode, uid, gid, size, modified, links, target = record
    seconds, _, fraction = modified.decode().partition(".")
    directory, link = kind == b"d", kind == b"l"
    # A directory's size and link count are the filesystem's business, and btrfs' differ by mount.
    return Entry(
        type=_TYPES[kind.decode()],
        mode=int(mode, 8),
        uid=int(uid),
        gid=int(gid),
        size=None if directory else int(size),
        modified=_microseconds(seconds, fraction),
        links=None if directory else int(links),
        target=target if link else None,
    )


def _microseconds(seconds: str, fraction: str) -> int:
    """Whole microseconds, rounded down, of the seconds that find's %T@ prints.

    find prints a time before 1970 as its whole part, rounded down, and the fraction after it.
    """
    return int(seconds) * 1_000_000 + int(fraction[:6].ljust(6, "0"))


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in block.splitlines())
    return {name: re.sub(r"\\(.)", r"\1", value) for name, _, value in pairs}
