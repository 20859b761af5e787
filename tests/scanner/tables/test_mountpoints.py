"""Mountpoints: rows straight from the mount table."""

from __future__ import annotations

from pathlib import Path

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
        ),
    ]
