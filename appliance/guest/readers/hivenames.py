"""Names of a hive's keys, held against what the lists that lead to them say of them.

A hive has checksums in its first block alone. But each list of keys has a hash of every name
("lh"), or its first four characters ("lf"), by which Windows finds a key. A key whose name was
damaged is lost to Windows, and would be passed over here as one that was never there. Format: the
"Windows registry file format specification" of Maxim Suhanov, "Subkeys list".

Standard library only, and no trust in any number: what makes no sense is passed over, as hivex
has its own say about it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

_BINS = 4096  # where offsets in a hive start
_NONE = 0xFFFF_FFFF
_LIST_AT, _FLAGS_AT, _LENGTH_AT, _NAME_AT = 32, 6, 76, 80  # in a key's cell, its size included
_ONE_BYTE_NAME = 0x20
_MOST_LISTS = 1024


class Bytes(Protocol):
    """A hive's content: bytes, or a map of a file."""

    def __getitem__(self, place: slice, /) -> bytes:
        """Part of it."""


@dataclass(frozen=True)
class KeyEntry:
    """A key as a list has it.

    Attributes:
        name: its name.
        hash: the list's hash of it; None where the list has none.
        first: the first characters of it that the list has; likewise.
    """

    name: str
    hash: int | None = None
    first: bytes | None = None

    def fits(self, name: str) -> bool:
        """Whether what the list says is true of a name."""
        if self.hash is not None:
            return self.hash in (_hash(name.upper()), _hash(_upper_ascii(name)))
        return self.first == name[:4].lower().encode("latin-1", "replace").ljust(4, b"\0")


def damaged(hive: Bytes, key: int, wanted: str | None = None) -> str | None:
    """What is wrong with the names of the keys directly below a key; None when nothing is.

    Args:
        hive: the hive.
        key: the key's place in it, as hivex gives it.
        wanted: the name of a key that was not found; only this one counts then.
    """
    for entry in _entries(hive, key):
        if not entry.fits(entry.name) and (wanted is None or entry.fits(wanted)):
            return f"the name of a key below it is damaged: {wanted or ascii(entry.name)}"
    return None


def _hash(upper: str) -> int:
    total = 0
    for character in upper:
        total = (total * 37 + ord(character)) & 0xFFFF_FFFF
    return total


def _upper_ascii(name: str) -> str:
    """A name in capitals as Windows has it where Python changes more than Windows does."""
    return "".join(c.upper() if c.isascii() else c for c in name)


def _entries(hive: Bytes, key: int) -> Iterator[KeyEntry]:
    """The keys below a key whose names have one byte a character, where a list says of them."""
    pending, lists = [_number(hive, key + _LIST_AT)], 0
    while pending and lists < _MOST_LISTS:
        offset = pending.pop()
        lists += 1
        if offset == _NONE:
            continue
        start = _BINS + offset + 4
        kind, count = hive[start : start + 2], _short(hive, start + 2)
        if kind == b"ri":
            content = hive[start + 4 : start + 4 + 4 * count]
            pending += [number for (number,) in struct.iter_unpack("<I", _whole(content, 4))]
        elif kind in (b"lf", b"lh"):
            content = hive[start + 4 : start + 4 + 8 * count]
            for below, told in struct.iter_unpack("<I4s", _whole(content, 8)):
                if (name := _name(hive, _BINS + below)) is None:
                    continue
                if kind == b"lh":
                    yield KeyEntry(name, hash=int.from_bytes(told, "little"))
                elif told.isascii():
                    yield KeyEntry(name, first=told.lower())


def _name(hive: Bytes, key: int) -> str | None:
    """A key's name; None when it has two bytes a character, or this is no key."""
    if hive[key + 4 : key + 6] != b"nk" or not _short(hive, key + _FLAGS_AT) & _ONE_BYTE_NAME:
        return None
    length = _short(hive, key + _LENGTH_AT)
    name = hive[key + _NAME_AT : key + _NAME_AT + length]
    return name.decode("latin-1")


def _number(hive: Bytes, place: int) -> int:
    return int.from_bytes(hive[place : place + 4], "little") if place >= 0 else _NONE


def _short(hive: Bytes, place: int) -> int:
    return int.from_bytes(hive[place : place + 2], "little")


def _whole(content: bytes, size: int) -> bytes:
    return content[: len(content) // size * size]
