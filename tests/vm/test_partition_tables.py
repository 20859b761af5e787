"""Partition tables that are damaged or endless, in one machine of two disks.

A GPT whose primary header was overwritten, around a whole system; and an MBR whose chain of logical
partitions goes on 60,000 times.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.appliance.guest.test_partition_table import chained, damage
from tests.vm.commands import Inspected, inspect
from tests.vm.machines import image_of, small_system

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

MEBIBYTE = 1 << 20


def without_primary(folder: Path) -> Path:
    """A disk with a system, and no GPT header but the backup."""
    system = image_of(small_system(folder), folder.with_suffix(".ext4"))
    disk = folder.with_suffix(".raw")
    with disk.open("wb") as stream:
        stream.truncate(40 * MEBIBYTE)
        stream.seek(MEBIBYTE)
        stream.write(system.read_bytes())
    script = "label: gpt\nsize=32MiB, type=linux, name=system\n"
    command = ["/usr/sbin/sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk)]
    subprocess.run(command, input=script, text=True, check=True, timeout=60)
    return damage(disk, 512)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Inspected:
    folder = tmp_path_factory.mktemp("tables")
    return inspect(without_primary(folder / "gpt"), chained(folder / "chain.raw", 60_000))


def test_a_gpt_without_its_primary_header_is_read_by_the_backup(machine: Inspected) -> None:
    (row,) = [row for row in machine.rows("partitions") if row["parent"] == "/dev/sda"]
    assert (row["device"], row["scheme"], row["name"]) == ("/dev/sda1", "gpt", "system")
    assert (row["gpt_header"], row["gpt_damaged"]) == ("backup", "primary")
    (system,) = machine.rows("operating_systems")
    assert (system["root"], system["distro"]) == ("/dev/sda1", "debian")


def test_a_chain_of_60000_partitions_ends_and_says_what_was_left_out(machine: Inspected) -> None:
    rows = [row for row in machine.rows("partitions") if row["parent"] == "/dev/sdb"]
    assert 200 < len(rows) <= 256
    assert {row["role"] for row in rows} == {"extended", "logical"}
    assert {row["type"] for row in rows if row["role"] == "logical"} == {"0x83"}
    assert machine.machine["outcome"] == "partial"
    assert "only the first" in machine.machine["error"]
    assert machine.machine["seconds_discover"] < 60


def test_the_images_are_as_they_were(machine: Inspected) -> None:
    assert machine.before == machine.after
    assert machine.leftovers == []
