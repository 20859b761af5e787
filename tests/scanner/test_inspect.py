"""One machine's way from source to checked rows, with the real agent as a local process."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from fleetscan.appliance import accelerator, built, template
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.ground.schema import Origin, Scope
from fleetscan.scanner import isolation
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.inspect import inspect_directory, inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.scan_state import MachineSummary
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.arrow import arrow_schema
from fleetscan.scanner.store.staging import MemorySink
from fleetscan.scanner.tables import load_tables

OPTIONS = ScanOptions.of(deadline=60)
COVERED_TABLES = {
    name: table
    for name, table in load_tables().items()
    if table.origin is Origin.GUEST or table.scope is Scope.ROOT
}

Row = dict[str, Any]  # Any: a column's value

STATUS = """\
Package: bash
Status: install ok installed
Version: 5.2.37-2
Architecture: amd64
Maintainer: Somebody <somebody@example.org>
Description: a shell

Package: removed
Status: deinstall ok config-files
Version: 1-1
Architecture: all
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small Debian's tree."""
    files = {
        "etc/os-release": 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13"\n',
        "etc/hostname": "small\n",
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/bash\n",
        "etc/group": "root:x:0:\nwheel:x:10:me\n",
        "etc/fstab": "UUID=1-2 / ext4 defaults 0 1\n",
        "var/lib/dpkg/status": STATUS,
        "usr/lib/systemd/system/ssh.service": "[Unit]\nDescription=SSH\n[Service]\nType=simple\n",
        "home/me/caf\udce9": "x",
    }
    top = tmp_path / "tree"
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(content)
    (top / "bin").symlink_to("usr/bin")
    return top


class Inspected:
    """A directory's inspection."""

    def __init__(
        self, directory: Path, options: ScanOptions = OPTIONS, *, run_id: str = ""
    ) -> None:
        self.sink = MemorySink()
        self.summary: MachineSummary = inspect_directory(
            directory, options, self.sink, run_id=run_id
        )

    def rows(self, table: str) -> list[Row]:
        rows: list[Row] = self.sink.table(table).to_pylist()
        return rows

    def coverage(self) -> dict[str, Row]:
        return {row["table_name"]: row for row in self.rows("coverage")}


# -- A directory -----------------------------------------------------------------------------


def test_a_tree_becomes_rows_of_every_table_that_it_fills(tree: Path) -> None:
    found = Inspected(tree)
    assert (found.summary.outcome, found.summary.error) == ("ok", None)
    assert [row["distro"] for row in found.rows("operating_systems")] == ["debian"]
    assert [(row["name"], row["uid"]) for row in found.rows("users")] == [("root", 0), ("me", 1000)]
    assert [(row["name"], row["members"]) for row in found.rows("groups")] == [
        ("root", []),
        ("wheel", ["me"]),
    ]
    installed = [
        (row["name"], row["version"], row["architecture"]) for row in found.rows("packages")
    ]
    assert ("bash", "5.2.37-2", "amd64") in installed
    assert "ssh.service" in [row["name"] for row in found.rows("services")]


def test_files_are_those_of_the_tree_with_its_metadata(tree: Path) -> None:
    rows = {row["path"]: row for row in Inspected(tree).rows("files")}
    places = {"/": tree, **{f"/{path.relative_to(tree)}": path for path in tree.rglob("*")}}
    assert rows.keys() == {path.replace("\udce9", "\\xe9") for path in places}
    for path, place in places.items():
        status, row = place.lstat(), rows[path.replace("\udce9", "\\xe9")]
        assert row["mode"] == stat.S_IMODE(status.st_mode)
        assert (row["size"], row["inode"]) == (status.st_size, status.st_ino)
        assert row["links"] == status.st_nlink
    assert rows["/bin"]["target"] == "usr/bin"


