"""Which format a disk file has: what its name and first bytes claim, and what is believed.

Only raw and qcow2 are opened. A file that claims another format, by its suffix or its magic, is
refused instead of being read as raw: it would look like a disk without an operating system.
"""

from __future__ import annotations

from pathlib import Path

from scanner.errors import PreflightError
from scanner.preflight import qcow2
from scanner.preflight.plan import Format
from scanner.preflight.qcow2 import Read

_SUFFIX_CLAIMS: dict[str, str | None] = {
    ".qcow2": "qcow2",
    ".qcow": None,  # version 1 or 2: the header tells
    ".img": None,
    ".raw": "raw",
    ".dd": None,
    ".iso": None,  # hybrid images are plain disks too
    ".vmdk": "vmdk",
    ".vhd": "vhd",
    ".vhdx": "vhdx",
    ".vdi": "vdi",
    ".qed": "qed",
    ".ova": "ova",
}

IMAGE_SUFFIXES = frozenset(_SUFFIX_CLAIMS)
"""Suffixes, in lower case, of the files that a folder's machines are made of."""

# (offset, magic, format), from each format's own specification.
_MAGICS = (
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"conectix", "vhd"),
    (0, b"vhdxfile", "vhdx"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"QED\0", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
)
_VHD_FOOTER = 512  # a fixed VHD is a raw disk followed by this many bytes that begin "conectix"


def decide_format(stated: str | None, path: str, read: Read, file_size: int) -> Format:
    """The format to open a file as, decided once and for all.

    A stated format is taken as it is: a raw disk stays raw whatever a guest wrote at its start
    (CVE-2010-3851).

    Args:
        stated: what the source, or the overlay's header, says; None if nothing.
        path: the file's name, for its suffix.
        read: reads the file.
        file_size: in bytes.

    Raises:
        PreflightError: the format is not supported, or name and content contradict each other.
    """
    if stated == "raw":
        return "raw"
    if stated == "qcow2":
        return "qcow2"
    if stated is not None:
        raise _not_supported(stated)
    return _probe(Path(path).suffix.lower(), read, file_size)


def _probe(suffix: str, read: Read, file_size: int) -> Format:
    claim = _SUFFIX_CLAIMS.get(suffix)
    if read(0, len(qcow2.MAGIC)) == qcow2.MAGIC:
        if claim == "raw":
            raise _contradiction("is named .raw but begins with a qcow2 header")
        # Whether the rest makes sense is checked by whoever opens it: with this magic a file is
        # qcow2 or broken, never raw.
        return "qcow2"
    if other := _foreign_format(read, file_size):
        raise _not_supported(other)
    if claim == "qcow2":
        raise _contradiction("is named .qcow2 but has no qcow2 header")
    if claim not in (None, "raw"):
        raise _not_supported(claim)
    return "raw"


def _foreign_format(read: Read, file_size: int) -> str | None:
    for offset, magic, name in _MAGICS:
        if read(offset, len(magic)) == magic:
            return name
    if file_size >= _VHD_FOOTER and read(file_size - _VHD_FOOTER, 8) == b"conectix":
        return "vhd"
    return None


def _not_supported(name: str) -> PreflightError:
    return PreflightError(
        f"format {name} is not supported yet",
        hint="convert it with: qemu-img convert -O qcow2, or state format raw if it is a raw disk",
    )


def _contradiction(what: str) -> PreflightError:
    return PreflightError(what, hint="state the format, in an inventory or with --format")
