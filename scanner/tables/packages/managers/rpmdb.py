"""The rpm database in each of its formats: sqlite, ndb, Berkeley DB.

Headers of packages are librpm's to read. They are taken out of the databases here, one by one and
in place, so that a damaged one costs no other, whatever librpm was built with, and whatever the
database's pages refer to: librpm itself follows a chain of them that comes back to its beginning
for ever.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.appliance.guest.readers import sqlite
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import Distribution, purl
from fleetscan.scanner.tables.packages.spec import Package

DIRECTORIES = ("/usr/lib/sysimage/rpm", "/var/lib/rpm", "/usr/share/rpm")
"""Where distributions keep the database: rpm 4.17 and later; before; ostree's read-only copy."""

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

# lib/backend/ndb/rpmpkg.c: pages of slots, sixteen bytes each, the file's header being the first
# two; blobs of whole blocks, with a checksum, their length and a mark behind them.
_NDB_SLOT = struct.Struct("<4sIII")  # "Slot", package number or 0, first block, count of blocks
_NDB_BLOB = struct.Struct("<4sI4xI")  # "BlbS", package number, generation, length
_NDB_TAIL = struct.Struct("<II4s")  # checksum of what is before, length, "BlbE"
_NDB_PAGE = 4096
_NDB_PAGES = 1024  # of slots, for 262,000 packages
_NDB_HEADER_SLOTS = 2
_NDB_BLOCK = 16
_HEADER_LIMIT = 32 << 20  # bytes; a kernel's, with its list of files, takes 1 MiB

# Berkeley DB's dbinc/db_page.h, in either byte order: the metadata page of a hash database has its
# magic, the pages' size, the last page, the last bucket, and for each doubling of the table what to
# add to a bucket's number for that of its first page; every page has its follower, the number of
# entries, where they begin (of an overflow page: how long its data is), and its type.
_BDB_META_SIZE = 224
_BDB_LIMIT = 1 << 30  # bytes; 3,000 packages take about 100 MiB
_BDB_MAGIC_OFFSET = 12
_BDB_ORDERS = {struct.pack(f"{order}I", 0x061561): order for order in "<>"}
_BDB_META = "20xI8xI36xI20x32I"
_BDB_PAGE = "16xIHHxB"
_BDB_PAGE_SIZE = 26
_BDB_HASH_PAGES, _BDB_OVERFLOW_PAGE = (2, 13), 7
_BDB_HERE, _BDB_ELSEWHERE = 1, 3  # kinds of entries: in the page itself; in overflow pages

Header = Mapping[str, Any]
""":data:`TAGS` by name, None for those that a package lacks. ``Any`` because librpm's binding is
untyped: strings, integers, or lists of them."""


@dataclass(frozen=True)
class Format:
    """One of rpm's database formats.

    Attributes:
        name: what rpm calls it.
        main: the file with the packages.
        magic: whether the main file's first bytes are of this format.
        headers: the headers in a root's database at a path; what cannot be read is a message more
            in the list.
    """

    name: str
    main: str
    magic: Callable[[bytes], bool]
    headers: Callable[[Root, str, Problems], Iterator[Header]]


@dataclass(frozen=True)
class RpmDatabase:
    """An rpm database found in a root."""

    directory: str
    format: Format

    @property
    def path(self) -> str:
        """Path of its main file in the root."""
        return f"{self.directory}/{self.format.main}"


def sqlite_headers(root: Root, path: str, problems: Problems) -> Iterator[Header]:
    """Headers in an rpmdb.sqlite."""
    blobs = (
        blob if isinstance(blob, bytes) else b""
        for (blob,) in sqlite.select(root, path, "SELECT blob FROM Packages", problems)
    )
    yield from _parsed(blobs, problems)


def ndb_headers(root: Root, path: str, problems: Problems) -> Iterator[Header]:
    """Headers in a Packages.db."""
    with root.open(path) as stream:
        yield from _parsed(ndb_blobs(stream, problems), problems)


