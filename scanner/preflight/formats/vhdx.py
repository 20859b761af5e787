"""Hyper-V disk images of the newer kind (vhdx).

Layout: Microsoft's open specification [MS-VHDX]. Checksums and the log are left to QEMU, which
refuses an image whose log would have to be replayed onto it; differencing images, which QEMU does
not read, are refused here with a log.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.preflight.disk_format import DifferencingFormat
from fleetscan.scanner.preflight.image import (
    IN_TABLES,
    SECTOR,
    DiskStretch,
    Image,
    Malformed,
    NumberTable,
    Parent,
    Read,
    Runs,
    block_runs,
    check_end,
    table_pieces,
)
from fleetscan.scanner.preflight.parents import windows_name

SIGNATURE = b"vhdxfile"

_HEADERS_AT = (64 << 10, 128 << 10)
_HEADER = struct.Struct("<4sIQ16s16s16s")
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
_PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_VHDX_LOCATOR = uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913").bytes_le
_LOCATOR_HEAD = struct.Struct("<16sHH")
_PAIR = struct.Struct("<IIHH")
_MAX_PAIRS = 64

_HAS_PARENT = 2
_STATE, _NOT_PRESENT, _FULLY_PRESENT, _PARTIALLY_PRESENT = 7, 0, 6, 7
_POSITION = ~0xF_FFFF  # a block's offset is a multiple of 1 MiB
_MEBIBYTE = 1 << 20

_malformed = Malformed("vhdx")


@dataclass(frozen=True)
class _Layout:
    size: int  # of the disk
    sector: int
    block: int  # in bytes
    table: NumberTable
    parent: Parent | None
    regions: tuple[tuple[int, int], ...]  # offset and length of each

    def is_taken(self, position: int) -> bool:
        """Whether a block that began here would be in a header or a region."""
        end = position + self.block
        places = ((0, _MEBIBYTE), *self.regions)
        return any(position < at + length and at < end for at, length in places)

    @property
    def ratio(self) -> int:
        """Payload blocks to each block of sector bitmaps."""
        return (self.sector << 23) // self.block


class _Vhdx(DifferencingFormat):
    name = driver = "vhdx"
    suffixes = (".vhdx", ".avhdx")
    magics = ((0, SIGNATURE),)

    def read_image(self, read: Read, file_size: int, deadline: float) -> Image:
        layout = _layout(read)
        first, last = _blocks(read, layout, deadline)
        if last is not None:
            check_end(last + (layout.size % layout.block or layout.block), file_size)
        return Image(
            layout.size,
            cluster_size=layout.block,
            first_block=first,
            sector_size=layout.sector,
            parent=layout.parent,
        )

    def read_parent(self, read: Read, file_size: int) -> Parent | None:
        return _layout(read).parent

    def identity(self, read: Read, file_size: int) -> bytes:
        return _newest_header(read)[0]

    def runs(self, read: Read, file_size: int, deadline: float) -> Runs:
        layout = _layout(read)
        sectors, last = layout.block // SECTOR, layout.size // SECTOR
        waiting: list[tuple[int, int]] = []  # blocks whose chunk's bitmap is still to come
        for index, entry in _entries(read, layout, deadline):
            chunk, place = divmod(index, layout.ratio + 1)
            if place == layout.ratio:
                yield from _chunk_runs(read, layout, waiting, entry, file_size)
                waiting = []
                continue
            start = (chunk * layout.ratio + place) * sectors
            if start < last:
                waiting.append((start, entry))
        yield from _chunk_runs(read, layout, waiting, _NOT_PRESENT, file_size)


def _chunk_runs(
    read: Read, layout: _Layout, blocks: list[tuple[int, int]], bitmap: int, file_size: int
) -> Runs:
    """Runs of a chunk's payload blocks.

    Args:
        read: reads the file.
        layout: the image's.
        blocks: of each block that is on the disk, its first sector and its entry.
        bitmap: the entry of the chunk's sector bitmaps.
        file_size: in bytes.
    """
    sectors, last = layout.block // SECTOR, layout.size // SECTOR
    bits = layout.block // layout.sector
    for number, (start, entry) in enumerate(blocks):
        length, state = min(sectors, last - start), entry & _STATE
        place = (entry & _POSITION) // SECTOR
        if state == _FULLY_PRESENT:
            yield DiskStretch(start, length, place)
        elif state == _PARTIALLY_PRESENT:
            _malformed.unless(bitmap & _STATE == _FULLY_PRESENT, "a block without its bitmap")
            _malformed.unless(layout.parent is not None, "a block that is partly another image's")
            where = (bitmap & _POSITION) + number * bits // 8
            data = _malformed.whole(read(where, bits // 8), bits // 8, "sector bitmap")
            for run in block_runs(0, -(-length * SECTOR // layout.sector), 0, data):
                scale = layout.sector // SECTOR
                at, wide = run.start * scale, run.sectors * scale
                yield DiskStretch(start + at, wide, place + at)
        elif state != _NOT_PRESENT:
            yield DiskStretch(start, length, None)


def _layout(read: Read) -> _Layout:
    _malformed.unless(read(0, len(SIGNATURE)) == SIGNATURE, "no header")
    regions = dict(_regions(read))
    _malformed.unless(_BAT in regions and _METADATA in regions, "no block table or metadata")
    items = dict(_metadata(read, *regions[_METADATA]))
    block, flags = struct.unpack("<II", _item(items, _FILE_PARAMETERS, 8))
    (size,) = struct.unpack("<Q", _item(items, _DISK_SIZE, 8))
    (sector,) = struct.unpack("<I", _item(items, _LOGICAL_SECTOR, 4))
    parent = _parent(read, regions[_METADATA][0]) if flags & _HAS_PARENT else None
    _malformed.unless(sector in (512, 4096), f"sectors of {sector}")
    _malformed.unless(
        _MEBIBYTE <= block <= 256 << 20 and block & (block - 1) == 0, f"blocks of {block}"
    )
    _malformed.unless(0 < size <= 64 << 40 and size % sector == 0, f"size {size}")
    ratio = (sector << 23) // block  # payload blocks to each block of sector bitmaps
    count = -(-size // block)
    entries = count + (count - 1) // ratio
    if parent is not None:  # which needs the last chunk's bitmaps as well
        entries = -(-count // ratio) * (ratio + 1)
    offset, length = regions[_BAT]
    _malformed.unless(entries * 8 <= length, f"block table of {length} bytes")
    table = NumberTable(offset, entries, word="Q")
    return _Layout(size, sector, block, table, parent, tuple(regions.values()))


def _newest_header(read: Read) -> tuple[bytes, bytes]:
    """Identities of the content and of the log, of the header that was written last."""
    found = []
    for offset in _HEADERS_AT:
        data = _malformed.whole(read(offset, _HEADER.size), _HEADER.size, "header")
        signature, _, sequence, _, content, log = _HEADER.unpack(data)
        if signature == b"head":
            found.append((sequence, content, log))
    _malformed.unless(bool(found), "no header")
    return max(found)[1:]


def _parent(read: Read, metadata: int) -> Parent:
    """What the parent locator says (2.6.2.6)."""
    if any(_newest_header(read)[1]):
        raise PreflightError(
            "a differencing vhdx image that was not closed cleanly and has a log to be replayed",
            hint="open and close it once on its host, or merge it with its parent",
        )
    places = {kind: place for kind, place, _ in _items(read, metadata)}
    _malformed.unless(_PARENT_LOCATOR in places, "no parent locator")
    pairs = _pairs(read, metadata + places[_PARENT_LOCATOR])
    try:
        linkage = uuid.UUID(pairs.get("parent_linkage", b"").decode("utf-16-le")).bytes_le
    except ValueError:
        raise PreflightError("malformed vhdx image: parent locator without a linkage") from None
    names = [windows_name(pairs.get("relative_path", b""), "utf-16-le")]
    for key in ("absolute_win32_path", "volume_path"):
        names.append(windows_name(pairs.get(key, b""), "utf-16-le").rpartition(b"/")[2])
    return Parent(tuple(dict.fromkeys(filter(None, names))), linkage)


def _pairs(read: Read, offset: int) -> Mapping[str, bytes]:
    head = _malformed.whole(read(offset, _LOCATOR_HEAD.size), _LOCATOR_HEAD.size, "parent locator")
    kind, _, count = _LOCATOR_HEAD.unpack(head)
    _malformed.unless(kind == _VHDX_LOCATOR and count <= _MAX_PAIRS, "parent locator")
    length = count * _PAIR.size
    data = _malformed.whole(read(offset + len(head), length), length, "parent locator")
    return {
        read(offset + key, key_length).decode("utf-16-le", "replace"): read(offset + value, size)
        for key, value, key_length, size in _PAIR.iter_unpack(data)
    }


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
    for kind, place, size in _items(read, offset):
        _malformed.unless(place + size <= length, f"metadata item at {place}")
        yield kind, read(offset + place, min(size, 8))


def _items(read: Read, offset: int) -> Iterator[tuple[bytes, int, int]]:
    """Each metadata item's kind, offset from the region's beginning, and length."""
    data = _malformed.whole(read(offset, _TABLE_BYTES), _TABLE_BYTES, "metadata")
    signature, _, count = _METADATA_HEAD.unpack_from(data)
    _malformed.unless(signature == b"metadata" and count <= _MAX_ENTRIES, "no metadata")
    for index in range(count):
        kind, place, size, _, _ = _ITEM.unpack_from(data, _METADATA_HEAD.size + index * _ITEM.size)
        yield kind, place, size


def _item(items: dict[bytes, bytes], kind: bytes, length: int) -> bytes:
    value = items.get(kind, b"")
    _malformed.unless(len(value) >= length, "metadata items are missing")
    return value[:length]


def _blocks(read: Read, layout: _Layout, deadline: float) -> tuple[int | None, int | None]:
    """Where the first and the last payload block are; None for blocks that are not stored."""
    first = last = None
    for index, entry in _entries(read, layout, deadline):
        stored = entry & _STATE in (_FULLY_PRESENT, _PARTIALLY_PRESENT)
        if index % (layout.ratio + 1) != layout.ratio and stored:
            _malformed.unless(not layout.is_taken(entry & _POSITION), IN_TABLES)
            last = max(last or 0, entry & _POSITION)
            first = last if index == 0 and entry & _STATE == _FULLY_PRESENT else first
    return first, last


def _entries(read: Read, layout: _Layout, deadline: float) -> Iterator[tuple[int, int]]:
    """The block table's entries with their numbers."""
    done = 0
    for entries in table_pieces(read, layout.table, _malformed, deadline):
        yield from enumerate(entries, done)
        done += len(entries)


FORMAT = _Vhdx()
