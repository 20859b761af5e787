"""A machine with many systems side by side, whole and damaged.

Windows and Debian on one disk, the latter's /boot apart; a Flatcar with its two /usr, as it is
after an update; and systems whose package databases end early, have grown, or would take more
memory than the appliance has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.scanner.tables.make_hives import make_hives
from tests.scanner.tables.run_case import REPOSITORY, lay_out
from tests.vm.commands import Inspected, inspect
from tests.vm.machines import image_of, small_system

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

CASES = REPOSITORY / "scanner" / "tables"
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Part:
    """A partition: an image and sfdisk's words for it."""

    image: Path
    words: str


def disk_of(parts: list[Part], disk: Path) -> Path:
    """A raw disk with a GUID partition table and these partitions."""
    sizes = [part.image.stat().st_size // MEBIBYTE for part in parts]
    lines = [f"size={size}MiB, {part.words}" for size, part in zip(sizes, parts, strict=True)]
    with disk.open("wb") as stream:
        stream.truncate((sum(sizes) + 2) * MEBIBYTE)
    command = ["/usr/sbin/sfdisk", "--quiet", "--label", "gpt", str(disk)]
    subprocess.run(command, input="\n".join(lines), text=True, check=True, timeout=60)
    with disk.open("r+b") as stream:
        place = 1
        for part, size in zip(parts, sizes, strict=True):
            stream.seek(place * MEBIBYTE)
            stream.write(part.image.read_bytes())
            place += size
    return disk


def windows(folder: Path) -> Path:
    """An NTFS image with a Windows."""
    tree = make_hives(lay_out(CASES / "operating_systems/cases/windows10", folder))
    image = folder / "windows.ntfs"
    with image.open("wb") as stream:
        stream.truncate(32 * MEBIBYTE)
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    command = ["mkntfs", "-q", "-F", "-f", "-s", "512", "-p", "2048", "-H", "255", "-S", "63"]
    subprocess.run([*command, str(image)], check=True, env=environment, timeout=60)
    mounted = folder / "mounted"
    mounted.mkdir()
    subprocess.run(["ntfs-3g", str(image), str(mounted)], check=True, env=environment)
    try:
        shutil.copytree(tree, mounted, dirs_exist_ok=True)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    return image


def dual_boot(folder: Path) -> Path:
    """Windows beside a Debian that has its /boot apart."""
    folder.mkdir()
    system = small_system(folder / "debian")
    (system / "etc/fstab").write_text("PARTLABEL=boot /boot ext4 ro 0 2\n")
    (system / "boot").mkdir()
    boot = folder / "boot"
    boot.mkdir()
    (boot / "vmlinuz-6.1.0-18-amd64").touch()
    parts = [
        Part(windows(folder), "type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"),
        Part(image_of(boot, folder / "boot.ext4", 8), 'name="boot"'),
        Part(image_of(system, folder / "debian.ext4"), 'name="root"'),
    ]
    return disk_of(parts, folder / "dual.raw")


def flatcar(folder: Path) -> Path:
    """A Flatcar that was updated: the /usr with the lower letter is the older one."""
    folder.mkdir()
    top = folder / "root"
    for name in ("etc", "usr", "home", "root", "var/lib"):
        (top / name).mkdir(parents=True)
    (top / "etc/os-release").symlink_to("../usr/lib/os-release")
    (top / "etc/hostname").write_text("flat\n")
    parts = []
    # Priority, tries and whether it started are the attributes from bit 48 on.
    for letter, version, attributes in (
        ("A", "3602.2.0", "GUID:48,56"),
        ("B", "3815.2.5", "GUID:49,56"),
    ):
        usr = folder / f"usr-{letter}"
        (usr / "lib").mkdir(parents=True)
        (usr / "lib/os-release").write_text(
            f"NAME=Flatcar\nID=flatcar\nID_LIKE=coreos\nVERSION={version}\nVERSION_ID={version}\n"
        )
        image = image_of(usr, folder / f"usr-{letter}.ext4", 8)
        parts.append(Part(image, f'name="USR-{letter}", attrs="{attributes}"'))
    parts.append(Part(image_of(top, folder / "root.ext4", 16), 'name="ROOT"'))
    return disk_of(parts, folder / "flatcar.raw")


def greedy(folder: Path) -> Path:
    """An image of a system whose list of snaps takes twenty times its length to be read."""
    tree = folder / "tree"
    for name in ("etc", "usr", "var/lib/snapd"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/os-release").write_text("ID=damaged-snap\n")
    nothing = ",".join(["[]"] * (5 * MEBIBYTE))
    (tree / "var/lib/snapd/state.json").write_text(f'{{"data": {{"snaps": [{nothing}]}}}}')
    return image_of(tree, folder / "greedy.raw", 48)


def damaged(folder: Path, case: str, path: str, *, keep: int, grown: int = 0) -> Path:
    """An image of a system whose package database ends early, or goes on with noise.

    Args:
        folder: to work in.
        case: of the packages table.
        path: of the database.
        keep: bytes of it that stay.
        grown: its length with the noise.
    """
    folder.mkdir()
    tree = lay_out(CASES / "packages/cases" / case, folder)
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc/os-release").write_text(f"ID=damaged-{case}\n")
    content = (tree / path).read_bytes()[:keep]
    noise = os.urandom(MEBIBYTE)
    with (tree / path).open("wb") as stream:
        stream.write(content)
        while stream.tell() < grown:
            stream.write(noise)
    return image_of(tree, folder / "damaged.raw", 32 + 2 * grown // MEBIBYTE)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Inspected:
    folder = tmp_path_factory.mktemp("several")
    return inspect(
        dual_boot(folder / "dual"),
        flatcar(folder / "flatcar"),
        damaged(folder / "ndb", "rpm-ndb", "usr/lib/sysimage/rpm/Packages.db", keep=9000),
        damaged(folder / "pkg", "freebsd-pkg", "var/db/pkg/local.sqlite", keep=4096),
        damaged(
            folder / "bdb", "rpm-bdb", "var/lib/rpm/Packages", keep=24576, grown=250 * MEBIBYTE
        ),
        damaged(folder / "apk", "apk", "lib/apk/db/installed", keep=500, grown=60 * MEBIBYTE),
        greedy(folder / "snap"),
    )


def test_every_system_is_found_with_what_it_mounts(machine: Inspected) -> None:
    rows = sorted(machine.rows("operating_systems"), key=lambda row: row["root"])
    assert [(row["root"], row["distro"], row["version"]) for row in rows] == [
        ("/dev/sda1", "windows", "10.0.22631.2893"),
        ("/dev/sda3", "debian", "13"),
        ("/dev/sdb3", "flatcar", "3815.2.5"),
        ("/dev/sdc", "damaged-rpm-ndb", None),
        ("/dev/sdd", "damaged-freebsd-pkg", None),
        ("/dev/sde", "damaged-rpm-bdb", None),
        ("/dev/sdf", "damaged-apk", None),
        ("/dev/sdg", "damaged-snap", None),
    ]
    assert rows[1]["kernels"] == ["6.1.0-18-amd64"]
    assert machine.before == machine.after
    mounts = {
        (row["root"], row["path"], row["device"], row["mounted"])
        for row in machine.rows("mountpoints")
    }
    assert {
        ("/dev/sda3", "/boot", "/dev/sda2", True),
        ("/dev/sdb3", "/", "/dev/sdb3", True),
        ("/dev/sdb3", "/usr", "/dev/sdb2", True),
    } <= mounts


def test_damaged_databases_give_what_is_left_and_a_failure(machine: Inspected) -> None:
    states = {
        row["root"]: (row["status"], row["rows"], row["error"] or "")
        for row in machine.rows("coverage")
        if row["table_name"] == "packages"
    }
    whole, rows, _ = states["/dev/sde"]
    assert (whole, rows) == ("ok", 3)  # what lies behind a database's last page is no part of it
    for letter, left, error in (
        ("c", 2, "1 of 3 packages unreadable"),
        ("d", 0, "ends before its last page"),
        ("f", 2, "contains NUL bytes"),
        ("g", 0, "MemoryError"),
    ):
        status, rows, told = states[f"/dev/sd{letter}"]
        assert (status, rows) == ("failed", left), told
        assert error in told


def test_a_damaged_system_costs_the_others_nothing(machine: Inspected) -> None:
    failed = {
        (row["root"], row["table_name"])
        for row in machine.rows("coverage")
        if row["status"] == "failed" and row["root"] != "/dev/sda1"  # its tree lacks hives
    }
    assert failed == {(f"/dev/sd{letter}", "packages") for letter in "cdfg"}
