from __future__ import annotations

import functools
import gzip
import itertools
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleetscan.appliance.ground.errors import PreflightError, UsageError
from fleetscan.scanner import fleet, preflight
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.fleet import scan_fleet
from fleetscan.scanner.fleet_events import FleetSummary, MachineFinished
from fleetscan.scanner.fleet_tasks import FleetOptions, record_failure, scan_one
from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions, to_plan
from fleetscan.scanner.preflight.plan import QemuImgLimits
from fleetscan.scanner.reuse import EarlierFacts
from fleetscan.scanner.scan_state import ScanState
from fleetscan.scanner.sources import find_machines
from fleetscan.scanner.sources.base import LeftOut, Machine
from fleetscan.scanner.sources.volume_keys import parse_key
from fleetscan.scanner.store import layout, views
from fleetscan.scanner.store.arrow import rows_to_arrow
from fleetscan.scanner.store.run import Run
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.machines.spec import Outcome
from tests.disk_images import archive

SETTINGS = {"options": to_plan(ScanOptions())}
LONG_AGO = time.time() - 3600


@pytest.fixture(autouse=True)
def runs_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that begin in the same second sort as they began."""
    tails = itertools.count(1)
    name = "fleetscan.scanner.store.layout.new_run_id"
    monkeypatch.setattr(name, lambda now: f"{now:%Y%m%dT%H%M%SZ}-{next(tails):06x}")


def image(folder: Path, name: str = "a.qcow2") -> Machine:
    """A machine whose qcow2 disk lies over a backing file, both written an hour ago."""
    base, top = folder / f"base-{name}", folder / name
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "1M"], check=True)
    backing = ["-b", str(base), "-F", "qcow2"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(top)], check=True)
    for path in (base, top):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return Machine(name, (Disk(str(top)),), str(folder))


def scanned(
    machine: Machine,
    run: Run,
    *,
    roots: int = 1,
    started: float | None = None,
    warnings: Sequence[str] = (),
) -> Outcome:
    """Leave the rows that a scan of the machine would leave."""
    found = ScanState(machine, roots=["/dev/sda"] * roots, ran_by="tcg", appliance="ours")
    for disk in machine.disks:
        found.add_disk(disk, preflight.examine(disk, preflight.DiskPolicy()))
    found.warnings += warnings
    row = found.machine_row(
        started=started or time.time(), seconds=1.0, attempt=1, run_id=run.run_id
    )
    tables = load_tables()
    with run.machine_writer(machine.machine_id) as writer:
        for name, rows in (("machines", [row]), ("disks", found.disks)):
            writer.write(name, rows_to_arrow(tables[name], rows, machine_id=machine.machine_id))
        writer.commit({})
    return row.outcome


def row_of(earlier: EarlierFacts, machine: Machine) -> dict[str, Any] | None:
    """The new row of a machine that need not be scanned again."""
    rows = [
        row
        for found in earlier.unchanged([machine], lambda _: True)
        for row in found.rows.to_pylist()
    ]
    assert len(rows) <= 1
    return rows[0] if rows else None


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of these tests are new, and nobody can set the time of their last change back."""
    monkeypatch.setattr("fleetscan.scanner.reuse._SETTLED_NS", 0)


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
    row = row_of(EarlierFacts(facts, SETTINGS, "ours"), machine)
    assert row is not None
    assert (row["facts_run"], row["outcome"], row["roots"]) == (run.run_id, "ok", 1)
    assert row["attempts"] == 1
    assert row["seconds"] < 0.1
    assert row["seconds_collect"] is None
    assert row["gathered"] < row["started"]


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
    third = row_of(EarlierFacts(facts, SETTINGS, "ours"), machine)
    assert third is not None
    assert third["facts_run"] == first.run_id


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
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), machine) is None


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
    assert (row_of(EarlierFacts(facts, SETTINGS, "ours"), in_pieces) is None) == (name is not None)


def test_another_member_of_an_archive_scans_anew(facts: Path, in_pieces: Machine) -> None:
    first_run(facts, in_pieces)
    descriptor, member = in_pieces.disks
    other = replace(in_pieces, disks=(descriptor, replace(member, member="other.img")))
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), other) is None


def test_a_missing_backing_file_is_a_change(facts: Path, machine: Machine, tmp_path: Path) -> None:
    first_run(facts, machine)
    (tmp_path / "base-a.qcow2").unlink()
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), machine) is None


