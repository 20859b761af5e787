"""A folder of images: each image file in it, at any depth, is one machine.

* The machine's id is the file's path below the folder.
* A sub-folder that holds a file ``machine.yaml`` is one machine, whose disks that file lists in
  order (see :class:`scanner.sources.inventory.MachineFile`); nothing else in or below that
  sub-folder is a machine. Its id is the sub-folder's path, or the ``id`` that the file gives.
* Which files are images is told by their suffix; others are named in the debug log. An image of
  a format that cannot be opened yet is a machine, so that its error is seen.
* An OVA archive is one machine with the disks that it holds.
* A file that another image of the folder names as its backing file or extent is not a machine of
  its own. This is read from image headers, which guests can forge in raw disks: what is left out
  is logged at INFO, and only images whose header and size make sense can cause it.
* A Parallels bundle, a folder of images that add to each other, is a machine with an error.
* Symbolic links to files are followed, and the machine is named by the link; a link to an image
  that the folder holds as well is the same machine, named by the image. Links to folders are not
  followed: they lead out of the source, or in circles.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scanner.preflight import referred_files
from scanner.preflight.formats import IMAGE_SUFFIXES
from scanner.schema import escape
from scanner.sources.archive import machine_of
from scanner.sources.base import Disk, Machine

log = logging.getLogger(__name__)

MARKER = "machine.yaml"
"""File that makes its folder one machine."""

_BUNDLE = "DiskDescriptor.xml"  # beside images of which some only add to others


@dataclass
class _Found:
    images: list[str] = field(default_factory=list)
    marked: list[str] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)


def folder_machines(source: str) -> list[Machine]:
    """The machines of a folder, sorted by id.

    Raises:
        UsageError: a ``machine.yaml`` in it is malformed.
    """
    top = Path(source).absolute()
    found = _walk(str(top))
    machines = [*_image_machines(found.images, top, source)]
    machines += [_marked_machine(folder, top, source) for folder in found.marked]
    # A folder that cannot be listed may hold machines: it must be seen to have failed.
    machines += [Machine(_id(path, top), (), source, error) for path, error in found.errors]
    return sorted(machines, key=lambda machine: machine.machine_id)


def _walk(top: str) -> _Found:
    found = _Found()

    def failed(error: OSError) -> None:
        reason = f"folder cannot be read: {error.strerror}"
        found.errors.append((str(error.filename), reason))

    for folder, folders, files in os.walk(top, onerror=failed):
        folders.sort()
        if MARKER in files and folder != top:
            found.marked.append(folder)
            folders.clear()
            continue
        if _BUNDLE in files:
            found.errors.append(
                (folder, "a Parallels bundle, of which only single images are read")
            )
            folders.clear()
            continue
        for name in sorted(files):
            path = os.path.join(folder, name)  # noqa: PTH118 - os.walk's own idiom
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                found.images.append(path)
            else:
                log.debug("not an image by its suffix: %s", path)
    return found


def _image_machines(images: list[str], top: Path, source: str) -> Iterator[Machine]:
    """Machines of the image files, aliases and files that other images refer to left out."""
    names = _without_aliases(images)
    users = {real: path for path in names.values() for real in referred_files(Disk(path))}
    for real, path in names.items():
        user = users.get(real)
        if user is not None and _has_top(real, users):
            log.info("%s belongs to %s and is not a machine of its own", path, user)
            continue
        yield machine_of(_id(path, top), (Disk(path),), source)


def _has_top(real: str, users: dict[str, str]) -> bool:
    """Whether following the users of a file ends; a circle would leave all of it out."""
    seen: set[str] = set()
    while real in users:
        if real in seen:
            return False
        seen.add(real)
        real = os.path.realpath(users[real])
    return True


def _without_aliases(images: list[str]) -> dict[str, str]:
    """Image paths by the file they lead to; of several names, the file's own or the first."""
    names: dict[str, str] = {}
    for path in images:
        real = os.path.realpath(path)
        if real in names and real != path:
            log.debug("%s is another name of %s", path, names[real])
            continue
        names[real] = path
    return names


def _marked_machine(folder: str, top: Path, source: str) -> Machine:
    from scanner.sources.inventory import read_machine_file

    return read_machine_file(Path(folder) / MARKER, _id(folder, top), source)


def _id(path: str, top: Path) -> str:
    return escape(Path(path).relative_to(top).as_posix())