def test_the_machines_row_says_how_it_went(tree: Path) -> None:
    found = Inspected(tree, run_id="run-1")
    (row,) = found.rows("machines")
    assert row["machine_id"] == row["source"] == found.summary.machine_id == str(tree)
    assert (row["outcome"], row["error"], row["error_kind"], row["stage"]) == ("ok",) + (None,) * 3
    assert (row["disks"], row["roots"], row["attempts"]) == (0, 1, 1)
    assert (row["accelerator"], row["appliance"], row["identity"]) == ("none", None, None)
    assert row["facts_run"] == "run-1"
    assert 0 < row["seconds_discover"] + row["seconds_collect"] <= row["seconds"]


def test_coverage_tells_every_table_of_a_guest_and_its_rows(tree: Path) -> None:
    found = Inspected(tree)
    coverage = found.coverage()
    assert coverage.keys() == COVERED_TABLES.keys()
    for name, row in coverage.items():
        assert row["rows"] == len(found.rows(name))
        assert row["root"] == (None if COVERED_TABLES[name].scope is Scope.MACHINE else "/")
        assert (row["status"] == "ok") == (row["rows"] > 0)
        assert (row["error"] is None) == (row["status"] in ("ok", "empty"))
    assert coverage["partitions"]["status"] == "not_applicable"
    assert coverage["partitions"]["error"] == "a directory has no block devices"


def test_every_table_has_the_schema_that_the_store_wants(tree: Path) -> None:
    for name, rows in Inspected(tree).sink.tables().items():
        assert rows.schema.equals(arrow_schema(load_tables()[name]))
        assert set(rows.column("machine_id").to_pylist()) == {str(tree)}


@pytest.mark.parametrize("mode", ["notable", "none"])
def test_files_may_be_few_or_left_out(tree: Path, mode: Any) -> None:
    found = Inspected(tree, ScanOptions.of(deadline=60, files=mode))
    paths = {row["path"] for row in found.rows("files")}
    assert found.summary.outcome == "ok"
    assert ("/etc/passwd" in paths) is (mode == "notable")
    assert "/usr/lib/systemd/system" not in paths or os.getuid() != 0
    assert found.coverage()["files"]["status"] == ("ok" if mode == "notable" else "not_applicable")


def test_a_table_that_cannot_be_read_costs_itself_alone(tree: Path) -> None:
    (tree / "etc/group").unlink()
    (tree / "etc/group").mkdir()
    found = Inspected(tree, ScanOptions.of(deadline=60, files="none"))
    (row,) = found.rows("machines")
    assert (row["outcome"], row["error_kind"]) == ("partial", "IncompleteFacts")
    assert row["error"].startswith("incomplete: groups (IsADirectoryError: ")
    assert found.coverage()["groups"]["status"] == "failed"
    assert found.coverage()["users"]["status"] == "ok"


def test_coverage_names_the_files_that_are_all_that_lacks(tree: Path) -> None:
    (tree / "etc/pam.d").mkdir()
    (tree / "etc/pam.d/caf\udce9").write_text("auth\n")
    (tree / "var/lib/dpkg/status").write_text("no paragraph")
    found = Inspected(tree, ScanOptions.of(deadline=60, files="none")).coverage()
    assert (found["config"]["status"], found["config"]["unread"]) == (
        "failed",
        ["/etc/pam.d/caf\\xe9"],
    )
    assert found["config"]["error"].startswith("UnreadError: /etc/pam.d/caf")
    assert (found["packages"]["status"], found["packages"]["unread"]) == ("failed", None)
    assert (found["users"]["status"], found["users"]["unread"]) == ("ok", None)


def test_a_directory_that_does_not_exist_is_one_failed_machine(tmp_path: Path) -> None:
    found = Inspected(tmp_path / "missing")
    (row,) = found.rows("machines")
    assert (row["outcome"], row["error_kind"], row["roots"]) == ("failed", "GuestError", 0)
    assert "No such file or directory" in row["error"]
    assert {row["status"] for row in found.rows("coverage")} == {"failed"}


def test_a_deadline_that_has_passed_is_reported(tree: Path) -> None:
    found = Inspected(tree, ScanOptions.of(deadline=0.001))
    (row,) = found.rows("machines")
    assert (row["outcome"], row["error_kind"]) == ("failed", "DeadlineError")
    assert row["error"] == "the machine's scan did not finish within 0.001 s"


