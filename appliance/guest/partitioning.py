"""Disks and their partitions, together with what their partition tables say beside the kernel."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence

from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest import disks
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.partition_table import PartitionEntry, PartitionTable

GPT_USED, GPT_DAMAGED = "GPT_USED", "GPT_DAMAGED"
"""What a partition's ``probe`` has of its table besides libblkid's words."""

# Source: linux/blkpg.h. Operation, flags, length and address; start, length, number and two names.
_BLKPG, _ADD = 0x1269, 1
_ARGUMENT = struct.Struct("@iiiP")
_PARTITION = struct.Struct("@qqi64s64s")
_MOST = 256  # partitions that the kernel has numbers for
_WARNINGS = 50


class Partitioning:
    """The partitions of some disks.

    Args:
        whole: the disks.

    Attributes:
        partitions: the partitions that there are devices of.
        beyond: those of the tables that there are none of, as they begin behind the disk's end.
        warnings: what of the tables was not read, a line each.
    """

    def __init__(self, whole: Sequence[BlockDevice]) -> None:
        self.partitions: list[BlockDevice] = []
        self.beyond: list[BlockDevice] = []
        self.warnings: list[str] = []
        self._disks = {disk.path: disk for disk in whole}
        self._tables: dict[str, PartitionTable] = {}
        for disk in whole:
            self._tables[disk.path] = table = self._table(disk)
            found = disks.partitions(disk, os.path.basename(disk.path))
            if table.used == "backup" and not found:
                found = self._added(disk, table)
            self.partitions += found

    def complete(self) -> None:
        """Add what the tables say to what libblkid says of the disks and their partitions."""
        for path, table in self._tables.items():
            disk = self._disks[path]
            if table.slow:
                disk.probe.setdefault("PTTYPE", table.scheme)
            self._complete(disk, table)

    def _complete(self, disk: BlockDevice, table: PartitionTable) -> None:
        mine = [device for device in self.partitions if device.members[0] == disk.path]
        # The table may be an array's, seen through its member, or what looks like one in the boot
        # sector of a filesystem that has the whole disk.
        if disk.probe.get("USAGE") == "raid" or ("TYPE" in disk.probe and not mine):
            return
        entries = {(entry.number, entry.start): entry for entry in table.entries}
        for device in mine:
            entry = entries.get((device.partition or 0, device.start))
            if entry is not None:
                device.probe = {**entry.details, **device.probe}
                if entry.start + entry.size > disk.size:
                    self._warn(f"{device.path} ends beyond the end of {disk.path}")
        beyond = list(_beyond(disk, table, mine))
        for device in beyond:
            self._warn(f"{device.path} begins beyond the end of {disk.path}")
        for device in (*mine, *beyond):
            _say_copies(device, table)
        self.beyond += beyond
        if table.more:
            self._warn(
                f"{disk.path}: has more than {len(mine)} logical partitions; only the first "
                f"{len(mine)} are read"
            )

    def _warn(self, text: str) -> None:
        if len(self.warnings) < _WARNINGS:
            self.warnings.append(text)

    def _table(self, disk: BlockDevice) -> PartitionTable:
        try:
            return disks.kept_table(disk.path, disk.sector_size)
        except OSError as error:
            self._warn(f"{disk.path}: its partition table: {reason(error)}")
            return PartitionTable()

    def _added(self, disk: BlockDevice, table: PartitionTable) -> list[BlockDevice]:
        """Partitions to announce to the kernel, which does not read a GPT from its backup."""
        for entry in table.entries[:_MOST]:
            try:
                _add(disk.path, entry)
            except OSError as error:
                self._warn(f"{disk.path}: partition {entry.number}: {reason(error)}")
        return disks.partitions(disk, os.path.basename(disk.path))


def _add(disk: str, entry: PartitionEntry) -> None:
    partition = ctypes.create_string_buffer(
        _PARTITION.pack(entry.start, entry.size, entry.number, b"", b"")
    )
    argument = _ARGUMENT.pack(_ADD, 0, _PARTITION.size, ctypes.addressof(partition))
    descriptor = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _BLKPG, argument)
    finally:
        os.close(descriptor)


def _beyond(
    disk: BlockDevice, table: PartitionTable, found: Sequence[BlockDevice]
) -> Iterator[BlockDevice]:
    known = {device.partition for device in found}
    for entry in table.entries[:_MOST]:
        if entry.start >= disk.size and entry.number not in known:
            yield BlockDevice(
                path=f"{disk.path}{entry.number}",
                size=entry.size,
                disk=disk.disk,
                partition=entry.number,
                start=entry.start,
                sector_size=disk.sector_size,
                members=(disk.path,),
                probe=dict(entry.details),
            )


def _say_copies(device: BlockDevice, table: PartitionTable) -> None:
    if table.used:
        device.probe[GPT_USED] = table.used
    if table.damaged:
        device.probe[GPT_DAMAGED] = table.damaged
