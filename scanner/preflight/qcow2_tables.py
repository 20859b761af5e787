"""Whether a qcow2 image's tables can be right: all in the file, none in another's place.

QEMU reads what a damaged table names, be it another table: the guest would see the image's own
metadata for its disk, which looks like a disk without an operating system. ``qemu-img check``
reads every table instead, minutes of it for a large image.

Layout: QEMU's docs/interop/qcow2.txt, "Cluster mapping" and "Host cluster management".
"""

from __future__ import annotations

import array
import functools
import itertools
import sys
import time
from dataclasses import dataclass

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.preflight.image import Read, words

OFFSET = 0x00FF_FFFF_FFFF_FE00
"""Bits of an entry in an L1, L2 or refcount table that are a place in the file."""
COMPRESSED = 1 << 62
"""Bit of an L2 entry that says that its cluster is compressed."""

_ALL = (1 << 64) - 1
_PIECE_BYTES = 1 << 20
_EMPTY_BLOCKS_TRIED = 64
_MOST_TABLES = 1 << 20  # whose places are remembered, in 64 MiB; 512 TiB have as many
_WHOLE_BYTES = 1 << 20
"""How much of the L2 tables is read whole where nothing suggests damage: those of a disk's first
8 GiB in clusters of 64 KiB. Of later ones, up to half a terabyte, only the beginning is read: it
shows what is not a table, and the filesystem there notices a few wrong entries."""
_HEAD_BYTES, _MOST_HEADS = 512, 1024


@dataclass(frozen=True)
class Qcow2Tables:
    """Where an image's tables are, and what describes them; in bytes.

    Attributes:
        cluster_bits: 2 to the power of this is the cluster size.
        l1: offset and length of the L1 table.
        reftable: of the refcount table.
        refcount_bits: of an entry of a refcount block.
        extended: L2 entries have a bitmap beside them.
        stale: refcounts may lag behind.
        others: of other stretches that hold no data.
    """

    cluster_bits: int
    l1: tuple[int, int]
    reftable: tuple[int, int]
    refcount_bits: int
    extended: bool
    stale: bool
    others: tuple[tuple[int, int], ...] = ()

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def unaligned(self) -> int:
        """Bits of a place that is not where a cluster begins."""
        return self.cluster_size - 1 & OFFSET


