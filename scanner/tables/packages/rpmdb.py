"""The rpm database, through librpm, in each of its formats: sqlite, ndb, Berkeley DB.

librpm opens its database by path and may write beside it, so it gets a copy. What it cannot read
it logs and passes over; the log and the number of records tell whether the rows are complete.
Guest-safe: standard library, and the ``rpm`` binding inside the function that uses it.
"""

from __future__ import annotations

import contextlib
import re
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.guest.root import Root
from scanner.schema import MICROSECOND
from scanner.tables.packages.purl import Distribution, purl
from scanner.tables.packages.spec import Package

DIRECTORIES = ("/usr/lib/sysimage/rpm", "/var/lib/rpm", "/usr/share/rpm")
"""Where distributions keep the database: rpm 4.17 and later; before; ostree's read-only copy."""

LIMIT = 256 << 20
"""Largest database file that is copied, in bytes; 3,000 packages take about 100 MiB."""

TAGS = (
    "name",
    "epoch",
    "version",
    "release",
    "arch",
    "sourcerpm",
    "vendor",
    "license",
    "group",
    "summary",
    "longsize",
    "installtime",
)
"""Header tags that a row is made from, as librpm's binding names them."""

_SOURCE_RPM = re.compile(r"(.+)-([^-]+-[^-]+)\.(?:no)?src\.rpm")
_SQLITE_MAGIC = b"SQLite format 3\0"

# lib/backend/ndb/rpmpkg.c: pages of slots, sixteen bytes each, the file's header being the first.
_NDB_MAGIC = b"RpmP"
_NDB_SLOT = struct.Struct("<4sIII")  # "Slot", package number or 0, first block, count of blocks
_NDB_PAGE = 4096
_NDB_HEADER_SLOTS = 2
_NDB_BLOCK = 16

# Berkeley DB's metadata page: the magic number of hash databases, in either byte order.
_BDB_MAGIC_OFFSET = 12
_BDB_HASH_MAGICS = (struct.pack("<I", 0x061561), struct.pack(">I", 0x061561))


@dataclass(frozen=True)
class Format:
    """One of librpm's database formats.

    Attributes:
        backend: the value of librpm's ``_db_backend`` for reading it.
        main: the file with the packages.
        extra: further files that are copied where they exist.
        magic: whether the main file's first bytes are of this format.
        count: how many packages the main file says to have; None where it cannot be asked.
    """

    backend: str
    main: str
    extra: tuple[str, ...]
    magic: Callable[[bytes], bool]
    count: Callable[[Path], int | None]


@dataclass(frozen=True)
class Database:
    """An rpm database found in a root."""

    directory: str
    format: Format

    @property
    def path(self) -> str:
        """Path of its main file in the root."""
        return f"{self.directory}/{self.format.main}"


def count_sqlite(path: Path) -> int:
    """Number of packages in an rpmdb.sqlite.

    Raises:
        ValueError: the file is damaged.
    """
    import sqlite3

    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM Packages").fetchone()
    except sqlite3.Error as error:
        raise ValueError(f"damaged database: {error}") from error
    return int(count)


