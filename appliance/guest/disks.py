"""Block devices: the disks that were plugged, their partitions, and what libblkid says of each."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleetscan.appliance.guest import blkid
from fleetscan.appliance.guest.partition_table import PartitionTable, Read
from fleetscan.appliance.guest.partition_table import read as read_table

_PLUG_SECONDS = 20.0
_SECTOR = 512  # the unit of sysfs' start and size, whatever the disk's own sector is
_WINDOW = 32 << 10  # bytes; as much as a GPT and its header take with either size of sector
_SCSI_DEVICES = "/sys/bus/scsi/devices"
_ADDRESS = re.compile(r"\d+:\d+:(\d+):\d+")


@dataclass
class BlockDevice:
    """A disk, a partition or an opened volume.

    Attributes:
        path: device name, as fact tables show it.
        size: length in bytes.
        disk: index of the disk it is on; None for volumes.
        partition: number in the partition table; None for disks and volumes.
        start: offset on its disk or volume in bytes.
        sector_size: logical sector size in bytes.
        members: the devices that it is on: a partition's disk or volume, a volume's members.
        snapshot: whether it shows an earlier state of another volume.
        probe: what blkid found, by its own names (TYPE, UUID, PART_ENTRY_TYPE ...).
    """

    path: str
    size: int
    disk: int | None = None
    partition: int | None = None
    start: int = 0
    sector_size: int = 512
    members: tuple[str, ...] = ()
    snapshot: bool = False
    probe: dict[str, str] = field(default_factory=dict)


def wait_for_disks(wanted: Sequence[int]) -> list[BlockDevice]:
    """The disks that were plugged, once the kernel has read their partition tables.

    Args:
        wanted: the disks' places on the machine, which are their SCSI targets here.

    Raises:
        TimeoutError: not all of them turned up.
    """
    end = time.monotonic() + _PLUG_SECONDS
    while missing := set(wanted) - set(found := _plugged()):
        if time.monotonic() > end:
            raise TimeoutError(f"{len(missing)} of {len(wanted)} disks did not appear")
        time.sleep(0.002)
    names = {index: _attach(found[index]) for index in sorted(wanted)}
    for name in names.values():
        _wait_until_open(f"/dev/{name}", end)
    return [_disk(names[index], index) for index in wanted]


def _wait_until_open(path: str, end: float) -> None:
    """Open a disk once, which waits for the kernel's own reading of its partition table.

    Raises:
        OSError: it cannot be opened until ``end``, by time.monotonic().
    """
    while True:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            return
        except OSError as error:
            # ENXIO: the disk has its name, but is not yet there to be opened.
            if error.errno != errno.ENXIO or time.monotonic() > end:
                raise
        time.sleep(0.001)


def _plugged() -> dict[int, str]:
    """SCSI target number to SCSI address of the disks there are."""
    matches = map(_ADDRESS.fullmatch, os.listdir(_SCSI_DEVICES))
    return {int(match[1]): match[0] for match in matches if match}


def _attach(address: str) -> str:
    """Give a disk to its driver, which names it; its name.

    Left to itself (see setup.py), the kernel does so for several disks at once, and names them as
    they come.

    Raises:
        OSError: the driver does not take it.
    """
    device = f"{_SCSI_DEVICES}/{address}"
    if not os.path.exists(f"{device}/driver"):
        with open("/sys/bus/scsi/drivers/sd/bind", "w") as bind:
            bind.write(address)
    (name,) = os.listdir(f"{device}/block")
    return name


def _disk(name: str, index: int) -> BlockDevice:
    folder = f"/sys/block/{name}"
    return BlockDevice(
        path=f"/dev/{name}",
        size=_number(f"{folder}/size") * _SECTOR,
        disk=index,
        sector_size=_number(f"{folder}/queue/logical_block_size"),
    )


def kernel_name(path: str) -> str:
    """The kernel's own name of a block device, such as ``dm-3`` for ``/dev/vg0/root``.

    Raises:
        OSError: there is no such device.
    """
    number = os.stat(path).st_rdev
    place = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    return os.path.basename(os.path.realpath(place))


def partitions(whole: BlockDevice, name: str) -> list[BlockDevice]:
    """The partitions that the kernel found on a disk or volume, by number.

    Args:
        whole: the disk or volume.
        name: the kernel's name of what it looked at.
    """
    found = []
    for entry in os.listdir(f"/sys/block/{name}"):
        folder = f"/sys/block/{name}/{entry}"
        if os.path.exists(f"{folder}/partition"):
            device = BlockDevice(
                path=f"/dev/{entry}",
                size=_number(f"{folder}/size") * _SECTOR,
                disk=whole.disk,
                partition=_number(f"{folder}/partition"),
                start=_number(f"{folder}/start") * _SECTOR,
                sector_size=whole.sector_size,
                members=(whole.path,),
                snapshot=whole.snapshot,
            )
            found.append(device)
    return sorted(found, key=lambda device: device.partition or 0)


def volume(path: str, members: tuple[str, ...] = (), *, snapshot: bool = False) -> BlockDevice:
    """An opened volume.

    Args:
        path: its device.
        members: the devices it is on.
        snapshot: whether it shows an earlier state of another volume.

    Raises:
        OSError: there is no such device.
    """
    number = os.stat(path).st_rdev
    place = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    return BlockDevice(
        path=path,
        size=_number(f"{place}/size") * _SECTOR,
        sector_size=_number(f"{place}/queue/logical_block_size"),
        members=members,
        snapshot=snapshot,
    )


def _number(path: str) -> int:
    with open(path) as stream:
        return int(stream.read())


def read_at(path: str, offset: int, length: int) -> bytes:
    """What stands at a place of a device, both in bytes; less at its end.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def hold(stack: contextlib.ExitStack, devices: Sequence[BlockDevice]) -> None:
    """Keep devices open: with the last who closes it, the kernel drops what it read of one."""
    for device in devices:
        with contextlib.suppress(OSError):  # whoever needs it will say why
            stack.callback(os.close, os.open(device.path, os.O_RDONLY | os.O_CLOEXEC))


def probe(devices: Sequence[BlockDevice]) -> None:
    """Have libblkid read each device and keep what it says in ``probe``.

    Raises:
        OSError: one cannot be read; raised when the others have been.
    """
    failure = None
    for device in devices:
        tables = [device.path] if device.partition is None else [device.path, device.members[0]]
        try:
            slow = any(_is_slow(path, device.sector_size) for path in tables)
            device.probe = blkid.probe(device.path, partitions=not slow)
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure


def _is_slow(path: str, sector: int) -> bool:
    """Whether libblkid had better not read a device's partition table."""
    try:
        return kept_table(path, sector).slow
    except OSError:
        return False  # libblkid will say why


def table(path: str, sector: int) -> PartitionTable:
    """A disk's or volume's partition table, as far as it is read here.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        return read_table(_by_windows(descriptor), size, sector)
    finally:
        os.close(descriptor)


kept_table = functools.cache(table)
"""As :func:`table`, read once: no disk changes while it is looked at."""


def _by_windows(descriptor: int) -> Read:
    """Reads a disk some sectors at once: each copy of a GPT, header and entries, is one request."""

    @functools.cache
    def window(number: int) -> bytes:
        return os.pread(descriptor, _WINDOW, number * _WINDOW)

    def read_at(at: int, length: int) -> bytes:
        number, begin = divmod(at, _WINDOW)
        if begin + length <= _WINDOW:
            with contextlib.suppress(OSError):  # what was not asked for may be what is damaged
                return window(number)[begin : begin + length]
        return os.pread(descriptor, length, at)

    return read_at
