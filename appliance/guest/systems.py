"""Which filesystems hold an operating system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fleetscan.appliance.guest import ostree
from fleetscan.appliance.guest.filesystems import Filesystem, Subvolume
from fleetscan.appliance.guest.ostree import Deployment
from fleetscan.appliance.guest.root import Root

_RELEASE_FILES = (
    "etc/os-release",
    "usr/lib/os-release",
    "etc/lsb-release",
    "etc/debian_version",
    "etc/redhat-release",
    "etc/SuSE-release",
    "etc/alpine-release",
    "etc/arch-release",
    "etc/gentoo-release",
    "etc/slackware-version",
    "etc/system-release",
    "etc/altlinux-release",
    "etc/pld-release",
    "etc/openwrt_release",
    "etc/cirros/version",
    "bin/freebsd-version",
)
_SHELLS = ("bin/sh", "usr/bin/sh", "bin/busybox")
_NIXOS = "nix/var/nix/profiles/system"  # all that a NixOS has before it was first started
_MEDIA_FILES = (".disk/info", ".treeinfo", "LiveOS/squashfs.img", "live/filesystem.squashfs")
_MEDIA_TYPES = ("iso9660", "udf", "vfat")


@dataclass(frozen=True)
class Candidate:
    """A tree that holds an operating system.

    Attributes:
        filesystem: the filesystem it is on.
        subvolume: btrfs: the subvolume it starts from, unless it is the top.
        deployment: ostree: the deployment below that.
    """

    filesystem: Filesystem
    subvolume: Subvolume | None = None
    deployment: Deployment | None = None

    @property
    def name(self) -> str:
        """Value of the ``root`` column, written as findmnt(8) writes a source."""
        device = self.filesystem.device.path
        parts = [self.subvolume.path] if self.subvolume else []
        parts += [self.deployment.directory] if self.deployment else []
        return f"{device}[/{'/'.join(parts)}]" if parts else device

    @property
    def base(self) -> str:
        """Where the filesystem, or the subvolume, is to be found here."""
        top = self.filesystem.top or ""
        return f"{top}/{self.subvolume.path}" if self.subvolume else top


def find_roots(filesystems: Sequence[Filesystem]) -> Iterator[Candidate]:
    """The operating systems on mounted filesystems.

    Raises:
        OSError: a filesystem is damaged where one would show; raised after all that were found.
    """
    for filesystem in filesystems:
        if filesystem.top is None or filesystem.device.snapshot:
            continue
        damage: list[str] = []
        at_top = _holds_system(filesystem.top, damage, media=filesystem.type in _MEDIA_TYPES)
        if at_top:
            yield Candidate(filesystem)
        else:
            yield from _deployed(Candidate(filesystem))
        yield from _btrfs_roots(filesystem, filesystem.top, damage, at_top=at_top)
        if damage:
            raise OSError(damage[0])


def _btrfs_roots(
    filesystem: Filesystem, top: str, damage: list[str], *, at_top: bool
) -> Iterator[Candidate]:
    """Subvolumes that hold a system; a snapshot counts only when it is what would be started.

    Where nothing else holds one, the last snapshot does.
    """
    holding = [
        item for item in filesystem.subvolumes if _holds_system(f"{top}/{item.path}", damage)
    ]
    chosen = [
        item for item in holding if not item.parent_uuid or item.id == filesystem.default_subvolume
    ]
    for subvolume in chosen or ([] if at_top else holding[-1:]):
        yield Candidate(filesystem, subvolume)
    for subvolume in filesystem.subvolumes:
        if subvolume not in holding and not subvolume.parent_uuid:
            yield from _deployed(Candidate(filesystem, subvolume))


def _deployed(candidate: Candidate) -> Iterator[Candidate]:
    """The ostree deployments below a candidate that would be started."""
    try:
        root = Root("", candidate.base)
    except OSError:
        return
    with root:
        for deployment in ostree.deployments(root):
            yield replace(candidate, deployment=deployment)


def _holds_system(top: str, damage: list[str], *, media: bool = False) -> bool:
    """Whether a tree is a system's; where that is unclear, the reason is added to ``damage``."""
    try:
        root = Root("", top)
    except OSError:
        return False
    with root, root.lookups.watching() as lost:
        found = _is_system(root, media=media)
    if lost and not found:
        damage.append(str(lost))
    return found


def _is_system(root: Root, *, media: bool) -> bool:
    if media and any(map(root.is_file, _MEDIA_FILES)):
        return True
    if root.is_link(_NIXOS):
        return True
    if any(root.is_file(name) or root.is_link(name) for name in _RELEASE_FILES):
        return root.is_dir("etc") or root.is_dir("usr")
    if root.windows:
        return True
    has_shell = any(root.is_file(name) or root.is_link(name) for name in _SHELLS)
    return has_shell and root.is_file("etc/passwd")
