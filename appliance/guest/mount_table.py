"""A root's mount table: fstab, and the files that say what its names stand for.

Whatever an image puts in their place (a device, a FIFO, a link that leads nowhere) costs what the
file would have told, and nothing else of the root.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleetscan.appliance.ground.mounts import FstabEntry
from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest import fstab
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.root import Root
from fleetscan.appliance.guest.volumes.arrays import mdadm_conf
from fleetscan.appliance.guest.volumes.arrays.mdadm_conf import Array

MOST_ENTRIES = 1000
"""Lines of an fstab that are heeded; real ones have some dozens at most."""

_FSTAB, _CRYPTTAB = "/etc/fstab", "/etc/crypttab"
_LIMIT = 1 << 20

# What keeps the system itself from reading the file too, so that for it there is none.
_NO_FILE = (
    *(errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV),
    *(errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG),
)


@dataclass
class MountTable:
    """What a root mounts, as its own files say.

    Attributes:
        entries: the lines of its fstab.
        encrypted: name and container of its encrypted volumes.
        arrays: name and identity of its arrays.
        problems: which of the files could not be read.
        unknown: why there may be more entries than those; empty when there are not.
    """

    entries: list[FstabEntry] = field(default_factory=list)
    encrypted: Mapping[str, str] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)
    unknown: str = ""

    def resolve(self, source: str, devices: Sequence[BlockDevice]) -> BlockDevice | None:
        """The device that an entry's source means on this machine."""
        return fstab.resolve(source, devices, self.encrypted, self.arrays)


def read(root: Root) -> MountTable:
    """The mount table of a root."""
    table = MountTable()
    if root.windows:  # which has no such files, whatever is in a folder of the name
        return table
    table.entries = fstab.parse(_text(root, _FSTAB, table, tells_mounts=True))
    if len(table.entries) > MOST_ENTRIES:
        del table.entries[MOST_ENTRIES:]
        table.unknown = f"{_FSTAB}: only its first {MOST_ENTRIES} entries were heeded"
        table.problems.note(table.unknown)
    table.encrypted = fstab.parse_crypttab(_text(root, _CRYPTTAB, table))
    for path in (*mdadm_conf.PATHS, *_drop_ins(root, table)):
        for name, array in mdadm_conf.parse(_text(root, path, table)):
            table.arrays.setdefault(name, array)
    return table


def _drop_ins(root: Root, table: MountTable) -> list[str]:
    found: list[str] = []
    for folder in mdadm_conf.FOLDERS:
        try:
            found += root.glob(folder, "*.conf")[:MOST_ENTRIES]
        except OSError as error:
            table.problems.note(f"{folder}: {reason(error)}")
    return found


def _text(root: Root, path: str, table: MountTable, *, tells_mounts: bool = False) -> str:
    try:
        text = root.try_text(path, _LIMIT)
    except OSError as error:
        table.problems.note(f"{path}: {reason(error)}")
        if tells_mounts and error.errno not in _NO_FILE:
            table.unknown = f"what is mounted is not known: {path}: {reason(error)}"
        return ""
    if text is None and root.is_link(path):
        table.problems.note(f"{path}: a symbolic link that leads nowhere")
    return text or ""
