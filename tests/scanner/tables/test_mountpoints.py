"""Mountpoints: rows straight from the mount table."""

from __future__ import annotations

from pathlib import Path

from fleetscan.appliance.ground.options import FactOptions
from fleetscan.appliance.guest.machine import DirectoryMachine
from fleetscan.appliance.guest.root import Mount, Root
from fleetscan.scanner.tables.mountpoints.collect import collect
from fleetscan.scanner.tables.mountpoints.spec import Mountpoint

VAR = Mount(
    path="/var",
    device="/dev/vg0/var",
    mounted=True,
    source="UUID=2f1c",
    type="ext4",
    options=("noexec", "nodev"),
    check_pass=2,
)
LOST = Mount(path="/data", device=None, mounted=False, source="LABEL=data", error="no such device")


def test_each_mount_of_the_root_is_a_row_in_its_order(tmp_path: Path) -> None:
    with Root("/dev/sda1", str(tmp_path), mounts=(VAR, LOST)) as root:
        rows = list(collect(root))
    assert rows == [
        Mountpoint(
            path="/var",
            device="/dev/vg0/var",
            source="UUID=2f1c",
            type="ext4",
            options=("noexec", "nodev"),
            subvolume=None,
            check_pass=2,
            mounted=True,
            error=None,
            effective_options=("nodev", "noexec"),
        ),
        Mountpoint(
            path="/data",
            device=None,
            source="LABEL=data",
            type=None,
            options=(),
            subvolume=None,
            check_pass=None,
            mounted=False,
            error="no such device",
            effective_options=(),
        ),
    ]


TMP_UNIT = """[Mount]
What=tmpfs
Where=/tmp/
Type=tmpfs
Options=mode=1777,strictatime,nosuid,nodev,size=50%%
"""


def _with_unit(top: Path, folder: str, text: str = TMP_UNIT) -> None:
    (top / folder / "local-fs.target.wants").mkdir(parents=True)
    (top / folder / "tmp.mount").write_text(text)
    (top / folder / "local-fs.target.wants/tmp.mount").symlink_to("../tmp.mount")


def _found(top: Path, *mounts: Mount) -> list[tuple[str, str | None, tuple[str, ...] | None]]:
    with Root("/dev/sda1", str(top), mounts=mounts) as root:
        return [(row.path, row.unit, row.effective_options) for row in collect(root)]


def test_a_mount_unit_that_is_pulled_in_is_a_row(tmp_path: Path) -> None:
    _with_unit(tmp_path, "usr/lib/systemd/system")
    unit = "/usr/lib/systemd/system/tmp.mount"
    assert _found(tmp_path) == [("/tmp", unit, ("nosuid", "nodev"))]


def test_drop_ins_change_a_mount_unit(tmp_path: Path) -> None:
    _with_unit(tmp_path, "usr/lib/systemd/system")
    (tmp_path / "etc/systemd/system/tmp.mount.d").mkdir(parents=True)
    drop_in = tmp_path / "etc/systemd/system/tmp.mount.d/hard.conf"
    drop_in.write_text("[Mount]\nOptions=nodev,nosuid,noexec\n")
    assert _found(tmp_path)[0][2] == ("nosuid", "nodev", "noexec")


def test_fstab_comes_before_units_of_packages_alone(tmp_path: Path) -> None:
    own = Mount("/tmp", None, False, "tmpfs", "tmpfs", ("noexec",))
    _with_unit(tmp_path, "usr/lib/systemd/system")
    assert _found(tmp_path, own) == [("/tmp", None, ("noexec",))]
    _with_unit(tmp_path, "etc/systemd/system")
    assert [path for path, *_ in _found(tmp_path, own)] == ["/tmp", "/tmp"]


def test_a_masked_unit_and_one_that_nothing_pulls_in_mount_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    (folder / "tmp.mount").write_text(TMP_UNIT)
    assert _found(tmp_path) == []
    _with_unit(tmp_path / "other", "usr/lib/systemd/system")
    (tmp_path / "other/etc/systemd/system").mkdir(parents=True)
    (tmp_path / "other/etc/systemd/system/tmp.mount").symlink_to("/dev/null")
    assert _found(tmp_path / "other") == []


def test_a_unit_that_mounts_a_disk_says_that_it_was_not_seen(tmp_path: Path) -> None:
    text = "[Mount]\nWhat=/dev/disk/by-label/data\nWhere=/tmp\nType=ext4\n"
    _with_unit(tmp_path, "etc/systemd/system", text)
    with Root("/dev/sda1", str(tmp_path)) as root:
        (row,) = collect(root)
    assert "a unit of systemd" in (row.error or "")


def test_a_directory_has_the_mounts_of_its_fstab(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/fstab").write_text("/dev/sda1 / ext4 ro 0 1\ntmpfs /tmp/ tmpfs noexec,exec\n")
    machine = DirectoryMachine(str(tmp_path))
    machine.discover((), FactOptions(), (), lambda _: None)
    with machine.roots[0] as root:
        rows = list(collect(root))
    assert [(row.path, row.mounted, row.effective_options) for row in rows] == [
        ("/", True, ("ro",)),
        ("/tmp", False, ()),
    ]
