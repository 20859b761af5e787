"""Which format a disk file has: what its name and first bytes claim, and what is believed.

A file that claims a format, by its suffix or its magic, is never read as raw when the rest of its
metadata makes no sense: it would look like a disk without an operating system.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.preflight import containers, parallels, qcow2, vdi, vhd, vhdx, vmdk
from fleetscan.scanner.preflight.image import SECTOR, Image, Parent, Read, Runs
from fleetscan.scanner.preflight.plan import Format

FORMATS: tuple[Format, ...] = get_args(Format)
"""Names of the formats that can be opened."""

_QEMU_NAMES: dict[str, Format] = {"vpc": "vhd"}  # as overlays state them

ARCHIVE_SUFFIX = ".ova"
"""Suffix, in lower case, of archives that hold the disks of a machine."""

# None: the content tells.
_SUFFIX_CLAIMS: dict[str, str | None] = {
    ".qcow2": "qcow2",
    ".qcow": "qcow2",  # or its first version, which the header tells
    ".img": None,
    ".raw": "raw",
    ".dd": None,
    ".iso": None,  # hybrid images are plain disks too
    ".vmdk": "vmdk",
    ".vhd": "vhd",
    ".vhdx": "vhdx",
    ".avhd": "vhd",
    ".avhdx": "vhdx",
    ".vdi": "vdi",
    ".hdd": "parallels",
    ".qed": "qed",
    ARCHIVE_SUFFIX: "ova",  # an archive itself is no image, its members are
}

DISK_SUFFIXES = frozenset(_SUFFIX_CLAIMS) - {".iso", ARCHIVE_SUFFIX}
"""Suffixes, in lower case, of an archive's members that are disks, not discs put in a drive."""

IMAGE_SUFFIXES = frozenset(_SUFFIX_CLAIMS) | containers.CONTAINER_SUFFIXES
"""Suffixes, in lower case, of the files that a folder's machines are made of."""


def is_image_name(name: str) -> bool:
    """Whether a file in a folder counts as a machine's disk by its name, readable or not."""
    suffix = Path(name).suffix.lower()
    return suffix in IMAGE_SUFFIXES or containers.is_named(name, IMAGE_SUFFIXES)


# Files that VMware keeps a disk's plain content in, or that lead to a plain device: whatever they
# begin with, a guest has written. Names: VMware's "Virtual Disk Format 5.0", "Extent Descriptions".
_PLAIN_EXTENT = re.compile(r"-(flat|f\d+|rdmp?)\.vmdk$", re.IGNORECASE)

# (offset, magic, format), from each format's own specification.
_MAGICS = (
    (0, qcow2.MAGIC, "qcow2"),
    (0, vmdk.SPARSE_MAGIC, "vmdk"),
    (0, vmdk.ESX_MAGIC, "vmdk"),
    (0, vmdk.DESCRIPTOR_MAGIC, "vmdk"),
    (0, vhd.COOKIE, "vhd"),
    (0, vhdx.SIGNATURE, "vhdx"),
    (vdi.SIGNATURE_OFFSET, vdi.SIGNATURE, "vdi"),
    (0, b"QED\0", "qed"),
    (0, parallels.MAGIC, "parallels"),
    (0, parallels.MAGIC_EXTENDED, "parallels"),
)

_READERS: dict[Format, Callable[[Read, int, float], Image]] = {
    "qcow2": qcow2.read_image,
    "vmdk": vmdk.read_image,
    "vhd": vhd.read_image,
    "vhdx": vhdx.read_image,
    "vdi": vdi.read_image,
    "parallels": parallels.read_image,
}


