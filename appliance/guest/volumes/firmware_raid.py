"""Volumes that a controller's firmware or another system puts together: named, never opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.volume import Volume, VolumeKind

_FIRMWARE: Mapping[str, str] = {
    "adaptec": "Adaptec",
    "ddf": "DDF",
    "hpt37x": "HighPoint",
    "hpt45x": "HighPoint",
    "isw": "Intel",
    "jmicron": "JMicron",
    "lsi_mega": "LSI MegaRAID",
    "nvidia": "NVIDIA",
    "promise_fasttrack": "Promise FastTrak",
    "silicon_medley": "Silicon Image",
    "via": "VIA",
}
"""The beginning of libblkid's name for a member, to its maker's."""

_NOT_OPENED: Mapping[str, str] = {
    **{
        f"{name}_raid_member": f"a firmware RAID ({maker}) is not put together"
        for name, maker in _FIRMWARE.items()
    },
    "DM_integrity": "a device with integrity tags (dm-integrity) is not opened",
    "LVM1_member": "a volume group of LVM 1 is not opened",
    "VMFS_volume_member": "a VMFS volume is not opened",
    "drbd": "a DRBD device is not opened",
    "stratis": "a Stratis pool is not opened",
    "ubi": "a UBI device is not opened",
    "vdo": "a VDO volume is not opened",
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
