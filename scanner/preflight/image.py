"""What the metadata of one image file says, whatever its format, and helpers to read it.

Everything is read from hostile files: each read has an upper size, tables are walked in pieces
until a deadline, and nothing is computed from a field before its range was checked.
"""

from __future__ import annotations

import array
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from fleetscan.appliance.ground.errors import PreflightError

Read = Callable[[int, int], bytes]
"""Reads (offset, length) of a file; gives fewer bytes at its end."""

SECTOR = 512
"""Bytes of the sectors that image formats count in, whatever a guest's disk has."""

_MAX_TABLE_BYTES = 64 << 20  # a map of 16 TiB in blocks of 1 MiB; QEMU holds such maps in memory
_PIECE_BYTES = 1 << 20
_PIECE_BITS = 4096  # of a bitmap at a time: taking a long number apart costs its length each time

IN_TABLES = "data overlaps its tables"
"""What is wrong with an image of which a guest would see the tables for its disk."""

Mark = Literal["dirty", "corrupt"]
ByteOrder = Literal["little", "big"]
Word = Literal["I", "Q"]  # array typecodes: 4 and 8 bytes on every host that QEMU runs on


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that an image holds inside.

    Attributes:
        id, name: as the image has them; not yet to be trusted.
        created_ns: when it was taken, nanoseconds since 1970 UTC.
        state_size: length of the saved state of a running guest, in bytes; 0 without one.
        virtual_size: the disk's size at that time, in bytes; None when the image does not say.
    """

    id: bytes
    name: bytes
    created_ns: int
    state_size: int
    virtual_size: int | None


@dataclass(frozen=True)
class ExtentReference:
    """A stretch of a disk that an image keeps in another file.

    Attributes:
        kind: how the file holds it.
        sectors: its length in sectors.
        file: the file's name, not yet to be trusted.
        offset: where in a flat file it begins, in sectors.
    """

    kind: Literal["FLAT", "SPARSE"]
    sectors: int
    file: bytes
    offset: int = 0


@dataclass(frozen=True)
class Parent:
    """The image that a differencing image adds to.

    Attributes:
        names: what its file may be called, as paths of this host, the most telling first; not yet
            to be trusted. Empty when nothing but its identity is known.
        identity: what it must say of itself.
    """

    names: tuple[bytes, ...]
    identity: bytes


@dataclass(frozen=True)
class DiskStretch:
    """A stretch of a disk that an image decides on.

    Attributes:
        start: where on the disk it begins, in sectors.
        sectors: its length.
        place: where in the file it is, in sectors; None when it reads as zeros.
    """

    start: int
    sectors: int
    place: int | None


Runs = Iterator[DiskStretch]
"""Stretches in the order of the disk; what none of them covers is the parent's."""


@dataclass(frozen=True)
class Image:
    """What an image's metadata says.

    Attributes:
        virtual_size: the size that a guest sees, in bytes.
        chs_size: the size by the geometry that a vhd states, which QEMU goes by for the images
            of some programs; None for other formats.
        cluster_size: the unit of allocation, in bytes; None where there is none.
        backing_file: the name as it stands, not yet to be trusted; None without one.
        backing_format: what the image says the backing file's format is; None if it does not.
        first_block: where in the file the disk begins, in bytes; None when it is
            not stored, or compressed.
        plain_bytes: length of the file's beginning that is the disk as it is; None when the
            disk is stored otherwise.
        sector_size: logical sector size that the image states, in bytes; None if it does not.
        cid: content and parent's content id that a vmdk's descriptor has, and which QEMU
            compares; None without one.
        extents: what the disk consists of when it is in other files.
        parent: what a differencing image adds to; QEMU knows nothing of it.
        luks_uuid: UUID of the LUKS header that an encrypted image has inside; None for others.
        snapshots: internal snapshots.
        mark: what whoever wrote it last left it marked as: not closed cleanly, or damaged.
    """

    virtual_size: int
    chs_size: int | None = None
    cluster_size: int | None = None
    backing_file: bytes | None = None
    backing_format: str | None = None
    first_block: int | None = None
    plain_bytes: int | None = None
    sector_size: int | None = None
    cid: tuple[int, int] | None = None
    extents: tuple[ExtentReference, ...] = ()
    parent: Parent | None = None
    luks_uuid: str | None = None
    snapshots: tuple[Snapshot, ...] = ()
    mark: Mark | None = None