def count_ndb(path: Path) -> int:
    """Number of packages in a Packages.db, every one of which lies within the file.

    Raises:
        ValueError: the file is damaged.
    """
    size = path.stat().st_size
    used = 0
    with path.open("rb") as stream:
        (pages,) = struct.unpack_from("<12xI", stream.read(_NDB_BLOCK).ljust(_NDB_BLOCK, b"\0"))
        if not 0 < pages * _NDB_PAGE <= size:
            raise ValueError("damaged database: it ends within its table of packages")
        stream.seek(_NDB_HEADER_SLOTS * _NDB_SLOT.size)
        for _ in range(pages * _NDB_PAGE // _NDB_SLOT.size - _NDB_HEADER_SLOTS):
            magic, number, first, blocks = _NDB_SLOT.unpack(stream.read(_NDB_SLOT.size))
            if magic != b"Slot":
                raise ValueError("damaged database: bad entry in its table of packages")
            if number and (first + blocks) * _NDB_BLOCK > size:
                raise ValueError("damaged database: it ends before its last package")
            used += number != 0
    return used


def _no_count(_: Path) -> None:
    return None


FORMATS = (
    Format(
        "sqlite",
        "rpmdb.sqlite",
        ("rpmdb.sqlite-wal",),
        lambda head: head.startswith(_SQLITE_MAGIC),
        count_sqlite,
    ),
    Format(
        "ndb",
        "Packages.db",
        ("Index.db",),
        lambda head: head.startswith(_NDB_MAGIC),
        count_ndb,
    ),
    Format(
        "bdb_ro",
        "Packages",
        (),
        lambda head: head[_BDB_MAGIC_OFFSET:].startswith(_BDB_HASH_MAGICS),
        _no_count,
    ),
)


def find(root: Root) -> Database | None:
    """The root's rpm database; None when it has none."""
    for directory in DIRECTORIES:
        for layout in FORMATS:
            database = Database(directory, layout)
            if root.is_file(database.path):
                return database
    return None


def is_present(root: Root) -> bool:
    """Whether the root has an rpm database."""
    return find(root) is not None


def collect(root: Root, distribution: Distribution, problems: list[str]) -> Iterator[Package]:
    """One row a package, public keys that rpm keeps as packages included.

    Args:
        root: a root for which :func:`is_present` holds; its database may be damaged.
        distribution: what the packages were made for.
        problems: gets a message when rows may be missing.
    """
    database = find(root)
    if database is None:
        return
    try:
        with tempfile.TemporaryDirectory(prefix="rpmdb-") as name:
            yield from _read_copy(root, database, distribution, Path(name))
    except ImportError as error:
        problems.append(f"{database.path}: no librpm here to read it with ({error})")
    except OSError as error:
        problems.append(f"{database.path}: {error.strerror}")
    except ValueError as error:
        problems.append(f"{database.path}: {error}")


def _read_copy(
    root: Root, database: Database, distribution: Distribution, copy: Path
) -> Iterator[Package]:
    layout = database.format
    main = copy / layout.main
    root.copy_out(database.path, str(main), LIMIT)
    with main.open("rb") as stream:
        if not layout.magic(stream.read(64)):
            raise ValueError(f"not an rpm database of the {layout.backend} format")
    for name in layout.extra:
        with contextlib.suppress(FileNotFoundError):
            root.copy_out(f"{database.directory}/{name}", str(copy / name), LIMIT)
    rows = 0
    for header in read_headers(copy, layout.backend):
        yield from_header(header, distribution)
        rows += 1
    expected = layout.count(main)
    if expected is not None and rows < expected:
        raise ValueError(f"damaged database: {expected - rows} of {expected} packages unreadable")


def read_headers(directory: Path, backend: str) -> Iterator[dict[str, Any]]:
    """Tags of every package in a database, :data:`TAGS` being the keys.

    Args:
        directory: a database that may be written to.
        backend: value of librpm's ``_db_backend``.

    Raises:
        ImportError: librpm's binding is not installed.
        ValueError: librpm reported an error; raised after what it could read.
    """
    import rpm

    log = directory / "log"
    macros = {"_dbpath": str(directory), "_db_backend": backend}
    for macro, value in macros.items():
        rpm.addMacro(macro, value)
    with log.open("w") as stream:
        rpm.setLogFile(stream)
        transaction = rpm.TransactionSet()
        try:
            # Signatures were checked when the packages were installed; keys are not at hand here.
            transaction.setVSFlags(-1)
            for header in transaction.dbMatch():
                yield {tag: header[tag] for tag in TAGS}
        except rpm.error as error:
            raise ValueError(_first_error(log) or str(error)) from error
        finally:
            transaction.closeDB()
            rpm.setLogFile(sys.__stderr__)  # the binding keeps writing to the number it got
            for macro in macros:
                rpm.delMacro(macro)
    if message := _first_error(log):
        raise ValueError(message)


def _first_error(log: Path) -> str:
    text = log.read_text("utf-8", "surrogateescape")
    return first_error(text.replace(f"{log.parent}/", ""))


def first_error(log: str) -> str:
    """What librpm's log first tells of data that it could not read; empty for nothing."""
    for line in log.splitlines():
        if line.startswith("error: "):
            return f"librpm: {line.removeprefix('error: ')}"
        if line.startswith("warning: ") and "dummy database" in line:
            return "this librpm cannot read the database's format"
    return ""


def from_header(header: Mapping[str, Any], distribution: Distribution) -> Package:
    """The row for one package header.

    Args:
        header: :data:`TAGS` by name, None for those that the package lacks. ``Any`` because
            librpm's binding is untyped: strings, integers, or lists of them.
        distribution: what the package was made for.

    Raises:
        ValueError: the package has no name or no version.
    """
    name, version, release = (_text(header[tag]) for tag in ("name", "version", "release"))
    if not name or not version:
        raise ValueError(f"damaged database: a package without {'version' if name else 'name'}")
    epoch = _number(header["epoch"])
    whole = "-".join(filter(None, (version, release)))
    architecture = _text(header["arch"])
    source = _SOURCE_RPM.fullmatch(_text(header["sourcerpm"]) or "")
    installed = _number(header["installtime"])
    return Package(
        manager="rpm",
        name=name,
        version=whole if epoch is None else f"{epoch}:{whole}",
        epoch=epoch,
        upstream_version=version,
        release=release,
        architecture=architecture,
        status="installed",
        held=False,
        purl=purl(
            "rpm",
            name,
            whole,
            distribution.id,
            arch=architecture,
            distro=distribution.qualifier,
            epoch=epoch,
        ),
        source_name=source[1] if source else None,
        source_version=source[2] if source else None,
        vendor=_text(header["vendor"]),
        license=_text(header["license"]),
        section=_text(header["group"]),
        summary=_text(header["summary"]),
        installed_size=_number(header["longsize"]),
        installed_at=None if installed is None else installed * MICROSECOND,
        path=None,
        account=None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
