"""Mount tables that cannot be carried out, and device nodes where files should be.

One machine of three disks, each with a system of its own: one whose fstab names what is not there,
one whose fstab, passwd and release file are device nodes, and one that is whole.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.vm.commands import Inspected, inspect
from tests.vm.machines import image_of, small_system

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

LACKING, NODES, WHOLE = "/dev/sda", "/dev/sdb", "/dev/sdc"
FSTAB = """\
UUID=2b0ff6b1-0000-4000-8000-000000000001 /srv ext4 defaults 0 2
UUID=2b0ff6b1-0000-4000-8000-000000000002 /backup ext4 nofail 0 2
nas:/export /mnt/share nfs defaults 0 0
tmpfs /tmp tmpfs defaults 0 0
/var/data /opt/data none bind 0 0
/gone /opt/gone none bind,nofail 0 0
"""


def lacking(folder: Path) -> Path:
    tree = small_system(folder)
    (tree / "etc/fstab").write_text(FSTAB)
    for path in ("srv/below", "backup/below", "mnt/share", "opt/data", "var/data"):
        (tree / path).mkdir(parents=True)
    (tree / "var/data/file").touch()
    return image_of(tree, folder.with_suffix(".raw"))


def with_nodes(folder: Path) -> Path:
    """A system three of whose files are devices: /dev/zero, which never ends, and disks."""
    tree = small_system(folder)
    for name in ("passwd", "os-release"):
        (tree / "etc" / name).unlink()
    (tree / "etc/redhat-release").write_text("Fedora release 40 (Forty)\n")
    image = image_of(tree, folder.with_suffix(".raw"))
    commands = "cd etc\nmknod os-release c 1 5\nmknod fstab b 8 0\nmknod passwd p\n"
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    debugfs = ["debugfs", "-w", "-f", "-", str(image)]
    subprocess.run(debugfs, input=commands, text=True, check=True, env=environment, timeout=60)
    return image


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Inspected:
    folder = tmp_path_factory.mktemp("mounts")
    whole = image_of(small_system(folder / "whole"), folder / "whole.raw")
    return inspect(lacking(folder / "lacking"), with_nodes(folder / "nodes"), whole)


def of(rows: list[dict[str, Any]], root: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["root"] == root]


def failed(machine: Inspected, root: str) -> dict[str, dict[str, Any]]:
    rows = of(machine.rows("coverage"), root)
    return {row["table_name"]: row for row in rows if row["status"] == "failed"}


def test_what_cannot_be_mounted_costs_what_lies_below_it(machine: Inspected) -> None:
    rows = failed(machine, LACKING)
    assert rows.keys() == {"files", "directory_usage"}
    message = "not mounted: /srv (no such device on this machine)"
    assert all(message in row["error"] for row in rows.values())
    assert rows["files"]["unread"] == ["/srv/"]
    assert set(rows["directory_usage"]["unread"]) == {"/srv/", "/srv", "/"}
    assert machine.machine["outcome"] == "partial"
    assert message in machine.machine["error"]


def test_every_entry_is_listed_with_what_became_of_it(machine: Inspected) -> None:
    found = {
        row["path"]: (row["mounted"], row["error"])
        for row in of(machine.rows("mountpoints"), LACKING)
    }
    gone = "no such device on this machine"
    assert found == {
        "/": (True, None),
        "/srv": (False, gone),
        "/backup": (False, gone),
        "/mnt/share": (False, "a network filesystem, which is not on the machine's disks"),
        "/tmp": (False, None),
        "/opt/data": (True, None),
        "/opt/gone": (False, "/gone cannot be mounted on /opt/gone: No such file or directory"),
    }
    paths = {row["path"] for row in of(machine.rows("files"), LACKING)}
    assert {"/opt/data/file", "/var/data/file", "/srv/below"} <= paths


def test_device_nodes_cost_the_files_that_they_stand_for(machine: Inspected) -> None:
    rows = failed(machine, NODES)
    assert "/etc/fstab" in rows["mountpoints"]["error"]
    assert "/etc/os-release" in rows["operating_systems"]["error"]
    assert "/etc/passwd" in rows["users"]["error"]
    assert {"groups", "services", "kernel_settings", "boot", "files"}.isdisjoint(rows)
    assert [row["name"] for row in of(machine.rows("packages"), NODES)] == ["bash"]
    assert not any("Errno" in row["error"] for row in rows.values())


def test_neighbours_on_the_machine_are_whole(machine: Inspected) -> None:
    assert failed(machine, WHOLE) == {}
    assert machine.before == machine.after
