"""VirtualBox disk images (vdi).

Layout: VirtualBox's VDICore.h (header version 1.1) and QEMU's block/vdi.c, which opens blocks of
1 MiB alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

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
    check_end,
    read_blocks,
    table_pieces,
)

SIGNATURE_OFFSET = 0x40
SIGNATURE = b"\x7f\x10\xda\xbe"

_HEADER = struct.Struct("<64s4sIIII256sIIIIIIIQIIII16s16s16s16s")
_VERSION = 0x0001_0001
_BLOCK_BYTES = 1 << 20
_DYNAMIC, _STATIC, _DIFFERENCING = 1, 2, 4
_NO_UUID = bytes(16)
_NOT_STORED, _ZEROS = 0xFFFF_FFFF, 0xFFFF_FFFE  # never written; discarded
_ABSENT = frozenset({_NOT_STORED, _ZEROS})

_malformed = Malformed("vdi")


@dataclass(frozen=True)
class _Header:
    table: NumberTable
    data_offset: int
    size: int  # of the disk
    used: int  # blocks that are stored
    identity: bytes
    parent: Parent | None


class _Vdi(DifferencingFormat):
    name = driver = "vdi"
    suffixes = (".vdi",)
    magics = ((SIGNATURE_OFFSET, SIGNATURE),)

    def read_image(self, read: Read, file_size: int, deadline: float) -> Image:
        header = _header(read)
        found = read_blocks(read, header.table, _ABSENT, _malformed, deadline)
        if found.last is not None:
            _malformed.unless(found.last < header.used, f"block {found.last} of {header.used}")
            tail = header.size % _BLOCK_BYTES or _BLOCK_BYTES
            check_end(header.data_offset + found.last * _BLOCK_BYTES + tail, file_size)
        first = None if found.first is None else header.data_offset + found.first * _BLOCK_BYTES
        return Image(
            header.size, cluster_size=_BLOCK_BYTES, first_block=first, parent=header.parent
        )

    def read_parent(self, read: Read, file_size: int) -> Parent | None:
        return _header(read).parent

    def identity(self, read: Read, file_size: int) -> bytes:
        return _header(read).identity

    def runs(self, read: Read, file_size: int, deadline: float) -> Runs:
        header = _header(read)
        sectors, first = _BLOCK_BYTES // SECTOR, header.data_offset // SECTOR
        last, start = -(-header.size // SECTOR), 0
        for entries in table_pieces(read, header.table, _malformed, deadline):
            for entry in entries:
                length = min(sectors, last - start)
                if entry != _NOT_STORED and length > 0:
                    yield DiskStretch(
                        start, length, None if entry == _ZEROS else first + entry * sectors
                    )
                start += sectors


def _header(read: Read) -> _Header:
    data = _malformed.whole(read(0, _HEADER.size), _HEADER.size, "header")
    fields = _HEADER.unpack(data)
    signature, version, _, kind, _, _, map_offset, data_offset = fields[1:9]
    sector, _, size, block, extra, count, used = fields[12:19]
    _malformed.unless(signature == SIGNATURE, "no header")
    _malformed.unless(version == _VERSION, f"version {version:#x}")
    _malformed.unless(kind in (_DYNAMIC, _STATIC, _DIFFERENCING), f"type {kind}")
    own, link = fields[19], fields[21]
    differing = kind == _DIFFERENCING
    _malformed.unless(differing is (link != _NO_UUID), "its type and its parent's UUID disagree")
    _malformed.unless((sector, block, extra) == (SECTOR, _BLOCK_BYTES, 0), f"blocks of {block}")
    _malformed.unless(map_offset % SECTOR == data_offset % SECTOR == 0, "unaligned tables")
    _malformed.unless(map_offset >= SECTOR, f"block map at {map_offset}")
    _malformed.unless(data_offset >= map_offset + count * 4, IN_TABLES)
    _malformed.unless(0 < size <= count * block, f"{count} blocks for {size} bytes")
    parent = Parent((), link) if differing else None
    return _Header(NumberTable(map_offset, count), data_offset, size, used, own, parent)


FORMAT = _Vdi()
