"""Disks in containers are named for what they are; whatever is a disk as it stands is a disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import DiskPolicy, examine
from fleetscan.scanner.preflight.containers import refuse
from fleetscan.scanner.preflight.deciding import is_image_name

DISK = random.Random(3).randbytes(5000)  # noqa: S311 - any content


def zipped() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("disk.img", DISK)
    return held.getvalue()


def tarred(tar_format: int) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tar_format) as archive:
        member = tarfile.TarInfo("disk.img")
        member.size = len(DISK)
        archive.addfile(member, io.BytesIO(DISK))
    return held.getvalue()


def seven_zip() -> bytes:
    start = struct.pack("<QQI", 5000, 100, 7)
    return b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<I", zlib.crc32(start)) + start + DISK


def arrow(codec: Literal["zstd", "lz4"]) -> bytes:
    return bytes(pa.Codec(codec).compress(DISK))


def dmg(list_length: int = 500) -> bytes:
    trailer = struct.pack(">4sIII", b"koly", 4, 512, 1).ljust(216, b"\0")
    trailer += struct.pack(">QQ", 1000, list_length)
    return DISK + trailer.ljust(512, b"\0")


CONTAINERS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "gzip": (lambda: gzip.compress(DISK), "is gzip-compressed", "gunzip"),
    "xz": (lambda: lzma.compress(DISK), "is xz-compressed", "unxz"),
    "bzip2": (lambda: bz2.compress(DISK), "is bzip2-compressed", "bunzip2"),
    "empty bzip2": (lambda: bz2.compress(b"").ljust(512, b"\0"), "is bzip2-compressed", "bunzip2"),
    "zstd": (lambda: arrow("zstd"), "is zstd-compressed", "unzstd"),
    "lz4": (lambda: arrow("lz4"), "is LZ4-compressed", "unlz4"),
    "Z": (lambda: b"\x1f\x9d\x90" + DISK, "is compressed", "gunzip"),
    "lzop": (lambda: b"\x89LZO\0\r\n\x1a\n\x10\x30" + DISK, "is lzop-compressed", "lzop"),
    "lzip": (lambda: b"LZIP\x01\x0c" + DISK, "is lzip-compressed", "lzip"),
    "zip": (zipped, "is a zip archive", "unzip"),
    "7z": (seven_zip, "is a 7z archive", "7z x"),
    "rar 4": (lambda: b"Rar!\x1a\x07\0" + DISK, "is a RAR archive", "unrar"),
    "rar 5": (lambda: b"Rar!\x1a\x07\1\0" + DISK, "is a RAR archive", "unrar"),
    "tar": (lambda: tarred(tarfile.USTAR_FORMAT), "is a tar archive", "tar -xf"),
    "GNU tar": (lambda: tarred(tarfile.GNU_FORMAT), "is a tar archive", ".ova"),
    "pax": (lambda: tarred(tarfile.PAX_FORMAT), "is a tar archive", "tar -xf"),
    "E01": (lambda: b"EVF\t\r\n\xff\0\1\1\0\0\0" + DISK, "is an EnCase image (E01)", "ewfexport"),
    "Ex01": (lambda: b"EVF2\r\n\x81\0\2\1" + DISK, "is an EnCase image (Ex01)", "ewfexport"),
    "AFF": (lambda: b"AFF10\r\n\0AFF\0" + DISK, "is an AFF image", "affconvert"),
    "AD1": (lambda: b"ADSEGMENTEDFILE\0" + DISK, "is an AccessData image", "FTK"),
    "dmg": (dmg, "is an Apple disk image (dmg)", "dmg2img"),
    "encrypted dmg": (lambda: b"encrcdsa\0\0\0\2" + DISK, "is an encrypted Apple", "hdiutil"),
    "sparseimage": (lambda: b"sprs\0\0\0\3\0\0\x08\0" + DISK, "is an Apple sparse", "hdiutil"),
    "ASIF": (lambda: b"shdw\0\0\0\1\0\0\2\0" + DISK, "is an Apple sparse image (ASIF)", "hdiutil"),
    "Android": (
        lambda: struct.pack("<IHHHHIII", 0xED26FF3A, 1, 0, 28, 12, 4096, 9, 3) + DISK,
        "is an Android sparse image",
        "simg2img",
    ),
    "WIM": (lambda: b"MSWIM\0\0\0\xd0\0\0\0" + DISK, "is a Windows image (WIM)", "wimapply"),
    "partclone": (lambda: b"partclone-image\0" + DISK, "is a partclone image", "restore"),
    "Bochs": (lambda: b"Bochs Virtual HD Image" + DISK, "is a Bochs image", "-f bochs"),
}


def refusal(path: Path) -> PreflightError:
    with pytest.raises(PreflightError) as caught:
        examine(Disk(str(path)), DiskPolicy())
    return caught.value


@pytest.mark.parametrize(("make", "name", "todo"), CONTAINERS.values(), ids=CONTAINERS.keys())
class TestAContainer:
    @pytest.mark.parametrize("file", ["disk.img", "disk.raw", "disk.dmg", "disk", "disk.qcow2"])
    def test_is_named_with_what_to_do(
        self, tmp_path: Path, make: Callable[[], bytes], name: str, todo: str, file: str
    ) -> None:
        (tmp_path / file).write_bytes(make())
        error = refusal(tmp_path / file)
        assert name in str(error)
        assert todo in error.hint

    def test_is_raw_where_raw_is_stated(
        self, tmp_path: Path, make: Callable[[], bytes], name: str, todo: str
    ) -> None:
        (tmp_path / "a.img").write_bytes(make())
        assert examine(Disk(str(tmp_path / "a.img"), "raw"), DiskPolicy()).layers[0].format == "raw"

    @pytest.mark.parametrize("table", [(510, b"\x55\xaa"), (512, b"EFI PART"), (4096, b"EFI PART")])
    def test_is_a_disk_where_a_partition_table_says_so(
        self,
        tmp_path: Path,
        make: Callable[[], bytes],
        name: str,
        todo: str,
        table: tuple[int, bytes],
    ) -> None:
        place, mark = table
        content = bytearray(make().ljust(8192, b"\0"))
        content[place : place + len(mark)] = mark
        (tmp_path / "a.img").write_bytes(content)
        assert examine(Disk(str(tmp_path / "a.img")), DiskPolicy()).layers[0].format == "raw"


@pytest.mark.parametrize("command", [["mkfs.ext4", "-q"], ["mkswap", "-q"]], ids=" ".join)
def test_filesystems_without_a_partition_table_are_disks(
    tmp_path: Path, command: list[str]
) -> None:
    path = tmp_path / "a.img"
    path.touch()
    os.truncate(path, 8 << 20)
    subprocess.run([*command, path], check=True, stdout=subprocess.DEVNULL)
    assert examine(Disk(str(path)), DiskPolicy()).layers[0].format == "raw"


@pytest.mark.parametrize(
    "content", [b"LUKS\xba\xbe\0\2", b"XFSB", b"hsqs", b"\xeb\x58\x90MSDOS5.0", b""]
)
def test_what_raw_disks_begin_with_is_no_container(content: bytes) -> None:
    disk = content.ljust(8192, b"\0")
    refuse(lambda offset, length: disk[offset : offset + length], len(disk))


def test_an_apple_image_that_lists_no_blocks_is_the_disk_itself() -> None:
    disk = dmg(list_length=0)
    refuse(lambda offset, length: disk[offset : offset + length], len(disk))


@given(content=st.binary(max_size=600), magic=st.sampled_from(list(CONTAINERS)))
def test_any_content_is_a_disk_or_named(content: bytes, magic: str) -> None:
    disk = CONTAINERS[magic][0]()[:4] + content
    try:
        refuse(lambda offset, length: disk[offset : offset + length], len(disk))
    except PreflightError as error:
        assert error.hint  # noqa: PT017 - either is right


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("disk.img", True),
        ("disk.img.gz", True),
        ("web.qcow2.xz", True),
        ("vm.VMDK.ZST", True),
        ("fleetscan.appliance.ova.bz2", True),
        ("case.E01", True),
        ("case.E02", False),
        ("mac.dmg", True),
        ("mac.sparseimage", True),
        ("logs.tar.gz", False),
        ("backup.zip", False),
        ("notes.gz", False),
        ("disk", False),
        (".dmg", False),
        ("img.gz", False),
        ("a.iso.md5", False),
    ],
)
def test_which_files_of_a_folder_count_as_disks(name: str, counts: bool) -> None:
    assert is_image_name(name) is counts
