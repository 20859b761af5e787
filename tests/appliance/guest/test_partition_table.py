"""Partition tables as they are read here, against sfdisk's reading, and tables that mislead."""

from __future__ import annotations

import json
import struct
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance.guest import blkid, disks, partition_table, partitioning
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.partition_table import PartitionTable
from fleetscan.scanner.tables.partitions.collect import to_row

SIZE = 64 << 20
GPT = """label: gpt
unit: sectors
start=2048, size=4096, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI system"
start=8192, size=8192, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, attrs=LegacyBIOSBootable
"""
MBR = """label: dos
label-id: 0x1234abcd
unit: sectors
start=2048, size=4096, type=83, bootable
start=8192, size=65536, type=5
start=10240, size=2048, type=82
start=16384, size=2048, type=7
"""


def disk_of(path: Path, script: str, size: int = SIZE) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size)
    command = ["/usr/sbin/sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(path)]
    subprocess.run(command, input=script, text=True, check=True, timeout=60)
    return path


def damage(path: Path, *places: int) -> Path:
    with path.open("r+b") as stream:
        for place in places:
            stream.seek(place, 2 if place < 0 else 0)
            stream.write(b"damage" * 10)
    return path


def table_of(path: Path) -> PartitionTable:
    return disks.table(str(path), 512)


@pytest.mark.parametrize("script", [GPT, MBR])
def test_a_table_is_read_as_sfdisk_reads_it(tmp_path: Path, script: str) -> None:
    path = disk_of(tmp_path / "disk", script)
    shown = subprocess.run(["/usr/sbin/sfdisk", "--json", path], capture_output=True, check=True)
    expected = json.loads(shown.stdout)["partitiontable"]
    table = table_of(path)
    assert {"gpt": "gpt", "dos": "dos"}[expected["label"]] == table.scheme
    assert len(table.entries) == len(expected["partitions"])
    for entry, wanted in zip(table.entries, expected["partitions"], strict=True):
        assert wanted["node"] == f"{path}{entry.number}"
        assert (entry.start, entry.size) == (wanted["start"] * 512, wanted["size"] * 512)
        kind = entry.details["PART_ENTRY_TYPE"].removeprefix("0x")
        assert kind == wanted["type"].lower()
        if table.scheme == "gpt":
            assert entry.details["PART_ENTRY_UUID"] == wanted["uuid"].lower()
            assert entry.details.get("PART_ENTRY_NAME") == wanted.get("name")
    assert not table.slow
    assert not table.more


@pytest.mark.parametrize(
    ("places", "used", "damaged"),
    [
        ((), "primary", None),
        ((512,), "backup", "primary"),
        ((1024,), "backup", "primary"),  # its entries
        ((-512,), "primary", "backup"),
        ((512, -512), None, None),
    ],
)
def test_a_gpt_is_read_by_the_header_that_is_whole(
    tmp_path: Path, places: tuple[int, ...], used: str | None, damaged: str | None
) -> None:
    whole = table_of(disk_of(tmp_path / "disk", GPT))
    table = table_of(damage(tmp_path / "disk", *places))
    assert (table.used, table.damaged) == (used, damaged)
    assert table.entries == (whole.entries if used else [])


def test_a_gpt_that_no_mbr_protects_counts_for_nobody(tmp_path: Path) -> None:
    path = disk_of(tmp_path / "disk", GPT)
    with path.open("r+b") as stream:
        stream.seek(446)
        stream.write(bytes(64))
    assert table_of(path).scheme == "dos"
    assert table_of(path).entries == []


# -- Endless tables ----------------------------------------------------------------------------


def chained(path: Path, count: int, *, back: bool = False) -> Path:
    """A disk whose extended partition holds that many logical ones; or leads back to its start."""

    def record(entries: list[tuple[int, int, int]]) -> bytes:
        packed = [struct.pack("<B3xB3xII", 0, *entry) for entry in entries]
        return b"".join(packed).ljust(64, b"\0") + b"\x55\xaa"

    first = 64
    with path.open("wb") as stream:
        stream.truncate((first + 4 * count + 64) * 512)
        stream.seek(446)
        stream.write(record([(0x05, first, 4 * count + 32)]))
        for number in range(count):
            following = 0 if back and number == count - 1 else 4 * (number + 1)
            stream.seek((first + 4 * number) * 512 + 446)
            stream.write(record([(0x83, 1, 1), (0x05, following, 2)]))
    return path


@pytest.mark.timeout(30)
def test_a_chain_of_60000_logical_partitions_ends_within_seconds(tmp_path: Path) -> None:
    path = chained(tmp_path / "disk", 60_000)
    begun = time.monotonic()
    table = table_of(path)
    device = BlockDevice(str(path), path.stat().st_size)
    disks.probe([device])
    assert time.monotonic() - begun < 5
    assert table.slow
    assert table.more
    assert 256 <= len(table.entries) <= 301
    assert [entry.number for entry in table.entries[:3]] == [1, 5, 6]


@pytest.mark.timeout(30)
def test_a_chain_that_leads_back_ends(tmp_path: Path) -> None:
    table = table_of(chained(tmp_path / "disk", 20, back=True))
    assert not table.more
    assert len(table.entries) == 21


def test_a_usual_number_of_logical_partitions_is_left_to_libblkid(tmp_path: Path) -> None:
    path = chained(tmp_path / "disk", 60)
    assert not table_of(path).slow
    assert blkid.probe(str(path))["PTTYPE"] == "dos"
    assert "PTTYPE" not in blkid.probe(str(path), partitions=False)


@settings(max_examples=200, deadline=1000)
@given(st.binary(max_size=2048), st.sampled_from((512, 4096)))
def test_a_table_of_any_content_is_read_to_an_end(content: bytes, sector: int) -> None:
    data = content[:446].ljust(446, b"\0") + content[446:510].ljust(64, b"\0") + b"\x55\xaa"
    data += content[510:]
    partition_table.read(lambda at, length: data[at : at + length], len(data), sector)


# -- Together with what the kernel says --------------------------------------------------------


def partitions(
    monkeypatch: pytest.MonkeyPatch, path: Path, size: int, *numbers: int
) -> partitioning.Partitioning:
    """The partitions of a disk that is cut to a size, of which the kernel knows some."""
    disk = BlockDevice(str(path), size, disk=0)
    entries = {entry.number: entry for entry in table_of(path).entries}
    known = [
        BlockDevice(
            f"{path}{number}",
            min(entries[number].size, size - entries[number].start),
            disk=0,
            partition=number,
            start=entries[number].start,
            members=(str(path),),
        )
        for number in numbers
    ]
    monkeypatch.setattr(disks, "partitions", lambda *_: known)
    found = partitioning.Partitioning([disk])
    found.complete()
    return found


def test_partitions_behind_the_end_of_a_disk_keep_what_their_table_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = disk_of(tmp_path / "disk", MBR)
    found = partitions(monkeypatch, path, 12_000 * 512, 1, 2, 5)
    rows = {row.number: row for row in map(to_row, (*found.partitions, *found.beyond))}
    assert {number: row.type for number, row in rows.items()} == {
        1: "0x83",
        2: "0x05",
        5: "0x82",
        6: "0x07",
    }
    assert rows[5].size == 2048 * 512
    assert (rows[6].role, rows[6].start, rows[6].scheme) == ("logical", 16384 * 512, "mbr")
    assert found.warnings == [
        f"{path}2 ends beyond the end of {path}",
        f"{path}5 ends beyond the end of {path}",
        f"{path}6 begins beyond the end of {path}",
    ]


def test_partitions_say_which_header_they_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = damage(disk_of(tmp_path / "disk", GPT), 512)
    found = partitions(monkeypatch, path, SIZE, 1, 2)
    rows = [to_row(device) for device in found.partitions]
    assert [(row.gpt_header, row.gpt_damaged) for row in rows] == [("backup", "primary")] * 2
    assert [row.name for row in rows] == ["EFI system", None]
    assert [row.bootable for row in rows] == [False, True]
    assert found.warnings == []
