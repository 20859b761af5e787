"""The machine being scanned, as the agent sees it: devices, volumes, filesystems, roots."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fleetscan.appliance.ground.options import FactOptions
from fleetscan.appliance.ground.reasons import in_words
from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest import disks, filesystems, mount_table, systems
from fleetscan.appliance.guest.assembling import Assembler
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.filesystems import Filesystem
from fleetscan.appliance.guest.live import LiveImages
from fleetscan.appliance.guest.lookups import told
from fleetscan.appliance.guest.partitioning import Partitioning
from fleetscan.appliance.guest.root import Mount, Root
from fleetscan.appliance.guest.volume import Volume, VolumeKey, load_kinds
from fleetscan.appliance.guest.volume_layers import VolumeLayers

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
        self,
        wanted: Sequence[int],
        options: FactOptions,
        keys: Sequence[VolumeKey],
        log: Callable[[str], None],
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
        beyond: partitions that begin behind their disk's end.
        volumes: what was put together or opened of them, and what stayed closed.
        filesystems: what each device that is not further divided holds.
        roots: the operating systems, their trees mounted.
        warnings: what could not be opened, a line each.
    """

    disks: list[BlockDevice] = field(default_factory=list)
    partitions: list[BlockDevice] = field(default_factory=list)
    beyond: list[BlockDevice] = field(default_factory=list)
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
        self,
        wanted: Sequence[int],
        options: FactOptions,
        keys: Sequence[VolumeKey],
        log: Callable[[str], None],
    ) -> None:
        """Find volumes, filesystems and roots on the disks that were plugged.

        What cannot be opened becomes a warning; the rest is still found.

        Raises:
            TimeoutError: a disk did not turn up.
        """
        self.disks = disks.wait_for_disks(wanted)
        with contextlib.ExitStack() as held:
            disks.hold(held, self.disks)
            self._partition(held)
            self._forget_copies()
            self._open_volumes(keys)
        self._open_filesystems()
        self._open_live_images()
        self._assemble_roots(options)

    def _partition(self, held: contextlib.ExitStack) -> None:
        partitioning = Partitioning(self.disks)
        self.partitions = partitioning.partitions
        disks.hold(held, self.partitions)
        with self._warning("partitions and filesystems cannot be identified"):
            disks.probe([*self.disks, *self.partitions])
        partitioning.complete()
        self.beyond = partitioning.beyond
        self.warnings += partitioning.warnings

    @contextlib.contextmanager
    def _warning(self, what: str) -> Iterator[None]:
        """Make a warning of what the work in the block fails by."""
        try:
            yield
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            self.warnings.append(f"{what}: {in_words(error)}")

    def devices(self) -> list[str]:
        """Device name of each disk, in order."""
        return [disk.path for disk in self.disks]

    def all_devices(self) -> list[BlockDevice]:
        """Disks, partitions and opened volumes; what they are on comes before them."""
        inside = {device.path for device in self._opened}
        outer = [device for device in self.partitions if device.path not in inside]
        return [*self.disks, *outer, *self._opened]

    def _forget_copies(self) -> None:
        """Pass over partitions of RAID members: they are the array's, seen through one disk."""
        hiding = [kind for kind in load_kinds() if kind.hides_partitions]
        members = {disk.path for disk in self.disks if any(kind.takes(disk) for kind in hiding)}
        self.partitions = [item for item in self.partitions if item.members[0] not in members]

    def stack(self, path: str) -> list[str]:
        """The devices that a device is on, nearest first, down to whole disks."""
        members = {device.path: device.members for device in self.all_devices()}
        found: list[str] = []
        waiting = [path]
        for name in waiting:
            new = [member for member in members.get(name, ()) if member not in waiting]
            found += new
            waiting += new
        return found

    def _open_volumes(self, keys: Sequence[VolumeKey]) -> None:
        layers = VolumeLayers([kind(keys) for kind in load_kinds()])
        layers.open([*self.disks, *self.partitions])
        self._opened = layers.opened
        self.partitions += layers.partitions
        self.volumes = layers.volumes
        self.warnings += layers.warnings
        self.warnings += [f"{item.name}: {item.error}" for item in self.volumes if item.error]

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

    def _open_live_images(self) -> None:
        """Open the systems that live media hold as image files.

        One in which there is no system, such as a layer that is laid over another, is a warning:
        the medium was read in part.
        """
        live = LiveImages(f"{_SYSROOT}/live{number}" for number in itertools.count())
        for filesystem in self.filesystems:
            with self._warning(f"{filesystem.device.path} cannot be searched for live systems"):
                live.open(filesystem)
        self.filesystems += live.opened
        self._opened += [opened.device for opened in live.opened]
        self.warnings += live.warnings
        for opened in live.opened:
            if opened.top and not list(systems.find_roots([opened])) and not live.holds(opened):
                self.warnings.append(f"{opened.device.path}: not a system by itself; not inspected")

    def _assemble_roots(self, options: FactOptions) -> None:
        assembler = Assembler(self.filesystems, self.all_devices(), options)
        candidates: list[systems.Candidate] = []
        for filesystem in self.filesystems:
            with self._warning(f"{filesystem.device.path} cannot be searched for a system"):
                candidates += systems.find_roots([filesystem])
        for index, candidate in enumerate(candidates):
            with self._warning(f"the system on {candidate.name} cannot be opened"):
                root = assembler.assemble(candidate, f"{_SYSROOT}/root{index}")
                self.roots.append(root)
                self.warnings += _lacking(root)


def _lacking(root: Root) -> Iterator[str]:
    """A warning about what a root lacks of what the machine's disks should hold."""
    if lacks := [lack for lack in root.lookups.lacks if lack.local]:
        yield f"the system on {root.name}: {told(lacks)}"


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
        name=subvolume.path,
        uuid=subvolume.uuid,
        group_uuid=filesystem.device.probe.get("UUID"),
        members=(filesystem.device.path,),
        active=True,
        snapshot=bool(subvolume.parent_uuid),
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
        self,
        wanted: Sequence[int],
        options: FactOptions,
        keys: Sequence[VolumeKey],
        log: Callable[[str], None],
    ) -> None:
        """Take the directory as the only root.

        Raises:
            OSError: it cannot be opened.
        """
        with Root("/", self._directory) as bare:
            table = mount_table.read(bare)
        # Only what the directory holds can be seen: nothing says whether it was mounted.
        stated = (
            Mount(
                path="swap" if entry.is_swap else entry.path,
                device=None,
                mounted=entry.path == "/",
                source=entry.source,
                type=entry.type,
                options=entry.options,
                check_pass=entry.check_pass,
            )
            for entry in table.entries
        )
        mounts = tuple(stated)
        if not any(mount.path == "/" for mount in mounts):
            mounts = (Mount("/", None, True), *mounts)
        problems = tuple(table.problems)
        self.roots = [Root("/", self._directory, mounts, options, {}, problems, table.unknown)]

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
