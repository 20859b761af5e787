"""Partition tables, read here where the kernel and libblkid leave something out.

libblkid follows a table to its end for each partition anew, which an endless one turns into hours;
it does not know a partition again that the kernel had to cut at the disk's end; and neither says
which of a GPT's two headers is damaged. Sources: UEFI specification 2.10, "GUID Partition Table";
the kernel's block/partitions/msdos.c and efi.c.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Read = Callable[[int, int], bytes]
"""Offset and length in bytes to what stands there; less at the disk's end.

Raises OSError where it cannot be read.
"""

Copy = Literal["primary", "backup"]

MOST_LOGICAL = 128
"""Logical partitions that a table may have to be left to libblkid."""

_MOST_LINKS = 300  # of an extended partition's chain; the kernel has room for 256 partitions
_MOST_GPT_BYTES = 4 << 20  # more entries than the kernel reads
_USUAL_GPT_BYTES = 1 << 18

_MBR_ENTRY = struct.Struct("<B3xB3xII")  # flags, type, start and length in sectors
_TABLE_AT, _DISK_ID_AT, _MARK = 446, 440, b"\x55\xaa"
_PROTECTIVE, _EXTENDED = 0xEE, (0x05, 0x0F, 0x85)

# Signature, revision, header size, checksum, reserved, own and other place, first and last usable,
# disk GUID, place, number and size of entries, their checksum.
_GPT = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_CHECKSUM_AT = 16


@dataclass(frozen=True)
class PartitionEntry:
    """A partition as its table has it.

    Attributes:
        number: its number.
        start, size: where it is, in bytes.
        details: the same as libblkid says it, by libblkid's names.
    """

    number: int
    start: int
    size: int
    details: dict[str, str]


@dataclass
class PartitionTable:
    """A disk's partition table.

    Attributes:
        scheme: gpt or dos, as libblkid calls them; empty for another, or none.
        entries: its partitions, as many as are read.
        more: whether it has more than those.
        slow: whether libblkid had better not read it.
        used: GPT: the header that counts.
        damaged: GPT: the other one, when it is not what it should be.
    """

    scheme: Literal["", "gpt", "dos"] = ""
    entries: list[PartitionEntry] = field(default_factory=list)
    more: bool = False
    slow: bool = False
    used: Copy | None = None
    damaged: Copy | None = None


def read(read_at: Read, size: int, sector: int) -> PartitionTable:
    """The partition table of a disk.

    Args:
        read_at: reads it.
        size: its length in bytes.
        sector: its logical sector size in bytes.
    """
    first = read_at(0, 512)
    if len(first) < 512 or first[510:] != _MARK:
        return PartitionTable()
    slots = list(_slots(first))
    if any(flags & 0x7F for flags, _, _, _ in slots):
        return PartitionTable()  # a filesystem's boot sector: the kernel decides the same
    if any(kind == _PROTECTIVE for _, kind, _, _ in slots):
        return _gpt(read_at, size, sector) or PartitionTable()
    table = PartitionTable("dos")
    identifier = int.from_bytes(first[_DISK_ID_AT : _DISK_ID_AT + 4], "little")
    for number, (flags, kind, start, length) in enumerate(slots, start=1):
        if length:
            table.entries.append(_dos(number, flags, kind, start, length, sector, identifier))
    for _, kind, start, length in slots:
        if kind in _EXTENDED and length:
            _chain(read_at, table, start, sector, identifier)
    return table


def _slots(sector: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Flags, type, start and length of the four entries of an MBR or EBR."""
    return _MBR_ENTRY.iter_unpack(sector[_TABLE_AT:510])