def read_image(image_format: Format, read: Read, file_size: int, deadline: float) -> Image:
    """What an image's metadata says, all of it checked.

    Args:
        image_format: as :func:`decide_format` decided.
        read: reads the file.
        file_size: in bytes.
        deadline: ``time.monotonic()`` at which the check of its tables is given up.

    Raises:
        PreflightError: it is malformed, truncated, or of a kind that cannot be opened.
    """
    if image_format == "raw":
        return Image(-(-file_size // SECTOR) * SECTOR, first_block=0)  # as QEMU rounds it
    return _READERS[image_format](read, file_size, deadline)


_Differencing = Callable[[Read, int], Parent | None]
_PARENTS: dict[Format, _Differencing] = {
    "vhd": vhd.read_parent,
    "vhdx": vhdx.read_parent,
    "vdi": vdi.read_parent,
}
_IDENTITIES: dict[Format, Callable[[Read, int], bytes]] = {
    "vhd": vhd.identity,
    "vhdx": vhdx.identity,
    "vdi": vdi.identity,
}
_RUNS: dict[Format, Callable[[Read, int, float], Runs]] = {
    "vhd": vhd.runs,
    "vhdx": vhdx.runs,
    "vdi": vdi.runs,
}


def read_parent(image_format: Format, read: Read, file_size: int) -> Parent | None:
    """What a differencing image adds to; None for all others. Its tables stay unread.

    Raises:
        PreflightError: it is malformed.
    """
    reader = _PARENTS.get(image_format)
    return reader(read, file_size) if reader else None


def identity(image_format: Format, read: Read, file_size: int) -> bytes:
    """What differencing images of a format know an image of it by.

    Raises:
        PreflightError: it is malformed.
    """
    return _IDENTITIES[image_format](read, file_size)


def runs(image_format: Format, read: Read, file_size: int, deadline: float) -> Runs:
    """Which stretches of the disk an image decides on, of a format that has differencing images.

    Raises:
        PreflightError: it is malformed, or has too much of them.
    """
    return _RUNS[image_format](read, file_size, deadline)


def references(image_format: Format, read: Read, file_size: int) -> tuple[bytes, ...]:
    """Names of the files that an image refers to, as they stand; its tables stay unread.

    Args:
        image_format: as :func:`decide_format` decided.
        read: reads the file.
        file_size: in bytes.

    Raises:
        PreflightError: it is malformed, truncated, or of a kind that cannot be opened.
    """
    if image_format == "vmdk":
        return vmdk.references(read, file_size)
    if image_format == "qcow2":
        name = qcow2.parse_header(read, file_size).backing_file
        return (name,) if name else ()
    return ()


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
        PreflightError: the format is not supported, the file holds a disk compressed or archived,
            or name and content contradict each other.
    """
    if stated is not None:
        return _supported(stated)
    suffix = Path(path).suffix.lower()
    claim = _SUFFIX_CLAIMS.get(suffix)
    found = _format_of_content(read, file_size)
    if found is None:
        if claim != "ova":
            containers.refuse(read, file_size)
        if claim not in (None, "raw"):
            raise _contradiction(f"is named {suffix} but has no {claim} header")
        return "raw"
    if claim not in (None, found):
        raise _contradiction(f"is named {suffix} but begins with a {found} header")
    # Whether the rest makes sense is checked by whoever opens it: with its magic a file is of
    # this format or broken, never raw.
    return _supported(found)


def is_certain(stated: str | None, path: str, decided: Format) -> bool:
    """Whether more than a header speaks for a format: a statement, or the file's name as well.

    A header alone may be a guest's, written into its own raw disk (CVE-2010-3851). It may say what
    that guest's disk is, as the rest of the disk does, but not which other files belong to it.

    Args:
        stated: as for :func:`decide_format`.
        path: likewise.
        decided: what it decided.
    """
    if stated is not None:
        return True
    claim = _SUFFIX_CLAIMS.get(Path(path).suffix.lower())
    return claim == decided and not _PLAIN_EXTENT.search(path)


def _format_of_content(read: Read, file_size: int) -> str | None:
    for offset, magic, name in _MAGICS:
        if read(offset, len(magic)) == magic:
            return name
    # A fixed vhd is a raw disk followed by a footer.
    end = file_size - vhd.FOOTER_BYTES
    return "vhd" if end >= 0 and read(end, len(vhd.COOKIE)) == vhd.COOKIE else None


def _supported(name: str) -> Format:
    for known in FORMATS:
        if known == _QEMU_NAMES.get(name, name):
            return known
    raise PreflightError(
        f"format {name} is not supported",
        hint="convert it with: qemu-img convert -O qcow2, or state format raw if it is a raw disk",
    )


def _contradiction(what: str) -> PreflightError:
    return PreflightError(what, hint="state the format, in an inventory or with --format")
