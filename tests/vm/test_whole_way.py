"""Real images through a real appliance, compared with what their builder and its tools say."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetscan.appliance.ground.schema import unescape
from tests.vm.commands import Inspected, Workplace, inspect
from tests.vm.expectations import Entry, Expected, Usage

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]

LINUX = {
    "debian12": ["fleet/debian12.qcow2"],
    "debian13": ["fleet/debian13.raw"],
    "rpm": ["fleet/rpm.qcow2"],
    "twodisk": ["fleet/twodisk/disk0.qcow2", "fleet/twodisk/disk1.qcow2"],
    "rpm-bdb": ["extra/rpm-bdb.raw"],
    "bare-ext4": ["extra/bare-ext4.raw"],
    "logical": ["extra/logical.raw"],
    "dirty-ext4": ["extra/dirty-ext4.raw"],
    "dirty-xfs": ["extra/dirty-xfs.raw"],
    "dirty-btrfs": ["extra/dirty-btrfs.raw"],
}
WITHOUT_SYSTEM = {
    "blank": ["fleet/blank.raw"],
    "truncated": ["fleet/truncated.qcow2"],
    "luks": ["extra/luks.raw"],
    "zero": ["extra/zero.raw"],
}
WINDOWS = {"windows10": ["extra/windows10.raw"]}
DISKS = LINUX | WITHOUT_SYSTEM | WINDOWS
DIRTY = [name for name in LINUX if name.startswith("dirty")]
WITH_PACKAGES = ["debian12", "debian13", "rpm", "rpm-bdb", "twodisk"]
WITH_USAGE = ["debian12", "debian13", "rpm", "twodisk", "bare-ext4", "logical"]

Inspect = Callable[[str], Inspected]


@pytest.fixture(scope="session")
def inspected(example_images: Path) -> Inspect:
    return lambda name: inspect(*(example_images / disk for disk in DISKS[name]))


@pytest.fixture(scope="session")
def expected(example_images: Path) -> Callable[[str], Expected]:
    def folder(name: str) -> Expected:
        first = example_images / DISKS[name][0]
        machine = first.parent if len(DISKS[name]) > 1 else first
        return Expected(machine.with_name(f"{machine.name}.expected"))

    return folder


Expect = Callable[[str], Expected]


def values(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


@pytest.mark.parametrize("name", LINUX)
def test_a_linux_machine_is_inspected_without_complaint(name: str, inspected: Inspect) -> None:
    found = inspected(name)
    assert found.status == 0, found.errors
    assert values(found.machine, "outcome", "error", "roots") == ("ok", None, 1)
    assert [row for row in found.rows("coverage") if row["status"] == "failed"] == []


@pytest.mark.parametrize("name", WITH_PACKAGES)
def test_packages_are_what_the_package_tool_reports(
    name: str, inspected: Inspect, expected: Expect
) -> None:
    found = sorted(
        (row["name"], row["version"], row["architecture"] or "(none)", row["status"])
        for row in inspected(name).rows("packages")
    )
    assert found == expected(name).packages()


@pytest.mark.parametrize("name", [name for name in DISKS if name not in ("truncated", "zero")])
def test_filesystems_are_what_blkid_reports(
    name: str, inspected: Inspect, expected: Expect
) -> None:
    rows = inspected(name).rows("filesystems")
    found = sorted((values(row, "type", "uuid", "label", "version") for row in rows), key=str)
    assert found == expected(name).filesystems()


@pytest.mark.parametrize("name", LINUX)
def test_mountpoints_are_what_the_builder_mounted(
    name: str, inspected: Inspect, expected: Expect
) -> None:
    filesystems = {row["device"]: row for row in inspected(name).rows("filesystems")}
    found = {
        row["path"]: (
            *values(filesystems[row["device"]], "type", "uuid", "label"),
            row["subvolume"],
        )
        for row in inspected(name).rows("mountpoints")
        if row["mounted"]
    }
    assert found == expected(name).mounts()


@pytest.mark.parametrize("name", LINUX | WINDOWS)
def test_files_are_what_find_reports(name: str, inspected: Inspect, expected: Expect) -> None:
    rows = inspected(name).rows("files")
    found = {unescape(row["path"]): as_entry(row) for row in rows}
    wanted = expected(name).files()
    assert len(rows) == len(found), "a path is listed twice"
    assert found.keys() == wanted.keys()
    different = {
        path: (found[path], wanted[path]) for path in wanted if found[path] != wanted[path]
    }
    assert different == {}


def as_entry(row: dict[str, Any]) -> Entry:
    directory = row["type"] == "directory"
    return Entry(
        type=row["type"],
        mode=row["mode"],
        uid=row["uid"],
        gid=row["gid"],
        size=None if directory else row["size"],
        modified=microseconds(row["modified"]),
        links=None if directory else row["links"],
        target=None if row["target"] is None else unescape(row["target"]),
    )


def microseconds(text: str) -> int:
    """Microseconds since 1970 of a time as the command line prints it.

    >>> microseconds("1970-01-01T00:00:01.5Z")
    1500000
    """
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (dt.datetime.fromisoformat(text) - epoch) // dt.timedelta(microseconds=1)


@pytest.mark.parametrize("name", WITH_USAGE)
def test_filesystem_usage_is_what_df_reports(
    name: str, inspected: Inspect, expected: Expect
) -> None:
    filesystems = {row["device"]: row for row in inspected(name).rows("filesystems")}
    mounts = [row for row in inspected(name).rows("mountpoints") if row["mounted"]]
    wanted = expected(name).usage()
    names = ("type", "size", "used", "available", "inodes", "inodes_used")
    for mount in mounts:
        found = Usage(*values(filesystems[mount["device"]], *names))
        if found.type.startswith("ext"):
            assert found == wanted[mount["path"]]
        else:  # xfs and btrfs set space aside while they can be written
            assert found.size == wanted[mount["path"]].size
            assert found.used == pytest.approx(wanted[mount["path"]].used, abs=64 << 20)


@pytest.mark.parametrize("name", DISKS)
def test_disk_files_stay_as_they_were(name: str, inspected: Inspect) -> None:
    found = inspected(name)
    assert found.after == found.before


@pytest.mark.parametrize("name", DISKS)
def test_an_inspection_leaves_nothing_behind(name: str, inspected: Inspect) -> None:
    assert inspected(name).leftovers == []


@pytest.mark.parametrize("name", DIRTY)
def test_a_dirty_journal_is_replayed_without_touching_the_image(
    name: str, inspected: Inspect
) -> None:
    found = inspected(name)
    journals = [row["journal"] for row in found.rows("filesystems") if row["mounted"]]
    paths = {row["path"] for row in found.rows("files")}
    assert journals == ["replayed"]
    assert {f"/srv/journal-{number}" for number in range(1, 6)} <= paths
    assert "/etc/hosts" not in paths, "its removal is in the journal"


def test_file_capabilities_are_what_getcap_reports(inspected: Inspect, expected: Expect) -> None:
    found = {
        row["path"]: row["capabilities"]
        for row in inspected("debian12").rows("files")
        if row["capabilities"]
    }
    lines = expected("debian12").text("capabilities").splitlines()
    assert found == dict(line.split(" ", 1) for line in lines)
    assert found


def test_selinux_labels_are_read(inspected: Inspect) -> None:
    kinds = {
        row["path"]: row["selinux"].removeprefix("system_u:object_r:").removesuffix(":s0")
        for row in inspected("rpm").rows("files")
    }
    special = {path: kind for path, kind in kinds.items() if kind != "default_t"}
    assert special == {
        "/etc/shadow": "shadow_t",
        "/etc/passwd": "passwd_file_t",
        "/usr/bin/bash": "shell_exec_t",
    }


def test_logical_partitions_are_what_sfdisk_reports(inspected: Inspect, expected: Expect) -> None:
    table = json.loads(expected("logical").text("partitions.json"))["partitiontable"]
    rows = inspected("logical").rows("partitions")
    assert [(row["start"], row["size"]) for row in rows if row["role"] != "extended"] == [
        (part["start"] * table["sectorsize"], part["size"] * table["sectorsize"])
        for part in table["partitions"]
        if part["type"] not in ("5", "f")
    ]
    assert [values(row, "number", "role", "type") for row in rows] == [
        (1, "primary", "0x0c"),
        (2, "extended", "0x05"),
        (5, "logical", "0x83"),
        (6, "logical", "0x83"),
        (7, "logical", "0x82"),
        (8, "logical", "0x83"),
    ]


def test_a_volume_group_across_two_disks_is_put_together(inspected: Inspect) -> None:
    found = inspected("twodisk")
    volumes = {row["name"]: row for row in found.rows("volumes")}
    both = {"/dev/sda1", "/dev/sdb1"}
    assert set(volumes["root"]["members"]) == set(volumes["srv"]["members"]) == both
    assert volumes["srv"]["layout"] == "striped"
    assert len(found.rows("disks")) == 2


def test_snapshots_are_listed_and_are_not_systems_of_their_own(inspected: Inspect) -> None:
    found = inspected("debian13")
    snapshots = {row["name"]: row["snapshot"] for row in found.rows("volumes")}
    assert snapshots == {"@rootfs": False, "@home": False, ".snapshots/1": True}
    assert len(found.rows("operating_systems")) == 1


@pytest.mark.parametrize(
    ("name", "distro", "major", "hostname", "package_format"),
    [
        ("debian12", "debian", 12, "debian12", "dpkg"),
        ("debian13", "debian", 13, "debian13", "dpkg"),
        ("rpm", "rocky", 9, None, "rpm"),
        ("twodisk", "debian", 12, "twodisk", "dpkg"),
    ],
)
def test_operating_systems_are_reported(
    name: str,
    distro: str,
    major: int,
    hostname: str | None,
    package_format: str,
    inspected: Inspect,
) -> None:
    (found,) = inspected(name).rows("operating_systems")
    names = ("distro", "version_major", "hostname", "package_format", "architecture")
    assert values(found, *names) == (distro, major, hostname, package_format, "x86_64")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("blank", "no operating system"),
        ("luks", "encrypted"),
        ("truncated", "truncated"),
        ("zero", "empty"),
    ],
)
def test_a_machine_without_a_readable_system_fails_and_says_why(
    name: str, words: str, inspected: Inspect
) -> None:
    found = inspected(name)
    assert found.status == 3
    assert found.machine["outcome"] == "failed"
    assert words in found.machine["error"]


@pytest.fixture(scope="module")
def scanned(example_images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A scan of the whole example fleet: where its facts are, and how it ended."""
    facts = tmp_path_factory.mktemp("scan") / "facts"
    with Workplace() as place:
        arguments = ("scan", str(example_images / "fleet"), "--facts", str(facts), "-P", "2")
        done = place.run(*arguments, "--output", "json")
        return {"facts": facts, "done": done, "leftovers": place.leftovers()}


