"""What libblkid says through its binding is what the program blkid says."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from pathlib import Path

import pytest

from fleetscan.appliance.guest import blkid, disks
from fleetscan.appliance.guest.disks import BlockDevice

MIB = 1 << 20
# Jump, name, then sector and cluster size, reserved sectors, FATs, root entries, sectors, medium,
# sectors a FAT, sectors a track, heads, hidden sectors; serial number, label and type.
FAT16_BOOT_SECTOR = (
    struct.pack(
        "<3s8sHBHBHHBHHHI4x",
        b"\xeb\x3c\x90",
        b"mkfs.fat",
        512,
        4,
        4,
        2,
        512,
        32768,
        0xF8,
        32,
        32,
        8,
        0,
    )
    + struct.pack("<BBBI11s8s", 0x80, 0, 0x29, 0x1234, b"NO NAME    ", b"FAT16   ")
).ljust(510, b"\0") + b"\x55\xaa"
ENVIRONMENT = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def run(*command: str, stdin: bytes = b"", check: bool = True) -> bytes:
    done = subprocess.run(command, input=stdin, env=ENVIRONMENT, capture_output=True, check=check)
    return done.stdout


def image(tmp_path: Path, *command: str) -> str:
    """A small disk image that a program has formatted."""
    path = tmp_path / "image"
    with path.open("wb") as stream:
        stream.truncate(16 * MIB)
    run(*command, str(path))
    return str(path)


def told_by_the_program(path: str) -> dict[str, str]:
    # Status 2 where it finds nothing.
    output = run("blkid", "-p", "-o", "export", path, check=False).decode()
    pairs = (line.partition("=")[::2] for line in output.splitlines() if "=" in line)
    fields = {name: re.sub(r"\\(.)", r"\1", value) for name, value in pairs}
    fields.pop("DEVNAME", None)
    return fields


@pytest.mark.parametrize(
    "command",
    [
        ("mkfs.ext4", "-q", "-L", 'a "b" \\c'),
        ("mkswap", "-L", "more of it"),
        ("truncate", "--size=16M"),
    ],
    ids=["ext4", "swap", "nothing"],
)
def test_it_says_what_the_program_says(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = image(tmp_path, *command)
    assert blkid.probe(path) == told_by_the_program(path)


def test_a_partition_table_is_told(tmp_path: Path) -> None:
    path = image(tmp_path, "truncate", "--size=16M")
    run("sfdisk", "-q", path, stdin=b"label: gpt\nsize=4M, name=first\n")
    assert blkid.probe(path)["PTTYPE"] == "gpt"
    assert blkid.probe(path) == told_by_the_program(path)


def test_contradicting_signatures_are_nothing(tmp_path: Path) -> None:
    path = image(tmp_path, "mkfs.ext4", "-q")
    assert blkid.probe(path)
    with Path(path).open("r+b") as stream:
        stream.write(FAT16_BOOT_SECTOR)
    assert blkid.probe(path) == told_by_the_program(path) == {}


def test_a_label_is_told_as_it_is(tmp_path: Path) -> None:
    assert blkid.probe(image(tmp_path, "mkswap", "-L", "Zürich"))["LABEL"] == "Zürich"


def test_a_device_that_cannot_be_read_costs_itself_alone(tmp_path: Path) -> None:
    good = BlockDevice(image(tmp_path, "mkfs.ext4", "-q"), 16 * MIB)
    gone = BlockDevice(str(tmp_path / "gone"), 0)
    with pytest.raises(FileNotFoundError):
        disks.probe([gone, good])
    assert good.probe["TYPE"] == "ext4"
    assert gone.probe == {}
