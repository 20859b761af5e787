"""Virtual PC and Hyper-V disk images of the older kind (vhd; QEMU's name is vpc).

Layout: Microsoft's "Virtual Hard Disk Image Format Specification" of 2006; which of its two sizes
counts: QEMU's block/vpc.c.
"""

from __future__ import annotations

import struct

from scanner.errors import PreflightError
from scanner.preflight.image import SECTOR, Image, Malformed, Read, Table, check_end, read_blocks

COOKIE = b"conectix"
FOOTER_BYTES = 512

_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB")
_CHECKSUM_AT = 64
_DYNAMIC_HEADER = struct.Struct(">8sQQIIII")
_DYNAMIC_BYTES = 1024
_DYNAMIC_CHECKSUM_AT = 36
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_ABSENT = frozenset({0xFFFF_FFFF})

_malformed = Malformed("vhd")


def read_image(read: Read, file_size: int, deadline: float) -> Image:
    """Read an image's footer and block table.

    Args:
        read: reads the file.
        file_size: in bytes.
        deadline: ``time.monotonic()`` at which the table's check is given up.

    Raises:
        PreflightError: it is malformed, truncated, or a differencing image.
    """
    end = file_size - FOOTER_BYTES
    footer = read(end, FOOTER_BYTES) if end >= 0 else b""
    if not _is_footer(footer):
        head = read(0, FOOTER_BYTES)
        _malformed.unless(_is_footer(head), "no footer")
        raise PreflightError("truncated: it does not end with its footer")
    fields = _FOOTER.unpack(footer[: _FOOTER.size])
    header_offset, size, kind = fields[3], fields[9], fields[13]
    _malformed.unless(size > 0 and size % SECTOR == 0, f"size {size}")
    if kind == _FIXED:
        # All of the file but its footer: a guest that writes a footer at the end of its raw disk
        # must not hide a part of the disk by it.
        _malformed.unless(size == end, f"{size} bytes in a file of {file_size}")
        return Image(size, first_block=0, plain_bytes=size)
    if kind == _DIFFERENCING:
        raise PreflightError(
            "a differencing vhd image, which is not supported",
            hint="merge it with its parent, or scan the parent",
        )
    _malformed.unless(kind == _DYNAMIC, f"type {kind}")
    _malformed.unless(read(0, FOOTER_BYTES) == footer, "its first and last sector differ")
    return _dynamic(read, end, header_offset, size, _chs_size(*fields[10:13]), deadline)


def _dynamic(
    read: Read, end: int, header_offset: int, size: int, chs_size: int, deadline: float
) -> Image:
    data = read(header_offset, _DYNAMIC_BYTES)
    _malformed.whole(data, _DYNAMIC_BYTES, "dynamic header")
    cookie, _, table_offset, _, count, block, _ = _DYNAMIC_HEADER.unpack(
        data[: _DYNAMIC_HEADER.size]
    )
    _malformed.unless(cookie == b"cxsparse", "no dynamic header")
    _malformed.unless(_sums_up(data, _DYNAMIC_CHECKSUM_AT), "checksum of its dynamic header")
    _malformed.unless(block >= SECTOR and block & (block - 1) == 0, f"blocks of {block}")
    _malformed.unless(size <= count * block, f"{count} blocks for {size} bytes")
    table = Table(table_offset, count, order="big")
    found = read_blocks(read, table, _ABSENT, _malformed, deadline)
    bitmap = -(-block // SECTOR // 8 // SECTOR) * SECTOR
    if found.last is not None:
        check_end(found.last * SECTOR + bitmap + (size % block or block), end)
    first = None if found.first is None else found.first * SECTOR + bitmap
    return Image(size, cluster_size=block, first_block=first, chs_size=chs_size)


def _is_footer(data: bytes) -> bool:
    return len(data) == FOOTER_BYTES and data.startswith(COOKIE) and _sums_up(data, _CHECKSUM_AT)


def _sums_up(data: bytes, checksum_at: int) -> bool:
    """Whether the checksum is right: the inverted sum of all bytes but its own four."""
    end = checksum_at + 4
    total = sum(data[:checksum_at]) + sum(data[end:])
    return int.from_bytes(data[checksum_at:end]) == ~total & 0xFFFF_FFFF


def _chs_size(cylinders: int, heads: int, sectors: int) -> int:
    return cylinders * heads * sectors * SECTOR
