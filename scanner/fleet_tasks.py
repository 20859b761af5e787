"""What a fleet's workers do: a machine or a batch a task, by functions that they can import."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.appliance.host.printable import printable
from fleetscan.scanner.cluster import ClusterOptions, WorkerLostError
from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.reuse import EarlierFacts
from fleetscan.scanner.scan_state import MachineSummary, ScanState
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.arrow import host_rows
from fleetscan.scanner.store.run import Run
from fleetscan.scanner.store.staging import RowSink
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage
from fleetscan.scanner.tables.left_out.spec import LeftOutRow
from fleetscan.scanner.tables.machines.spec import MachineRow, Outcome

log = logging.getLogger(__name__)

_OVERDUE_SECONDS = 60.0
"""How long after its deadline a machine's worker is killed; inspection ends itself before."""

_Row = MachineRow | Coverage | LeftOutRow


class Inspect(Protocol):
    """What a task calls: a function of an importable module, as ``inspect_machine`` is."""

    def __call__(
        self, machine: Machine, options: ScanOptions, sink: RowSink, *, attempt: int, run_id: str
    ) -> MachineSummary:
        """Write a machine's rows, and say what became of it."""


@dataclass(frozen=True)
class FleetOptions:
    """How a fleet is scanned.

    Attributes:
        machine: how each of its machines is inspected.
        cluster: where.
        retries: how often a machine whose worker died is tried again.
        inspect: what does the work.
        earlier: where to look for machines that need not be scanned again.
        overdue_seconds: how long after its deadline a machine's worker is killed.
    """

    machine: ScanOptions = field(default_factory=ScanOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    retries: int = 1
    inspect: Inspect = inspect_machine
    earlier: EarlierFacts | None = None
    overdue_seconds: float = _OVERDUE_SECONDS


def scan_one(
    machine: Machine, run: Run, options: ScanOptions, inspect: Inspect, attempt: int
) -> MachineSummary:
    """The task: inspect a machine and make it a finished one of the run."""
    with run.machine_writer(machine.machine_id) as writer:
        summary = inspect(machine, options, writer, attempt=attempt, run_id=run.run_id)
        writer.commit(asdict(summary))
    return summary


def compact_some(run: Run, machine_ids: Sequence[str]) -> None:
    """The task: make finished machines a batch."""
    run.compact(machine_ids)


def write_rows(sink: RowSink, tables: Mapping[str, Sequence[_Row]], machine_id: str) -> None:
    """Write rows that are the host's own, by table."""
    for name, rows in tables.items():
        for some in host_rows(load_tables()[name], rows, machine_id=machine_id):
            sink.write(name, some)


def record_failure(
    run: Run, machine: Machine, attempt: int, error: BaseException, seconds: float
) -> MachineSummary:
    """Write the rows that a machine's task could not write.

    Args:
        run: where they go.
        machine: the machine.
        attempt: how often the run has tried it.
        error: what the task ended with.
        seconds: how long it took.
    """
    kind, text = _describe(error)
    log.warning("%s: %s: %s", machine.machine_id, kind, text)
    log.debug("%s: the traceback", machine.machine_id, exc_info=error)
    found = ScanState(machine, stage=None, error=FleetscanError(text or kind), error_kind=kind)
    found.cover_unreached()
    started = time.time() - seconds
    row = found.machine_row(started=started, seconds=seconds, attempt=attempt, run_id=run.run_id)
    rows: dict[str, Sequence[_Row]] = {
        "machines": [row],
        "coverage": found.coverage,
        "left_out": found.left_out_rows(),
    }
    summary = MachineSummary(machine.machine_id, Outcome.FAILED, text, 0, seconds)
    with run.machine_writer(machine.machine_id) as writer:
        write_rows(writer, rows, machine.machine_id)
        writer.commit(asdict(summary))
    return summary


def _describe(error: BaseException) -> tuple[str, str]:
    """Kind and text of a machine's error."""
    if isinstance(error, WorkerLostError):
        return "WorkerLost", str(error)
    return type(error).__name__, printable(f"{type(error).__name__}: {error}")
