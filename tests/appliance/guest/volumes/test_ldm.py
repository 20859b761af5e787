"""The database of Windows' dynamic disks: what is made of it, and of what it must not be."""

from __future__ import annotations

import contextlib
import struct
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.volumes.ldm import database as ldm_database
from fleetscan.appliance.guest.volumes.ldm import dynamic_disks as ldm
from fleetscan.appliance.guest.volumes.ldm.database import (
    Component,
    Described,
    LdmDatabase,
    LdmHeader,
)
from fleetscan.appliance.guest.volumes.ldm.dynamic_disks import GroupMember

GUID = uuid.UUID(int=3)
SECTORS = 1000


def variable(value: int | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value.to_bytes(4)
    return bytes([len(data)]) + data


def record(kind: int, number: int, name: str, rest: bytes, flags: int = 0) -> bytes:
    head = struct.pack(">HBBI", 0, flags, kind, 0)
    return head + variable(number) + variable(name) + rest


def volume(number: int, name: str, size: int) -> bytes:
    fields = variable("gen") + variable("") + bytes(21) + variable(1) + bytes(16)
    return record(0x51, number, name, fields + variable(size) + bytes(5) + GUID.bytes)


def component(number: int, parent: int, layout: int, chunk: int = 0) -> bytes:
    fields = variable("ACTIVE") + bytes([layout, 0, 0, 0, 0]) + variable(1) + bytes(16)
    fields += variable(parent) + b"\0" + (variable(chunk) if chunk else b"")
    return record(0x32, number, "c", fields, flags=0x10 if chunk else 0)


def piece(parent: int, disk: int, start: int, size: int, offset: int, index: int = 0) -> bytes:
    fields = bytes(12) + struct.pack(">QQ", start, offset)
    fields += variable(size) + variable(parent) + variable(disk) + variable(index)
    return record(0x33, 90, "p", fields, flags=8)


def database(*records: bytes, size: int = 128) -> bytes:
    data = b""
    for number, content in enumerate(records):
        room = size - 16
        parts = [content[at : at + room] for at in range(0, len(content), room)]
        for place, part in enumerate(parts):
            numbers = struct.pack(">4sIIHH", b"VBLK", number, number, place, len(parts))
            data += (numbers + part).ljust(size, b"\0")
    head = struct.pack(">4sIII2x2H", b"VMDB", len(data) // size, size, 512, 4, 10)
    return head.ljust(512, b"\0") + data


DISKS = (
    record(0x34, 1, "Disk1", variable(str(uuid.UUID(int=1)))),
    record(0x44, 2, "Disk2", uuid.UUID(int=2).bytes),
)
SPANNED = database(
    volume(10, "Span", 300),
    component(20, 10, 2),
    piece(20, 2, 5, 200, 100),
    piece(20, 1, 7, 100, 0),
    *DISKS,
)


def member(number: int) -> GroupMember:
    device = BlockDevice(f"/dev/sd{'xab'[number]}", SECTORS * 512, disk=number)
    return GroupMember(device, LdmHeader(str(uuid.UUID(int=number)), "g", "Group", 63, 900, 100))


PRESENT = {1: member(1), 2: member(2)}


def described(data: bytes) -> tuple[Described, Component]:
    (found,) = ldm_database.parse_database(data).volumes
    return found, ldm.choose(found, PRESENT)[0]


def table(data: bytes) -> list[str]:
    return ldm.table(*described(data), PRESENT, lambda disk: disk.path).splitlines()


def test_records_of_any_length_are_put_together() -> None:
    for size in (32, 64, 128, 512):
        data = database(volume(10, "Span" * 20, 300), component(20, 10, 2), *DISKS, size=size)
        found = ldm_database.parse_database(data)
        assert [(item.name, item.size) for item in found.volumes] == [("Span" * 20, 300)]
        assert found.disks == {1: str(uuid.UUID(int=1)), 2: str(uuid.UUID(int=2))}


def test_a_spanned_volume_follows_its_pieces() -> None:
    assert table(SPANNED) == ["0 100 linear /dev/sda 70", "100 200 linear /dev/sdb 68"]


def test_a_striped_volume_takes_its_pieces_by_index() -> None:
    data = database(
        volume(10, "Stripe", 256),
        component(20, 10, 1, 64),
        piece(20, 2, 0, 128, 0, 1),
        piece(20, 1, 0, 128, 0, 0),
        *DISKS,
    )
    assert table(data) == ["0 256 striped 2 64 /dev/sda 63 /dev/sdb 63"]


def test_of_mirrors_the_one_that_is_whole_is_read() -> None:
    data = database(
        volume(10, "Mirror", 100),
        *(component(20, 10, 2), component(21, 10, 2)),
        *(piece(20, 3, 0, 100, 0), piece(21, 2, 0, 100, 0)),
        *DISKS,
    )
    (found,) = ldm_database.parse_database(data).volumes
    chosen, degraded = ldm.choose(found, PRESENT)
    assert (found.layout, degraded) == ("mirrored", True)
    assert [item.disk for item in chosen.pieces] == [2]


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([piece(20, 1, 0, 100, 0), piece(20, 2, 0, 200, 150)], "do not follow"),
        ([piece(20, 1, 900, 100, 0)], "beyond the end of its disk"),
        ([piece(20, 1, (1 << 64) - 1, 100, 0)], "beyond the end of its disk"),
        ([piece(20, 1, 0, 0, 0)], "beyond the end of its disk"),
        ([piece(20, 3, 0, 100, 0)], "on a missing disk"),
        ([], "on a missing disk"),
        ([piece(20, 1, 0, 1, at) for at in range(1100)], "in 1100 pieces"),
    ],
)
def test_pieces_that_make_no_sense_are_not_mapped(pieces: list[bytes], reason: str) -> None:
    data = database(volume(10, "Bad", 300), component(20, 10, 2), *pieces, *DISKS)
    with pytest.raises(ValueError, match=reason):
        table(data)


