"""Systems that Debian cannot build here, as small trees on one machine of several disks.

The trees are those of the tables' cases, so that what a collector gives on the host is what the
whole way through a VM gives.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.scanner.tables.run_case import REPOSITORY, lay_out
from tests.vm.commands import Inspected, inspect
from tests.vm.machines import image_of

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

CASES = REPOSITORY / "scanner" / "tables"
SYSTEMS = {
    "alpine": ("operating_systems/cases/alpine", "packages/cases/apk"),
    "arch": ("operating_systems/cases/arch", "packages/cases/pacman"),
    "freebsd": ("operating_systems/cases/freebsd", "packages/cases/freebsd-pkg"),
    "ostree": (),
    "void": ("operating_systems/cases/void", "packages/cases/xbps", "packages/cases/python"),
}
SPLIT = ("operating_systems/cases/arch", "packages/cases/pacman", "packages/cases/ruby")
"""A system whose /usr and /var are on disks of their own, the last two."""

TREE = "0" * 64 + ".0"


def build(folder: Path, cases: Sequence[str]) -> Path:
    """A tree with what several cases have."""
    top = folder / "root"
    top.mkdir(parents=True)
    for number, case in enumerate(cases):
        (folder / str(number)).mkdir()
        tree = lay_out(CASES / case, folder / str(number))
        shutil.copytree(tree, top, symlinks=True, dirs_exist_ok=True)
    return top


def deploy(top: Path) -> None:
    """A Fedora CoreOS as ostree lays it out, a snap in the /var that its deployments share."""
    system = top / "ostree/deploy/fcos"
    tree = system / "deploy" / TREE
    for name in ("etc", "usr/lib", "var", "sysroot"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/hostname").write_text("core\n")
    (tree / "usr/lib/os-release").write_text("ID=fedora\nVERSION_ID=39\nVARIANT_ID=coreos\n")
    state = {"data": {"snaps": {"core22": {"current": "1033", "type": "base"}}}}
    (system / "var/lib/snapd").mkdir(parents=True)
    (system / "var/lib/snapd/state.json").write_text(json.dumps(state))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Inspected:
    folder = tmp_path_factory.mktemp("families")
    disks = []
    for name, cases in SYSTEMS.items():
        top = build(folder / name, cases)
        if not cases:
            deploy(top)
        disks.append(image_of(top, folder / f"{name}.raw"))
    return inspect(*disks, *split(folder))


def split(folder: Path) -> list[Path]:
    """Images of a system and of what its fstab mounts."""
    top = build(folder / "split", SPLIT)
    (top / "etc/fstab").write_text(
        "/dev/sdf / ext4 ro 0 1\n/dev/sdg /usr ext4 ro 0 2\n/dev/sdh /var ext4 ro 0 2\n"
    )
    images = []
    for name in ("usr", "var"):
        (top / name).rename(folder / name)
        (top / name).mkdir()
        images.append(image_of(folder / name, folder / f"split-{name}.raw"))
    return [image_of(top, folder / "split.raw"), *images]


def test_every_system_of_a_machine_is_found_and_told(machine: Inspected) -> None:
    rows = machine.rows("operating_systems")
    names = ("root", "family", "distro", "version", "hostname", "package_manager")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("/dev/sda", "linux", "alpine", "3.19.1", "alp", "apk"),
        ("/dev/sdb", "linux", "arch", None, "archie", "pacman"),
        ("/dev/sdc", "freebsd", "freebsd", "13.2", "fbsd.example.org", "pkg"),
        (f"/dev/sdd[/ostree/deploy/fcos/deploy/{TREE}]", "linux", "fedora", "39", "core", None),
        ("/dev/sde", "linux", "void", None, "void", "xbps"),
        ("/dev/sdf", "linux", "arch", None, "archie", "pacman"),
    ]
    assert machine.before == machine.after


def test_disks_are_named_in_the_order_of_the_machine(machine: Inspected) -> None:
    names = [row["device"] for row in machine.rows("disks")]
    assert names == [f"/dev/sd{letter}" for letter in "abcdefgh"]


def test_a_deployment_has_the_var_of_all_deployments(machine: Inspected) -> None:
    rows = [row for row in machine.rows("mountpoints") if row["root"].startswith("/dev/sdd")]
    assert [(row["path"], row["device"], row["mounted"]) for row in rows] == [
        ("/", "/dev/sdd", True),
        ("/var", "/dev/sdd", True),
    ]


def test_packages_of_each_are_what_its_case_says(machine: Inspected) -> None:
    found = {
        (row["root"].partition("[")[0], row["manager"], row["name"], row["version"])
        for row in machine.rows("packages")
    }
    expected = {("/dev/sdd", "snap", "core22", "")}
    for letter, cases in zip("abcdef", [*SYSTEMS.values(), SPLIT], strict=True):
        for case in cases:
            lines = (CASES / case / "expected.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines if '"purl"' in line]
            expected |= {
                (f"/dev/sd{letter}", row["manager"], row["name"], row["version"]) for row in rows
            }
    assert found == expected


def test_damage_in_one_system_is_told_of_it_alone(machine: Inspected) -> None:
    failed = {
        row["root"]: row["error"]
        for row in machine.rows("coverage")
        if row["table_name"] == "packages" and row["status"] == "failed"
    }
    assert list(failed) == ["/dev/sde", "/dev/sdf"]
    assert "broken-1.0.dist-info" in failed["/dev/sde"]