def test_nothing_is_left_open(tree: Path) -> None:
    Inspected(tree)  # what is opened once, such as libraries
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    Inspected(tree)
    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before


# -- Machines that no appliance is started for -----------------------------------------------


@pytest.fixture
def no_appliance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any use of an appliance fails."""

    def find() -> Appliance:
        raise ApplianceError("there is no appliance", hint="build one")

    monkeypatch.setattr(built, "find", find)


def inspect(machine: Machine, attempt: int = 1) -> tuple[Row, MemorySink]:
    sink = MemorySink()
    inspect_machine(machine, OPTIONS, sink, attempt=attempt)
    (row,) = sink.table("machines").to_pylist()
    return row, sink


@pytest.mark.usefixtures("no_appliance")
def test_a_machine_that_its_source_gave_up_on_is_told_in_the_sources_words() -> None:
    row, sink = inspect(Machine("m", (), "inventory", error="it has a disk on ceph"), attempt=3)
    assert (row["outcome"], row["error"], row["stage"]) == (
        "failed",
        "it has a disk on ceph",
        "source",
    )
    assert (row["disks"], row["attempts"]) == (0, 3)
    assert {row["status"] for row in sink.table("coverage").to_pylist()} == {"failed"}


@pytest.mark.usefixtures("no_appliance")
def test_disks_that_cannot_be_opened_end_the_machine_in_preflight(tmp_path: Path) -> None:
    (tmp_path / "empty.raw").touch()
    disks = (Disk(str(tmp_path / "missing.raw")), Disk(str(tmp_path / "empty.raw"), "raw"))
    row, sink = inspect(Machine("m", disks, "folder"))
    assert (row["outcome"], row["stage"], row["error_kind"]) == (
        "failed",
        "preflight",
        "PreflightError",
    )
    assert "missing.raw" in row["error"]
    rows = sink.table("disks").to_pylist()
    assert [(row["disk"], row["format"], bool(row["error"])) for row in rows] == [
        (0, None, True),
        (1, None, True),
    ]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    with (tmp_path / "disk.raw").open("wb") as stream:
        stream.truncate(1 << 20)
    return Disk(str(tmp_path / "disk.raw"), "raw")


@pytest.mark.parametrize(
    ("making", "error"),
    [(1.0, "cloned"), (60.0, "the machine's scan did not finish within 1 s")],
)
def test_time_in_which_the_host_makes_its_template_is_not_the_machines(
    disk: Disk, making: float, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(*_: object) -> None:
        time.sleep(1.1)

    monkeypatch.setattr(isolation, "_MADE_SECONDS", making)

    def clone(*_: object) -> None:
        raise ApplianceError("cloned")

    appliance = Appliance(Path("/"), "inputs", "content", "6.12", "trixie", {})
    monkeypatch.setattr(built, "find", lambda: appliance)
    monkeypatch.setattr(accelerator, "choose", lambda appliance: "tcg")
    monkeypatch.setattr(template, "prepare", prepare)
    monkeypatch.setattr(isolation, "ApplianceVM", clone)
    sink = MemorySink()
    machine = Machine("m", (disk,), "folder")
    inspect_machine(machine, ScanOptions.of(deadline=1.0), sink)
    (row,) = sink.table("machines").to_pylist()
    assert row["error"] == error


@pytest.mark.usefixtures("no_appliance")
def test_without_an_appliance_what_preflight_found_is_kept(disk: Disk) -> None:
    row, sink = inspect(Machine("m", (disk,), "folder"))
    assert (row["outcome"], row["error"], row["stage"]) == (
        "failed",
        "there is no appliance (build one)",
        "appliance",
    )
    assert row["identity"] is not None
    (found,) = sink.table("disks").to_pylist()
    assert (found["format"], found["virtual_size"], found["error"]) == ("raw", 1 << 20, None)
