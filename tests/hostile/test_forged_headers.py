"""Headers that a guest writes into its own raw disk to be shown a neighbour's (CVE-2010-3851)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight import DiskPolicy, examine, referred_files
from tests.disk_images import Content, archive, differencing

SIZE = 4 << 20
UNNAMED = ["disk.img", "disk.dd", "disk.iso", "disk.bin", "disk", "disk.qcow2.old", "disk.IMG"]


def qemu_img(*words: str, folder: Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, cwd=folder, stdout=subprocess.DEVNULL)


def qcow2(folder: Path) -> Path:
    qemu_img("create", "-q", "-f", "qcow2", "-b", "victim.raw", "-F", "raw", "x", folder=folder)
    return folder / "x"


def qcow2_without_format(folder: Path) -> Path:
    path = qcow2(folder)
    path.write_bytes(path.read_bytes().replace(b"\xe2\x79\x2a\xca", b"\x12\x34\x56\x78"))
    return path


def vmdk_overlay(folder: Path) -> Path:
    qemu_img("convert", "-O", "vmdk", "victim.raw", "victim.vmdk", folder=folder)
    qemu_img("create", "-q", "-f", "vmdk", "-b", "victim.vmdk", "-F", "vmdk", "x", folder=folder)
    return folder / "x"


def vmdk_descriptor(folder: Path) -> Path:
    text = f'# Disk DescriptorFile\nversion=1\nRW {SIZE // 512} FLAT "victim.raw" 0\n'
    (folder / "x").write_text(text)
    return folder / "x"


def _differencing(folder: Path, suffix: str, driver: str) -> Path:
    parent, child = folder / f"victim.{suffix}", folder / f"child.{suffix}"
    qemu_img("convert", "-O", driver, "victim.raw", parent.name, folder=folder)
    differencing(child, Content(b"x" * 512 + bytes(SIZE - 512), bytes(SIZE)), parent)
    return child


FORGERIES: dict[str, Callable[[Path], Path]] = {
    "qcow2": qcow2,
    "qcow2 without a backing format": qcow2_without_format,
    "vmdk overlay": vmdk_overlay,
    "vmdk descriptor": vmdk_descriptor,
    "vhd": lambda folder: _differencing(folder, "vhd", "vpc"),
    "vhdx": lambda folder: _differencing(folder, "vhdx", "vhdx"),
    "vdi": lambda folder: _differencing(folder, "vdi", "vdi"),
}


def refusal(disk: Disk, policy: DiskPolicy | None = None) -> PreflightError:
    with pytest.raises(PreflightError) as caught:
        examine(disk, policy or DiskPolicy())
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "victim.raw").write_bytes(os.urandom(SIZE))
    return tmp_path


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
class TestAHeaderThatNamesAnotherFile:
    def test_is_not_believed_where_nothing_else_states_the_format(
        self, folder: Path, forge: Callable[[Path], Path]
    ) -> None:
        made = forge(folder)
        for name in UNNAMED:
            path = made.rename(folder / name)
            error = refusal(Disk(str(path)))
            assert "refers to another file" in str(error)
            assert "state its format" in error.hint
            assert referred_files(Disk(str(path))) == ()
            made = path

    def test_changes_nothing_where_raw_is_stated(
        self, folder: Path, forge: Callable[[Path], Path]
    ) -> None:
        disk = Disk(str(forge(folder).rename(folder / "disk.img")), "raw")
        plan = examine(disk, DiskPolicy())
        assert [layer.format for layer in plan.layers] == ["raw"]
        assert plan.format_certain
        assert (plan.extent_files, referred_files(disk)) == ((), ())

    def test_is_believed_where_its_format_is_stated(
        self, folder: Path, forge: Callable[[Path], Path], request: pytest.FixtureRequest
    ) -> None:
        stated = request.node.callspec.id.partition(" ")[0]
        path = forge(folder)
        plan = examine(Disk(str(path), stated), DiskPolicy())
        assert plan.format_certain
        (named,) = {*plan.backing_chain, *plan.extent_files}
        assert Path(named).stem == "victim"
        assert referred_files(Disk(str(path), stated)) == (named,)

    def test_is_not_followed_from_a_backing_file_of_unstated_format(
        self, folder: Path, forge: Callable[[Path], Path]
    ) -> None:
        forge(folder).rename(folder / "base.img")
        top = folder / "top.qcow2"
        create = ("create", "-q", "-u", "-f", "qcow2", "-b", "base.img", "-F", "raw")
        qemu_img(*create, top.name, str(SIZE), folder=folder)
        assert examine(Disk(str(top)), DiskPolicy()).layers[-1].format == "raw"
        top.write_bytes(top.read_bytes().replace(b"\xe2\x79\x2a\xca", b"\x12\x34\x56\x78"))
        assert "refers to another file" in str(refusal(Disk(str(top))))

    def test_is_not_followed_from_a_disk_in_an_archive(
        self, folder: Path, forge: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder)
        path = forge(folder).rename(folder / "disk.img")
        path.write_bytes(path.read_bytes().ljust(-(-path.stat().st_size // 512) * 512, b"\n"))
        held = archive(folder / "a.ova", [Path("disk.img")])
        assert "refers to another file" in str(refusal(Disk(str(held), member="disk.img")))


@pytest.mark.parametrize("forge", [vmdk_overlay, vmdk_descriptor])
@pytest.mark.parametrize("name", ["vm-flat.vmdk", "vm-f001.vmdk", "VM-FLAT.VMDK", "vm-rdmp.vmdk"])
def test_a_flat_extents_first_sector_is_its_guests_whatever_its_suffix(
    folder: Path, forge: Callable[[Path], Path], name: str
) -> None:
    path = forge(folder).rename(folder / name)
    assert "refers to another file" in str(refusal(Disk(str(path))))
    assert referred_files(Disk(str(path))) == ()


def test_an_external_data_file_is_refused_without_advice_that_would_open_it(folder: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-o", "data_file=victim.raw", "x", "1M", folder=folder)
    error = refusal(Disk(str((folder / "x").rename(folder / "disk.img"))))
    assert "external file" in str(error)
    assert "convert" not in error.hint
    assert "raw" in error.hint


def test_an_image_that_names_no_other_file_speaks_for_itself(folder: Path) -> None:
    qemu_img("convert", "-O", "qcow2", "victim.raw", "disk.img", folder=folder)
    plan = examine(Disk(str(folder / "disk.img")), DiskPolicy())
    assert (plan.layers[0].format, plan.format_certain) == ("qcow2", False)


@pytest.mark.parametrize("suffix", ["qcow2", "QCOW2", "qcow"])
def test_a_name_and_a_header_that_agree_make_a_format_certain(folder: Path, suffix: str) -> None:
    path = qcow2(folder).rename(folder / f"disk.{suffix}")
    plan = examine(Disk(str(path)), DiskPolicy())
    assert (len(plan.layers), plan.format_certain) == (2, True)


@pytest.mark.parametrize(("name", "certain"), [("disk.raw", True), ("disk.img", False)])
def test_a_disk_without_a_header_is_raw_for_certain_if_its_name_says_so(
    folder: Path, name: str, certain: bool
) -> None:
    (folder / "victim.raw").rename(folder / name)
    assert examine(Disk(str(folder / name)), DiskPolicy()).format_certain is certain