def test_a_broken_machine_does_not_keep_the_fleet_from_completion(scanned: dict[str, Any]) -> None:
    summary = json.loads(scanned["done"].stdout)
    assert scanned["done"].returncode == 3
    assert summary["outcomes"] == {"ok": 4, "partial": 0, "failed": 2}
    assert {failure["machine_id"] for failure in summary["failures"]} == {
        "blank.raw",
        "truncated.qcow2",
    }
    assert scanned["leftovers"] == []


def test_facts_are_read_by_plain_duckdb_and_pandas(scanned: dict[str, Any]) -> None:
    import duckdb
    import pandas as pd

    pattern = f"{scanned['facts']}/operating_systems/**/*.parquet"
    query = "select distro, count(*) from read_parquet(?) group by 1 order by 1"
    assert duckdb.execute(query, [pattern]).fetchall() == [("debian", 3), ("rocky", 1)]
    frame = pd.read_parquet(scanned["facts"] / "packages")
    assert frame.groupby("machine_id").size()["rpm.qcow2"] == 34


def test_a_query_reads_the_run(scanned: dict[str, Any]) -> None:
    query = "select distro, count(*) as machines from operating_systems group by 1 order by 1"
    with Workplace() as place:
        done = place.run("query", query, "--facts", str(scanned["facts"]), "--output", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        {"distro": "debian", "machines": 3},
        {"distro": "rocky", "machines": 1},
    ]


