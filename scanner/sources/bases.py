"""Files that belong to another image in their folder, and so are not machines of their own.

What is left out is seen by nobody unless the image that it belongs to shows it. So it takes that
image's word, and the word of one that is worth it:

* It is in the same folder, links resolved: who may put a file there may replace its neighbours.
* Its suffix states a format in which nothing but the host writes the header, and the header agrees.
  A raw disk (``.img``, ``.raw``, a vmdk's ``-flat`` file) begins with what its guest wrote.
* It is no other image's base or extent itself.
* It passes our own preflight, with all that it refers to. (QEMU's second look at its header waits
  for the scan, whose failure is a row.)

Everything else that an image refers to is a machine as well. Of a vmdk's extents only files that
are named ``.vmdk`` count as its own: a raw image of another name beside it may be a machine's disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import Beside, DiskPolicy, examine, referred_files
from fleetscan.scanner.sources.base import Bases, LeftOut, Why

# Formats that refer to other files; opening the others would take most of a listing's time.
_REFERRING = frozenset({".qcow2", ".vmdk", ".vhd", ".vhdx", ".avhd", ".avhdx", ".vdi"})
_EXTENT = ".vmdk"


def left_out(
    images: Mapping[str, str], policy: DiskPolicy, bases: Bases
) -> dict[str, tuple[LeftOut, ...]]:
    """The files that are not machines of their own, by the image that uses them.

    Args:
        images: paths as they were found, by the same with links resolved.
        policy: for preflight.
        bases: whether files that others are based on are left out at all.

    Returns:
        By the real path of an image, what is left out because of it; an image for which nothing is
        left out is not there.
    """
    beside = Beside()
    references = {real: _neighbours(path, real, images, beside) for real, path in images.items()}
    used = {file for files in references.values() for file in files}
    tops = [real for real, files in references.items() if files and real not in used]
    vouched: dict[str, Why] = {}
    for top in tops:
        if not set(_below(top, references, vouched)) <= vouched.keys():
            vouched |= _vouched_by(top, images, policy)
    if bases == "scan":
        vouched = {file: why for file, why in vouched.items() if why != "base"}
    found = {}
    for top in tops:
        files = [file for file in _below(top, references, vouched) if file in vouched]
        found[top] = tuple(LeftOut(images[file], vouched[file], images[top]) for file in files)
    return {top: files for top, files in found.items() if files}


def _neighbours(path: str, real: str, images: Mapping[str, str], beside: Beside) -> tuple[str, ...]:
    """The images of its own folder that an image refers to, when the image can be trusted."""
    if Path(real).suffix.lower() not in _REFERRING:
        return ()
    folder = os.path.dirname(real)  # noqa: PTH120 - as the names are: text
    return tuple(
        file
        for file in dict.fromkeys(referred_files(Disk(path), beside))
        if file in images and file != real and os.path.dirname(file) == folder  # noqa: PTH120
    )


def _below(
    top: str, references: Mapping[str, tuple[str, ...]], vouched: Mapping[str, Why]
) -> Iterator[str]:
    """What an image refers to by headers, at any depth; an extent's own header is a guest's."""
    seen = {top}
    pending = [top]
    while pending:
        file = pending.pop()
        if vouched.get(file) == "extent":
            continue
        for below in references[file]:
            if below not in seen:
                seen.add(below)
                pending.append(below)
                yield below


def _vouched_by(top: str, images: Mapping[str, str], policy: DiskPolicy) -> dict[str, Why]:
    """What an image that passes preflight is made of, as far as it is beside it."""
    folder = os.path.dirname(top)  # noqa: PTH120 - as the names are: text
    return {
        file: why
        for file, why in parts_of(Disk(images[top]), policy).items()
        if file in images and os.path.dirname(file) == folder  # noqa: PTH120
    }


def parts_of(disk: Disk, policy: DiskPolicy) -> dict[str, Why]:
    """The files, links resolved, that a disk is made of besides the one that is named.

    Nothing for a disk that does not pass preflight.
    """
    try:
        plan = examine(disk, policy)
    except FleetscanError:
        return {}
    parts: dict[str, Why] = dict.fromkeys(plan.backing_chain, "base")
    extents = (file for file in plan.extent_files if Path(file).suffix.lower() == _EXTENT)
    return parts | dict.fromkeys(extents, "extent")
