"""Machines that have not changed since they were scanned: their facts serve again.

A night's cost follows what changed. A machine is unchanged when every file of its backing chains
is what it was, and the appliance, its agent and what the scan asks for are the same; its row then
points at the run that holds its facts, and every view joins through that.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from fleetscan.appliance.ground.errors import PreflightError, StoreError
from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.options import decisive, planned
from fleetscan.scanner.preflight.bounds import resolved
from fleetscan.scanner.preflight.plan import identity_of, identity_of_token
from fleetscan.scanner.scan_state import MachineSummary
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.known import KnownMachines, known_machines
from fleetscan.scanner.store.run import fleetscan_version
from fleetscan.scanner.store.run_file import RunInfo
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables.machines.spec import Outcome, Stage

log = logging.getLogger(__name__)

# A file that was written to this shortly before its scan may have been written to once more within
# the same tick of its filesystem's clock, without its time showing it.
_SETTLED_NS = 2_000_000_000


# Values of ``error_kind`` of machines that may stay as they are.
_NO_SYSTEM, _UNFIT = "NoOperatingSystem", "PreflightError"

_NOT_TAKEN = ("seconds_preflight", "seconds_appliance", "seconds_discover", "seconds_collect")


@dataclass(frozen=True)
class _KnownDisk:
    path: str
    format: str | None
    member: str | None
    files: tuple[str, ...]  # backing files, nearest first, and extents


@dataclass(frozen=True)
class _Known:
    row: dict[str, Any]
    started_ns: int  # when it was scanned, nanoseconds since 1970 UTC
    disks: tuple[_KnownDisk, ...]


@dataclass(frozen=True)
class Unchanged:
    """Machines whose earlier facts serve again.

    Attributes:
        rows: their rows of ``machines`` in the new run, in the order of their ids.
        machines: they themselves, in the same order.
        summaries: what became of them, likewise.
    """

    rows: pa.Table
    machines: list[Machine]
    summaries: list[MachineSummary]


class EarlierFacts:
    """What the visible runs of a store say of machines.

    The newest scan of a machine that could be used counts, whichever run it is in: one of a
    single machine, of another inventory, or from before an evening on which nothing was there.

    Args:
        facts: the store's directory.
        settings: what the new run is asked for.
        appliance: content address of the appliance and agent that it will use.
    """

    def __init__(self, facts: Path, settings: Mapping[str, object], appliance: str) -> None:
        self._facts = facts
        self._decisive = decisive(settings.get("options"))
        self._has_keys = planned(settings.get("options"), "secrets", "keys") != 0
        self._appliance = appliance

    def unchanged(
        self, machines: Sequence[Machine], keep: Callable[[str], bool]
    ) -> Iterator[Unchanged]:
        """Those of some machines that need not be scanned, some at a time.

        A run that cannot be read is passed over with a warning: its machines are looked for in
        those before it, or scanned.

        Args:
            machines: the machines.
            keep: keeps a run from being deleted whose facts are used; false when it is gone.
        """
        wanted = {machine.machine_id: machine for machine in machines if not machine.error}
        runs = self._runs()
        for run_id in sorted(runs, reverse=True):
            if not wanted:
                return
            if decisive(runs[run_id].settings.get("options")) != self._decisive:
                continue
            try:
                for known in known_machines(self._facts, runs, run_id, wanted):
                    same = runs[run_id].version == fleetscan_version()
                    yield from self._settled(known, wanted, keep, is_same_version=same)
            except StoreError as error:
                log.warning("run %s cannot be used for unchanged machines: %s", run_id, error)

    def _runs(self) -> dict[str, RunInfo]:
        """The visible runs that can be read, by id."""
        store = Store(self._facts)
        found = {}
        for run_id in store.run_ids() if self._facts.is_dir() else ():
            try:
                found[run_id] = store.run(run_id)
            except StoreError as error:
                log.warning("run %s cannot be used for unchanged machines: %s", run_id, error)
        return found

    def _settled(
        self,
        known: KnownMachines,
        wanted: dict[str, Machine],
        keep: Callable[[str], bool],
        *,
        is_same_version: bool,
    ) -> Iterator[Unchanged]:
        """Take those that a run says enough of out of the wanted machines; give the unchanged."""
        places: list[int] = []
        machines: list[Machine] = []
        summaries: list[MachineSummary] = []
        for place, row in enumerate(known.rows.select(_LOOKED_AT).to_pylist()):
            machine = wanted[row["machine_id"]]
            if not self._is_usable(row, machine, is_same_version) or not keep(row["facts_run"]):
                continue
            del wanted[machine.machine_id]
            begun = time.monotonic()
            if _is_unchanged(machine, _known(row, known.disks.get(machine.machine_id, ()))):
                places.append(place)
                machines.append(machine)
                summaries.append(_summary(row, time.monotonic() - begun))
        if machines:
            rows = known.rows.take(pa.array(places, pa.int64()))
            seconds = [summary.seconds for summary in summaries]
            yield Unchanged(_renewed(rows, machines, seconds), machines, summaries)

    def _is_usable(self, row: Mapping[str, Any], machine: Machine, is_same_version: bool) -> bool:
        """Whether a scan's outcome is the machine's for as long as its files stay the same."""
        if row["identity"] is None:
            return False
        if row["error_kind"] == _UNFIT:
            # No appliance was asked: only preflight decided, by the file's content.
            return bool(row["stage"] == Stage.PREFLIGHT) and is_same_version
        if row["appliance"] != self._appliance:
            return False
        if row["outcome"] == Outcome.OK:
            return True
        # What stands after a colon is what else was wrong, which may be the host's fault.
        clean = row["error_kind"] == _NO_SYSTEM and ":" not in row["error"]
        return clean and not machine.keys and not self._has_keys


_LOOKED_AT = [
    *("machine_id", "outcome", "error", "error_kind", "stage", "roots"),
    *("started", "gathered", "appliance", "identity", "facts_run"),
]


def _known(row: dict[str, Any], disks: Sequence[Mapping[str, Any]]) -> _Known:
    found = (
        _KnownDisk(
            disk["path"],
            disk["format"],
            disk.get("member"),
            (*disk["backing_chain"], *(disk.get("extents") or ())),
        )
        for disk in disks
    )
    since = row["gathered"] or row["started"]
    return _Known(row, int(since.timestamp() * MICROSECOND) * 1000, tuple(found))


def _renewed(
    rows: pa.RecordBatch, machines: Sequence[Machine], seconds: Sequence[float]
) -> pa.Table:
    """Rows of machines as a run has them that finds them unchanged."""
    count = len(machines)
    values: dict[str, list[Any]] = {
        "source": [machine.source for machine in machines],
        "started": [datetime.now(UTC)] * count,
        "seconds": list(seconds),
        "attempts": [1] * count,
        **{name: [None] * count for name in _NOT_TAKEN},
    }
    arrays: list[Any] = [
        pa.array(values[field.name], field.type)
        if field.name in values
        else rows.column(field.name)
        for field in rows.schema
    ]
    return pa.Table.from_arrays(arrays, schema=rows.schema)


def _summary(row: Mapping[str, Any], seconds: float) -> MachineSummary:
    return MachineSummary(
        row["machine_id"], Outcome(row["outcome"]), row["error"], row["roots"], seconds
    )


def _is_unchanged(machine: Machine, known: _Known) -> bool:
    if len(machine.disks) != len(known.disks):
        return False
    pairs = list(zip(machine.disks, known.disks, strict=True))
    for disk, before in pairs:
        if disk.member != before.member or disk.format not in (None, before.format):
            return False
    recorded = known.row["identity"]
    if machine.identity is not None:
        return bool(identity_of_token(machine.identity) == recorded)
    parts = recorded.split(":")
    return len(parts) == len(pairs) and all(
        any(
            _identity(disk.path, files, known.started_ns) == part for files in _places(disk, before)
        )
        for (disk, before), part in zip(pairs, parts, strict=True)
    )


def _places(disk: Disk, before: _KnownDisk) -> Iterator[list[str]]:
    """Where the other files of a disk's chain may be now: as they were, or mounted elsewhere."""
    yield list(before.files)
    if before.files and disk.path != before.path:
        old, new = (os.path.dirname(path) for path in (before.path, disk.path))  # noqa: PTH120
        moved = (os.path.join(new, os.path.relpath(file, old)) for file in before.files)  # noqa: PTH118
        yield [os.path.realpath(path) for path in moved]


def _identity(path: str, others: Sequence[str], scanned_ns: int) -> str | None:
    """The identity of a disk's files as they are now; None when it could not show a change."""
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
        if not stat.S_ISREG(status.st_mode) or scanned_ns - _changed(status) < _SETTLED_NS:
            return None
        times = (status.st_mtime_ns, status.st_ctime_ns)
        files.append((name, status.st_ino, status.st_size, *times))
    return identity_of(files)


def _changed(status: os.stat_result) -> int:
    return max(status.st_mtime_ns, status.st_ctime_ns)