@settings(max_examples=500)
@given(st.binary(max_size=64), st.integers(0, len(SPANNED)))
def test_damaged_databases_are_read_or_refused(junk: bytes, at: int) -> None:
    with contextlib.suppress(ValueError):
        found = ldm_database.parse_database(SPANNED[:at] + junk + SPANNED[at + len(junk) :])
        assert isinstance(found, LdmDatabase)
        for item in found.volumes:
            with contextlib.suppress(ValueError):
                ldm.table(item, ldm.choose(item, PRESENT)[0], PRESENT, lambda disk: disk.path)


def test_only_disks_that_windows_marked_so_are_looked_into() -> None:
    disk = BlockDevice("/dev/sda", 1 << 20, disk=0, probe={"PTTYPE": "dos"})
    first = bytearray(512)
    assert ldm_database.header_offset(disk, [], lambda: bytes(first)) is None
    first[446 + 16 + 4] = 0x42
    assert ldm_database.header_offset(disk, [], lambda: bytes(first)) == 6 * 512
    disk.probe["PTTYPE"] = "gpt"
    kinds = {"PART_ENTRY_TYPE": ldm_database.METADATA_PARTITION}
    partition = BlockDevice("/dev/sda1", 1 << 20, 0, 1, 17408, probe=kinds)
    assert ldm_database.header_offset(disk, [partition], lambda: b"") == 17408 + (1 << 20) - 512


def test_pieces_hold_nothing_of_their_own() -> None:
    disk = BlockDevice("/dev/sda", 1 << 20, disk=0, probe={"PTTYPE": "dos"})
    entry = {"PART_ENTRY_NUMBER": "1"}
    part = BlockDevice(
        "/dev/sda1", 512, 0, 1, 512, members=("/dev/sda",), probe={"TYPE": "ntfs", **entry}
    )
    ldm.hide_pieces([GroupMember(disk, member(1).header)], [disk, part])
    assert part.probe == entry
