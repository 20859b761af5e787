"""Virtual PC and Hyper-V disk images of the older kind (vhd; QEMU's name is vpc).

Layout: Microsoft's "Virtual Hard Disk Image Format Specification" of 2006; which of its two sizes
counts: QEMU's block/vpc.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
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
    read_blocks,
    table_pieces,
)
from fleetscan.scanner.preflight.parents import windows_name

COOKIE = b"conectix"
FOOTER_BYTES = 512

_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB")
_CHECKSUM_AT = 64
_DYNAMIC_HEADER = struct.Struct(">8sQQIIII16sI4x512s")
_DYNAMIC_BYTES = 1024
_DYNAMIC_CHECKSUM_AT = 36
_LOCATOR = struct.Struct(">4sII4xQ")
_LOCATORS = 8
_MAX_NAME_BYTES = 2048
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_NOT_STORED = 0xFFFF_FFFF
_ABSENT = frozenset({_NOT_STORED})
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

_malformed = Malformed("vhd")


@dataclass(frozen=True)
class _Footer:
    header_offset: int
    size: int  # of the disk
    chs_size: int
    kind: int
    identity: bytes
    end: int  # where in the file it stands, which is where data ends


@dataclass(frozen=True)
class _Header:
    table: NumberTable
    block: int  # in bytes
    parent: Parent | None

    @property
    def bitmap_sectors(self) -> int:
        """Length of the bitmap before each block."""
        return -(-self.block // SECTOR // 8 // SECTOR)


class _Vhd(DifferencingFormat):
    name = "vhd"
    driver = "vpc"
    aliases = ("vpc",)
    suffixes = (".vhd", ".avhd", ".vpc")  # .vpc by QEMU's name of the format
    magics = ((0, COOKIE), (-FOOTER_BYTES, COOKIE))  # a fixed one is a raw disk before a footer

    def read_image(self, read: Read, file_size: int, deadline: float) -> Image:
        footer = _footer(read, file_size)
        if footer.kind == _FIXED:
            # All of the file but its footer: a guest that writes a footer at the end of its raw
            # disk must not hide a part of the disk by it.
            _malformed.unless(footer.size == footer.end, f"{footer.size} bytes in {file_size}")
            return Image(footer.size, first_block=0, plain_bytes=footer.size)
        header = _header(read, footer)
        found = read_blocks(read, header.table, _ABSENT, _malformed, deadline)
        bitmap = header.bitmap_sectors * SECTOR
        if found.least is not None and found.last is not None:
            end = header.table.offset + header.table.entries * 4
            _malformed.unless(found.least * SECTOR >= end, IN_TABLES)
            tail = footer.size % header.block or header.block
            check_end(found.last * SECTOR + bitmap + tail, footer.end)
        first = None if found.first is None else found.first * SECTOR + bitmap
        return Image(
            footer.size,
            cluster_size=header.block,
            first_block=None if header.parent else first,
            chs_size=footer.chs_size,
            parent=header.parent,
        )

    def read_parent(self, read: Read, file_size: int) -> Parent | None:
        footer = _footer(read, file_size)
        return None if footer.kind == _FIXED else _header(read, footer).parent

    def identity(self, read: Read, file_size: int) -> bytes:
        return _footer(read, file_size).identity

    def runs(self, read: Read, file_size: int, deadline: float) -> Runs:
        footer = _footer(read, file_size)
        header = _header(read, footer)
        sectors, bitmap = header.block // SECTOR, header.bitmap_sectors
        last, start = footer.size // SECTOR, 0
        for entries in table_pieces(read, header.table, _malformed, deadline):
            for entry in entries:
                length = min(sectors, last - start)
                if entry != _NOT_STORED and length > 0:
                    place = entry + bitmap
                    if header.parent is None:
                        yield DiskStretch(start, length, place)
                    else:
                        bits = read(entry * SECTOR, bitmap * SECTOR).translate(_REVERSED)
                        yield from block_runs(start, length, place, bits)
                start += sectors


def _footer(read: Read, file_size: int) -> _Footer:
    end = file_size - FOOTER_BYTES
    footer = read(end, FOOTER_BYTES) if end >= 0 else b""
    if not _is_footer(footer):
        head = read(0, FOOTER_BYTES)
        _malformed.unless(_is_footer(head), "no footer")
        raise PreflightError("truncated: it does not end with its footer")
    fields = _FOOTER.unpack(footer[: _FOOTER.size])
    size, kind = fields[9], fields[13]
    _malformed.unless(size > 0 and size % SECTOR == 0, f"size {size}")
    _malformed.unless(kind in (_FIXED, _DYNAMIC, _DIFFERENCING), f"type {kind}")
    if kind != _FIXED:
        _malformed.unless(read(0, FOOTER_BYTES) == footer, "its first and last sector differ")
    cylinders, heads, sectors = fields[10:13]
    chs_size = cylinders * heads * sectors * SECTOR
    return _Footer(fields[3], size, chs_size, kind, fields[15], end)


def _header(read: Read, footer: _Footer) -> _Header:
    data = read(footer.header_offset, _DYNAMIC_BYTES)
    _malformed.whole(data, _DYNAMIC_BYTES, "dynamic header")
    fields = _DYNAMIC_HEADER.unpack_from(data)
    cookie, _, table_offset, _, count, block, _, parent, _, name = fields
    _malformed.unless(cookie == b"cxsparse", "no dynamic header")
    _malformed.unless(_sums_up(data, _DYNAMIC_CHECKSUM_AT), "checksum of its dynamic header")
    _malformed.unless(block >= SECTOR and block & (block - 1) == 0, f"blocks of {block}")
    _malformed.unless(footer.size <= count * block, f"{count} blocks for {footer.size} bytes")
    table = NumberTable(table_offset, count, order="big")
    if footer.kind == _DYNAMIC:
        return _Header(table, block, None)
    own = windows_name(name, "utf-16-be")
    names = [*_located(read, data), own.rpartition(b"/")[2]]
    return _Header(table, block, Parent(tuple(dict.fromkeys(filter(None, names))), parent))


def _located(read: Read, header: bytes) -> Iterator[bytes]:
    """Names of the parent's file by its locators: relative ones, then other hosts' as they end."""
    absolute = []
    for index in range(_LOCATORS):
        platform, _, length, offset = _LOCATOR.unpack_from(
            header, _DYNAMIC_HEADER.size + index * _LOCATOR.size
        )
        value = read(offset, min(length, _MAX_NAME_BYTES))
        if platform == b"W2ru":
            yield windows_name(value, "utf-16-le")
        elif platform == b"W2ku":
            absolute.append(windows_name(value, "utf-16-le").rpartition(b"/")[2])
        elif platform == b"MacX":  # a URL, which tools of Xen use
            yield value.partition(b"\0")[0].removeprefix(b"file://")
    yield from absolute


def _is_footer(data: bytes) -> bool:
    return len(data) == FOOTER_BYTES and data.startswith(COOKIE) and _sums_up(data, _CHECKSUM_AT)


def _sums_up(data: bytes, checksum_at: int) -> bool:
    """Whether the checksum is right: the inverted sum of all bytes but its own four."""
    end = checksum_at + 4
    total = sum(data[:checksum_at]) + sum(data[end:])
    return int.from_bytes(data[checksum_at:end]) == ~total & 0xFFFF_FFFF


FORMAT = _Vhd()
