"""Reading a database of the system that is an SQLite file, within limits."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.root import Root

COPY_LIMIT = 256 << 20
"""Largest database that is copied to memory, in bytes: those that lack their end, or whose last
changes stand in a log beside them. 3,000 packages of rpm take about 100 MiB."""

MAGIC = b"SQLite format 3\0"
"""How such a file begins."""

_HEADER = struct.Struct(">16sH10xI")  # magic, bytes a page (1: 65536), pages: fileformat.html, 1.3
_STEPS = 20_000_000
"""Most steps of SQLite's virtual machine that a query may take; a row takes about 100."""
_VALUE = 32 << 20  # bytes of a text or blob; headers of rpm take up to 1 MiB


def select(root: Root, path: str, query: str, problems: Problems) -> Iterator[tuple[object, ...]]:
    """Rows of a query on a database of the root; of a damaged one those before the damage.

    Args:
        root: the root.
        path: the database file; a write-ahead log beside it is taken along.
        query: a SELECT.
        problems: gets a message when rows may be missing.
    """
    import sqlite3

    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(root.open(path))
            address = f"file:/proc/self/fd/{stream.fileno()}?immutable=1"
            missing = _missing(stream)
        except OSError as error:
            problems.note(f"{path}: {reason(error)}")
            return
        if missing:
            problems.note(f"{path}: ends before its last page")
        if missing or _size(root, f"{path}-wal"):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="database-"))
            try:
                address = _copy(root, path, Path(folder, "copy"), missing)
            except OSError as error:
                problems.note(f"{path}: read without its last changes: {reason(error)}")
        connection = stack.enter_context(contextlib.closing(sqlite3.connect(address, uri=True)))
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        connection.set_progress_handler(lambda: True, _STEPS)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            yield from connection.execute(query)
        # The last: of a name that SQLite's own message quotes from a damaged schema.
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            problems.note(f"{path}: damaged database: {error}")


def _missing(stream: BinaryIO) -> int:
    """How many bytes a database lacks of the length that its header states."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(MAGIC):
        return 0
    page, pages = _HEADER.unpack(header)[1:]
    length: int = (page if page > 1 else 1 << 16) * pages
    return max(0, length - os.fstat(stream.fileno()).st_size)


def _size(root: Root, path: str) -> int:
    try:
        return root.stat(path).st_size
    except OSError:
        return 0


def _copy(root: Root, path: str, copy: Path, missing: int) -> str:
    """Address of a copy, as long as its header states, with its log.

    SQLite reads nothing of a file that is too short, but what is whole of one with empty pages.

    Raises:
        OSError: as :meth:`Root.copy_out`.
    """
    root.copy_out(path, str(copy), COPY_LIMIT)
    with contextlib.suppress(FileNotFoundError):
        root.copy_out(f"{path}-wal", f"{copy}-wal", COPY_LIMIT)
    if missing:
        os.truncate(copy, min(copy.stat().st_size + missing, COPY_LIMIT))
    return f"file:{copy}"


def text(value: object) -> str:
    """A column's text; empty for a value of another type."""
    return value if isinstance(value, str) else ""


def count(value: object) -> int | None:
    """A column's non-negative number; None for another value."""
    return value if isinstance(value, int) and value >= 0 else None
