"""Drive letters of Windows roots."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.drives import find_partition

GUID = "0fc63daf-8483-4772-8e79-3d69d8477de4"
DEVICES = [
    BlockDevice("/dev/sda", 1 << 30, probe={"PTUUID": "0badc0de"}),
    BlockDevice("/dev/sda1", 1 << 29, 0, 1, 1 << 20, probe={"PART_ENTRY_UUID": "0badc0de-01"}),
    BlockDevice("/dev/sda2", 1 << 28, 0, 2, 1 << 29, probe={"PART_ENTRY_UUID": "0badc0de-02"}),
    BlockDevice("/dev/sdb1", 1 << 29, 1, 1, 1 << 20, probe={"PART_ENTRY_UUID": GUID.upper()}),
]


def found(data: bytes) -> str | None:
    device = find_partition(data, DEVICES)
    return device.path if device else None


def test_an_mbr_partition_is_its_disk_s_signature_and_its_offset() -> None:
    signature = 0x0BADC0DE.to_bytes(4, "little")
    assert found(signature + (1 << 20).to_bytes(8, "little")) == "/dev/sda1"
    assert found(signature + (1 << 29).to_bytes(8, "little")) == "/dev/sda2"
    assert found(signature + (1 << 21).to_bytes(8, "little")) is None
    assert found(bytes(4) + (1 << 20).to_bytes(8, "little")) is None


def test_a_gpt_partition_is_its_guid() -> None:
    assert found(b"DMIO:ID:" + uuid.UUID(GUID).bytes_le) == "/dev/sdb1"
    assert found(b"DMIO:ID:" + bytes(16)) is None


@given(st.binary(max_size=40) | st.binary(max_size=20).map(lambda data: b"DMIO:ID:" + data))
def test_other_values_are_of_no_partition(data: bytes) -> None:
    assert found(data) in (None, *(device.path for device in DEVICES))
