"""Partitions, from the kernel's and libblkid's reading of the partition tables.

No cases: it describes block devices, which a directory tree has none of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.machine import GuestMachine, need_disks
from fleetscan.appliance.guest.partition_table import Copy
from fleetscan.appliance.guest.partitioning import GPT_DAMAGED, GPT_USED
from fleetscan.scanner.tables.partitions.spec import Partition

Scheme = Literal["gpt", "mbr", "apm", "bsd", "other"]

# Source: the kernel's block/partitions/msdos.c; 0x85 is Linux' own extended partition.
_EXTENDED_TYPES = frozenset({"0x5", "0xf", "0x85"})
_SCHEMES: Mapping[str, Scheme] = {
    "gpt": "gpt",
    "dos": "mbr",
    "mac": "apm",
    "bsd": "bsd",
    "freebsd": "bsd",
    "netbsd": "bsd",
    "openbsd": "bsd",
}
_COPIES: Mapping[str, Copy] = {"primary": "primary", "backup": "backup"}
_GPT_LEGACY_BOOT = 1 << 2  # UEFI specification, GPT partition attributes, bit 2
_MBR_ACTIVE = 0x80


def collect(machine: GuestMachine) -> Iterator[Partition]:
    """One row a partition."""
    disk_machine = need_disks(machine)
    for device in (*disk_machine.partitions, *disk_machine.beyond):
        yield to_row(device)


def to_row(device: BlockDevice) -> Partition:
    """A row from what the kernel and blkid say of a partition."""
    probe = device.probe
    scheme = _scheme(probe.get("PART_ENTRY_SCHEME", ""))
    start = device.start
    return Partition(
        device=device.path,
        parent=device.members[0],
        disk=device.disk,
        number=device.partition or 0,
        scheme=scheme,
        role=_role(scheme, device.partition or 0, probe),
        start=start,
        size=int(probe.get("PART_ENTRY_SIZE", device.size // 512)) * 512,
        alignment=start & -start,
        sector_size=device.sector_size,
        type=_type(probe.get("PART_ENTRY_TYPE")),
        name=probe.get("PART_ENTRY_NAME") or None,
        uuid=probe.get("PART_ENTRY_UUID") or None,
        bootable=_bootable(scheme, int(probe.get("PART_ENTRY_FLAGS", "0"), 16)),
        gpt_header=_COPIES.get(probe.get(GPT_USED, "")),
        gpt_damaged=_COPIES.get(probe.get(GPT_DAMAGED, "")),
    )


def _scheme(name: str) -> Scheme:
    return _SCHEMES.get(name, "other")


def _role(
    scheme: Scheme, number: int, probe: Mapping[str, str]
) -> Literal["primary", "extended", "logical"]:
    if scheme != "mbr":
        return "primary"
    if probe.get("PART_ENTRY_TYPE") in _EXTENDED_TYPES:
        return "extended"
    return "logical" if number > 4 else "primary"


def _type(value: str | None) -> str | None:
    if value is None or not value.startswith("0x"):
        return value
    return f"0x{int(value, 16):02x}"


def _bootable(scheme: Scheme, flags: int) -> bool:
    return bool(flags & (_GPT_LEGACY_BOOT if scheme == "gpt" else _MBR_ACTIVE))
