"""What happens while a fleet is scanned, and what comes of it."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from fleetscan.scanner.scan_state import MachineSummary
from fleetscan.scanner.tables.machines.spec import Outcome

_KEPT_SLOWEST = 5
_KEPT_FAILURES = 1000


@dataclass(frozen=True)
class MachineStarted:
    """A machine was handed to a worker."""

    machine_id: str


@dataclass(frozen=True)
class MachineFinished:
    """A machine has its rows."""

    summary: MachineSummary


FleetEvent = MachineStarted | MachineFinished


@dataclass
class FleetSummary:
    """What became of a fleet.

    Attributes:
        run_id: the run.
        machines: machines planned.
        resumed: machines that were finished before.
        unchanged: machines whose facts of an earlier run serve again.
        scanned: machines finished now.
        outcomes: number of finished machines by outcome; of the whole run, once it is complete.
        seconds: time by the clock.
        slots: machines at a time.
        slowest: the slowest machines, slowest first.
        failures: machines that failed or are partial, the first thousand.
        interrupted: stopped before all machines were finished; the run can be resumed.
    """

    run_id: str
    machines: int
    resumed: int = 0
    unchanged: int = 0
    scanned: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict[str, int].fromkeys(Outcome, 0))
    seconds: float = 0.0
    slots: int = 0
    slowest: list[MachineSummary] = field(default_factory=list)
    failures: list[MachineSummary] = field(default_factory=list)
    interrupted: bool = False

    def add(self, summary: MachineSummary) -> None:
        """Count one more machine."""
        self.scanned += 1
        self.outcomes[summary.outcome] += 1
        self.slowest = heapq.nlargest(
            _KEPT_SLOWEST, [*self.slowest, summary], key=lambda machine: machine.seconds
        )
        if summary.outcome != "ok" and len(self.failures) < _KEPT_FAILURES:
            self.failures.append(summary)