def check(read: Read, file_size: int, tables: Qcow2Tables, *, seconds: float) -> None:
    """Check that no cluster is beyond the file's end or in the place of a table.

    The refcounts say which clusters of the file are used, so reading the last that is not zero
    takes two reads and covers all clusters. Of the L2 tables only enough is read to notice what is
    not a table: 15 ms, whatever the image's size. If the refcounts contradict the file (a crashed
    guest's leaked clusters make them do so too) or are marked stale, all L2 tables are read: 0.2 s
    for each 100 GB allocated.

    Args:
        read: reads the file.
        file_size: in bytes.
        tables: where they are.
        seconds: time by the clock after which the L2 tables' check is given up.

    Raises:
        PreflightError: the image is truncated or corrupt, or could not be shown not to be in time.
    """
    deadline = time.monotonic() + seconds
    l2 = _places(read, tables.l1, file_size, tables, "an L2 table")
    blocks = _places(read, tables.reftable, file_size, tables, "a refcount block")
    taken = _taken(tables, l2, blocks)
    last = None if tables.stale else _last_used(read, tables)
    is_sound = last is not None and last < file_size
    full = max(1, _WHOLE_BYTES // tables.cluster_size) if is_sound else len(l2)
    for index, table in enumerate(l2[: full + _MOST_HEADS]):
        if time.monotonic() > deadline:
            raise PreflightError("its tables are damaged and take too long to check")
        length = tables.cluster_size if index < full else _HEAD_BYTES
        _check_l2(read(table, length), file_size, tables, taken)


def entries_of(data: bytes) -> array.array[int]:
    """The numbers of a table."""
    return words(data, "Q", "big")


def _places(
    read: Read, table: tuple[int, int], file_size: int, tables: Qcow2Tables, what: str
) -> array.array[int]:
    """Places of what a table names, in its order."""
    start, length = table
    found = array.array("Q")
    for done in range(0, length, _PIECE_BYTES):
        piece = entries_of(read(start + done, min(_PIECE_BYTES, length - done)))
        if _anded(piece, tables.unaligned):
            raise corrupt(f"{what} does not begin with a cluster")
        found.extend(filter(None, _masked(piece, OFFSET)))
    if max(found, default=0) >= file_size:
        raise PreflightError(f"truncated: {what} lies beyond the end of the file")
    return found


def _taken(tables: Qcow2Tables, *found: array.array[int]) -> set[int]:
    """Places of all clusters behind the header's that cannot hold data.

    Raises:
        PreflightError: two tables claim the same.
    """
    regions, size = (tables.l1, tables.reftable, *tables.others), tables.cluster_size
    ranges = [range(start, start + length, size) for start, length in regions]
    taken: set[int] = set()
    for places in (*ranges, *(each[:_MOST_TABLES] for each in found)):
        before = len(taken)
        taken.update(places)
        if len(taken) < before + len(places):
            raise corrupt("two of its tables overlap")
    return taken


def _last_used(read: Read, tables: Qcow2Tables) -> int | None:
    """Place of the last cluster whose refcount is not zero; None when it is not soon found."""
    table = _masked(entries_of(read(*tables.reftable)), OFFSET)
    per_block = tables.cluster_size * 8 // tables.refcount_bits
    blocks = (index for index in range(len(table) - 1, -1, -1) if table[index])
    for index in itertools.islice(blocks, _EMPTY_BLOCKS_TRIED):
        block = read(table[index], tables.cluster_size).rstrip(b"\0")
        if block:
            cluster = index * per_block + (len(block) - 1) * 8 // tables.refcount_bits
            return cluster << tables.cluster_bits
    return None


def _check_l2(data: bytes, file_size: int, tables: Qcow2Tables, taken: set[int]) -> None:
    entries = entries_of(data)[:: 2 if tables.extended else 1]
    plain, packed, compressed = _sorted_out(entries, tables)
    if _anded(plain, tables.unaligned):
        raise corrupt("data does not begin with a cluster")
    places = _masked(plain, OFFSET)
    if max(max(places, default=0), max(packed, default=0)) >= file_size:
        raise PreflightError("truncated: data lies beyond the end of the file")
    clusters = array.array("Q", filter(None, _masked(packed, -tables.cluster_size & _ALL)))
    in_header = len(clusters) < compressed
    if in_header or not (taken.isdisjoint(places) and taken.isdisjoint(clusters)):
        raise corrupt("data overlaps its tables")


# All of a table at once, as one long number: a hundred times as fast as an entry at a time.


def _sorted_out(
    entries: array.array[int], tables: Qcow2Tables
) -> tuple[array.array[int], array.array[int], int]:
    """Entries of plain clusters; places of compressed ones, which begin anywhere; and how many."""
    marks = _anded(entries, COMPRESSED) >> 62  # a one for each compressed cluster
    if not marks:
        return entries, array.array("Q"), 0
    theirs = _numbers((marks << 62) - marks, len(entries))  # all bits below, in those alone
    place = (1 << (62 - (tables.cluster_bits - 8))) - 1
    both = _long(entries) & _long(theirs)
    plain = _numbers(_long(entries) ^ both, len(entries))
    return plain, _masked(_numbers(both, len(entries)), place), marks.bit_count()


def _masked(numbers: array.array[int], bits: int) -> array.array[int]:
    return _numbers(_anded(numbers, bits), len(numbers))


def _anded(numbers: array.array[int], bits: int) -> int:
    return _long(numbers) & _repeated(bits, len(numbers))


def _long(numbers: array.array[int]) -> int:
    return int.from_bytes(numbers.tobytes(), sys.byteorder)


def _numbers(long: int, count: int) -> array.array[int]:
    numbers = array.array("Q")
    numbers.frombytes(long.to_bytes(count * 8, sys.byteorder))
    return numbers


@functools.lru_cache(maxsize=8)  # tables have few lengths; a number is as long as a table
def _repeated(bits: int, count: int) -> int:
    return _long(array.array("Q", [bits]) * count)


def corrupt(what: str) -> PreflightError:
    """The error for an image whose tables contradict each other."""
    return PreflightError(
        f"corrupt qcow2 image: {what}",
        hint="run qemu-img check -f qcow2 on it; restore the image, or repair a copy",
    )
