"""A list of other sources in a text file, such as what find(1) prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.sources.base import Machine, SourceOptions
from fleetscan.scanner.sources.source_kind import SourceKind

_MARK = "@"  # as GNU programs name files that hold arguments
_SIZE_LIMIT = 64 << 20
"""Longest list read, in bytes: some hundred thousand paths."""


class List(SourceKind):
    """A text file with one image, block device, folder or inventory a line.

    Empty lines, and lines that begin with ``#``, are passed over. If there is a NUL byte, NUL ends
    each name instead, as with ``find -print0``. Relative paths start at the list's own folder. The
    user named the list, so what it lists counts as named by the user. A list may not name lists.
    """

    name = "list"
    form = "a list of these as @FILE"
    rank = 10  # recognised by its mark; last, because an error names the others first
    flag = "--list"
    metavar = "FILE"
    help = "Scan the images, folders and inventories that a text file lists, one a line."

    def accepts(self, source: str) -> bool:
        """Whether it is marked as a list. A file of such a name is ``./@FILE``."""
        return source.startswith(_MARK)

    def machines(self, source: str, options: SourceOptions) -> list[Machine]:
        """The machines of everything that is listed, in the list's order."""
        from fleetscan.scanner.sources import find_machines

        path = Path(source.removeprefix(_MARK))
        return find_machines(list(_named(path)), options)

    def named(self, value: str) -> str:
        """The source that ``--list FILE`` names."""
        return f"{_MARK}{value}"

    def absolute(self, source: str) -> str:
        """The list by its absolute path."""
        return f"{_MARK}{Path(source.removeprefix(_MARK)).absolute()}"

    def identity(self, source: str) -> str:
        """The list's path, symbolic links resolved."""
        return f"{_MARK}{Path(source.removeprefix(_MARK)).resolve()}"


def _named(path: Path) -> Iterator[str]:
    text = _read(path)
    ended = "\0" if "\0" in text else "\n"
    for number, line in enumerate(text.split(ended), start=1):
        name = line if ended == "\0" else line.strip()
        if name.startswith(_MARK):
            raise UsageError(f"{path}, line {number}: a list cannot name a list")
        if name and not (ended == "\n" and name.startswith("#")):
            yield str(path.absolute().parent / name)


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as stream:
            text = stream.read(_SIZE_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"list {path} cannot be read: {error.strerror}") from error
    if len(text) > _SIZE_LIMIT:
        raise UsageError(f"list {path} is longer than {_SIZE_LIMIT >> 20} MiB")
    return text


KIND = List()
