"""bbolt databases: buckets of keys with values or further buckets.

Source: bbolt's own description of its file (pages, branch and leaf elements, inline buckets), as
version 2 of the format has been since 2014. It is read here as the only library is bbolt itself, in
Go: Debian has its command, of which each start and each bucket would cost a process.

Shared with ``container_images``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC, _VERSION = 0xED0CDAED, 2
_PAGE = struct.Struct("<QHHI")  # number, flags, count, pages that follow
_META = struct.Struct(
    "<IIIIQQQQQQ"
)  # magic, version, page size, ..., root's page, ..., transaction
_BRANCH = struct.Struct("<IIQ")  # offset of the key, its length, page
_LEAF = struct.Struct("<IIII")  # flags, offset of the key, its length, the value's
_BUCKET = struct.Struct("<QQ")  # root's page, sequence
_IS_BRANCH, _IS_LEAF = 1, 2
_IS_BUCKET = 1
_DEPTH = 32
_FNV_START, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3

VISITS = 100_000
"""Most pages that are read in one database; a page may be linked more than once."""


class BoltError(ValueError):
    """A file is not a bbolt database, or is damaged."""


class BoltDatabase:
    """A database that is wholly in memory.

    Args:
        data: the file.

    Raises:
        BoltError: no description of it is sound.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._visits = 0
        self._size, self._root = self._newest()

    def _newest(self) -> tuple[int, int]:
        """Page size, and the root's page, of the newer sound one of the two meta pages."""
        found = []
        sizes = {4096, 8192, 16384, 65536}
        for at in (0, *sorted(sizes)):
            try:
                magic, version, size, _, root, _, _, _, transaction, checksum = _META.unpack_from(
                    self._data, at + _PAGE.size
                )
            except struct.error:
                continue
            if (magic, version) != (_MAGIC, _VERSION) or size not in sizes or at not in (0, size):
                continue
            if checksum == _fnv(self._data[at + _PAGE.size :][: _META.size - 8]):
                found.append((transaction, size, root))
        if not found:
            raise BoltError("not a bbolt database, or its first pages are damaged")
        _, size, root = max(found)
        return size, root

    def root(self) -> Bucket:
        """The bucket that holds all others."""
        return Bucket(self, self._root, b"")

    def items(self, page: int, inline: bytes) -> Iterator[tuple[bytes, bytes | Bucket]]:
        """Keys and what they hold below a page, or of a bucket that is a value itself.

        Raises:
            BoltError: pages are damaged, or refer to each other without end.
        """
        try:
            yield from self._leaf(inline) if inline else self._below(page, 0)
        except (struct.error, IndexError) as error:
            raise BoltError("damaged pages") from error

    def _below(self, page: int, depth: int) -> Iterator[tuple[bytes, bytes | Bucket]]:
        self._visits += 1
        start = page * self._size
        if depth > _DEPTH or self._visits > VISITS or start >= len(self._data):
            raise BoltError("damaged pages")
        _, flags, count, more = _PAGE.unpack_from(self._data, start)
        if flags & _IS_LEAF:
            yield from self._leaf(self._data[start : start + (1 + more) * self._size])
            return
        if not flags & _IS_BRANCH:
            raise BoltError("damaged pages")
        for index in range(count):
            at = start + _PAGE.size + index * _BRANCH.size
            yield from self._below(_BRANCH.unpack_from(self._data, at)[2], depth + 1)

    def _leaf(self, data: bytes) -> Iterator[tuple[bytes, bytes | Bucket]]:
        left = len(data)
        for index in range(_PAGE.unpack_from(data)[2]):
            at = _PAGE.size + index * _LEAF.size
            flags, offset, key_size, value_size = _LEAF.unpack_from(data, at)
            begin = at + offset
            middle, end = begin + key_size, begin + key_size + value_size
            left -= key_size + value_size  # elements that overlap could be as many as they like
            if end > len(data) or left < 0:
                raise BoltError("damaged pages")
            value = data[middle:end]
            if flags & _IS_BUCKET:
                page = _BUCKET.unpack_from(value)[0]
                yield data[begin:middle], Bucket(self, page, b"" if page else value[_BUCKET.size :])
            else:
                yield data[begin:middle], value


@dataclass(frozen=True)
class Bucket:
    """A bucket: the page it begins at, or its own page where it is small enough to be a value."""

    database: BoltDatabase
    page: int
    inline: bytes

    def items(self) -> Iterator[tuple[bytes, bytes | Bucket]]:
        """What it holds, sorted by key.

        Raises:
            BoltError: as the database's.
        """
        return self.database.items(self.page, self.inline)

    def buckets(self) -> Iterator[tuple[str, Bucket]]:
        """The buckets in it, by name."""
        for key, value in self.items():
            if isinstance(value, Bucket):
                yield key.decode("utf-8", "surrogateescape"), value

    def bucket(self, *names: str) -> Bucket | None:
        """A bucket some levels below; None where there is none."""
        bucket: Bucket | None = self
        for name in names:
            if bucket is None:
                return None
            bucket = next((below for key, below in bucket.buckets() if key == name), None)
        return bucket

    def values(self) -> dict[str, bytes]:
        """The plain values in it, by key."""
        return {
            key.decode("utf-8", "surrogateescape"): value
            for key, value in self.items()
            if isinstance(value, bytes)
        }


def _fnv(data: bytes) -> int:
    """FNV-1a with 64 bits."""
    value = _FNV_START
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFFFFFFFFFF
    return value
