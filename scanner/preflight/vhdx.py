"""Hyper-V disk images of the newer kind (vhdx).

Layout: Microsoft's open specification [MS-VHDX]. Checksums and the log are left to QEMU, which
refuses an image whose log would have to be replayed onto it.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

from scanner.errors import PreflightError
from scanner.preflight.image import (
    Image,
    Malformed,
    Read,
    Table,
    check_end,
    table_pieces,
)

SIGNATURE = b"vhdxfile"

_REGIONS_AT = 192 << 10  # the first of two copies; the one that QEMU reads
_TABLE_BYTES = 64 << 10
_REGION_HEAD = struct.Struct("<4sIII")
_REGION = struct.Struct("<16sQII")
_METADATA_HEAD = struct.Struct("<8sHH20x")
_ITEM = struct.Struct("<16sIIII")
_MAX_ENTRIES = 2047  # of either table, by the specification

_BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_LOGICAL_SECTOR = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le

_HAS_PARENT = 2
_STATE, _FULLY_PRESENT = 7, 6
_POSITION = ~0xF_FFFF  # a block's offset is a multiple of 1 MiB
_MEBIBYTE = 1 << 20

_malformed = Malformed("vhdx")


def read_image(read: Read, file_size: int, deadline: float) -> Image:
    """Read an image's region table, metadata and block table.

    Args:
        read: reads the file.
        file_size: in bytes.
        deadline: ``time.monotonic()`` at which the block table's check is given up.

    Raises:
        PreflightError: it is malformed, truncated, or a differencing image.
    """
    _malformed.unless(read(0, len(SIGNATURE)) == SIGNATURE, "no header")
    regions = dict(_regions(read))
    _malformed.unless(_BAT in regions and _METADATA in regions, "no block table or metadata")
    items = dict(_metadata(read, *regions[_METADATA]))
    block, flags = struct.unpack("<II", _item(items, _FILE_PARAMETERS, 8))
    (size,) = struct.unpack("<Q", _item(items, _DISK_SIZE, 8))
    (sector,) = struct.unpack("<I", _item(items, _LOGICAL_SECTOR, 4))
    if flags & _HAS_PARENT:
        raise PreflightError(
            "a differencing vhdx image, which is not supported",
            hint="merge it with its parent, or scan the parent",
        )
    _malformed.unless(sector in (512, 4096), f"sectors of {sector}")
    _malformed.unless(
        _MEBIBYTE <= block <= 256 << 20 and block & (block - 1) == 0, f"blocks of {block}"
    )
    _malformed.unless(0 < size <= 64 << 40 and size % sector == 0, f"size {size}")
    ratio = (sector << 23) // block  # payload blocks to each block of sector bitmaps
    count = -(-size // block)
    entries = count + (count - 1) // ratio
    offset, length = regions[_BAT]
    _malformed.unless(entries * 8 <= length, f"block table of {length} bytes")
    table = Table(offset, entries, word="Q")
    first, last = _blocks(read, table, ratio, deadline)
    if last is not None:
        check_end(last + (size % block or block), file_size)
    return Image(size, cluster_size=block, first_block=first, sector_size=sector)


def _regions(read: Read) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Each region's kind, offset and length."""
    data = _malformed.whole(read(_REGIONS_AT, _TABLE_BYTES), _TABLE_BYTES, "region table")
    signature, _, count, _ = _REGION_HEAD.unpack_from(data)
    _malformed.unless(signature == b"regi" and count <= _MAX_ENTRIES, "no region table")
    for index in range(count):
        kind, offset, length, _ = _REGION.unpack_from(
            data, _REGION_HEAD.size + index * _REGION.size
        )
        yield kind, (offset, length)


def _metadata(read: Read, offset: int, length: int) -> Iterator[tuple[bytes, bytes]]:
    """Each metadata item's kind and the beginning of its value."""
    data = _malformed.whole(read(offset, _TABLE_BYTES), _TABLE_BYTES, "metadata")
    signature, _, count = _METADATA_HEAD.unpack_from(data)
    _malformed.unless(signature == b"metadata" and count <= _MAX_ENTRIES, "no metadata")
    for index in range(count):
        kind, place, size, _, _ = _ITEM.unpack_from(data, _METADATA_HEAD.size + index * _ITEM.size)
        _malformed.unless(place + size <= length, f"metadata item at {place}")
        yield kind, read(offset + place, min(size, 8))


def _item(items: dict[bytes, bytes], kind: bytes, length: int) -> bytes:
    value = items.get(kind, b"")
    _malformed.unless(len(value) >= length, "metadata items are missing")
    return value[:length]


def _blocks(read: Read, table: Table, ratio: int, deadline: float) -> tuple[int | None, int | None]:
    """Where the first and the last payload block lie; None for blocks that are not stored."""
    first = last = None
    done = 0
    for entries in table_pieces(read, table, _malformed, deadline):
        for index, entry in enumerate(entries, done):
            if index % (ratio + 1) != ratio and entry & _STATE == _FULLY_PRESENT:
                last = max(last or 0, entry & _POSITION)
                first = last if index == 0 else first
        done += len(entries)
    return first, last
