"""One row a volume: what maps block devices to further ones."""

from __future__ import annotations

from typing import Literal

from scanner.schema import IS_DEVICE, U64, Scope, column, table


@table(scope=Scope.MACHINE)
class Volume:
    """Logical volumes, RAID arrays, encrypted containers and btrfs subvolumes."""

    kind: Literal["lvm", "md", "ldm", "luks", "bitlocker", "bcache", "raid", "btrfs_subvolume"] = (
        column(
            "What made the volume; ldm is Windows' dynamic disks, raid a controller's firmware or "
            "another system."
        )
    )
    device: str | None = column(
        "Device name inside the appliance; null when it is not open.",
        example="/dev/vg0/root",
        unredacted=IS_DEVICE,
    )
    name: str = column("Name of the volume itself; a subvolume's path.", example="root")
    group_name: str | None = column("Name of its volume group.")
    uuid: str | None = column("UUID of the volume.")
    group_uuid: str | None = column("UUID of its volume group.")
    size: U64 | None = column("Length.", unit="bytes")
    layout: str | None = column("How data lies on its members.", example="linear")
    members: tuple[str, ...] = column(
        "Devices it lies on.", example="/dev/sda2", unredacted=IS_DEVICE
    )
    active: bool = column("Whether it could be opened here.")
    snapshot: bool = column("Whether it is a snapshot of another volume.")
    degraded: bool | None = column(
        "Whether members are missing that redundancy makes up for; null where that is not known."
    )
    error: str | None = column("Why it could not be opened.")
