"""Roots: which filesystems hold an operating system, and each root's tree put together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from appliance.guest import drives, fstab, ostree
from appliance.guest.disks import BlockDevice
from appliance.guest.filesystems import TOP_SUBVOLUME, Filesystem, Subvolume, mount_options
from appliance.guest.mounting import READ_ONLY, bind, mount
from appliance.guest.ostree import Deployment
from appliance.guest.root import Mount, Root, ScanOptions

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
_USR_PARTITIONS = ("USR-A", "USR-B")  # of Container Linux and Flatcar, as GPT names them
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
    """The operating systems on mounted filesystems."""
    for filesystem in filesystems:
        if filesystem.top is None or filesystem.device.snapshot:
            continue
        at_top = _holds_system(filesystem.top, media=filesystem.type in _MEDIA_TYPES)
        if at_top:
            yield Candidate(filesystem)
        else:
            yield from _deployed(Candidate(filesystem))
        yield from _btrfs_roots(filesystem, filesystem.top, at_top=at_top)


def _btrfs_roots(filesystem: Filesystem, top: str, *, at_top: bool) -> Iterator[Candidate]:
    """Subvolumes that hold a system; a snapshot counts only when it is what would be started.

    Where nothing else holds one, the last snapshot does.
    """
    holding = [item for item in filesystem.subvolumes if _holds_system(f"{top}/{item.path}")]
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


def _holds_system(top: str, *, media: bool = False) -> bool:
    try:
        root = Root("", top)
    except OSError:
        return False
    with root:
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


class Assembler:
    """Puts a root's tree together from the filesystems of the machine.

    Args:
        filesystems: every filesystem, mounted where it could be.
        devices: every block device, probed.
        options: what the scan asks for.
    """

    def __init__(
        self,
        filesystems: Sequence[Filesystem],
        devices: Sequence[BlockDevice],
        options: ScanOptions,
    ) -> None:
        self._by_path = {filesystem.device.path: filesystem for filesystem in filesystems}
        self._devices = devices
        self._options = options

    def assemble(self, candidate: Candidate, top: str) -> Root:
        """Mount a root and what its fstab adds on the new directory ``top``.

        Raises:
            OSError: the root itself cannot be mounted.
        """
        os.mkdir(top)
        if candidate.deployment:
            _bind_below(candidate.base, candidate.deployment.directory, top)
        else:
            self._attach(candidate.filesystem, top, candidate.subvolume)
        numbers = {os.stat(top).st_dev: candidate.filesystem.device.path}
        mounts: list[Mount] = []
        with Root(candidate.name, top) as bare:
            encrypted = fstab.parse_crypttab(bare.try_text("/etc/crypttab") or "")
            entries = fstab.parse(bare.try_text("/etc/fstab") or "")
            if usr := self._unlisted_usr(bare, entries, candidate):
                mounts.append(
                    self._mount_entry(
                        bare, usr, self._by_path[usr.source].device, candidate, numbers
                    )
                )
            if not any(entry.path == "/" for entry in entries):
                mounts.append(self._unlisted(candidate))
            if candidate.deployment:
                mounts.append(_mount_var(bare, candidate, candidate.deployment))
            for entry in sorted(entries, key=lambda entry: entry.path.count("/")):
                device = None
                if entry.names_device:
                    device = fstab.resolve(entry.source, self._devices, encrypted)
                mounts.append(self._mount_entry(bare, entry, device, candidate, numbers))
            if bare.windows:
                mounts += drives.mounts(bare, candidate.filesystem.device.path, self._devices)
        return Root(candidate.name, top, tuple(mounts), self._options, numbers)

    def _unlisted(self, candidate: Candidate) -> Mount:
        subvolume = candidate.subvolume.path if candidate.subvolume else None
        filesystem = candidate.filesystem
        return Mount("/", filesystem.device.path, True, type=filesystem.type, subvolume=subvolume)

    def _unlisted_usr(
        self, bare: Root, entries: Sequence[fstab.Entry], candidate: Candidate
    ) -> fstab.Entry | None:
        """The /usr of a system that has two, one of which the boot loader chooses."""
        if any(entry.path == "/usr" for entry in entries) or bare.listdir("/usr"):
            return None
        found = [
            filesystem
            for filesystem in self._by_path.values()
            if filesystem.device.probe.get("PART_ENTRY_NAME") in _USR_PARTITIONS
            and filesystem.device.disk == candidate.filesystem.device.disk
        ]
        if not found:
            return None
        chosen = max(found, key=lambda filesystem: _boot_priority(filesystem.device))
        return fstab.Entry(chosen.device.path, "/usr", chosen.type or "", ("ro",), 0)

    def _mount_entry(
        self,
        bare: Root,
        entry: fstab.Entry,
        device: BlockDevice | None,
        candidate: Candidate,
        numbers: dict[int, str],
    ) -> Mount:
        subvolume = (_option(entry.options, "subvol") or "").strip("/") or None
        mounted, error = False, None
        if entry.path == "/":
            mounted = True
            device = candidate.filesystem.device
            subvolume = candidate.subvolume.path if candidate.subvolume else None
        elif entry.names_device and not entry.is_swap:
            error = self._try_mount(bare, entry, device, numbers)
            mounted = error is None
            if mounted and device:
                found = _wanted_subvolume(self._by_path[device.path], entry.options)
                subvolume = found.path if found else None
        return Mount(
            path="swap" if entry.is_swap else entry.path,
            device=device.path if device else None,
            mounted=mounted,
            source=entry.source,
            type=entry.type,
            options=entry.options,
            subvolume=subvolume,
            check_pass=entry.check_pass,
            error=error,
        )

    def _try_mount(
        self, bare: Root, entry: fstab.Entry, device: BlockDevice | None, numbers: dict[int, str]
    ) -> str | None:
        """Mount an entry below the root; why it could not be, if it could not."""
        if device is None:
            return "no such device on this machine"
        filesystem = self._by_path.get(device.path)
        if filesystem is None or filesystem.top is None:
            return (filesystem.error if filesystem else None) or "holds no files"
        try:
            subvolume = _wanted_subvolume(filesystem, entry.options)
            # The path is the guest's: its links are resolved inside the root, and the mount is
            # made on what that led to.
            directory = bare.open_fd(entry.path, os.O_PATH | os.O_DIRECTORY)
            try:
                target = f"/proc/self/fd/{directory}"
                self._attach(filesystem, target, subvolume)
            finally:
                os.close(directory)
            numbers[bare.stat(entry.path).st_dev] = device.path
        except OSError as error:
            return f"cannot be mounted on {entry.path}: {error.strerror or error}"
        return None

    def _attach(self, filesystem: Filesystem, target: str, subvolume: Subvolume | None) -> None:
        if subvolume is None and filesystem.type != "btrfs":
            bind(filesystem.top or "", target)
            return
        identifier = subvolume.id if subvolume else None
        companions = [
            device.path
            for device in self._devices
            if device.probe.get("UUID") == filesystem.device.probe.get("UUID")
        ]
        options = mount_options(filesystem.device.probe, companions, identifier)
        mount(filesystem.source, target, filesystem.type, READ_ONLY, options)


def _boot_priority(partition: BlockDevice) -> tuple[bool, int]:
    """Order in which a boot loader of Chrome OS' kind tries partitions, the first being largest.

    Source: Chrome OS' "Disk Format": GPT attributes have a priority in bits 48 to 51, the tries
    that are left in 52 to 55, and in bit 56 whether it once started.
    """
    flags = int(partition.probe.get("PART_ENTRY_FLAGS", "0"), 16)
    return bool(flags >> 52 & 0x1F), flags >> 48 & 0xF


def _mount_var(bare: Root, candidate: Candidate, deployment: Deployment) -> Mount:
    """Mount the /var that all deployments share."""
    error = None
    try:
        target = bare.open_fd("var", os.O_PATH | os.O_DIRECTORY)
        try:
            _bind_below(candidate.base, deployment.var, f"/proc/self/fd/{target}")
        finally:
            os.close(target)
    except OSError as failure:
        error = f"cannot be mounted on /var: {failure.strerror}"
    filesystem = candidate.filesystem
    path = filesystem.device.path
    return Mount("/var", path, error is None, type=filesystem.type, error=error)


def _bind_below(top: str, path: str, target: str) -> None:
    """Bind a directory of a tree, its links resolved inside the tree.

    Raises:
        OSError: there is no such directory, or it cannot be mounted.
    """
    with Root("", top) as tree:
        source = tree.open_fd(path, os.O_PATH | os.O_DIRECTORY)
    try:
        bind(f"/proc/self/fd/{source}", target)
    finally:
        os.close(source)


def _wanted_subvolume(filesystem: Filesystem, options: Sequence[str]) -> Subvolume | None:
    """The btrfs subvolume that mount options name, or that is the default; None for the top.

    Raises:
        FileNotFoundError: there is no such subvolume.
    """
    name, number = _option(options, "subvol"), _option(options, "subvolid")
    if filesystem.type != "btrfs" or (name is not None and not name.strip("/")):
        return None
    if name is None and number is None:
        number = str(filesystem.default_subvolume)
    if name is None and number == str(TOP_SUBVOLUME):
        return None
    for subvolume in filesystem.subvolumes:
        if name is not None and subvolume.path == name.strip("/"):
            return subvolume
        if name is None and str(subvolume.id) == number:
            return subvolume
    raise FileNotFoundError(2, f"there is no subvolume {name or number}")


def _option(options: Sequence[str], name: str) -> str | None:
    for option in options:
        key, equals, value = option.partition("=")
        if key == name and equals:
            return value
    return None
