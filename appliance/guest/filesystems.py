"""Filesystems: each is mounted read-only once; a dirty journal is replayed beside the image."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest import mapping
from fleetscan.appliance.guest.disks import BlockDevice, kernel_name
from fleetscan.appliance.guest.mounting import READ_ONLY, mount
from fleetscan.appliance.guest.tools import ToolError, run

Journal = Literal["clean", "replayed", "ignored"]

# Mount options: always; and, as last resort, those that leave the journal alone.
_OPTIONS = {"xfs": "nouuid"}
_IGNORE_JOURNAL = {
    "ext3": "noload",
    "ext4": "noload",
    "xfs": "norecovery,nouuid",
    "btrfs": "rescue=nologreplay",
    "nilfs2": "norecovery",
}
# The driver's name, where it is not blkid's.
_DRIVERS = {"ntfs": "ntfs3"}
_UFS_TYPES = {"1": "44bsd", "2": "ufs2"}  # the kernel's ufs.rst, by blkid's VERSION
_NOT_FILES = {"swap", "LVM2_member", "crypto_LUKS", "linux_raid_member"}

TOP_SUBVOLUME = 5
"""btrfs: id of the subvolume that holds all others."""


@dataclass
class Filesystem:
    """What one block device holds.

    Attributes:
        device: the block device.
        top: where it is mounted here; None when it is not.
        journal: what became of its journal.
        source: the device that was mounted: the block device, or the overlay over it.
        subvolumes: btrfs: the subvolumes.
        default_subvolume: btrfs: id of the one that is mounted by default.
        error: why it could not be mounted.
    """

    device: BlockDevice
    top: str | None = None
    journal: Journal | None = None
    source: str = ""
    subvolumes: list[Subvolume] = field(default_factory=list)
    default_subvolume: int = TOP_SUBVOLUME
    error: str | None = None

    @property
    def type(self) -> str:
        """The type as blkid names it."""
        return self.device.probe.get("TYPE", "")

    @property
    def holds_files(self) -> bool:
        """Whether it is of a kind that can be mounted at all."""
        return self.type not in _NOT_FILES and self.device.probe.get("USAGE") == "filesystem"


@dataclass(frozen=True)
class Subvolume:
    """A btrfs subvolume.

    Attributes:
        id: its number.
        path: its path from the top of the filesystem.
        uuid: its UUID.
        parent_uuid: the UUID of what it is a snapshot of; empty when it is none.
    """

    id: int
    path: str
    uuid: str
    parent_uuid: str


def open_filesystem(device: BlockDevice, top: str, companions: Sequence[str] = ()) -> Filesystem:
    """Mount what a device holds on the new directory ``top``, when it holds files.

    Args:
        device: a probed device.
        top: a directory that does not exist yet.
        companions: further devices of the same btrfs filesystem.
    """
    filesystem = Filesystem(device, source=device.path)
    if not filesystem.holds_files:
        return filesystem
    os.mkdir(top)
    try:
        _mount_whatever_its_journal(filesystem, top, companions)
    except OSError as error:
        filesystem.error = _explain(filesystem, error)
        os.rmdir(top)
        return filesystem
    filesystem.top = top
    if filesystem.type == "btrfs":
        filesystem.subvolumes, filesystem.default_subvolume = _btrfs_subvolumes(top)
    return filesystem


def _mount_whatever_its_journal(
    filesystem: Filesystem, top: str, companions: Sequence[str]
) -> None:
    kind = filesystem.type
    driver = _DRIVERS.get(kind, kind)
    options = mount_options(filesystem.device.probe, companions)
    try:
        _mount_shared(filesystem, top, driver, options)
        filesystem.journal = _journal(filesystem)
        return
    except OSError as error:
        # What a filesystem says that would replay its journal but must not write: EROFS; XFS and
        # btrfs have further words for it.
        if kind not in _IGNORE_JOURNAL or error.errno not in (
            errno.EROFS,
            errno.EACCES,
            errno.EINVAL,
            errno.EIO,
            errno.EUCLEAN,
        ):
            raise
        original = error
    try:
        filesystem.source = mapping.overlay(filesystem.device.path, filesystem.device.size)
        mount(filesystem.source, top, driver, READ_ONLY, options)
        filesystem.journal = "replayed"
    except (OSError, ToolError):
        filesystem.source = filesystem.device.path
        try:
            mount(filesystem.source, top, kind, READ_ONLY, _IGNORE_JOURNAL[kind])
        except OSError:
            raise original from None
        filesystem.journal = "ignored"


def _mount_shared(filesystem: Filesystem, top: str, driver: str, options: str) -> None:
    """Mount a device, also where another filesystem holds the whole disk, as on hybrid ISOs.

    Raises:
        OSError: the kernel refused.
    """
    try:
        mount(filesystem.source, top, driver, READ_ONLY, options)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        filesystem.source = mapping.loop(filesystem.device.path)
        mount(filesystem.source, top, driver, READ_ONLY, options)


def _journal(filesystem: Filesystem) -> Journal | None:
    """What a filesystem that could be mounted without writing says of its journal."""
    if filesystem.type in _IGNORE_JOURNAL:
        return "clean"
    if filesystem.type != "ntfs":
        return None
    # Mounted read-only, ntfs3 replays nothing, and says whether the volume was left dirty.
    name = kernel_name(filesystem.source)
    with open(f"/proc/fs/ntfs3/{name}/volinfo") as stream:
        return "ignored" if "dirty" in stream.read() else "clean"


def mount_options(
    probe: Mapping[str, str], companions: Sequence[str] = (), subvolume: int | None = None
) -> str:
    """Options for mounting a filesystem read-only.

    Args:
        probe: what blkid says of it.
        companions: further devices of the same btrfs filesystem.
        subvolume: btrfs: id of the subvolume wanted; its top when None.
    """
    kind = probe["TYPE"]
    words = [_OPTIONS[kind]] if kind in _OPTIONS else []
    if kind == "ufs":
        words.append(f"ufstype={_UFS_TYPES.get(probe.get('VERSION', ''), '44bsd')}")
    if kind == "btrfs":
        words.append(f"subvolid={TOP_SUBVOLUME if subvolume is None else subvolume}")
        words += [f"device={path}" for path in companions]
    return ",".join(words)


def _explain(filesystem: Filesystem, error: OSError) -> str:
    if error.errno == errno.ENODEV:
        return f"the appliance's kernel cannot mount {filesystem.type}"
    return f"cannot be mounted as {filesystem.type}: {reason(error)}"


def _btrfs_subvolumes(top: str) -> tuple[list[Subvolume], int]:
    listed = run(["btrfs", "subvolume", "list", "-u", "-q", top])
    default = run(["btrfs", "subvolume", "get-default", top])
    return parse_subvolumes(listed), int(default.split()[1])


def parse_subvolumes(output: str) -> list[Subvolume]:
    """Subvolumes from ``btrfs subvolume list -u -q``.

    A line is: ID 256 gen 9 top level 5 parent_uuid - uuid 0f6c... path a name with blanks
    """
    found = []
    for line in output.split("\n"):
        head, _, path = line.partition(" path ")
        words = head.split()
        if len(words) < 11 or words[0] != "ID":
            continue
        parent = "" if words[8] == "-" else words[8]
        found.append(Subvolume(int(words[1]), path, words[10], parent))
    return found
