"""The machine being scanned, as the agent sees it: devices, volumes, filesystems, roots."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.guest import disks, filesystems, systems, volumes
from appliance.guest.disks import BlockDevice
from appliance.guest.filesystems import Filesystem
from appliance.guest.root import Mount, Root, ScanOptions
from scanner.schema import NotApplicable
from scanner.tables.volumes.spec import Volume

_SYSROOT = "/sysroot"
_RNDADDENTROPY = 0x40085203  # linux/random.h
_RNDRESEEDCRNG = 0x5207


class GuestMachine(Protocol):
    """What the agent's operations and machine-wide collectors see."""

    roots: list[Root]
    warnings: list[str]

    def personalize(self, entropy: bytes, time_us: int) -> None:
        """Take the host's entropy and time."""

    def discover(
        self, wanted: Sequence[int], options: ScanOptions, log: Callable[[str], None]
    ) -> None:
        """Find everything on the disks that were plugged at these places."""

    def devices(self) -> list[str]:
        """Device name of each disk, in order."""


@dataclass
class DiskMachine:
    """A machine read from its disks, inside the appliance.

    Attributes:
        disks: the whole disks, in the order they were plugged.
        partitions: their partitions, by disk and number.
        volumes: logical volumes, and encrypted containers that stayed closed.
        filesystems: what each device that is not further divided holds.
        roots: the operating systems, their trees mounted.
        warnings: what could not be opened, a line each.
    """

    disks: list[BlockDevice] = field(default_factory=list)
    partitions: list[BlockDevice] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    filesystems: list[Filesystem] = field(default_factory=list)
    roots: list[Root] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _opened: list[BlockDevice] = field(default_factory=list)

    def personalize(self, entropy: bytes, time_us: int) -> None:
        """Take the host's entropy, credited and mixed in at once, and its time."""
        time.clock_settime(time.CLOCK_REALTIME, time_us / 1e6)
        descriptor = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
        try:
            request = struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy
            fcntl.ioctl(descriptor, _RNDADDENTROPY, request)
            fcntl.ioctl(descriptor, _RNDRESEEDCRNG)
        finally:
            os.close(descriptor)

    def discover(
        self, wanted: Sequence[int], options: ScanOptions, log: Callable[[str], None]
    ) -> None:
        """Find volumes, filesystems and roots on the disks that were plugged.

        What cannot be opened becomes a warning; the rest is found all the same.

        Raises:
            TimeoutError: a disk did not turn up.
        """
        self.disks = disks.wait_for_disks(wanted)
        for disk in self.disks:
            self.partitions += disks.partitions(disk)
        with self._warning("partitions and filesystems cannot be told"):
            disks.probe([*self.disks, *self.partitions])
        with self._warning("logical volumes cannot be opened"):
            self._open_volumes()
        self._note_closed()
        self._open_filesystems()
        self._assemble_roots(options)

    @contextlib.contextmanager
    def _warning(self, what: str) -> Iterator[None]:
        """Make a warning of what the work in the block fails by."""
        try:
            yield
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            self.warnings.append(f"{what}: {error}")

    def devices(self) -> list[str]:
        """Device name of each disk, in order."""
        return [disk.path for disk in self.disks]

    def all_devices(self) -> list[BlockDevice]:
        """Disks, partitions and opened volumes."""
        return [*self.disks, *self.partitions, *self._opened]

    def _open_volumes(self) -> None:
        plain = [*self.disks, *self.partitions]
        if any(device.probe.get("TYPE") == "LVM2_member" for device in plain):
            found, error = volumes.open_lvm()
            self.volumes += found
            self._opened += [disks.volume(item.device) for item in found if item.device]
            disks.probe(self._opened)
            if error:
                self.warnings.append(f"not every logical volume could be opened: {error}")

    def _note_closed(self) -> None:
        closed = list(volumes.closed_luks(self.all_devices()))
        self.volumes += closed
        self.warnings += [f"{item.name}: {item.error}" for item in closed]

    def _open_filesystems(self) -> None:
        holding = [device for device in self.all_devices() if "TYPE" in device.probe]
        for index, device in enumerate(_first_of_each_btrfs(holding)):
            companions = [other.path for other in holding if _same_btrfs(device, other)]
            with self._warning(f"{device.path} cannot be opened"):
                opened = filesystems.open_filesystem(device, f"{_SYSROOT}/fs{index}", companions)
                self.filesystems.append(opened)
                if opened.error:
                    self.warnings.append(f"{device.path}: {opened.error}")
                self.volumes += [_as_volume(opened, item) for item in opened.subvolumes]

    def _assemble_roots(self, options: ScanOptions) -> None:
        assembler = systems.Assembler(self.filesystems, self.all_devices(), options)
        for index, candidate in enumerate(systems.find_roots(self.filesystems)):
            with self._warning(f"the system on {candidate.name} cannot be opened"):
                self.roots.append(assembler.assemble(candidate, f"{_SYSROOT}/root{index}"))


def _same_btrfs(device: BlockDevice, other: BlockDevice) -> bool:
    kinds = {device.probe.get("TYPE"), other.probe.get("TYPE")}
    return kinds == {"btrfs"} and device.probe.get("UUID") == other.probe.get("UUID")


def _first_of_each_btrfs(devices: Sequence[BlockDevice]) -> list[BlockDevice]:
    """The devices, of those that make up one btrfs filesystem only the first."""
    kept: list[BlockDevice] = []
    for device in devices:
        if not any(_same_btrfs(device, other) for other in kept):
            kept.append(device)
    return kept


def _as_volume(filesystem: Filesystem, subvolume: filesystems.Subvolume) -> Volume:
    return Volume(
        kind="btrfs_subvolume",
        device=None,
        name=subvolume.path,
        group_name=None,
        uuid=subvolume.uuid,
        group_uuid=filesystem.device.probe.get("UUID"),
        size=None,
        layout=None,
        members=(filesystem.device.path,),
        active=True,
        snapshot=bool(subvolume.parent_uuid),
        error=None,
    )


class DirectoryMachine:
    """A machine whose one root is mounted already, at a directory of the host."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.roots: list[Root] = []
        self.warnings: list[str] = []

    def personalize(self, entropy: bytes, time_us: int) -> None:
        """Nothing: the host's entropy and time are in force already."""

    def discover(
        self, wanted: Sequence[int], options: ScanOptions, log: Callable[[str], None]
    ) -> None:
        """Take the directory as the only root.

        Raises:
            OSError: it cannot be opened.
        """
        mounts = (Mount("/", None, True),)
        self.roots = [Root("/", self._directory, mounts, options)]

    def devices(self) -> list[str]:
        """None: a directory has no disks."""
        return []


def need_disks(machine: GuestMachine) -> DiskMachine:
    """The machine as one that was read from its disks, for collectors about block devices.

    Raises:
        NotApplicable: it is a directory.
    """
    if not isinstance(machine, DiskMachine):
        raise NotApplicable("a directory has no block devices")
    return machine
