"""Small machines and runs to write into a store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from fleetscan.scanner.store.arrow import rows_to_arrow
from fleetscan.scanner.store.run import Run
from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.groups.spec import Group
from fleetscan.scanner.tables.machines.spec import MachineRow, Outcome

ROOT = "/dev/sda1"


def machine_rows(machine_id: str, facts_run: str, outcome: Outcome = Outcome.OK) -> pa.Table:
    row = MachineRow(
        outcome=outcome,
        error=None,
        error_kind=None,
        stage=None,
        source="/srv/images",
        disks=1,
        roots=1,
        started=0,
        gathered=0,
        seconds=1.5,
        seconds_preflight=None,
        seconds_appliance=None,
        seconds_discover=None,
        seconds_collect=None,
        attempts=1,
        torn=False,
        accelerator="none",
        appliance=None,
        confinement=("namespaces", "root", "seccomp"),
        identity=None,
        facts_run=facts_run,
    )
    return rows_to_arrow(load_tables()["machines"], [row], machine_id=machine_id)


def group_rows(machine_id: str, names: Iterable[str]) -> pa.Table:
    rows = [
        Group(name=name, gid=1, members=("ann",), administrators=(), sid=None) for name in names
    ]
    return rows_to_arrow(load_tables()["groups"], rows, machine_id=machine_id, root=ROOT)


def add_machine(
    run: Run,
    machine_id: str,
    groups: Iterable[str] = ("sudo",),
    *,
    outcome: Outcome = Outcome.OK,
    facts_run: str | None = None,
) -> None:
    """Write one finished machine with some groups."""
    with run.machine_writer(machine_id) as writer:
        writer.write("machines", machine_rows(machine_id, facts_run or run.run_id, outcome))
        writer.write("groups", group_rows(machine_id, groups))
        writer.commit({"groups": len(list(groups))})


def finished_run(facts: Path, machines: dict[str, list[str]], *, batch_size: int = 2) -> RunInfo:
    """Write a whole run: machine ids and the names of their groups."""
    run = Store(facts).begin(machines, settings={}, batch_size=batch_size)
    for machine_id, groups in machines.items():
        add_machine(run, machine_id, groups)
    return run.finish()
