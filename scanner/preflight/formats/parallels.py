"""Parallels disk images.

Layout: QEMU's docs/interop/parallels.txt.
"""

from __future__ import annotations

import struct

from fleetscan.scanner.preflight.disk_format import DiskFormat
from fleetscan.scanner.preflight.image import (
    IN_TABLES,
    SECTOR,
    Image,
    Malformed,
    Mark,
    NumberTable,
    Read,
    check_end,
    read_blocks,
)

MAGIC, MAGIC_EXTENDED = b"WithoutFreeSpace", b"WithouFreSpacExt"

_HEADER = struct.Struct("<16sIIIIIQIIIQ")
_ABSENT = frozenset({0})
_OPENED = 0x746F6E59
_MAX_BLOCK_BYTES = 1 << 30

_malformed = Malformed("parallels")


class _Parallels(DiskFormat):
    name = driver = "parallels"
    suffixes = (".hdd",)
    magics = ((0, MAGIC), (0, MAGIC_EXTENDED))

    def read_image(self, read: Read, file_size: int, deadline: float) -> Image:
        data = _malformed.whole(read(0, _HEADER.size), _HEADER.size, "header")
        magic, version, _, _, tracks, count, sectors, in_use, *_ = _HEADER.unpack(data)
        _malformed.unless(magic in (MAGIC, MAGIC_EXTENDED), "no header")
        _malformed.unless(version == 2, f"version {version}")
        block = tracks * SECTOR
        _malformed.unless(0 < block <= _MAX_BLOCK_BYTES, f"blocks of {block}")
        if magic == MAGIC:
            sectors &= 0xFFFF_FFFF  # the upper half is not defined there
        size = sectors * SECTOR
        _malformed.unless(0 < size <= count * block, f"{count} blocks for {size} bytes")
        unit = SECTOR if magic == MAGIC else block
        found = read_blocks(read, NumberTable(_HEADER.size, count), _ABSENT, _malformed, deadline)
        if found.least is not None and found.last is not None:
            _malformed.unless(found.least * unit >= _HEADER.size + count * 4, IN_TABLES)
            check_end(found.last * unit + (size % block or block), file_size)
        first = None if found.first is None else found.first * unit
        mark: Mark | None = "dirty" if in_use == _OPENED else None
        return Image(size, cluster_size=block, first_block=first, mark=mark)


FORMAT = _Parallels()
