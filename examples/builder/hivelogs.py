"""Transaction logs of registry hives, as Windows writes them before it writes the hive itself.

They are made from two states of a hive: whatever differs goes into the log.

Source of the layouts: Maxim Suhanov, "Windows registry file format specification".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from fleetscan.appliance.guest.readers.hivelogs import SEED, marvin32

_SECTOR = 512
_PAGE = 4096
_BINS_AT = 40

Page = tuple[int, bytes]


def dirty(hive: bytes) -> bytes:
    """The hive, a write begun and not ended."""
    (number,) = struct.unpack_from("<I", hive, 8)
    return _head(hive, primary=number + 1, secondary=number) + hive[_SECTOR:]


def pages(before: bytes, after: bytes, size: int = _PAGE) -> list[Page]:
    """Offset, from the first bin, and new content of each page that differs."""
    return [
        (at - _PAGE, after[at : at + size])
        for at in range(_PAGE, _PAGE + _bins(after), size)
        if before[at : at + size] != after[at : at + size]
    ]


def log(hive: bytes, first: int, entries: Sequence[Sequence[Page]]) -> bytes:
    """A log of the format since Windows 8.1.

    Args:
        hive: the hive's later state.
        first: sequence number of the first entry.
        entries: each entry's pages.
    """
    parts = [_head(hive, primary=first, secondary=first, kind=6)]
    for number, changed in enumerate(entries, first):
        parts.append(_entry(number, _bins(hive), changed))
    return b"".join(parts)


def old_log(before: bytes, after: bytes) -> bytes:
    """A log of the format until Windows 8."""
    changed = pages(before, after, _SECTOR)
    bitmap = bytearray(_bins(after) // _SECTOR // 8)
    for offset, _ in changed:
        bitmap[offset // _SECTOR // 8] |= 1 << offset // _SECTOR % 8
    vector = b"DIRT" + bitmap
    vector += bytes(-len(vector) % _SECTOR)
    head = _head(after, primary=7, secondary=7, kind=1, written=before[12:20])
    return b"".join([head, vector, *(content for _, content in changed)])


def _bins(hive: bytes) -> int:
    return int.from_bytes(hive[_BINS_AT : _BINS_AT + 4], "little")


def _head(
    hive: bytes, *, primary: int, secondary: int, kind: int = 0, written: bytes = b""
) -> bytes:
    head = bytearray(hive[:_SECTOR])
    struct.pack_into("<II", head, 4, primary, secondary)
    struct.pack_into("<I", head, 28, kind)
    head[12 : 12 + len(written)] = written
    checksum = 0
    for word in struct.unpack_from("<127I", head):
        checksum ^= word
    struct.pack_into("<I", head, 508, checksum)
    return bytes(head)


def _entry(number: int, bins: int, changed: Sequence[Page]) -> bytes:
    body = b"".join(struct.pack("<II", offset, len(content)) for offset, content in changed)
    body += b"".join(content for _, content in changed)
    body += bytes(-(40 + len(body)) % _SECTOR)
    size = 40 + len(body)
    head = struct.pack("<4sIIIIIQ", b"HvLE", size, 0, number, bins, len(changed), _hash(body))
    return head + struct.pack("<Q", _hash(head)) + body


def _hash(data: bytes) -> int:
    return marvin32(data, SEED)
