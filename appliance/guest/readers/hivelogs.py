"""Bringing a dirty registry hive up to date from its transaction logs, on a copy in memory.

A hive is dirty when its base block says that a write was begun and not ended. As Windows does at
its next start, the log entries that were not yet written to the hive are applied, in order, for
as long as each is whole and follows the one before.

Source of the layouts and of the order: Maxim Suhanov, "Windows registry file format
specification" (transaction log files, old and new format).

hivex reads hives and leaves their logs alone, as does Debian's other reader, libregf. regipy, which
knows them, is not in Debian; the tests compare with it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["not_needed", "replayed", "nothing_newer", "failed"]

ENDINGS = (".LOG1", ".LOG2", ".LOG")
"""What a hive's name is followed by in those of its logs, in the order that Windows tries them."""

COPY_LIMIT = 128 << 20
"""Largest hive that is copied, in bytes: the copy is in the appliance's memory."""

LOG_LIMIT = 32 << 20
"""Bytes of a log that are read; Windows writes a hive out long before it gets there."""

LIBRARY = "/usr/lib/fleetscan/marvin32.so"
"""Where the appliance's build puts the compiled ``marvin32.c``."""

SEED = 0x82EF4D887A4E55C5
"""What the checksums of log entries begin with."""

_SECTOR = 512
_BASE_BLOCK = 4096
_BLOCK = 1 << 20
_MASK = 0xFFFF_FFFF

# Mark, sequence numbers, last written, version, type, format, root, length of all bins.
_BASE = struct.Struct("<4sIIQ8xI8xI")
_BINS_AT, _SEQUENCES_AT, _TYPE_AT, _CHECKSUM_AT = 40, 4, 28, 508
_FIRST_BIN_TIME_AT = _BASE_BLOCK + 20
_OLD_TYPES, _NEW_TYPE = (1, 2), 6

_ENTRY = struct.Struct("<4sIIIIIQQ")  # mark, size, flags, sequence, bins, pages, both hashes
_REFERENCE = struct.Struct("<II")  # offset, size


@dataclass(frozen=True)
class Recovery:
    """What became of a hive's logs.

    Attributes:
        state: whether they were needed, and replayed.
        entries: log entries that were applied; a log of the old format is one.
        note: why they were not replayed, or not to the end; empty for no reason.
    """

    state: State
    entries: int = 0
    note: str = ""


@dataclass(frozen=True)
class Base:
    """The beginning of a hive or log.

    Attributes:
        primary: number that a write begins with.
        secondary: number that it ends with.
        written: when it was last written, in Windows' units.
        type: 0 for a hive, another number for a log.
        bins: length of all bins in bytes.
        valid: whether its checksum is right.
    """

    primary: int
    secondary: int
    written: int
    type: int
    bins: int
    valid: bool

    @property
    def dirty(self) -> bool:
        """Whether a hive with it has to be brought up to date."""
        return not self.valid or self.primary != self.secondary


@dataclass(frozen=True)
class _Entry:
    """A log entry: what its bins are to be afterwards, and pages as (offset, content)."""

    sequence: int
    bins: int
    pages: tuple[tuple[int, memoryview], ...]


@dataclass(frozen=True)
class _Log:
    base: Base
    data: memoryview


def base(sector: bytes) -> Base | None:
    """The base block whose first sector this is; None for what is no hive and no log."""
    if len(sector) < _SECTOR or not sector.startswith(b"regf"):
        return None
    _, primary, secondary, written, kind, bins = _BASE.unpack_from(sector)
    stated = int.from_bytes(sector[_CHECKSUM_AT:_SECTOR], "little")
    return Base(primary, secondary, written, kind, bins, stated == _checksum(sector))


