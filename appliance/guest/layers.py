"""What lies on the disks, layer on layer: arrays, encrypted containers, volumes, partitions."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from appliance.guest import arrays, disks, encryption, mapping
from appliance.guest.disks import BlockDevice
from appliance.guest.encryption import Key
from appliance.guest.lvm import LogicalVolumes
from scanner.tables.volumes.spec import Volume

_MOST_LAYERS = 8  # deeper than anybody builds; an image may try to go on for ever

_NOT_OPENED: Mapping[str, tuple[Literal["bcache", "raid"], str]] = {
    "bcache": ("bcache", "bcache is not opened: its driver writes to the device when it starts"),
    "isw_raid_member": ("raid", "a firmware RAID (Intel) is not put together"),
    "ddf_raid_member": ("raid", "a firmware RAID (DDF) is not put together"),
    "VMFS_volume_member": ("raid", "a VMFS volume is not opened"),
}
"""blkid's type, to the row's kind and the reason."""


class Layers:
    """Opens volumes on the devices there are, then on those volumes, until nothing is new.

    Args:
        keys: for encrypted containers.

    Attributes:
        opened: block devices of the volumes, and partitions inside of volumes.
        partitions: of those the partitions.
        volumes: every volume found, those that stayed closed included.
        warnings: what went wrong beside what the volumes' rows say, a line each.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        self.opened: list[BlockDevice] = []
        self.partitions: list[BlockDevice] = []
        self.warnings: list[str] = []
        self._keys = keys
        self._logical = LogicalVolumes()
        self._others: list[Volume] = []

    @property
    def volumes(self) -> list[Volume]:
        """Every volume found."""
        return [*self._others, *self._logical.volumes]

    def open(self, devices: Sequence[BlockDevice]) -> None:
        """Open all that lies on probed devices."""
        fresh = list(devices)
        self._others += closed(fresh)
        for _ in range(_MOST_LAYERS):
            opened: list[BlockDevice] = []
            for step in (self._arrays, self._containers, self._logical_volumes, self._inside):
                with self._warning():
                    opened += step(fresh)
            if not opened:
                return
            with self._warning():
                disks.probe(opened)
            self.opened += opened
            self._others += closed(opened)
            fresh = opened
        self.warnings.append(f"volumes are nested more than {_MOST_LAYERS} deep")

    @contextlib.contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            self.warnings.append(f"volumes cannot be opened: {error}")

    def _arrays(self, fresh: Sequence[BlockDevice]) -> list[BlockDevice]:
        members = [device for device in fresh if device.probe.get("TYPE") == arrays.MEMBER]
        found = arrays.assemble(members) if members else []
        self._others += found
        return _opened(found)

    def _containers(self, fresh: Sequence[BlockDevice]) -> list[BlockDevice]:
        containers = [device for device in fresh if encryption.is_container(device)]
        found = [encryption.open_container(device, self._keys) for device in containers]
        self._others += found
        return _opened(found)

    def _logical_volumes(self, fresh: Sequence[BlockDevice]) -> list[BlockDevice]:
        members = [device for device in fresh if device.probe.get("TYPE") == "LVM2_member"]
        if not members:
            return []
        known = {device.path for device in self.opened}
        found = _opened(self._logical.open(members))
        return [device for device in found if device.path not in known]

    def _inside(self, fresh: Sequence[BlockDevice]) -> list[BlockDevice]:
        """Partitions inside of volumes."""
        found: list[BlockDevice] = []
        for device in fresh:
            is_volume = device.disk is None and device.partition is None
            if is_volume and "PTTYPE" in device.probe and "TYPE" not in device.probe:
                found += _partitions_inside(device)
        self.partitions += found
        return found


def _partitions_inside(volume: BlockDevice) -> list[BlockDevice]:
    name = disks.kernel_name(volume.path)
    if name.startswith("dm-"):  # in which the kernel looks for none, but for this way round
        name = os.path.basename(mapping.loop(volume.path, partitions=True))
    return disks.partitions(volume, name)


def _opened(volumes: Sequence[Volume]) -> list[BlockDevice]:
    return [
        disks.volume(item.device, item.members, snapshot=item.snapshot)
        for item in volumes
        if item.device
    ]


def closed(devices: Sequence[BlockDevice]) -> Iterator[Volume]:
    """Volumes of kinds that are never opened here, by what blkid calls their members."""
    for device in devices:
        kind = device.probe.get("TYPE", "")
        if kind in _NOT_OPENED:
            word, reason = _NOT_OPENED[kind]
            yield Volume(
                kind=word,
                device=None,
                name=device.probe.get("LABEL") or device.path,
                group_name=None,
                uuid=device.probe.get("UUID"),
                group_uuid=None,
                size=device.size,
                layout=None,
                members=(device.path,),
                active=False,
                snapshot=False,
                degraded=None,
                error=reason,
            )
