"""One row a filesystem, swap area or other content of a block device."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import IS_DEVICE, IS_DIGEST, U32, U64, Scope, column, table


@table(scope=Scope.MACHINE)
class FilesystemRow:
    """Filesystems and swap areas, with their usage as df in the guest would show it.

    A block device whose content is known but holds no files (swap, LVM physical volumes, LUKS
    containers) has a row too, without usage.
    """

    device: str = column(
        "Device name inside the appliance.", example="/dev/vg0/root", unredacted=IS_DEVICE
    )
    type: str = column("Type as blkid names it.", example="ext4", unredacted="one of blkid's words")
    usage: Literal["filesystem", "swap", "raid", "crypto", "other"] = column(
        "Purpose of the content, as blkid classifies it."
    )
    version: str | None = column("Version of the format.", example="1.0")
    uuid: str | None = column("UUID or serial, as blkid prints it.", unredacted=IS_DIGEST)
    label: str | None = column("Label.")
    mounted: bool = column("Whether it could be mounted read-only here.")
    journal: Literal["clean", "replayed", "ignored"] | None = column(
        "clean: nothing to replay; replayed: replayed on a throw-away overlay in the appliance's "
        "memory, never onto the image; ignored: could not be replayed, so facts may be older than "
        "the guest's last writes. Null for filesystems without a journal, and those that do not "
        "show its state."
    )
    block_size: U32 | None = column("Fundamental block size.", unit="bytes")
    size: U64 | None = column("Size, as df counts it.", unit="bytes")
    used: U64 | None = column("Used space.", unit="bytes")
    free: U64 | None = column("Free space, root's reserve included.", unit="bytes")
    available: U64 | None = column("Free space for ordinary users.", unit="bytes")
    inodes: U64 | None = column(
        "Total number of inodes; 0 if the filesystem creates them as needed; null if it does not "
        "report them."
    )
    inodes_used: U64 | None = column("Inodes in use.")
    stack: tuple[str, ...] = column(
        "Devices below its own, nearest first, down to whole disks; their rows are in volumes, "
        "partitions and disks.",
        example="/dev/sda2",
        unredacted=IS_DEVICE,
    )
    error: str | None = column("Why it could not be mounted.")
