"""The architecture that a program was built for, from its ELF header.

Source of layout and numbers: the System V ABI's ELF header, as in Linux's elf.h and elf-em.h.
Guest-safe: standard library only.
"""

from __future__ import annotations

import struct

HEADER_SIZE = 52
"""Bytes of a file that :func:`machine` looks at: an ELF header's, in its shorter form."""

_CLASS_64 = 2
_LITTLE_ENDIAN = 1
_EM_ARM = 40
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
    """The ``uname -m`` name of a program's machine; None for what is no known ELF file.

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
