r"""Drive letters: which partition a Windows root has by which letter, from its MountedDevices key.

A basic MBR partition stands there as its disk's signature (4 bytes) and its offset in bytes
(8 bytes), both little-endian; a GPT one as ``DMIO:ID:`` and its GUID. Source: Microsoft's
"MountedDevices" articles, and what Windows 7 to 11 write.
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Iterator, Sequence

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.readers import hives
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.guest.root import Mount, Root

_KEY = "MountedDevices"
_LETTER = re.compile(r"\\DosDevices\\([A-Z]:)", re.IGNORECASE)
_GUID_MARK = b"DMIO:ID:"
_MBR_LENGTH = 12


def mounts(
    root: Root, device: str, devices: Sequence[BlockDevice], problems: Problems
) -> Iterator[Mount]:
    """A mount for each drive letter whose disk is there, in alphabetical order.

    Args:
        root: the Windows root.
        device: the device it is on.
        devices: every block device of the machine, probed.
        problems: gets a message for what of the key could not be read.
    """
    system = hives.read_system(root, "SYSTEM", [Want(_KEY)], problems)
    key = system.find(_KEY) or hives.HiveKey("")
    for value in sorted(key.values.values(), key=lambda value: value.name):
        letter = _LETTER.fullmatch(value.name)
        partition = find_partition(value.data, devices) if letter else None
        if letter and partition:
            yield Mount(
                path=letter[1].upper(),
                device=partition.path,
                mounted=partition.path == device,
                type=partition.probe.get("TYPE"),
            )


def find_partition(data: bytes, devices: Sequence[BlockDevice]) -> BlockDevice | None:
    """The partition that a value of MountedDevices means; None when there is no such."""
    if data.startswith(_GUID_MARK) and len(data) == len(_GUID_MARK) + 16:
        identifier = str(uuid.UUID(bytes_le=data[len(_GUID_MARK) :]))
        return next((device for device in devices if _entry(device) == identifier), None)
    if len(data) == _MBR_LENGTH:
        signature, offset = struct.unpack("<IQ", data)
        for device in devices:
            # libblkid's UUID of an MBR entry is the disk's signature and the entry's number.
            if _entry(device).startswith(f"{signature:08x}-") and device.start == offset:
                return device
    return None


def _entry(device: BlockDevice) -> str:
    return device.probe.get("PART_ENTRY_UUID", "").lower()
