"""One row a partition."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import (
    IS_DEVICE,
    IS_DIGEST,
    U16,
    U32,
    U64,
    Scope,
    column,
    table,
)


@table(scope=Scope.MACHINE)
class Partition:
    """Partitions of the machine's disks and volumes, with their alignment.

    A partition beyond the end of its disk, as after an interrupted copy, also has a row. A disk has
    at most 251 rows for logical partitions, as the kernel has no more numbers.
    """

    device: str = column(
        "Device name inside the appliance.", example="/dev/sda1", unredacted=IS_DEVICE
    )
    parent: str = column(
        "The disk or volume that it is part of.", example="/dev/sda", unredacted=IS_DEVICE
    )
    disk: U16 | None = column("The disk it is on, as in disks.disk; null inside a volume.")
    number: U16 = column("Number in the partition table; logical ones count from 5.")
    scheme: Literal["gpt", "mbr", "apm", "bsd", "other"] = column("Kind of partition table.")
    role: Literal["primary", "extended", "logical"] = column(
        "Place in the partition table; GPT knows primary ones only."
    )
    start: U64 = column("Offset from its parent's beginning.", unit="bytes")
    size: U64 = column("Length.", unit="bytes")
    alignment: U64 = column(
        "Largest power of two that divides the start; below 4096 writes are slow, "
        "2^20 is what installers use today.",
        unit="bytes",
    )
    sector_size: U32 = column("Logical sector size of its disk.", unit="bytes")
    type: str | None = column(
        "Type as the partition table has it: a GUID in lower case, or 0x and two digits.",
        example="0x83",
        unredacted="a number or GUID of a fixed vocabulary",
    )
    name: str | None = column("GPT partition name.")
    uuid: str | None = column("Partition UUID, as in /dev/disk/by-partuuid.", unredacted=IS_DIGEST)
    gpt_header: Literal["primary", "backup"] | None = column(
        "Which of a GPT's two headers it was read from: backup if the primary is damaged; null "
        "for other tables and inside volumes."
    )
    gpt_damaged: Literal["primary", "backup"] | None = column(
        "Which of the two is damaged or misplaced; null if neither is."
    )
    bootable: bool = column("MBR active flag, or GPT legacy-boot attribute.")
