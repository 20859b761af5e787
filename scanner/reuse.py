"""Machines that have not changed since the last run: their facts serve again.

A night's cost follows what changed. A machine is unchanged when every file of its backing chains
is what it was, and the appliance, its agent and what the scan asks for are the same; its row then
points at the run that holds its facts, and every view joins through that.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.scanner.findings import MachineSummary
from fleetscan.scanner.options import decisive
from fleetscan.scanner.preflight.bounds import resolved
from fleetscan.scanner.preflight.plan import identity_of
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables.machines.spec import Machine as MachineRow

# A file that was written to this shortly before its scan may have been written to once more within
# the same tick of its filesystem's clock, without its time showing it.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class _KnownDisk:
    path: str
    format: str
    member: str | None
    files: tuple[str, ...]  # backing files, nearest first, and extents


@dataclass(frozen=True)
class _Known:
    row: dict[str, Any]
    started_ns: int  # when it was scanned, nanoseconds since 1970 UTC
    disks: tuple[_KnownDisk, ...]


class EarlierFacts:
    """What the last visible run of a store says of the machines that it could read whole.

    Args:
        facts: the store's directory.
        settings: what the new run is asked for: its plan's ``options`` by group and name.
        appliance: content address of the appliance and agent that it will use.

    Raises:
        ModuleNotFoundError: DuckDB is not installed, and the store has runs.
        FleetscanError: the run is damaged.
    """

    def __init__(self, facts: Path, settings: Mapping[str, object], appliance: str) -> None:
        self._known: dict[str, _Known] = {}
        store = Store(facts)
        if not facts.is_dir() or not store.run_ids():
            return
        latest = store.latest()
        if decisive(latest.settings.get("options")) != decisive(settings.get("options")):
            return
        self._known = _known_machines(facts, latest.run_id, appliance)

    def row_of(self, machine: Machine) -> MachineRow | None:
        """The row of a machine whose earlier facts serve again; None when it must be scanned."""
        begun = time.monotonic()
        known = self._known.get(machine.machine_id)
        if known is None or machine.error or not _is_unchanged(machine, known):
            return None
        columns = {field.name for field in dataclasses.fields(MachineRow)}
        values = {name: value for name, value in known.row.items() if name in columns} | {
            "source": machine.source,
            "started": int(time.time() * MICROSECOND),
            "seconds": time.monotonic() - begun,
            "attempts": 1,
            "seconds_preflight": None,
            "seconds_appliance": None,
            "seconds_discover": None,
            "seconds_collect": None,
            # Runs of fleetscan before it was recorded have none.
            "confinement": tuple(known.row["confinement"] or ()),
        }
        return MachineRow(**values)


def summary_of(machine_id: str, row: MachineRow) -> MachineSummary:
    """What became of a machine whose facts serve again."""
    return MachineSummary(machine_id, row.outcome, row.error, row.roots, row.seconds)


def _known_machines(facts: Path, run_id: str, appliance: str) -> dict[str, _Known]:
    from fleetscan.scanner.store import views  # DuckDB, which not every host has that scans

    with views.connect(facts, run_id) as connection:
        read = _reader(connection)
        machines = read(
            "SELECT * REPLACE (epoch_us(started) AS started) FROM machines "
            "WHERE outcome = 'ok' AND identity IS NOT NULL AND appliance = $appliance",
            {"appliance": appliance},
        )
        disks: dict[str, list[_KnownDisk]] = {}
        for row in read(
            "SELECT machine_id, path, format, member, backing_chain, extents "
            "FROM disks ORDER BY disk"
        ):
            files = (*row["backing_chain"], *(row["extents"] or ()))
            disk = _KnownDisk(row["path"], row["format"], row["member"], files)
            disks.setdefault(row["machine_id"], []).append(disk)
    known = {}
    for row in machines:
        machine_id = row["machine_id"]
        known[machine_id] = _Known(row, row["started"] * 1000, tuple(disks.get(machine_id, ())))
    return known


def _reader(connection: Any) -> Callable[..., list[dict[str, Any]]]:
    from fleetscan.scanner.store import views

    def read(sql: str, parameters: Mapping[str, object] | None = None) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = views.query(connection, sql, parameters or ()).to_pylist()
        return rows

    return read


def _is_unchanged(machine: Machine, known: _Known) -> bool:
    if len(machine.disks) != len(known.disks):
        return False
    identities = []
    for disk, before in zip(machine.disks, known.disks, strict=True):
        if (disk.path, disk.member) != (before.path, before.member):
            return False
        if disk.format not in (None, before.format):
            return False
        identity = _identity(disk.path, before.files, known.started_ns)
        if identity is None:
            return False
        identities.append(identity)
    return bool(":".join(identities) == known.row["identity"])


def _identity(path: str, others: Sequence[str], scanned_ns: int) -> str | None:
    """The identity of a disk's files as they are now; None when it could not tell a change."""
    files = []
    try:
        names = (resolved(path), *others)
    except PreflightError:
        return None
    for name in names:
        try:
            status = os.lstat(name)
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode) or scanned_ns - status.st_mtime_ns < _SETTLED_NS:
            return None
        files.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return identity_of(files)