def test_other_settings_or_another_appliance_scan_anew(facts: Path, machine: Machine) -> None:
    first_run(facts, machine)
    for other in (ScanOptions.of(files="notable"), ScanOptions.of(live=True)):
        settings = {"options": to_plan(other)}
        assert row_of(EarlierFacts(facts, settings, "ours"), machine) is None
    assert row_of(EarlierFacts(facts, SETTINGS, "theirs"), machine) is None


def test_another_stated_format_or_disk_scans_anew(facts: Path, machine: Machine) -> None:
    first_run(facts, machine)
    earlier = EarlierFacts(facts, SETTINGS, "ours")
    path = machine.disks[0].path
    assert row_of(earlier, replace(machine, disks=(Disk(path, "qcow2"),))) is not None
    assert row_of(earlier, replace(machine, disks=(Disk(path, "raw"),))) is None
    assert row_of(earlier, replace(machine, disks=(Disk(path), Disk(path)))) is None
    assert row_of(earlier, replace(machine, error="refused by its source")) is None


def test_a_disk_without_a_system_is_not_opened_again_unless_a_key_is_given(
    facts: Path, machine: Machine
) -> None:
    first_run(facts, machine, roots=0)
    row = row_of(EarlierFacts(facts, SETTINGS, "ours"), machine)
    assert row is not None
    assert (row["outcome"], row["error_kind"]) == ("failed", "NoOperatingSystem")
    with_key = {"options": to_plan(ScanOptions()) | {"secrets": {"keys": 1}}}
    assert row_of(EarlierFacts(facts, with_key, "ours"), machine) is None
    keyed = replace(machine, keys=(parse_key("all:file:/etc/key", Path()),))
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), keyed) is None


@pytest.mark.parametrize("warning", ["a volume is locked", "an input/output error"])
def test_a_machine_that_failed_for_another_reason_is_tried_again(
    facts: Path, machine: Machine, warning: str
) -> None:
    run = Store(facts).begin([machine.machine_id], settings=SETTINGS)
    scanned(machine, run, roots=0, warnings=[warning])
    run.finish()
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), machine) is None


UNFIT = {
    "truncated": b"QFI\xfb\x00\x00\x00\x03",
    "compressed": gzip.compress(bytes(512)),
    "empty": b"",
}


@pytest.fixture(params=UNFIT)
def unfit(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """A machine whose disk no scan can open."""
    path = tmp_path / "unfit.qcow2"
    path.write_bytes(UNFIT[request.param])
    return Machine("unfit", (Disk(str(path)),), str(tmp_path))


def attempted(facts: Path, machine: Machine) -> str:
    """Scan a machine that comes to no appliance; gives the kind of its error."""
    run = Store(facts).begin([machine.machine_id], settings=SETTINGS)
    started = time.time() + 60  # as if its files had been there for a while
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: started)
        scan_one(machine, run, ScanOptions(), inspect_machine, 1)
    run.finish()
    with views.connect(facts, run.run_id) as connection:
        (row,) = views.query(connection, "SELECT error_kind FROM machines").to_pylist()
    return str(row["error_kind"])


def test_an_image_that_is_corrupt_or_not_supported_is_not_tried_again(
    facts: Path, unfit: Machine
) -> None:
    assert attempted(facts, unfit) == "PreflightError"
    row = row_of(EarlierFacts(facts, SETTINGS, "ours"), unfit)
    assert row is not None
    assert (row["outcome"], row["error_kind"]) == ("failed", "PreflightError")
    assert row_of(EarlierFacts(facts, SETTINGS, "theirs"), unfit) is not None  # none was asked
    os.utime(unfit.disks[0].path, (LONG_AGO, LONG_AGO))
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), unfit) is None


def test_another_version_of_fleetscan_tries_it_again(
    facts: Path, unfit: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempted(facts, unfit)
    monkeypatch.setattr("fleetscan.scanner.reuse.fleetscan_version", lambda: "9.9.9")
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), unfit) is None


@pytest.mark.parametrize("why", ["gone", "its backing file is corrupt", "it took too long"])
def test_an_image_that_stayed_closed_for_another_reason_is_tried_again(
    facts: Path, machine: Machine, tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "gone":
        Path(machine.disks[0].path).rename(tmp_path / "elsewhere")
    elif why == "its backing file is corrupt":
        (tmp_path / "base-a.qcow2").write_bytes(UNFIT["truncated"])
    else:
        hasty = functools.partial(preflight.DiskPolicy, limits=QemuImgLimits(wall_seconds=-1.0))
        monkeypatch.setattr(preflight, "DiskPolicy", hasty)
    assert attempted(facts, machine) == "PreflightError"
    if why == "gone":
        (tmp_path / "elsewhere").rename(machine.disks[0].path)
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), machine) is None


