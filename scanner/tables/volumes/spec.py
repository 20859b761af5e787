"""One row a volume: what maps block devices to further ones."""

from __future__ import annotations

from fleetscan.appliance.ground.schema import IS_DEVICE, U64, Scope, column, table
from fleetscan.appliance.ground.volumes import VolumeType


@table(scope=Scope.MACHINE)
class VolumeRow:
    """Logical volumes, RAID arrays, encrypted containers and btrfs subvolumes."""

    kind: VolumeType = column(
        "What created the volume; ldm: dynamic disks of Windows; raid: the firmware of a "
        "controller, or another system."
    )
    device: str | None = column(
        "Device name inside the appliance; null if it is not open.",
        example="/dev/vg0/root",
        unredacted=IS_DEVICE,
    )
    name: str = column("Name of the volume itself, or the path of a subvolume.", example="root")
    group_name: str | None = column("Name of its volume group.")
    uuid: str | None = column("UUID of the volume.")
    group_uuid: str | None = column("UUID of its volume group.")
    size: U64 | None = column("Length.", unit="bytes")
    layout: str | None = column("How data is arranged on its members.", example="linear")
    members: tuple[str, ...] = column(
        "Devices that it consists of.", example="/dev/sda2", unredacted=IS_DEVICE
    )
    active: bool = column("Whether it could be opened here.")
    snapshot: bool = column("Whether it is a snapshot of another volume.")
    degraded: bool | None = column(
        "Whether members are missing that redundancy compensates for; null if not known."
    )
    error: str | None = column("Why it could not be opened.")
