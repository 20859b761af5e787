"""Members of volumes that are never opened: what libblkid knows by itself is never passed over."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.appliance.guest import blkid
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.volume import load_kinds
from fleetscan.appliance.guest.volumes.firmware_raid import ForeignVolumes

SIZE = 8 << 20
VIA = b"\x55\xaa" + bytes(48)  # at the last sector's beginning; then the sum of these bytes
LSI = b"$XIDE$"
USAGE_RAID = 1 << 2  # blkid.h, BLKID_USAGE_RAID


def known_members() -> Iterator[str]:
    """The types of content that libblkid says are parts of volumes."""
    library = ctypes.CDLL("libblkid.so.1")
    name, usage, index = ctypes.c_char_p(), ctypes.c_int(), 0
    while not library.blkid_superblocks_get_name(
        ctypes.c_size_t(index), ctypes.byref(name), ctypes.byref(usage)
    ):
        if usage.value == USAGE_RAID:
            yield (name.value or b"").decode()
        index += 1


def test_every_kind_of_member_is_opened_or_named() -> None:
    members = set(known_members())
    assert len(members) > 15
    assert members - {name for kind in load_kinds() for name in kind.members} == set()


@pytest.mark.parametrize(
    ("content", "at", "reason"),
    [
        (VIA + bytes([sum(VIA) & 0xFF]), SIZE - 512, "a firmware RAID (VIA) is not put together"),
        (LSI, SIZE - 512, "a firmware RAID (LSI MegaRAID) is not put together"),
        (b"HM\1\0", 0, "a volume group of LVM 1 is not opened"),
    ],
)
def test_a_member_is_named_with_the_reason(
    tmp_path: Path, content: bytes, at: int, reason: str
) -> None:
    image = tmp_path / "disk"
    image.write_bytes((bytes(at) + content).ljust(SIZE, b"\0"))
    device = BlockDevice(str(image), SIZE, disk=0, probe=blkid.probe(str(image)))
    foreign = ForeignVolumes()
    foreign.open([device] if foreign.takes(device) else [])
    (volume,) = foreign.volumes
    assert (volume.error, volume.active, volume.members) == (reason, False, (str(image),))
