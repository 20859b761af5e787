"""A folder of images: each image file in it, at any depth, is one machine.

* The machine's id is the file's path below the folder.
* A sub-folder that holds a file ``machine.yaml`` is one machine, whose disks that file lists in
  order (see :mod:`fleetscan.scanner.sources.machine_file`); nothing else in or below that
  sub-folder is a machine. Its id is the sub-folder's path.
* A file is an image by its suffix; others are named in the debug log. An image of
  a format that cannot be opened yet is a machine, so that its error is seen.
* An OVA archive is one machine with the disks that it holds.
* A file that belongs to another image in its folder is not a machine of its own: see
  :mod:`fleetscan.scanner.sources.bases`.
* A Parallels bundle, a folder of images that add to each other, is a machine with an error.
* Symbolic links to files are followed below the folder and to directories that the user allows,
  and the machine is named by the link; a link to an image that the folder holds as well is the same
  machine, named by the image. Any other link is a machine with an error. Links to folders are not
  followed: they lead out of the source, or in circles. A hard link looks the same as the file
  that it was made of: on a host where users may make links to each other's files
  (``fs.protected_hardlinks=0``), keep their folders on filesystems of their own.

What is wrong with something in the folder is an error of the machine that it would be. Each image
that is no machine of its own is a row of the table ``left_out``.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import DiskPolicy
from fleetscan.scanner.preflight.bounds import resolved
from fleetscan.scanner.sources import ids
from fleetscan.scanner.sources.base import LeftOut, Machine, SourceOptions, Why
from fleetscan.scanner.sources.bases import left_out, parts_of
from fleetscan.scanner.sources.listing import (
    BUNDLE,
    MARKER,
    Folder,
    ImageFile,
    bounds_of,
    list_source,
)
from fleetscan.scanner.sources.ova import machine_of

_ALL = SourceOptions()


def folder_machines(
    source: str,
    options: SourceOptions = _ALL,
    wanted: Callable[[str], bool] = lambda machine_id: True,
) -> list[Machine]:
    """The machines of a folder, sorted by id.

    Args:
        source: the folder.
        options: how it is read.
        wanted: whether to scan the machine with an id; what belongs to an image that
            is not is left out by nobody.
    """
    return _Source(source, options, wanted).machines()


class _Source:
    """One folder, while its machines are made."""

    def __init__(self, source: str, options: SourceOptions, wanted: Callable[[str], bool]) -> None:
        self._source = source
        self._options = options
        self._wanted = wanted
        self._top = str(Path(source).absolute())
        self._bounds = bounds_of(self._top, options.allowed_directories)
        self._policy = DiskPolicy(options.allowed_directories, live=options.live, confirm=False)

    def machines(self) -> list[Machine]:
        """The folder's machines, sorted by id."""
        found = list_source(self._top, self._options.allowed_directories)
        machines = [self._failed(image.path, image.error) for image in found.images if image.error]
        machines += self._image_machines([image for image in found.images if not image.error])
        machines += itertools.chain.from_iterable(map(self._marked, found.marked))
        machines += map(self._bundle, found.bundles)
        # A folder that cannot be listed may hold machines: it must be seen to have failed.
        machines += [self._failed(path, error) for path, error in found.errors]
        return sorted(machines, key=lambda machine: machine.machine_id)

    def _id(self, path: str) -> str:
        return ids.id_of(os.path.relpath(path, self._top))

    def _failed(self, path: str, error: str, left_out: Iterable[LeftOut] = ()) -> Machine:
        return Machine(
            self._id(path), (), self._source, error, place=path, left_out=tuple(left_out)
        )

    # -- images ------------------------------------------------------------------------------

    def _image_machines(self, found: Sequence[ImageFile]) -> Iterator[Machine]:
        """Machines of the images, without aliases and files that belong to other images."""
        wanted = (image for image in found if self._wanted(self._id(image.path)))
        images, aliases = _without_aliases(wanted)
        users = left_out(images, self._policy, self._options.bases)
        rows = _rows(images, users, aliases)
        gone = {file.path for files in users.values() for file in files}
        for real, path in images.items():
            if path not in gone:
                yield replace(self._machine(path), left_out=tuple(rows.get(real, ())))

    def _machine(self, path: str) -> Machine:
        disk = Disk(path, within=self._bounds)
        return machine_of(self._id(path), (disk,), self._source, place=path)

    # -- folders -----------------------------------------------------------------------------

    def _marked(self, folder: Folder) -> Iterator[Machine]:
        """The machine that a ``machine.yaml`` makes of its folder; golden images, where wanted."""
        from fleetscan.scanner.sources.machine_file import machine_disks

        try:
            disks = machine_disks(folder.path, folder.real, self._bounds[1:])
            rows = tuple(_unlisted(folder, disks, self._policy))
        except FleetscanError as error:
            yield self._failed(folder.path, str(error), _unlisted(folder, (), self._policy))
            return
        scanned = [row for row in rows if row.why == "base" and self._options.bases == "scan"]
        machine = machine_of(self._id(folder.path), disks, self._source, place=folder.path)
        yield replace(machine, left_out=tuple(row for row in rows if row not in scanned))
        yield from (self._machine(row.path) for row in scanned)

    def _bundle(self, folder: Folder) -> Machine:
        descriptor = f"{folder.path}/{BUNDLE}"
        rows = [LeftOut(image.path, "bundle", descriptor) for image in folder.images]
        error = "a Parallels bundle, of which only single images are read"
        return self._failed(folder.path, error, rows)


def _without_aliases(found: Iterable[ImageFile]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Paths by the file they lead to, the file's own or the first, and its other names."""
    names: dict[str, list[str]] = defaultdict(list)
    for image in found:
        names[image.real].append(image.path)
    images, aliases = {}, {}
    for real, paths in names.items():
        if len(paths) > 1:
            paths.sort(key=lambda path: (os.path.islink(path), path))  # noqa: PTH114
        images[real], aliases[real] = paths[0], paths[1:]
    return images, aliases


def _rows(
    images: Mapping[str, str],
    users: Mapping[str, Sequence[LeftOut]],
    aliases: Mapping[str, Sequence[str]],
) -> dict[str, list[LeftOut]]:
    """What is left out because of each image: files that belong to it, and names for the same."""
    rows = {top: list(files) for top, files in users.items()}
    real_of = {path: real for real, path in images.items()}
    named = {top: [top, *(real_of[file.path] for file in files)] for top, files in users.items()}
    gone = {real for reals in named.values() for real in reals[1:]}
    for real in images:
        if real not in gone:
            for same in named.get(real, [real]):
                names = [LeftOut(alias, "alias", images[same]) for alias in aliases[same]]
                if names:
                    rows.setdefault(real, []).extend(names)
    return rows


def _unlisted(folder: Folder, disks: Sequence[Disk], policy: DiskPolicy) -> Iterator[LeftOut]:
    """The images in or below a folder that its ``machine.yaml`` does not list."""
    listed = {resolved(disk.path) for disk in disks}
    images = [image for image in folder.images if image.real not in listed]
    parts: dict[str, Why] = {}
    for disk in disks if images else ():
        parts |= parts_of(disk, policy)
    for image in images:
        yield LeftOut(image.path, parts.get(image.real, "unlisted"), f"{folder.path}/{MARKER}")