def _chain(read_at: Read, table: PartitionTable, first: int, sector: int, identifier: int) -> None:
    """Add the logical partitions of an extended one."""
    place, number, links = first, 5, 0
    seen: set[int] = set()
    while place not in seen:
        seen.add(place)
        links += 1
        if links > _MOST_LINKS:
            table.more = True
            break
        link = read_at(place * sector, 512)
        if len(link) < 512 or link[510:] != _MARK:
            break
        following = place
        for flags, kind, start, length in list(_slots(link))[:2]:
            if length and kind in _EXTENDED:
                following = first + start
            elif length:
                at = place + start
                table.entries.append(_dos(number, flags, kind, at, length, sector, identifier))
                number += 1
        place = following
    table.slow = links > MOST_LOGICAL


def _dos(
    number: int, flags: int, kind: int, start: int, length: int, sector: int, identifier: int
) -> PartitionEntry:
    details = {
        "PART_ENTRY_SCHEME": "dos",
        "PART_ENTRY_NUMBER": str(number),
        "PART_ENTRY_TYPE": f"{kind:#x}",
        "PART_ENTRY_SIZE": str(length * sector // 512),
    }
    if flags:
        details["PART_ENTRY_FLAGS"] = f"{flags:#x}"
    if identifier:
        details["PART_ENTRY_UUID"] = f"{identifier:08x}-{number:02x}"
    return PartitionEntry(number, start * sector, length * sector, details)


# -- GPT.


@dataclass(frozen=True)
class _Header:
    other: int
    disk: bytes
    entries: bytes
    entry_size: int


def _gpt(read_at: Read, size: int, sector: int) -> PartitionTable | None:
    """A GPT by its primary header, or else by the backup at the disk's end; None without either.

    The kernel does so when it is started with "gpt", and firmware always.
    """
    last = size // sector - 1
    primary = _header(read_at, 1, sector)
    backup = _header(read_at, primary.other if primary else last, sector)
    header = primary or backup
    if header is None:
        return None
    table = PartitionTable("gpt", used="primary" if primary else "backup")
    if primary is None or backup is None:
        table.damaged = "backup" if primary else "primary"
    table.entries = list(_gpt_entries(header, sector))
    table.slow = len(header.entries) > _USUAL_GPT_BYTES
    return table


def _header(read_at: Read, place: int, sector: int) -> _Header | None:
    """A header that is whole, with its entries; None for any other."""
    try:
        block = read_at(place * sector, sector)
        if len(block) < _GPT.size or not block.startswith(b"EFI PART"):
            return None
        fields = _GPT.unpack_from(block)
        length, checksum, own, other = fields[2], fields[3], fields[5], fields[6]
        at, count, each, of_entries = fields[10:]
        blank = block[:_CHECKSUM_AT] + bytes(4) + block[_CHECKSUM_AT + 4 :]
        sound = _GPT.size <= length <= sector and zlib.crc32(blank[:length]) == checksum
        fits = each >= _GPT_ENTRY.size and 0 < count * each <= _MOST_GPT_BYTES
        if not sound or not fits or own != place:
            return None
        entries = read_at(at * sector, count * each)
    except OSError:
        return None
    if len(entries) != count * each or zlib.crc32(entries) != of_entries:
        return None
    return _Header(other, fields[9], entries, each)


def _gpt_entries(header: _Header, sector: int) -> Iterator[PartitionEntry]:
    for index in range(len(header.entries) // header.entry_size):
        entry = _GPT_ENTRY.unpack_from(header.entries, index * header.entry_size)
        kind, identifier, first, last, flags, name = entry
        if not any(kind) or last < first:
            continue
        length = (last - first + 1) * sector
        text = name.decode("utf-16-le", "replace").partition("\0")[0]
        details = {
            "PART_ENTRY_SCHEME": "gpt",
            "PART_ENTRY_NUMBER": str(index + 1),
            "PART_ENTRY_TYPE": str(uuid.UUID(bytes_le=kind)),
            "PART_ENTRY_UUID": str(uuid.UUID(bytes_le=identifier)),
            "PART_ENTRY_SIZE": str(length // 512),
        }
        if flags:
            details["PART_ENTRY_FLAGS"] = f"{flags:#x}"
        if text:
            details["PART_ENTRY_NAME"] = text
        yield PartitionEntry(index + 1, first * sector, length, details)
