from __future__ import annotations

import contextlib
import gzip
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import DiskPolicy, examine
from fleetscan.scanner.preflight.image import Read
from fleetscan.scanner.preflight.ova_members import ArchiveMember, find_member, members
from fleetscan.scanner.sources import find_machines
from tests.disk_images import archive

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def reader(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length]


def listed(data: bytes) -> list[ArchiveMember]:
    return list(members(reader(data), len(data)))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk1.img"
    path.write_bytes(b"disk" * 300)
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("sound")
    (folder / "disk1.img").write_bytes(b"disk" * 300)
    return archive(folder / "a.ova", [folder / "disk1.img"]).read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_members_are_where_tarfile_finds_them(name: str, disk: Path, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.ova", [disk], FORMATS[name])
    with tarfile.open(path) as tar:
        wanted = [
            ArchiveMember(item.name, item.offset_data, item.size) for item in tar.getmembers()
        ]
    assert listed(path.read_bytes()) == wanted


def test_large_and_long_members_are_read_from_extended_headers(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x" * 200 + "/disk.vmdk")
    info.size = 9 << 30  # more than eleven octal digits say
    header = info.tobuf(tarfile.PAX_FORMAT)
    (member,) = members(reader(header), len(header) + info.size)
    assert (member.name, member.start, member.length) == (info.name, len(header), info.size)
    info.name = "disk.vmdk"
    data = info.tobuf(tarfile.GNU_FORMAT)  # the number in binary
    assert find_member(reader(data), len(data) + info.size, "disk.vmdk") == (512, info.size)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_what_is_no_file_is_no_member(kind: bytes) -> None:
    info = tarfile.TarInfo("disk.vmdk")
    info.type, info.linkname = kind, "/etc/shadow"
    data = info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)
    assert listed(data) == []


def test_an_archive_cut_short_is_truncated(sound: bytes) -> None:
    with pytest.raises(PreflightError, match="truncated"):
        listed(sound[:2000])


def test_an_archive_of_thousands_of_members_is_refused() -> None:
    with pytest.raises(PreflightError, match="more than 1000 members"):
        listed(tarfile.TarInfo("a").tobuf() * 1001)


@settings(max_examples=300)
@given(data=st.data())
def test_mutated_archives_are_read_or_refused(sound: bytes, data: st.DataObject) -> None:
    image = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, 1600))
        image[place : place + 1] = data.draw(st.binary(min_size=1, max_size=1))
    for start in (0, 1024):  # make the checksum right, so that the rest is looked at
        header = bytes(image[start : start + 512])
        total = sum(header[:148]) + sum(b" " * 8) + sum(header[156:])
        image[start + 148 : start + 156] = b"%06o\0 " % total
    with contextlib.suppress(PreflightError):
        for member in members(reader(bytes(image)), len(image)):
            assert 0 <= member.start <= member.start + member.length <= len(image)


def test_a_folder_has_an_archive_as_one_machine_of_its_disks(disk: Path, tmp_path: Path) -> None:
    second = disk.with_name("disk0.raw")
    second.write_bytes(bytes(512))
    discs = disk.with_name("tools.iso")
    discs.write_bytes(bytes(512))
    (tmp_path / "fleet").mkdir()
    path = archive(tmp_path / "fleet" / "web.ova", [disk, second, discs])
    (machine,) = find_machines([str(tmp_path / "fleet")])
    assert machine.machine_id == "web.ova"
    assert machine.disks == tuple(
        Disk(str(path), member=name) for name in ("disk1.img", "disk0.raw")
    )


@pytest.mark.parametrize("name", ["disk2.vmdk.gz", "disk2.vmdk.000000001"])
def test_an_archive_with_disks_that_cannot_be_read_in_place_failed(
    name: str, disk: Path, tmp_path: Path
) -> None:
    disk.with_name(name).write_bytes(bytes(512))
    archive(tmp_path / "web.ova", [disk, disk.with_name(name)])
    (machine,) = find_machines([str(tmp_path / "web.ova")])
    assert "compressed or in pieces" in str(machine.error)


def test_an_archive_of_several_machines_failed(disk: Path, tmp_path: Path) -> None:
    text = "<Envelope><VirtualSystemCollection/></Envelope>"
    archive(tmp_path / "web.ova", [disk], descriptor=text)
    (machine,) = find_machines([str(tmp_path / "web.ova")])
    assert "several machines" in str(machine.error)


@pytest.mark.parametrize("content", [b"", b"junk" * 1000, bytes(10240)])
def test_a_broken_archive_is_a_machine_that_failed(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "web.ova").write_bytes(content)
    (machine,) = find_machines([str(tmp_path)])
    assert machine.error
    assert "web.ova" in machine.error


def test_a_compressed_archive_is_named_with_what_to_do(disk: Path, tmp_path: Path) -> None:
    held = archive(tmp_path / "b.ova", [disk])
    (tmp_path / "a.ova").write_bytes(gzip.compress(held.read_bytes()))
    (machine,) = find_machines([str(tmp_path / "a.ova")])
    assert "is gzip-compressed" in str(machine.error)
    assert "gunzip" in str(machine.error)


def test_inventories_may_name_archives(disk: Path, tmp_path: Path) -> None:
    archive(tmp_path / "web.ova", [disk])
    (tmp_path / "fleet.yaml").write_text("- id: web\n  disks: [web.ova]\n")
    (machine,) = find_machines([str(tmp_path / "fleet.yaml")])
    assert [found.member for found in machine.disks] == ["disk1.img"]


def refused(path: Path, member: str) -> str:
    with pytest.raises(PreflightError) as caught:
        examine(Disk(str(path), member=member), DiskPolicy())
    return str(caught.value)


def test_a_member_is_a_part_of_the_file(disk: Path, tmp_path: Path) -> None:
    disk.write_bytes(bytes(4096))
    path = archive(tmp_path / "a.ova", [disk])
    (layer,) = examine(Disk(str(path), member="disk1.img"), DiskPolicy()).layers
    start, length = find_member(reader(path.read_bytes()), path.stat().st_size, "disk1.img")
    assert (layer.path, layer.start, layer.length) == (str(path), start, length)
    assert "no such member" in refused(path, "other.img")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.vmdk",
            b'# Disk DescriptorFile\nRW 1 FLAT "/etc/shadow" 0\n'.ljust(512),
            "several files",
        ),
        ("a.img", bytes(1000), "length"),
        ("a.img", b"", "empty"),
    ],
)
def test_members_that_cannot_be_opened_in_place_are_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    path = archive(tmp_path / "x.ova", [tmp_path / name])
    assert message in refused(path, name)


def test_a_member_over_a_backing_file_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw"]
    subprocess.run([*command, str(image), "1M"], check=True)
    image.write_bytes(image.read_bytes().ljust(1 << 18, b"\0"))
    assert "needs another disk" in refused(archive(tmp_path / "x.ova", [image]), "a.qcow2")
