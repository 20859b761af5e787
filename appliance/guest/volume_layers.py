"""What lies on the disks, layer on layer: arrays, encrypted containers, volumes, partitions."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from fleetscan.appliance.ground.reasons import in_words
from fleetscan.appliance.guest import disks
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.volume import Volume
from fleetscan.appliance.guest.volumes import arrays, bcache, encryption, ldm, ldm_database, mapping
from fleetscan.appliance.guest.volumes.encryption import VolumeKey
from fleetscan.appliance.guest.volumes.lvm import LogicalVolumes

_MOST_LAYERS = 8  # deeper than anybody builds; an image may try to go on for ever

_NOT_OPENED: Mapping[str, str] = {
    "isw_raid_member": "a firmware RAID (Intel) is not put together",
    "ddf_raid_member": "a firmware RAID (DDF) is not put together",
    "VMFS_volume_member": "a VMFS volume is not opened",
}
"""blkid's type, to the reason."""


class VolumeLayers:
    """Opens volumes on the devices there are, then on those volumes, until nothing is new.

    Args:
        keys: for encrypted containers.

    Attributes:
        opened: block devices of the volumes, and partitions inside of volumes.
        partitions: of those the partitions.
        volumes: every volume found, those that stayed closed included.
        warnings: what went wrong beside what the volumes' rows say, a line each.
    """

    def __init__(self, keys: Sequence[VolumeKey]) -> None:
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
        with self._warning():
            self._dynamic_disks(fresh)
        self._others += closed(fresh)
        for _ in range(_MOST_LAYERS):
            opened: list[BlockDevice] = []
            steps = (self._arrays, self._cached, self._containers, self._logical_volumes)
            for step in (*steps, self._inside):
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
            self.warnings.append(f"volumes cannot be opened: {in_words(error)}")

    def _dynamic_disks(self, fresh: list[BlockDevice]) -> None:
        """Put Windows' volumes in the place of the pieces that the kernel found of them."""
        members = ldm.find_members(fresh, disks.read_at)
        if not members:
            return
        ldm.hide_pieces(members, fresh)
        groups: dict[str, list[ldm.GroupMember]] = {}
        for member in members:
            groups.setdefault(member.header.group, []).append(member)
        for group in groups.values():
            self._others += _volumes_of(group)
        opened = _opened(self._others)
        disks.probe(opened)
        self.opened += opened
        fresh += opened

    def _arrays(self, fresh: Sequence[BlockDevice]) -> list[BlockDevice]:
        members = [device for device in fresh if device.probe.get("TYPE") == arrays.MEMBER]
        found = arrays.assemble(members) if members else []
        self._others += found
        return _opened(found)

    def _cached(self, fresh: Sequence[BlockDevice]) -> list[BlockDevice]:
        members = [device for device in fresh if device.probe.get("TYPE") == bcache.MEMBER]
        found = [bcache.open_device(device) for device in members]
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


def _volumes_of(group: Sequence[ldm.GroupMember]) -> list[Volume]:
    """A disk group's volumes, by the first of its disks whose database can be read.

    Raises:
        ValueError: none can be.
    """
    reason = ""
    for member in group:
        read = functools.partial(disks.read_at, member.device.path)
        try:
            return ldm.open_group(group, ldm_database.read_database(read, member.header))
        except ValueError as error:
            reason = reason or f"{member.device.path}: dynamic disk: {error}"
    raise ValueError(reason)


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
            yield Volume(
                kind="raid",
                name=device.probe.get("LABEL") or device.path,
                uuid=device.probe.get("UUID"),
                size=device.size,
                members=(device.path,),
                active=False,
                snapshot=False,
                error=_NOT_OPENED[kind],
            )