def ndb_blobs(stream: BinaryIO, problems: Problems) -> Iterator[bytes]:
    """Headers of packages as stored in a Packages.db; empty ones for those that are damaged."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    (pages,) = struct.unpack_from("<12xI", stream.read(_NDB_BLOCK).ljust(_NDB_BLOCK, b"\0"))
    known = min(pages, _NDB_PAGES, size // _NDB_PAGE)
    if not 0 < pages == known:
        problems.note("damaged database: it ends within its table of packages")
    stream.seek(0)
    table = stream.read(known * _NDB_PAGE)
    slots = list(_NDB_SLOT.iter_unpack(table))[_NDB_HEADER_SLOTS:]
    if any(magic != b"Slot" for magic, *_ in slots):
        problems.note("damaged database: bad entry in its table of packages")
    for magic, number, first, blocks in slots:
        if magic == b"Slot" and number:
            yield _ndb_blob(stream, number, first, blocks)


def _ndb_blob(stream: BinaryIO, number: int, first: int, blocks: int) -> bytes:
    whole = blocks * _NDB_BLOCK
    if not _NDB_BLOB.size + _NDB_TAIL.size <= whole <= _HEADER_LIMIT:
        return b""
    stream.seek(first * _NDB_BLOCK)
    data = stream.read(whole)
    if len(data) < whole:
        return b""
    magic, owner, length = _NDB_BLOB.unpack_from(data)
    end = whole - _NDB_TAIL.size
    if (magic, owner) != (b"BlbS", number) or length > end - _NDB_BLOB.size:
        return b""
    if _NDB_TAIL.unpack_from(data, end) != (zlib.adler32(data[:end]), length, b"BlbE"):
        return b""
    return data[_NDB_BLOB.size : _NDB_BLOB.size + length]


def _parsed(blobs: Iterator[bytes], problems: Problems) -> Iterator[Header]:
    """What librpm reads in headers; how many it cannot is a problem.

    Raises:
        ImportError: librpm's binding is not installed.
    """
    import rpm

    total = unreadable = 0
    for blob in blobs:
        total += 1
        try:
            header = rpm.hdr(blob)
        except rpm.error:
            unreadable += 1
        else:
            yield {tag: header[tag] for tag in TAGS}
    if unreadable:
        problems.note(f"damaged database: {unreadable} of {total} packages unreadable")


def bdb_headers(root: Root, path: str, problems: Problems) -> Iterator[Header]:
    """Headers in a Packages file of Berkeley DB."""
    with root.open(path) as stream:
        yield from _parsed(bdb_blobs(stream, problems), problems)


def bdb_blobs(stream: BinaryIO, problems: Problems) -> Iterator[bytes]:
    """Headers of packages as stored in a hash database; empty ones for those that are damaged.

    Records stand under the package's number, and under 0 the last number.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(_BDB_META_SIZE).ljust(_BDB_META_SIZE, b"\0")
    order = _BDB_ORDERS.get(head[_BDB_MAGIC_OFFSET : _BDB_MAGIC_OFFSET + 4], "<")
    length, last, last_bucket, *spares = struct.unpack(order + _BDB_META, head)
    if not 512 <= length <= 1 << 16:
        problems.note("damaged database: its pages have no size")
        return
    if (last + 1) * length > size:
        problems.note("damaged database: it ends before its last page")
    if size > _BDB_LIMIT:
        problems.note(f"larger than {_BDB_LIMIT} bytes: only the beginning was read")
    pages = min(last + 1, min(size, _BDB_LIMIT) // length)
    buckets = range(min(last_bucket + 1, pages))
    wanted = {bucket + spares[bucket.bit_length()] for bucket in buckets}
    seen = {0}
    for number in range(1, pages):
        stream.seek(number * length)
        page = stream.read(length)
        if page[_BDB_PAGE_SIZE - 1] in _BDB_HASH_PAGES:
            seen.add(number)
            wanted.add(struct.unpack_from(order + _BDB_PAGE, page)[0])
            for key, data in _bdb_records(page, order):
                if key != bytes(4):
                    yield _bdb_value(stream, data, order, length)
    if lost := len(wanted - seen):
        problems.note(f"damaged database: {lost} of its pages are lost")


def _bdb_records(page: bytes, order: str) -> Iterator[tuple[bytes, bytes]]:
    """A page's keys, and its raw entries of data, which are stored from its end backwards."""
    count = struct.unpack_from(order + _BDB_PAGE, page)[1]
    count = min(count, (len(page) - _BDB_PAGE_SIZE) // 2) & ~1
    places = struct.unpack_from(f"{order}{count}H", page, _BDB_PAGE_SIZE)
    end = len(page)
    for key, data in zip(places[::2], places[1::2], strict=True):
        yield page[key + 1 : end], page[data:key]
        end = data


def _bdb_value(stream: BinaryIO, entry: bytes, order: str, length: int) -> bytes:
    """What an entry of data holds; empty if it is damaged."""
    if entry[:1] == bytes([_BDB_HERE]):
        return entry[1:]
    if len(entry) != 12 or entry[0] != _BDB_ELSEWHERE:
        return b""
    number, size = struct.unpack_from(f"{order}4xII", entry)
    value = b""
    while len(value) < size <= _HEADER_LIMIT:
        stream.seek(number * length)
        page = stream.read(length)
        if len(page) < length:
            return b""
        number, _, used, kind = struct.unpack_from(order + _BDB_PAGE, page)
        if kind != _BDB_OVERFLOW_PAGE or not used:
            return b""
        value += page[_BDB_PAGE_SIZE : _BDB_PAGE_SIZE + used]
    return value if len(value) == size else b""


FORMATS = (
    Format("sqlite", "rpmdb.sqlite", lambda head: head.startswith(sqlite.MAGIC), sqlite_headers),
    Format("ndb", "Packages.db", lambda head: head.startswith(b"RpmP"), ndb_headers),
    Format(
        "bdb",
        "Packages",
        lambda head: head[_BDB_MAGIC_OFFSET : _BDB_MAGIC_OFFSET + 4] in _BDB_ORDERS,
        bdb_headers,
    ),
)


def find(root: Root) -> RpmDatabase | None:
    """The root's rpm database; None when it has none."""
    for directory in DIRECTORIES:
        for layout in FORMATS:
            database = RpmDatabase(directory, layout)
            if root.is_file(database.path):
                return database
    return None


def is_present(root: Root) -> bool:
    """Whether the root has an rpm database."""
    return find(root) is not None


def collect(root: Root, distribution: Distribution, problems: Problems) -> Iterator[Package]:
    """One row a package, public keys that rpm keeps as packages included.

    Args:
        root: a root for which :func:`is_present` holds; its database may be damaged.
        distribution: what the packages were made for.
        problems: gets a message when rows may be missing.
    """
    database = find(root)
    if database is None:
        return
    found = Problems()
    try:
        yield from _rows(root, database, distribution, found)
    except ImportError as error:
        found.note(f"it cannot be read without librpm ({error})")
    except OSError as error:
        found.note(reason(error))
    path = f"{database.path}: "
    problems.extend(problem if problem.startswith(path) else path + problem for problem in found)


def _rows(
    root: Root, database: RpmDatabase, distribution: Distribution, problems: Problems
) -> Iterator[Package]:
    with root.open(database.path) as stream:
        if not database.format.magic(stream.read(64)):
            problems.note(f"not an rpm database of the {database.format.name} format")
            return
    nameless = 0
    for header in database.format.headers(root, database.path, problems):
        if _text(header["name"]) and _text(header["version"]):
            yield from_header(header, distribution)
        else:
            nameless += 1
    if nameless:
        problems.note(f"damaged database: {nameless} packages without a name or a version")


def from_header(header: Header, distribution: Distribution) -> Package:
    """The row for one package header.

    Args:
        header: of a package that has a name and a version.
        distribution: what the package was made for.
    """
    name, version = str(header["name"]), str(header["version"])
    release = _text(header["release"])
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
        purl=purl(
            "rpm",
            name,
            whole,
            _vendor(distribution.id),
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
    )


def _vendor(distro: str) -> str:
    """What package URLs call the vendor of a distribution's packages, as their other makers do."""
    if distro.startswith("opensuse"):
        return "opensuse"
    return "redhat" if distro == "rhel" else distro


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
