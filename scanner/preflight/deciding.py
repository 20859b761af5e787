"""Which format a disk file has: what its name and first bytes claim, and what is believed.

A file that claims a format, by its suffix or its magic, is never read as raw when the rest of its
metadata makes no sense: it would look like a disk without an operating system.
"""

from __future__ import annotations

import re
from pathlib import Path

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.preflight import containers
from fleetscan.scanner.preflight.disk_format import DifferencingFormat, DiskFormat
from fleetscan.scanner.preflight.formats import load_formats
from fleetscan.scanner.preflight.image import Read

FORMATS = tuple(name for name, known in load_formats().items() if isinstance(known, DiskFormat))
"""Names of the formats that can be opened."""

ARCHIVE_SUFFIX = ".ova"
"""Suffix, in lower case, of archives that hold the disks of a machine."""

_ARCHIVE = "ova"  # an archive itself is not an image, its members are
_DISCS = (".iso",)  # put in a drive; hybrid ones are plain disks too
_ANY = (".img", ".dd", *_DISCS)  # the content decides

_CLAIMS = {suffix: name for name, known in load_formats().items() for suffix in known.suffixes} | {
    ARCHIVE_SUFFIX: _ARCHIVE
}

DISK_SUFFIXES = frozenset({*_CLAIMS, *_ANY}) - {*_DISCS, ARCHIVE_SUFFIX}
"""Suffixes, in lower case, of an archive's members that are disks, not discs put in a drive."""

IMAGE_SUFFIXES = frozenset({*_CLAIMS, *_ANY}) | containers.CONTAINER_SUFFIXES
"""Suffixes, in lower case, of the files that a folder's machines are made of."""

# In the order in which they are looked for: what a file ends with counts least, as a raw disk's
# guest may have written it.
_MAGICS = sorted(
    (
        (offset, magic, name)
        for name, known in load_formats().items()
        for offset, magic in known.magics
    ),
    key=lambda found: (found[0] < 0, found[0]),
)


def format_of(name: str) -> DiskFormat:
    """The format with this name, one of :data:`FORMATS`."""
    found = load_formats()[name]
    if not isinstance(found, DiskFormat):
        raise TypeError(f"{name} cannot be opened")
    return found


def differencing(name: str) -> DifferencingFormat:
    """The same, of a format whose images can add to a parent."""
    found = load_formats()[name]
    if not isinstance(found, DifferencingFormat):
        raise TypeError(f"{name} has no differencing images")
    return found


def is_image_name(name: str) -> bool:
    """Whether a file in a folder counts as a machine's disk by its name, readable or not."""
    suffix = Path(name).suffix.lower()
    return suffix in IMAGE_SUFFIXES or containers.is_named(name, IMAGE_SUFFIXES)


# Files that VMware keeps a disk's plain content in, or that lead to a plain device: whatever they
# begin with, a guest has written. Names: VMware's "Virtual Disk Format 5.0", "Extent Descriptions".
_PLAIN_EXTENT = re.compile(r"-(flat|f\d+|rdmp?)\.vmdk$", re.IGNORECASE)


def decide_format(stated: str | None, path: str, read: Read, file_size: int) -> str:
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
    claim = _CLAIMS.get(suffix)
    found = _format_of_content(read, file_size)
    if found is None:
        if claim != _ARCHIVE:
            containers.refuse(read, file_size)
        if claim not in (None, "raw"):
            raise _contradiction(f"is named {suffix} but has no {claim} header")
        return "raw"
    if claim not in (None, found):
        raise _contradiction(f"is named {suffix} but begins with a {found} header")
    # Whether the rest makes sense is checked by whoever opens it: with its magic a file is of
    # this format or broken, never raw.
    return _supported(found)


def is_certain(stated: str | None, path: str, decided: str) -> bool:
    """Whether more than a header speaks for a format: a statement, or also the file's name.

    A header alone may be a guest's, written into its own raw disk (CVE-2010-3851). It may say what
    that guest's disk is, as the rest of the disk does, but not which other files belong to it.

    Args:
        stated: as for :func:`decide_format`.
        path: likewise.
        decided: what it decided.
    """
    if stated is not None:
        return True
    claim = _CLAIMS.get(Path(path).suffix.lower())
    return claim == decided and not _PLAIN_EXTENT.search(path)


def _format_of_content(read: Read, file_size: int) -> str | None:
    for offset, magic, name in _MAGICS:
        place = offset if offset >= 0 else file_size + offset
        if place >= 0 and read(place, len(magic)) == magic:
            return name
    return None


def _supported(name: str) -> str:
    for known in map(format_of, FORMATS):
        if name in (known.name, *known.aliases):
            return known.name
    raise PreflightError(
        f"format {name} is not supported",
        hint="convert it with: qemu-img convert -O qcow2, or state format raw if it is a raw disk",
    )


def _contradiction(what: str) -> PreflightError:
    return PreflightError(what, hint="state the format, in an inventory or with --format")