# -- which of the visible runs counts -----------------------------------------------------------


def night(facts: Path, machines: Sequence[Machine], *, away: bool = False) -> FleetSummary:
    """Scan machines as a fleet; what would be scanned is recorded, or fails when it is away."""
    run = Store(facts).begin([one.machine_id for one in machines], settings=SETTINGS)
    summary = FleetSummary(run.run_id, len(machines))
    earlier = EarlierFacts(facts, SETTINGS, "ours")
    for machine in fleet._reuse(machines, run, earlier, summary, lambda _: None):
        if away:
            record_failure(run, machine, 1, PreflightError("it cannot be opened"), 0.1)
        else:
            scanned(machine, run)
        summary.scanned += 1
    run.finish()
    return summary


@pytest.fixture
def machines(tmp_path: Path) -> list[Machine]:
    return [image(tmp_path, f"{name}.qcow2") for name in "abc"]


def test_two_inventories_in_one_directory_use_their_own_facts_again(
    facts: Path, machines: list[Machine]
) -> None:
    some, others = machines[:2], machines[2:]
    assert [night(facts, one).scanned for one in (some, others, some, others)] == [2, 1, 0, 0]


def test_a_scan_of_one_machine_makes_no_other_one_be_scanned(
    facts: Path, machines: list[Machine]
) -> None:
    night(facts, machines)
    assert night(facts, machines[:1]).scanned == 0
    assert night(facts, machines).unchanged == 3


def test_an_evening_without_the_images_costs_no_scan_later(facts: Path, tmp_path: Path) -> None:
    share, away = tmp_path / "share", tmp_path / "away"
    share.mkdir()
    machines = [image(share, name) for name in ("a.qcow2", "b.qcow2", "c.qcow2")]
    night(facts, machines)
    share.rename(away)
    assert night(facts, machines, away=True).scanned == 3
    away.rename(share)
    summary = night(facts, machines)
    assert (summary.unchanged, summary.scanned) == (3, 0)
    with views.connect(facts) as connection:
        found = views.query(connection, "SELECT machine_id FROM disks ORDER BY 1").to_pylist()
    assert [row["machine_id"] for row in found] == ["a.qcow2", "b.qcow2", "c.qcow2"]


def test_only_the_newest_usable_scan_counts(facts: Path, machines: list[Machine]) -> None:
    path = Path(machines[0].disks[0].path)
    night(facts, machines)
    os.utime(path, (LONG_AGO, LONG_AGO + 1))
    assert night(facts, machines).scanned == 1
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert night(facts, machines).scanned == 1


@pytest.mark.parametrize("damage", ["run file", "part"])
def test_a_damaged_newest_run_is_passed_over(
    facts: Path, machines: list[Machine], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = night(facts, machines)
    second = night(facts, machines)
    if damage == "run file":
        layout.run_file(facts, second.run_id).write_text("{")
    else:
        layout.part(facts, "machines", second.run_id, 0).write_bytes(b"torn")
    rows = [row_of(EarlierFacts(facts, SETTINGS, "ours"), machine) for machine in machines]
    assert {row and row["facts_run"] for row in rows} == {first.run_id}
    assert f"run {second.run_id} cannot be used" in caplog.text


def test_a_run_whose_holder_is_gone_is_not_used(facts: Path, machines: list[Machine]) -> None:
    first = night(facts, machines)
    night(facts, machines)
    layout.run_file(facts, first.run_id).unlink()
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), machines[0]) is None


def test_what_was_found_unchanged_is_kept_by_an_interrupted_run(
    facts: Path, machines: list[Machine]
) -> None:
    night(facts, machines[:2])
    run = Store(facts).begin([one.machine_id for one in machines], settings=SETTINGS)
    summary = FleetSummary(run.run_id, 3)
    earlier = EarlierFacts(facts, SETTINGS, "ours")
    left = fleet._reuse(machines, run, earlier, summary, lambda _: None)
    again = Store(facts).resume(run.run_id)
    assert again.finished() == ["a.qcow2", "b.qcow2"]
    assert again.is_finished("a.qcow2")
    assert not again.is_finished("c.qcow2")
    scanned(left[0], again)
    info = again.finish()
    assert (info.held, sum(info.facts_runs.values()), info.interrupted) == (1, 2, False)
    assert [file.rows for file in info.tables["machines"].files] == [3]


