"""VirtualBox disk images (vdi).

Layout: VirtualBox's VDICore.h (header version 1.1) and QEMU's block/vdi.c, which opens blocks of
1 MiB alone.
"""

from __future__ import annotations

import struct

from scanner.errors import PreflightError
from scanner.preflight.image import SECTOR, Image, Malformed, Read, Table, check_end, read_blocks

SIGNATURE_OFFSET = 0x40
SIGNATURE = b"\x7f\x10\xda\xbe"

_HEADER = struct.Struct("<64s4sIIII256sIIIIIIIQIIII16s16s16s16s")
_VERSION = 0x0001_0001
_BLOCK_BYTES = 1 << 20
_DYNAMIC, _STATIC = 1, 2
_NO_UUID = bytes(16)
_ABSENT = frozenset({0xFFFF_FFFF, 0xFFFF_FFFE})  # never written; discarded

_malformed = Malformed("vdi")


def read_image(read: Read, file_size: int, deadline: float) -> Image:
    """Read an image's header and block map.

    Args:
        read: reads the file.
        file_size: in bytes.
        deadline: ``time.monotonic()`` at which the map's check is given up.

    Raises:
        PreflightError: it is malformed, truncated, or a differencing image.
    """
    data = _malformed.whole(read(0, _HEADER.size), _HEADER.size, "header")
    fields = _HEADER.unpack(data)
    signature, version, _, kind, _, _, map_offset, data_offset = fields[1:9]
    sector, _, size, block, extra, count, used = fields[12:19]
    _malformed.unless(signature == SIGNATURE, "no header")
    _malformed.unless(version == _VERSION, f"version {version:#x}")
    if kind not in (_DYNAMIC, _STATIC) or fields[21:23] != (_NO_UUID, _NO_UUID):
        raise PreflightError(
            "a differencing vdi image, whose parent nothing but VirtualBox's registry names",
            hint="merge it with: VBoxManage clonemedium",
        )
    _malformed.unless((sector, block, extra) == (SECTOR, _BLOCK_BYTES, 0), f"blocks of {block}")
    _malformed.unless(map_offset % SECTOR == data_offset % SECTOR == 0, "unaligned tables")
    _malformed.unless(map_offset >= SECTOR, f"block map at {map_offset}")
    _malformed.unless(0 < size <= count * block, f"{count} blocks for {size} bytes")
    found = read_blocks(read, Table(map_offset, count), _ABSENT, _malformed, deadline)
    if found.last is not None:
        _malformed.unless(found.last < used, f"block {found.last} of {used}")
        check_end(data_offset + found.last * block + (size % block or block), file_size)
    first = None if found.first is None else data_offset + found.first * block
    return Image(size, cluster_size=block, first_block=first)
