"""Mountpoints, from the mount table that the agent resolved."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.guest.root import Mount, Root
from fleetscan.scanner.tables.mountpoints.spec import Mountpoint

_NAMED = 10


def collect(root: Root) -> Iterator[Mountpoint]:
    """One row a mount of the root, in the order of its mount table.

    Raises:
        ValueError: a file that the mount table is made of cannot be read; raised after the rows.
    """
    yield from map(from_mount, root.mounts)
    if root.problems:
        raise ValueError("; ".join(root.problems[:_NAMED]))


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
    )