def recover(hive: int, logs: Sequence[int]) -> tuple[int | None, Recovery]:
    """Replay a hive's logs.

    Args:
        hive: descriptor of the hive.
        logs: descriptors of its logs, in the order of :data:`ENDINGS`.

    Returns:
        Descriptor of a copy in memory that is up to date, None where the hive itself is what
        there is; and what was done.

    Raises:
        OSError: a file cannot be read.
    """
    state = base(os.pread(hive, _SECTOR, 0))
    if state is None or not state.dirty:
        return None, Recovery("not_needed")
    size = os.fstat(hive).st_size
    if size > COPY_LIMIT:
        return None, Recovery("failed", note=f"the hive is larger than {COPY_LIMIT} bytes")
    found = [log for log in map(_log, logs) if log is not None]
    if not found:
        note = "none of its logs is one" if logs else "it has no logs"
        return None, Recovery("nothing_newer" if not logs else "failed", note=note)
    entries, note = _entries(hive, state, found)
    if not entries:
        return None, Recovery("failed" if note else "nothing_newer", note=note)
    copy = _copy(hive)
    try:
        _apply(copy, found[0], state, entries)
    except BaseException:
        os.close(copy)
        raise
    return copy, Recovery("replayed", len(entries), note)


def _log(descriptor: int) -> _Log | None:
    """A log with a right base block; None for any other, such as an empty one."""
    data = b"".join(_blocks(descriptor, LOG_LIMIT))
    head = base(data[:_SECTOR])
    if head is None or not head.valid or head.type not in (*_OLD_TYPES, _NEW_TYPE):
        return None
    return _Log(head, memoryview(data))


def _entries(hive: int, state: Base, logs: Sequence[_Log]) -> tuple[list[_Entry], str]:
    """What is to be applied, in order, and what ended it."""
    new = [log for log in logs if log.base.type == _NEW_TYPE]
    return _new_entries(state, new) if new else _old_entry(hive, state, logs)


# -- The new format: since Windows 8.1.


def _new_entries(state: Base, logs: Sequence[_Log]) -> tuple[list[_Entry], str]:
    ordered = sorted(logs, key=lambda log: log.base.primary)
    if not state.valid:  # only the latest log shows which entries the hive already has
        ordered = ordered[-1:]
    entries: list[_Entry] = []
    note = ""
    for log in ordered:
        following = entries[-1].sequence + 1 if entries else log.base.primary
        if state.valid and not entries and log.base.primary < state.secondary:
            continue
        if log.base.primary != following:
            return entries, f"entry {following} is missing"
        try:
            for entry in _parsed(log):
                entries.append(entry)
        except ValueError as error:
            note = str(error)
    return entries, note


def _parsed(log: _Log) -> Iterator[_Entry]:
    """The entries of a log that follow each other.

    Raises:
        ValueError: one is damaged; those before it have been given.
    """
    data, at, expected = log.data, _SECTOR, log.base.primary
    while bytes(data[at : at + 4]) == b"HvLE" and at + _ENTRY.size <= len(data):
        _, size, _, sequence, bins, count, *hashes = _ENTRY.unpack_from(data, at)
        if sequence != expected:  # remains of an older round
            return
        entry = data[at : at + size]
        whole = size >= _ENTRY.size and len(entry) == size and not size % _SECTOR
        if not whole or [_hash(entry[_ENTRY.size :]), _hash(entry[:32])] != hashes:
            raise ValueError(f"entry {sequence} is damaged")
        yield _Entry(sequence, _checked(bins), tuple(_pages(entry, count, bins)))
        at += size
        expected = (expected + 1) & _MASK


def _pages(entry: memoryview, count: int, bins: int) -> Iterator[tuple[int, memoryview]]:
    content = _ENTRY.size + count * _REFERENCE.size
    if content > len(entry):
        raise ValueError("an entry has more pages than it can hold")
    for offset, size in _REFERENCE.iter_unpack(entry[_ENTRY.size : content]):
        if content + size > len(entry) or offset + size > bins:
            raise ValueError("an entry's page is outside the hive")
        yield offset, entry[content : content + size]
        content += size


def _checked(bins: int) -> int:
    if bins % _BASE_BLOCK or bins + _BASE_BLOCK > COPY_LIMIT:
        raise ValueError(f"an entry makes the hive {bins} bytes long")
    return bins


# -- The old format: a bitmap of sectors, then these.


