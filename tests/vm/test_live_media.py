"""Live media: an ISO whose system lies in a SquashFS, one whose SquashFS is damaged, and one layer.

All are disks of one machine.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.vm.commands import Inspected, inspect
from tests.vm.machines import image_of, small_system

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]


def run(*command: str | Path) -> None:
    """Run a program that makes an image; where it is missing, say what to install."""
    try:
        subprocess.run(command, check=True, timeout=120, capture_output=True)
    except FileNotFoundError:
        pytest.fail(f"{command[0]} is missing: apt-get install squashfs-tools xorriso")


def squashed(tree: Path, image: Path) -> Path:
    image.parent.mkdir(parents=True, exist_ok=True)
    run("mksquashfs", tree, image, "-quiet", "-no-progress", "-comp", "xz")
    return image


def medium(tree: Path, iso: Path) -> Path:
    (tree / ".disk").mkdir(exist_ok=True)
    info = 'Debian GNU/Linux 13.0.0 "Trixie" - Official amd64 LIVE 20250809-08:00\n'
    (tree / ".disk/info").write_text(info)
    run("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", iso, tree)
    return iso


def debian(folder: Path) -> Path:
    squashed(small_system(folder / "system"), folder / "tree/live/filesystem.squashfs")
    return medium(folder / "tree", folder / "debian.iso")


def fedora(folder: Path) -> Path:
    """A system in an ext4 in a SquashFS."""
    (folder / "inner/LiveOS").mkdir(parents=True)
    image_of(small_system(folder / "system"), folder / "inner/LiveOS/rootfs.img")
    squashed(folder / "inner", folder / "tree/LiveOS/squashfs.img")
    return medium(folder / "tree", folder / "fedora.iso")


def incomplete(folder: Path) -> Path:
    """A SquashFS that is damaged, and one that is laid over another."""
    whole = squashed(small_system(folder / "system"), folder / "tree/casper/a.squashfs")
    whole.write_bytes(whole.read_bytes()[:100].ljust(8192, b"\0"))  # its tables are gone
    (folder / "layer/usr/share").mkdir(parents=True)
    squashed(folder / "layer", folder / "tree/casper/b.squashfs")
    return medium(folder / "tree", folder / "ubuntu.iso")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Inspected:
    folder = tmp_path_factory.mktemp("media")
    return inspect(debian(folder / "d"), fedora(folder / "f"), incomplete(folder / "u"))


def test_the_system_in_a_squashfs_is_a_root_beside_the_medium(machine: Inspected) -> None:
    roots = {row["root"]: row for row in machine.rows("operating_systems")}
    inner = "/dev/sda[/live/filesystem.squashfs]"
    nested = "/dev/sdb[/LiveOS/squashfs.img][/LiveOS/rootfs.img]"
    assert roots.keys() == {"/dev/sda", inner, "/dev/sdb", nested, "/dev/sdc"}
    assert (roots["/dev/sda"]["form"], roots[inner]["form"]) == ("live", "installed")
    for root in (inner, nested):
        packages = [row["name"] for row in machine.rows("packages") if row["root"] == root]
        assert packages == ["bash"]
    stacks = {row["device"]: row["stack"] for row in machine.rows("filesystems")}
    assert stacks[nested] == ["/dev/sdb[/LiveOS/squashfs.img]", "/dev/sdb"]


def test_what_of_a_medium_cannot_be_looked_at_is_said(machine: Inspected) -> None:
    assert machine.machine["outcome"] == "partial"
    assert "/dev/sdc[/casper/a.squashfs]" in machine.machine["error"]
    assert "/dev/sdc[/casper/b.squashfs]: not a system by itself" in machine.machine["error"]


def test_the_images_are_as_they_were(machine: Inspected) -> None:
    assert machine.before == machine.after
