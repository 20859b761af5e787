"""Usage of directories, added up from the rows of the files table as they pass by."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from fleetscan.appliance.ground import schema
from fleetscan.appliance.ground.options import FactOptions
from fleetscan.scanner.store.arrow import rows_to_arrow
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.directory_usage.spec import DirectoryUsage

# More directories, and more bytes of their paths, are not counted apart, but at their parent.
_DIRECTORIES, _DIRECTORY_BYTES = 100_000, 32 << 20
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 10_000, 8 << 20
_LINKED = 1_000_000  # files with several names that are remembered: some 100 MiB
_LINK_BYTES = 16  # of what is remembered of one, however long its device's name is
_MAX = 2**64 - 1
_DIRECTORY, _ONE, _NOTHING = pa.scalar("directory"), pa.scalar(1), pa.scalar(0, pa.uint64())

_Column: TypeAlias = Any  # Arrow's stubs do not say what its functions return
_Columns: TypeAlias = dict[str, _Column]


@dataclass
class _Sum:
    size: int = 0
    allocated: int = 0
    entries: int = 0

    def add(self, other: _Sum) -> None:
        self.size += other.size
        self.allocated += other.allocated
        self.entries += other.entries


def begin(options: FactOptions) -> DirectoryUsages:
    """Begin with one root.

    Raises:
        NotApplicable: not all of its files are listed.
    """
    if options.files != "all":
        raise schema.NotApplicable("not every file was listed (--files)")
    return DirectoryUsages(options.usage_depth)


class DirectoryUsages:
    """Adds up one root's files.

    Args:
        depth: how deep directories are counted apart; 0 for only the whole tree.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._pattern = f"^(?P<key>(?:/[^/]+){{0,{depth}}})"
        self._sums: dict[str, _Sum] = {"": _Sum()}
        self._key_bytes = 0
        self._linked: set[bytes] = set()  # digests of device and inode
        self._salt = os.urandom(_LINK_BYTES)

    def add(self, files: pa.Table) -> None:
        """Add some rows of the files table."""
        columns: _Columns = {name: files[name] for name in ("path", "size", "allocated")}
        columns["directory"] = pc.equal(files["type"].cast(pa.string()), _DIRECTORY)
        if again := self._again(files, columns["directory"]):
            once = pa.array([index not in again for index in range(len(files))])
            for name in ("size", "allocated"):
                columns[name] = pc.if_else(once, columns[name], _NOTHING)
        for key, size, allocated, entries in self._by_directory(columns):
            self._sum(key).add(_Sum(size, allocated, entries))

    def _by_directory(self, columns: _Columns) -> Iterator[tuple[str, int, int, int]]:
        """What each directory's own entries come to; deep ones are counted where depth ends."""
        parent = pc.replace_substring_regex(columns["path"], r"/[^/]*$", "")
        itself = pc.utf8_rtrim(columns["path"], "/")
        holder = pc.if_else(columns["directory"], itself, parent)
        key = pc.struct_field(pc.extract_regex(holder, self._pattern), "key")
        numbers = [_summable(columns["size"]), _summable(columns["allocated"])]
        grouped = pa.table([key, *numbers], names=["key", "size", "allocated"]).group_by("key")
        sums = grouped.aggregate([("size", "sum"), ("allocated", "sum"), ("key", "count")])
        names = ("key", "size_sum", "allocated_sum", "key_count")
        for held, *found in zip(*(sums[name].to_pylist() for name in names), strict=True):
            size, allocated, entries = map(int, found)
            yield held, size, allocated, entries

    def _again(self, files: pa.Table, is_directory: _Column) -> set[int]:
        """Rows that are further names of files which were counted already."""
        links: _Column = files["links"]
        several: _Column = pc.and_(pc.greater(links, _ONE), pc.invert(is_directory))
        indices: _Column = pc.indices_nonzero(several)
        devices = files["device"].take(indices).to_pylist()
        inodes = files["inode"].take(indices).to_pylist()
        again = set()
        for index, device, inode in zip(indices.to_pylist(), devices, inodes, strict=True):
            name = f"{inode} {device}".encode()
            digest = hashlib.blake2b(name, digest_size=_LINK_BYTES, key=self._salt).digest()
            if digest in self._linked:
                again.add(index)
            elif len(self._linked) < _LINKED:
                self._linked.add(digest)
        return again

    def _sum(self, key: str) -> _Sum:
        while key not in self._sums and self._is_full(key):
            key = key.rpartition("/")[0]
        if key not in self._sums:
            self._key_bytes += len(key)
            self._sums[key] = _Sum()
        return self._sums[key]

    def _is_full(self, key: str) -> bool:
        too_long = self._key_bytes + len(key) > _DIRECTORY_BYTES
        return too_long or len(self._sums) >= _DIRECTORIES

    def tables(self, machine_id: str, root: str) -> Iterator[pa.Table]:
        """Rows of ``directory_usage``, checked, many at once; see :meth:`rows`."""
        table = load_tables()["directory_usage"]
        for some in _portions(self.rows()):
            yield rows_to_arrow(table, some, machine_id=machine_id, root=root)

    def unread(self, paths: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Directories whose sums are short, when these files, or all below these directories, are.

        Args:
            paths: as in ``coverage.unread``; None when anything may be missing.
        """
        if paths is None:
            return None
        short = dict.fromkeys(paths)
        for path in paths:
            names = path.strip("/").split("/", self._depth)[: self._depth]
            short.update(dict.fromkeys(["/", *itertools.accumulate(f"/{name}" for name in names)]))
        return tuple(short)

    def rows(self) -> Iterator[DirectoryUsage]:
        """One row a directory, sorted by path; none before any file was added."""
        whole = {key: _Sum() for key in self._sums}
        for key, own in self._sums.items():
            for above in _upwards(key):
                whole.setdefault(above, _Sum()).add(own)
        if not whole[""].entries:
            return
        for key in sorted(whole):
            found = whole[key]
            path = schema.unescape(key or "/").decode("utf-8", "surrogateescape")
            yield DirectoryUsage(
                path=path,
                depth=key.count("/"),
                size=min(found.size, _MAX),
                allocated=min(found.allocated, _MAX),
                entries=max(0, found.entries - 1),  # the directory itself was counted as well
            )


def _summable(sizes: _Column) -> _Column:
    """Numbers of a type that their sum does not overflow: Arrow's uint64 wraps around to 0."""
    if (pc.max(sizes).as_py() or 0) * len(sizes) <= _MAX:
        return sizes
    return sizes.cast(pa.decimal128(38))


def _portions(rows: Iterable[DirectoryUsage]) -> Iterator[list[DirectoryUsage]]:
    """Rows in lists that are neither long nor large."""
    some: list[DirectoryUsage] = []
    size = 0
    for row in rows:
        some.append(row)
        size += len(row.path)
        if len(some) >= _ROWS_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield some
            some, size = [], 0
    if some:
        yield some


def _upwards(key: str) -> Iterator[str]:
    yield key
    while key:
        key = key.rpartition("/")[0]
        yield key
