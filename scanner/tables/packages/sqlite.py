"""Reading a package database that is an SQLite file: a copy of it, and within limits.

Guest-safe: standard library only.
"""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from appliance.guest.root import Root

LIMIT = 256 << 20
"""Largest database that is copied, in bytes; 1,000 packages of FreeBSD take about 30 MiB."""

_HEADER = struct.Struct(">16sH10xI")  # magic, bytes a page (1: 65536), pages: fileformat.html, 1.3
_STEPS = 20_000_000
"""Most steps of SQLite's virtual machine that a query may take; a row takes about 100."""


def select(root: Root, path: str, query: str, problems: list[str]) -> Iterator[tuple[object, ...]]:
    """Rows of a query on a database of the root; of a damaged one those before the damage.

    Args:
        root: the root.
        path: the database file; a write-ahead log beside it is taken along.
        query: a SELECT.
        problems: gets a message when rows may be missing.
    """
    import sqlite3

    with tempfile.TemporaryDirectory(prefix="packages-") as folder:
        copy = Path(folder, "copy")
        try:
            root.copy_out(path, str(copy), LIMIT)
            with contextlib.suppress(FileNotFoundError):
                root.copy_out(f"{path}-wal", f"{copy}-wal", LIMIT)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
            return
        if _lengthen(copy):
            problems.append(f"{path}: ends before its last page")
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            connection.set_progress_handler(lambda: True, _STEPS)
            try:
                connection.execute("PRAGMA trusted_schema = OFF")
                yield from connection.execute(query)
            except sqlite3.Error as error:
                problems.append(f"{path}: damaged database: {error}")


def _lengthen(database: Path) -> bool:
    """Give a database that was cut off the length that its header tells; whether it was.

    SQLite reads nothing of a file that is too short, but what is whole of one with empty pages.
    """
    with database.open("r+b") as stream:
        header = stream.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(b"SQLite format 3\0"):
            return False
        _, page, pages = _HEADER.unpack(header)
        length = min((page if page > 1 else 1 << 16) * pages, LIMIT)
        if length <= database.stat().st_size:
            return False
        stream.truncate(length)
    return True


def text(value: object) -> str:
    """A column's text; empty for a value of another type."""
    return value if isinstance(value, str) else ""


def count(value: object) -> int | None:
    """A column's non-negative number; None for another value."""
    return value if isinstance(value, int) and value >= 0 else None
