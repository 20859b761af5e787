"""A root's tree, put together from the filesystems of the machine as its own mount table says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

from fleetscan.appliance.ground import mounts
from fleetscan.appliance.ground.options import FactOptions
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest import drives, mount_table
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.filesystems import (
    TOP_SUBVOLUME,
    Filesystem,
    Subvolume,
    mount_options,
)
from fleetscan.appliance.guest.mounting import READ_ONLY, bind, mount
from fleetscan.appliance.guest.ostree import Deployment
from fleetscan.appliance.guest.root import Mount, Root
from fleetscan.appliance.guest.systems import Candidate

_NOT_MOUNTED: Mapping[mounts.Kind, str] = {
    "network": "a network filesystem, which is not on the machine's disks",
    "other": "not mounted here: it is no device of the machine",
}
_USR_PARTITIONS = ("USR-A", "USR-B")  # of Container Linux and Flatcar, as GPT names them


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
        options: FactOptions,
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
            table = mount_table.read(bare)
            mounts = list(self._implied(bare, table.entries, candidate, numbers))
            for entry in sorted(table.entries, key=_order):
                device = None
                if entry.kind == "device":
                    device = table.resolve(entry.source, self._devices)
                mounts.append(self._mount_entry(bare, entry, device, candidate, numbers))
            if bare.windows:
                own = candidate.filesystem.device.path
                mounts += drives.mounts(bare, own, self._devices, table.problems)
        return Root(
            candidate.name,
            top,
            tuple(mounts),
            self._options,
            numbers,
            tuple(table.problems),
            table.unknown,
        )

    def _implied(
        self,
        bare: Root,
        entries: Sequence[mounts.FstabEntry],
        candidate: Candidate,
        numbers: dict[int, str],
    ) -> Iterator[Mount]:
        """Mounts that a system has without its fstab saying so."""
        if usr := self._unlisted_usr(bare, entries, candidate):
            device = self._by_path[usr.source].device
            yield self._mount_entry(bare, usr, device, candidate, numbers)
        if not any(entry.path == "/" for entry in entries):
            yield self._unlisted(candidate)
        if candidate.deployment:
            yield _mount_var(bare, candidate, candidate.deployment)

    def _unlisted(self, candidate: Candidate) -> Mount:
        subvolume = candidate.subvolume.path if candidate.subvolume else None
        filesystem = candidate.filesystem
        return Mount("/", filesystem.device.path, True, type=filesystem.type, subvolume=subvolume)

    def _unlisted_usr(
        self, bare: Root, entries: Sequence[mounts.FstabEntry], candidate: Candidate
    ) -> mounts.FstabEntry | None:
        """The /usr of a system that has two, one of which the boot loader chooses."""
        if any(entry.path == "/usr" for entry in entries) or _holds_anything(bare, "/usr"):
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
        return mounts.FstabEntry(chosen.device.path, "/usr", chosen.type or "", ("ro",), 0)

    def _mount_entry(
        self,
        bare: Root,
        entry: mounts.FstabEntry,
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
        elif entry.kind == "device":
            error = self._try_mount(bare, entry, device, numbers)
            mounted = error is None
            if mounted and device:
                found = _wanted_subvolume(self._by_path[device.path], entry.options)
                subvolume = found.path if found else None
        elif entry.kind == "bind":
            error = _try_bind(bare, entry)
            mounted = error is None
        else:
            error = _NOT_MOUNTED.get(entry.kind)
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
            remote=entry.is_remote,
        )

    def _try_mount(
        self,
        bare: Root,
        entry: mounts.FstabEntry,
        device: BlockDevice | None,
        numbers: dict[int, str],
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
            return f"cannot be mounted on {entry.path}: {reason(error)}"
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


def _order(entry: mounts.FstabEntry) -> tuple[bool, int]:
    """Outer mountpoints before inner ones; parts of the tree itself when the tree is there."""
    return entry.kind == "bind", entry.path.count("/")


def _holds_anything(root: Root, path: str) -> bool:
    try:
        return bool(root.listdir(path))
    except OSError:  # it is there, and damaged
        return True


def _try_bind(bare: Root, entry: mounts.FstabEntry) -> str | None:
    """Show a directory or file of the tree at a second place; why that cannot be, if it cannot."""
    try:
        with contextlib.ExitStack() as stack:
            ends = []
            for path in (entry.source, entry.path):
                ends.append(bare.open_fd(path, os.O_PATH))
                stack.callback(os.close, ends[-1])
            bind(*(f"/proc/self/fd/{end}" for end in ends))
    except OSError as error:
        return f"{entry.source} cannot be mounted on {entry.path}: {reason(error)}"
    return None


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
        error = f"cannot be mounted on /var: {reason(failure)}"
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
