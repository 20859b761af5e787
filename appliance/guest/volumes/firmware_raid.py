"""Volumes that a controller's firmware or another system puts together: named, never opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.volume import Volume, VolumeKind

_NOT_OPENED: Mapping[str, str] = {
    "isw_raid_member": "a firmware RAID (Intel) is not put together",
    "ddf_raid_member": "a firmware RAID (DDF) is not put together",
    "VMFS_volume_member": "a VMFS volume is not opened",
}
"""blkid's type, to the reason."""


class ForeignVolumes(VolumeKind):
    """One row for each member, which says why it stays closed."""

    members = _NOT_OPENED

    def open(self, fresh: Sequence[BlockDevice]) -> None:
        """List the members."""
        self.volumes += map(closed, fresh)


def closed(device: BlockDevice) -> Volume:
    """The volume that a member belongs to."""
    return Volume(
        kind="raid",
        name=device.probe.get("LABEL") or device.path,
        uuid=device.probe.get("UUID"),
        size=device.size,
        members=(device.path,),
        error=_NOT_OPENED[device.probe["TYPE"]],
    )


KIND = ForeignVolumes