@dataclass(frozen=True)
class Malformed:
    """Raises what is wrong with an image of a format.

    Args:
        format: the format's name, for messages.
    """

    format: str

    def unless(self, condition: bool, what: str) -> None:
        """Make sure of a condition.

        Raises:
            PreflightError: it does not hold.
        """
        if not condition:
            raise PreflightError(f"malformed {self.format} image: {what}")

    def whole(self, data: bytes, length: int, what: str) -> bytes:
        """Data that was read, provided that it is all there.

        Raises:
            PreflightError: the file ends before.
        """
        if len(data) < length:
            raise PreflightError(f"truncated: its {what} lies beyond the end of the file")
        return data


@dataclass(frozen=True)
class NumberTable:
    """Where a table of numbers is in a file.

    Attributes:
        offset: in bytes.
        entries: how many numbers it has.
        word: their typecode.
        order: their byte order.
    """

    offset: int
    entries: int
    word: Word = "I"
    order: ByteOrder = "little"


@dataclass(frozen=True)
class Blocks:
    """Where a table says that the blocks of a disk are.

    Attributes:
        first: the first entry; None when it says that the block is not stored.
        least, last: the smallest and the largest entry; None when no block is stored.
    """

    first: int | None
    least: int | None
    last: int | None


def read_blocks(
    read: Read,
    table: NumberTable,
    absent: frozenset[int],
    malformed: Malformed,
    deadline: float,
    taken: frozenset[int] = frozenset(),
) -> Blocks:
    """Read a table of block positions.

    Args:
        read: reads the file.
        table: where it is.
        absent: entries that mean "not stored here".
        malformed: for messages.
        deadline: ``time.monotonic()`` at which it is given up.
        taken: positions of tables, where no block may be.

    Raises:
        PreflightError: as :func:`table_pieces`, or a block overlaps a table.
    """
    first: int | None = None
    edges: list[int] = []
    for number, entries in enumerate(table_pieces(read, table, malformed, deadline)):
        if number == 0 and entries[0] not in absent:
            first = entries[0]
        if stored := set(entries) - absent:
            malformed.unless(taken.isdisjoint(stored), IN_TABLES)
            edges += (min(stored), max(stored))
    return Blocks(first, min(edges, default=None), max(edges, default=None))


def table_pieces(
    read: Read, table: NumberTable, malformed: Malformed, deadline: float
) -> Iterator[array.array[int]]:
    """A table's numbers, some at a time, none of the pieces empty.

    Raises:
        PreflightError: it is too long, lies beyond the file's end, or takes too much time.
    """
    width = array.array(table.word).itemsize
    length = table.entries * width
    malformed.unless(length <= _MAX_TABLE_BYTES, f"block table of {length} bytes")
    for done in range(0, length, _PIECE_BYTES):
        if time.monotonic() > deadline:
            raise PreflightError("its tables take too long to check")
        size = min(_PIECE_BYTES, length - done)
        data = malformed.whole(read(table.offset + done, size), size, "block table")
        yield words(data, table.word, table.order)


def block_runs(start: int, sectors: int, place: int, bits: bytes) -> Runs:
    """The sectors of a block that are stored.

    Args:
        start: where on the disk the block begins, in sectors.
        sectors: its length.
        place: where in the file it begins, in sectors.
        bits: a bit a sector, the lowest of the first byte for the first sector.
    """
    for done in range(0, sectors, _PIECE_BITS):
        number = int.from_bytes(bits[done // 8 : (done + _PIECE_BITS) // 8], "little")
        number &= (1 << min(_PIECE_BITS, sectors - done)) - 1
        position = done
        while number:
            absent = (number & -number).bit_length() - 1
            number >>= absent
            stored = (~number & number + 1).bit_length() - 1
            number >>= stored
            position += absent
            yield DiskStretch(start + position, stored, place + position)
            position += stored


def words(data: bytes, word: Word, order: ByteOrder) -> array.array[int]:
    """The numbers that bytes are; a remainder at the end is left out."""
    numbers = array.array(word)
    numbers.frombytes(data[: len(data) // numbers.itemsize * numbers.itemsize])
    if sys.byteorder != order:
        numbers.byteswap()
    return numbers


def check_end(end: int, file_size: int) -> None:
    """Make sure that the last block of an image is within its file.

    Raises:
        PreflightError: it does not.
    """
    if end > file_size:
        raise PreflightError("truncated: data lies beyond the end of the file")