def test_the_careless_machine_fails_rules_and_the_broken_one_passes_none(
    scanned: dict[str, Any],
) -> None:
    with Workplace() as place:
        done = place.run("check", "--facts", str(scanned["facts"]), "--output", "json")
    assert done.returncode == 2, done.stderr
    results = json.loads(done.stdout)["results"]
    states = {
        name: {row["state"] for row in results if row["machine_id"] == name}
        for name in ("debian12.qcow2", "truncated.qcow2", "blank.raw")
    }
    failed = {
        row["rule_id"]
        for row in results
        if row["machine_id"] == "debian12.qcow2" and row["state"] == "fail"
    }
    assert len(failed) >= 5
    assert "pass" not in states["truncated.qcow2"] | states["blank.raw"]


def test_the_report_is_one_file_that_names_every_machine(
    scanned: dict[str, Any], tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    with Workplace() as place:
        facts = str(scanned["facts"])
        # Two machines have no system that could be judged.
        assert place.run("check", "--facts", facts, "--fail-on", "none").returncode == 3
        done = place.run("report", "--facts", facts, "--html", str(report))
    assert done.returncode == 0, done.stderr
    text = report.read_text()
    machines = ["blank.raw", "debian12.qcow2", "debian13.raw", "rpm.qcow2", "truncated.qcow2"]
    assert [name for name in [*machines, "twodisk"] if name not in text] == []


def test_an_interrupted_scan_ends_its_vms_and_leaves_nothing_behind(
    example_images: Path, tmp_path: Path
) -> None:
    with Workplace() as place:
        source = str(example_images / "fleet")
        command = place.start("scan", source, "--facts", str(tmp_path / "facts"), "-P", "2")
        place.wait_for_vm()
        os.killpg(command.pid, signal.SIGINT)
        _, errors = command.communicate(timeout=60)
        assert command.returncode == 130, errors
        assert place.leftovers() == []


def test_a_killed_vm_costs_its_machine_alone(example_images: Path, inspected: Inspect) -> None:
    inspected("debian12")  # the template that clones begin from is there now
    with Workplace() as place:
        disk = example_images / DISKS["debian12"][0]
        command = place.start("inspect", "-a", str(disk), "--output", "json")
        for pid in place.wait_for_vm():
            os.kill(pid, signal.SIGKILL)
        output, errors = command.communicate(timeout=120)
        (machine,) = json.loads(output)["machines"]
        assert command.returncode == 3, errors
        assert machine["outcome"] in ("partial", "failed")
        assert machine["error"]
        assert place.leftovers() == []


def test_a_hanging_vm_costs_its_machine_the_deadline_at_most(
    example_images: Path, inspected: Inspect
) -> None:
    inspected("debian12")
    with Workplace() as place:
        disk = example_images / DISKS["debian12"][0]
        begun = time.monotonic()
        command = place.start("inspect", "-a", str(disk), "--deadline", "8", "--output", "json")
        for pid in place.wait_for_vm():
            os.kill(pid, signal.SIGSTOP)
        output, errors = command.communicate(timeout=120)
        (machine,) = json.loads(output)["machines"]
        assert command.returncode == 3, errors
        assert machine["outcome"] in ("partial", "failed")
        assert time.monotonic() - begun < 30
        assert place.leftovers() == []