def test_a_night_without_change_writes_a_handful_of_files(
    facts: Path, machines: list[Machine]
) -> None:
    night(facts, machines)
    before = set(facts.rglob("*.parquet"))
    night(facts, machines)
    new = set(facts.rglob("*.parquet")) - before
    assert {path.parent.parent.name for path in new} == {"machines"}


def test_a_file_written_to_just_before_its_scan_is_not_trusted(
    facts: Path, machine: Machine
) -> None:
    run = Store(facts).begin([machine.machine_id], settings=SETTINGS)
    scanned(machine, run, started=LONG_AGO + 1)
    run.finish()
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), machine) is None


def test_a_store_without_a_run_knows_no_machine(facts: Path, machine: Machine) -> None:
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), machine) is None


def test_a_store_whose_only_run_was_deleted_knows_no_machine(facts: Path, machine: Machine) -> None:
    run = first_run(facts, machine)
    Store(facts).delete(run.run_id)
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), machine) is None


def test_a_run_that_is_deleted_meanwhile_is_not_used(facts: Path, machine: Machine) -> None:
    first_run(facts, machine)
    earlier = EarlierFacts(facts, SETTINGS, "ours")
    assert list(earlier.unchanged([machine], lambda _: False)) == []


@pytest.mark.parametrize("name", ["a.qcow2", "base-a.qcow2"])
def test_an_image_that_is_overwritten_in_place_with_its_times_restored_has_changed(
    facts: Path, machine: Machine, tmp_path: Path, name: str
) -> None:
    first_run(facts, machine)
    path = tmp_path / name
    before = path.stat()
    time.sleep(0.02)  # a tick of the filesystem's clock
    with path.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    for field in ("st_ino", "st_size", "st_mtime_ns"):
        assert getattr(after, field) == getattr(before, field)
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), machine) is None


def test_a_file_whose_times_were_set_back_just_before_its_scan_is_not_trusted(
    facts: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetscan.scanner.reuse._SETTLED_NS", 2_000_000_000)
    first_run(facts, machine)
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), machine) is None


def test_another_mount_point_is_no_change(facts: Path, tmp_path: Path) -> None:
    (tmp_path / "nas1").mkdir()
    machine = image(tmp_path / "nas1")
    first_run(facts, machine)
    (tmp_path / "nas1").rename(tmp_path / "nas2")
    elsewhere = tmp_path / "nas2"
    moved = replace(machine, disks=(Disk(str(elsewhere / "a.qcow2")),), source=str(elsewhere))
    row = row_of(EarlierFacts(facts, SETTINGS, "ours"), moved)
    assert row is not None
    assert row["source"] == str(elsewhere)
    os.utime(elsewhere / "base-a.qcow2", (LONG_AGO, LONG_AGO + 1))
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), moved) is None


def test_a_copy_is_scanned(facts: Path, machine: Machine, tmp_path: Path) -> None:
    first_run(facts, machine)
    (tmp_path / "copy").mkdir()
    for name in ("a.qcow2", "base-a.qcow2"):
        subprocess.run(["cp", "-a", tmp_path / name, tmp_path / "copy" / name], check=True)
    copied = replace(machine, disks=(Disk(str(tmp_path / "copy" / "a.qcow2")),))
    assert row_of(EarlierFacts(facts, SETTINGS, "ours"), copied) is None


def test_what_an_inventory_says_of_its_content_decides_alone(facts: Path, tmp_path: Path) -> None:
    monday, tuesday = tmp_path / "monday", tmp_path / "tuesday"
    for folder in (monday, tuesday):
        folder.mkdir()
    named = replace(image(monday), identity="snapshot-1")
    first_run(facts, named)
    earlier = EarlierFacts(facts, SETTINGS, "ours")
    other = replace(image(tuesday), identity="snapshot-1")
    assert row_of(earlier, other) is not None
    assert row_of(earlier, replace(other, identity="snapshot-2")) is None
    assert row_of(earlier, replace(other, identity=None)) is None
    assert row_of(earlier, replace(other, disks=(*other.disks, *other.disks))) is None
    assert row_of(earlier, replace(other, disks=(Disk(other.disks[0].path, "raw"),))) is None


def test_an_inventory_gives_machines_an_identity(tmp_path: Path) -> None:
    (tmp_path / "a.img").touch()
    inventory = tmp_path / "fleet.yaml"
    inventory.write_text("- {id: a, disks: [a.img], identity: 'sha256:1f'}\n")
    (machine,) = find_machines([str(inventory)])
    assert machine.identity == "sha256:1f"
    inventory.write_text("- {id: a, disks: [a.img], identity: ''}\n")
    with pytest.raises(UsageError, match="identity"):
        find_machines([str(inventory)])
