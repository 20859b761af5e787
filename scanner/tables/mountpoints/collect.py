"""Mountpoints, from the mount table that the agent resolved, and from systemd's mount units.

No cases: most of it is the mount table that the agent resolved, not files.
"""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.ground.mounts import effective
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Mount, Root
from fleetscan.scanner.tables.mountpoints import units
from fleetscan.scanner.tables.mountpoints.spec import Mountpoint


def collect(root: Root) -> Iterator[Mountpoint]:
    """One row a mount of the root, in the order of its mount table.

    Raises:
        IncompleteError: a file that the mount table is made of cannot be read; raised at last.
    """
    yield from map(from_mount, root.mounts)
    reader = Reader(root)
    for problem in root.problems:
        reader.note(problem)
    if not root.windows:
        yield from units.mountpoints(reader, {mount.path for mount in root.mounts})
    reader.finish()


def from_mount(mount: Mount) -> Mountpoint:
    """The row for one mount."""
    return Mountpoint(
        path=mount.path,
        device=mount.device,
        source=mount.source,
        type=mount.type,
        options=mount.options,
        subvolume=mount.subvolume,
        check_pass=mount.check_pass,
        mounted=mount.mounted,
        error=mount.error,
        effective_options=effective(mount.options),
    )
