"""One machine, from its disks to checked rows.

It reads like the way of the data: a fresh appliance gets the disks (:mod:`isolation`), and the
agent in it finds and gathers (:mod:`gather`) rows, which are checked here before they go anywhere.

Whatever goes wrong ends in the machine's own rows. Nothing but a bug or a cancellation is raised.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path

from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.appliance.vm import LocalAppliance
from fleetscan.scanner.attempt import Attempt
from fleetscan.scanner.gather import gather
from fleetscan.scanner.isolation import isolated
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.scan_state import MachineSummary
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.store.staging import RowSink

log = logging.getLogger(__name__)


def inspect_machine(
    machine: Machine,
    options: ScanOptions,
    sink: RowSink,
    *,
    attempt: int = 1,
    run_id: str = "",
) -> MachineSummary:
    """Inspect a machine in a fresh appliance and hand its checked rows to a sink.

    Args:
        machine: the machine and its disks.
        options: how.
        sink: takes the rows, those of ``machines``, ``coverage`` and ``disks`` included.
        attempt: how often this run has tried the machine, this time included.
        run_id: the run that the facts are written to; empty outside of a run.
    """
    return _settled(Attempt(machine, options, sink, attempt, run_id), _read_disks)


def inspect_directory(
    directory: Path, options: ScanOptions, sink: RowSink, *, run_id: str = ""
) -> MachineSummary:
    """Inspect a tree that is mounted already, without a VM and so without isolation."""
    machine = Machine(str(directory), (), source=str(directory))
    attempt = Attempt(machine, options, sink, run_id=run_id)
    return _settled(attempt, functools.partial(_read_directory, directory))


def _settled(attempt: Attempt, read: Callable[[Attempt], None]) -> MachineSummary:
    """Read the machine, and write what became of that."""
    try:
        if attempt.machine.error:
            raise FleetscanError(attempt.machine.error)
        read(attempt)
    except FleetscanError as error:
        attempt.found.error = error
        log.debug("%s: %s", attempt.machine.machine_id, error, exc_info=True)
    return attempt.finish()


def _read_disks(attempt: Attempt) -> None:
    with isolated(attempt) as vm:
        gather(attempt, vm)


def _read_directory(directory: Path, attempt: Attempt) -> None:
    with LocalAppliance(directory, attempt.deadline, attempt.limits) as agent:
        attempt.found.ran_by = agent.accelerator
        gather(attempt, agent)
