from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fleetscan.scanner import preflight
from fleetscan.scanner.findings import Findings
from fleetscan.scanner.fleet import scan_fleet
from fleetscan.scanner.fleet_events import MachineFinished
from fleetscan.scanner.fleet_tasks import FleetOptions
from fleetscan.scanner.options import ScanOptions, to_plan
from fleetscan.scanner.reuse import EarlierFacts
from fleetscan.scanner.sources.base import Disk, LeftOut, Machine
from fleetscan.scanner.store import views
from fleetscan.scanner.store.arrow import rows_to_arrow
from fleetscan.scanner.store.run import Run
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.machines.spec import Outcome
from tests.disk_images import archive

SETTINGS = {"options": to_plan(ScanOptions())}
LONG_AGO = time.time() - 3600


def image(folder: Path, name: str = "a.qcow2") -> Machine:
    """A machine whose qcow2 disk lies over a backing file, both written an hour ago."""
    base, top = folder / f"base-{name}", folder / name
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "1M"], check=True)
    backing = ["-b", str(base), "-F", "qcow2"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(top)], check=True)
    for path in (base, top):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return Machine(name, (Disk(str(top)),), str(folder))


def scanned(machine: Machine, run: Run, *, roots: int = 1, started: float | None = None) -> Outcome:
    """Leave the rows that a scan of the machine would leave."""
    found = Findings(machine, roots=["/dev/sda"] * roots, ran_by="tcg", appliance="ours")
    for disk in machine.disks:
        found.add_disk(disk, preflight.examine(disk, preflight.Policy()))
    row = found.machine_row(
        started=started or time.time(), seconds=1.0, attempt=1, run_id=run.run_id
    )
    tables = load_tables()
    with run.machine_writer(machine.machine_id) as writer:
        for name, rows in (("machines", [row]), ("disks", found.disks)):
            writer.write(name, rows_to_arrow(tables[name], rows, machine_id=machine.machine_id))
        writer.commit({})
    return row.outcome


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    return tmp_path / "facts"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return image(tmp_path)


def first_run(facts: Path, machine: Machine, *, roots: int = 1) -> Run:
    run = Store(facts).begin([machine.machine_id], settings=SETTINGS)
    scanned(machine, run, roots=roots)
    run.finish()
    return run


def test_an_unchanged_machine_points_at_the_run_that_holds_its_facts(
    facts: Path, machine: Machine
) -> None:
    run = first_run(facts, machine)
    row = EarlierFacts(facts, SETTINGS, "ours").row_of(machine)
    assert row is not None
    assert (row.facts_run, row.outcome, row.roots, row.attempts) == (run.run_id, "ok", 1, 1)
    assert row.seconds < 0.1
    assert row.seconds_collect is None


def test_a_fleet_of_unchanged_machines_needs_no_cluster(facts: Path, machine: Machine) -> None:
    first = first_run(facts, machine)
    again = Store(facts).begin([machine.machine_id], settings=SETTINGS)
    events: list[object] = []
    options = FleetOptions(
        machine=ScanOptions(),
        earlier=EarlierFacts(facts, SETTINGS, "ours"),
        inspect=None,  # type: ignore[arg-type] # nothing may be inspected
    )
    summary = scan_fleet([machine], again, options, events.append)
    assert (summary.unchanged, summary.scanned, summary.slots) == (1, 0, 0)
    assert summary.outcomes["ok"] == 1
    assert [type(event) for event in events] == [MachineFinished]
    with views.connect(facts, again.run_id) as connection:
        rows = views.query(connection, "SELECT machine_id, path FROM disks").to_pylist()
    assert rows == [{"machine_id": "a.qcow2", "path": machine.disks[0].path}]
    third = EarlierFacts(facts, SETTINGS, "ours").row_of(machine)
    assert third is not None
    assert third.facts_run == first.run_id


@pytest.mark.parametrize("history", [False, True])
def test_what_an_unchanged_machine_leaves_out_is_told_by_each_run_anew(
    facts: Path, machine: Machine, history: bool
) -> None:
    first_run(facts, machine)
    for name in ("first", "second"):
        file = LeftOut(f"/srv/{name}.img", "base", machine.disks[0].path)
        again = Store(facts).begin([machine.machine_id], settings=SETTINGS)
        options = FleetOptions(
            machine=ScanOptions(),
            earlier=EarlierFacts(facts, SETTINGS, "ours"),
            inspect=None,  # type: ignore[arg-type] # nothing may be inspected
        )
        scan_fleet([replace(machine, left_out=(file,))], again, options)
        with views.connect(facts, again.run_id, history=history) as connection:
            schema = "history" if history else "main"
            sql = f"SELECT path FROM {schema}.left_out WHERE run_id = ?"  # noqa: S608 - our own
            rows = views.query(connection, sql, [again.run_id]).to_pylist()
        assert rows == [{"path": file.path}]


