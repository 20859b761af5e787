from __future__ import annotations

import doctest
import io

import pytest
from rich.console import Console

from fleetscan.scanner import progress
from fleetscan.scanner.fleet_events import MachineFinished, MachineStarted
from fleetscan.scanner.progress import FleetProgress
from fleetscan.scanner.scan_state import MachineSummary
from fleetscan.scanner.tables.machines.spec import Outcome

HOSTILE = "web\x1b[2J[red]/\u202e"


def shown(*, terminal: bool, quiet: bool = False) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100)
    with FleetProgress(2, console, quiet=quiet) as tell:
        for number in range(2):
            machine_id = f"{HOSTILE}{number}"
            tell(MachineStarted(machine_id))
            if terminal and not quiet:
                console.print("", end="")
                tell._live.refresh()
            tell(MachineFinished(MachineSummary(machine_id, Outcome.FAILED, "x", 0, 1.0)))
    return output.getvalue()


def test_a_terminal_sees_the_machines_that_are_running() -> None:
    text = shown(terminal=True)
    assert "web\\x1b[2J[red]/\\u202e1" in text
    assert "1/2" in text


def test_elsewhere_lines_say_how_far_it_is() -> None:
    assert shown(terminal=False) == "2 of 2 machines, 2 failed\n"


def test_what_machines_are_called_cannot_steer_a_terminal() -> None:
    assert "\x1b[2J[" not in shown(terminal=True)
    assert "\u202e" not in shown(terminal=True)


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_quiet(terminal: bool) -> None:
    assert shown(terminal=terminal, quiet=True) == ""


def test_durations_are_in_words() -> None:
    assert doctest.testmod(progress).failed == 0