def _old_entry(hive: int, state: Base, logs: Sequence[_Log]) -> tuple[list[_Entry], str]:
    written = state.written
    if not state.valid:
        written = int.from_bytes(os.pread(hive, 8, _FIRST_BIN_TIME_AT), "little")
    for log in logs:
        if log.base.written == written and log.base.primary == log.base.secondary:
            try:
                bins = _checked(log.base.bins)
                pages = tuple(_sectors(log.data, bins))
            except ValueError as error:
                return [], str(error)
            return [_Entry(log.base.primary, bins, pages)], ""
    return [], ""


def _sectors(data: memoryview, bins: int) -> Iterator[tuple[int, memoryview]]:
    start = _SECTOR + 4
    bitmap = bytes(data[start : start + bins // _SECTOR // 8])
    if bytes(data[_SECTOR:start]) != b"DIRT" or len(bitmap) * 8 * _SECTOR != bins:
        raise ValueError("a log's bitmap is missing")
    at = -(-(start + len(bitmap)) // _SECTOR) * _SECTOR
    for number, bits in enumerate(bitmap):
        for bit in range(8) if bits else ():
            if bits & 1 << bit:
                sector = data[at : at + _SECTOR]
                if len(sector) < _SECTOR:
                    raise ValueError("a log's sectors are cut off")
                yield (8 * number + bit) * _SECTOR, sector
                at += _SECTOR


# -- The copy.


def _copy(hive: int) -> int:
    copy = os.memfd_create("hive")
    for block in _blocks(hive, COPY_LIMIT):
        os.write(copy, block)
    return copy


def _blocks(descriptor: int, limit: int) -> Iterator[bytes]:
    at = 0
    while at < limit and (block := os.pread(descriptor, min(_BLOCK, limit - at), at)):
        yield block
        at += len(block)


def _apply(copy: int, log: _Log, state: Base, entries: Sequence[_Entry]) -> None:
    """Write the entries' pages, and a base block that says so."""
    for entry in entries:
        for offset, content in entry.pages:
            os.pwrite(copy, content, _BASE_BLOCK + offset)
    head = bytearray(os.pread(copy, _SECTOR, 0) if state.valid else log.data[:_SECTOR])
    last = entries[-1]
    struct.pack_into("<II", head, _SEQUENCES_AT, last.sequence, last.sequence)
    struct.pack_into("<I", head, _TYPE_AT, 0)
    struct.pack_into("<I", head, _BINS_AT, last.bins)
    struct.pack_into("<I", head, _CHECKSUM_AT, _checksum(head))
    os.pwrite(copy, head, 0)
    size = os.fstat(copy).st_size
    os.truncate(copy, max(size, _BASE_BLOCK + last.bins))


def _checksum(sector: bytes | bytearray) -> int:
    """The exclusive or of a base block's words; neither 0 nor 2^32-1."""
    checksum = 0
    for word in struct.unpack_from("<127I", sector):
        checksum ^= word
    return {0: 1, _MASK: _MASK - 1}.get(checksum, checksum)


# -- Marvin32, as Microsoft's SymCrypt has it.


def _hash(data: memoryview) -> int:
    return hasher()(bytes(data), SEED)


@functools.cache
def hasher(library: str = LIBRARY) -> Callable[[bytes, int], int]:
    """:func:`marvin32`, by the compiled ``marvin32.c`` where it is there."""
    try:
        native = ctypes.CDLL(library).marvin32
    except OSError:
        return marvin32
    native.restype = ctypes.c_uint64
    native.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)
    return lambda data, seed: int(native(data, len(data), seed))


def marvin32(data: bytes, seed: int) -> int:
    """The checksum of some bytes, a number of 64 bits."""
    low, high = seed & _MASK, seed >> 32
    whole = len(data) & ~3
    last = int.from_bytes(data[whole:], "little") | 0x80 << 8 * (len(data) - whole)
    for word in (*struct.unpack_from(f"<{whole // 4}I", data), last, 0):
        low = low + word & _MASK
        high ^= low
        low = (low << 20 | low >> 12) + high & _MASK
        high = (high << 9 | high >> 23) & _MASK ^ low
        low = (low << 27 | low >> 5) + high & _MASK
        high = (high << 19 | high >> 13) & _MASK
    return high << 32 | low