@pytest.mark.parametrize("name", ["a.qcow2", "base-a.qcow2"])
def test_a_change_anywhere_in_the_backing_chain_is_seen(
    facts: Path, machine: Machine, tmp_path: Path, name: str
) -> None:
    first_run(facts, machine)
    os.utime(tmp_path / name, (LONG_AGO, LONG_AGO + 1))
    assert EarlierFacts(facts, SETTINGS, "ours").row_of(machine) is None


@pytest.fixture
def in_pieces(tmp_path: Path) -> Machine:
    """A machine of a vmdk in two files and of an archive's member, written an hour ago."""
    lines = ["# Disk DescriptorFile", "parentCID=ffffffff"]
    for name in ("one.vmdk", "two.vmdk"):
        (tmp_path / name).write_bytes(bytes(512))
        lines.append(f'RW 1 FLAT "{name}" 0')
    (tmp_path / "a.vmdk").write_text("\n".join(lines))
    (tmp_path / "disk.img").write_bytes(bytes(512))
    ova = archive(tmp_path / "a.ova", [tmp_path / "disk.img"])
    for path in tmp_path.iterdir():
        os.utime(path, (LONG_AGO, LONG_AGO))
    disks = (Disk(str(tmp_path / "a.vmdk")), Disk(str(ova), member="disk.img"))
    return Machine("pieces", disks, str(tmp_path))


@pytest.mark.parametrize("name", [None, "a.vmdk", "one.vmdk", "two.vmdk", "a.ova"])
def test_a_change_in_any_piece_of_a_disk_is_seen(
    facts: Path, in_pieces: Machine, tmp_path: Path, name: str | None
) -> None:
    first_run(facts, in_pieces)
    if name is not None:
        os.utime(tmp_path / name, (LONG_AGO, LONG_AGO + 1))
    assert (EarlierFacts(facts, SETTINGS, "ours").row_of(in_pieces) is None) == (name is not None)


def test_another_member_of_an_archive_scans_anew(facts: Path, in_pieces: Machine) -> None:
    first_run(facts, in_pieces)
    descriptor, member = in_pieces.disks
    other = replace(in_pieces, disks=(descriptor, replace(member, member="other.img")))
    assert EarlierFacts(facts, SETTINGS, "ours").row_of(other) is None


def test_a_missing_backing_file_is_a_change(facts: Path, machine: Machine, tmp_path: Path) -> None:
    first_run(facts, machine)
    (tmp_path / "base-a.qcow2").unlink()
    assert EarlierFacts(facts, SETTINGS, "ours").row_of(machine) is None


def test_other_settings_or_another_appliance_scan_anew(facts: Path, machine: Machine) -> None:
    first_run(facts, machine)
    for other in (ScanOptions.of(files="notable"), ScanOptions.of(live=True)):
        settings = {"options": to_plan(other)}
        assert EarlierFacts(facts, settings, "ours").row_of(machine) is None
    assert EarlierFacts(facts, SETTINGS, "theirs").row_of(machine) is None


def test_another_stated_format_or_disk_scans_anew(facts: Path, machine: Machine) -> None:
    first_run(facts, machine)
    earlier = EarlierFacts(facts, SETTINGS, "ours")
    path = machine.disks[0].path
    assert earlier.row_of(replace(machine, disks=(Disk(path, "qcow2"),))) is not None
    assert earlier.row_of(replace(machine, disks=(Disk(path, "raw"),))) is None
    assert earlier.row_of(replace(machine, disks=(Disk(path), Disk(path)))) is None
    assert earlier.row_of(replace(machine, error="refused by its source")) is None


def test_a_machine_that_failed_is_tried_again(facts: Path, machine: Machine) -> None:
    first_run(facts, machine, roots=0)
    assert EarlierFacts(facts, SETTINGS, "ours").row_of(machine) is None


def test_a_file_written_to_just_before_its_scan_is_not_trusted(
    facts: Path, machine: Machine
) -> None:
    run = Store(facts).begin([machine.machine_id], settings=SETTINGS)
    scanned(machine, run, started=LONG_AGO + 1)
    run.finish()
    assert EarlierFacts(facts, SETTINGS, "ours").row_of(machine) is None


def test_a_store_without_a_run_knows_no_machine(facts: Path, machine: Machine) -> None:
    assert EarlierFacts(facts, SETTINGS, "ours").row_of(machine) is None


def test_a_store_whose_only_run_was_deleted_knows_no_machine(facts: Path, machine: Machine) -> None:
    run = first_run(facts, machine)
    Store(facts).delete(run.run_id)
    assert EarlierFacts(facts, SETTINGS, "ours").row_of(machine) is None
